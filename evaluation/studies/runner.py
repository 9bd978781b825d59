"""Runs one study of a registry: reads the recipe, times, and merges what is found into RUN/report.json.

    main(STUDIES, "evaluation.studies")

A study that fails or is interrupted leaves the report as it was: rows are merged once, when all are there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch

import recipes
from evaluation.oracles import OracleError
from evaluation.studies.study import Option, Study, StudyError, Task
from evaluation.traffic import SEED
from handlers.errors import LoadError
from report.schema import ROWS, Report, ResultError, merge, run_info
from zoo.datasets import DatasetError

MISTAKES = (recipes.RecipeError, OracleError, LoadError, ResultError, DatasetError, StudyError)


def main(studies: Mapping[str, Study], program: str, arguments: Sequence[str] | None = None) -> None:
    """Run the command line of `python -m PROGRAM`; a mistake of the user's is a message and exit code 1."""
    words = _parser(studies, program).parse_args(arguments)
    study = studies[words.study]
    own = {option.name: getattr(words, option.name) for option in study.options}
    if study.one_thread:
        torch.set_num_threads(1)
    try:
        policies = tuple(dict.fromkeys(words.policies))
        carry_out(study, Task(recipes.read(words.recipe), policies, words.run, words.store, words.data), **own)
    except MISTAKES as error:
        sys.exit(f"{program} {study.name}: {error}")


def carry_out(study: Study, task: Task, **own: Any) -> None:
    """Run a study, say what it says, and merge its rows. own: its options. Raises what MISTAKES lists."""
    started = datetime.now(timezone.utc)
    sections = {ROWS[name]: name for name in study.sections}
    rows: dict[str, list[Any]] = {name: [] for name in study.sections}
    settings: dict[str, Any] = {**task.recipe.captions(task.policies)}
    for found in study.function(task, **own):
        for row in found.rows:
            rows[sections[type(row)]].append(row)
        settings.update(found.settings)
        if found.says:
            print(found.says, flush=True)
    if study.sections:
        run = run_info(seed=SEED, started=started, settings=settings)
        merge(task.folder / "report.json", Report(run, **{name: tuple(some) for name, some in rows.items()}))


def _parser(studies: Mapping[str, Study], program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description="Run a study of a recipe's archives.")
    commands = parser.add_subparsers(dest="study", metavar="STUDY", required=True)
    for study in studies.values():
        idea = sys.modules[study.function.__module__].__doc__
        command = commands.add_parser(
            study.name, help=study.about, description=idea, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
        command.add_argument(
            "--policies", nargs="+", default=[], required=not study.more_policies, help=study.policies, metavar="POLICY"
        )
        command.add_argument("--run", type=Path, required=True, help="folder of the report, such as reports/mnist")
        for option in study.options:
            command.add_argument(
                option.flag,
                type=partial(_read, option),
                nargs="+" if option.many else None,
                default=option.default,
                help=f"{option.about} ({_shown(option)})" if option.default else option.about,
            )
        command.add_argument("--store", type=Path, default=Path("model_store"), help="folder of archives (model_store)")
        command.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    return parser


def _read(option: Option, word: str) -> Any:
    """A value of an option, or one of many. Raises ArgumentTypeError, which the parser turns into a message."""
    try:
        value = option.kind(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {word!r}") from None
    if option.least is not None and value < option.least:
        raise argparse.ArgumentTypeError(f"expected at least {option.least}, got {word}")
    return value


def _shown(option: Option) -> str:
    return " ".join(map(str, option.default)) if option.many else str(option.default)
