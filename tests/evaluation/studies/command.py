"""Studies through their command line, in this process."""

from __future__ import annotations

from pathlib import Path

from evaluation.studies.registry import STUDIES
from evaluation.studies.runner import main
from report.schema import Report, read
from tests.conftest import RECIPE


def study(name: str, *words: str, run: Path, store: Path, recipe: Path = RECIPE) -> Report:
    """The report, after `python -m evaluation.studies NAME` has added to it."""
    main(STUDIES, "evaluation.studies", [name, str(recipe), "--run", str(run), "--store", str(store), *words])
    return read(run / "report.json")
