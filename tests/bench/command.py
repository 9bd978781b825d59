"""Studies of costs through their command line, in this process, with few rounds."""

from __future__ import annotations

from pathlib import Path

from bench.costs.registry import COSTS
from evaluation.studies.runner import main
from report.schema import Report, read
from tests.conftest import RECIPE

FEW = ("--rounds", "3", "--seconds", "0.02")


def cost(name: str, *words: str, run: Path, store: Path, recipe: Path = RECIPE) -> Report:
    """The report, after `python -m bench.costs NAME` has added to it."""
    main(COSTS, "bench.costs", [name, str(recipe), "--run", str(run), "--store", str(store), *FEW, *words])
    return read(run / "report.json")
