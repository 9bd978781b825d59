"""What a study is: a function over the archives of some policies, whose rows fill sections of a report.

    def study(task: Task, *, images: int) -> Iterator[Found]:
        for policy, oracle in task.oracles():
            yield Found([...], says=f"{policy}: ...")

A study's module holds its idea and its rows. It knows neither the command line nor the report's file: the runner
(evaluation/studies/runner.py) makes the task, passes the study's own options by name, times, and merges what it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import recipes
from evaluation.matrix import Job
from evaluation.oracles import InProcessOracle
from evaluation.truth import test_images
from zoo.datasets import Images


class StudyError(ValueError):
    """What a user asks of a study cannot be studied."""


@dataclass(frozen=True)
class Task:
    """What a study works on. folder: of the report, where recordings of attackers lie too."""

    recipe: recipes.Recipe
    policies: tuple[str, ...]
    folder: Path
    store: Path
    data: Path | None = None

    @cached_property
    def test(self) -> Images:
        """The recipe's test split, loaded when it is first asked for. Raises RecipeError and DatasetError."""
        return test_images(self.recipe, self.data, self.store)

    @property
    def job(self) -> Job:
        """The same, as evaluation.recordings asks for it."""
        return Job(self.recipe, self.test, self.folder, self.store, self.data)

    def archive(self, policy: str) -> Path:
        """Where a policy's archive lies."""
        return self.store / f"{self.recipe.name}-{policy}.mar"

    def oracles(
        self, policies: Iterable[str] | None = None, *, seed: int | None = None, pay: bool = False
    ) -> Iterator[tuple[str, InProcessOracle]]:
        """Each policy, by default the task's, and its archive: opened once, and closed before the next is opened.

        seed, pay: as InProcessOracle has them. Raises OracleError and LoadError.
        """
        for policy in self.policies if policies is None else policies:
            with InProcessOracle(self.archive(policy), seed=seed, pay=pay) as oracle:
                yield policy, oracle


@dataclass(frozen=True)
class Found:
    """A part of what a study finds. rows: of its sections; says: for the terminal; settings: for the report's run."""

    rows: Sequence[Any] = ()
    says: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Option:
    """One of a study's own options: --NAME on the command line, the keyword NAME of its function.

    The default says what is read: a number, a path, a tuple of some, or text where it is None or an empty tuple.
    least: of a number, or of each.
    """

    name: str
    default: Any
    about: str
    least: int | None = None

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def many(self) -> bool:
        return isinstance(self.default, tuple)

    @property
    def kind(self) -> Callable[[str], Any]:
        """Makes a value, or one of many, of a word."""
        example = next(iter(self.default), None) if self.many else self.default
        return str if example is None else type(example)


@dataclass(frozen=True)
class Study:
    """A study as it is registered. about: in a line. policies: which ones it takes; they must be named, or with
    `more_policies` add to its own.

    sections: of the report, that its rows fill; none where it leaves a file of its own. one_thread: torch's, because
    the study makes or reads recordings of attackers, who learn the same on one thread alone.
    """

    name: str
    about: str
    function: Callable[..., Iterator[Found]]
    policies: str
    sections: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    more_policies: bool = False
    one_thread: bool = False


def registry(*studies: Study) -> Mapping[str, Study]:
    """Studies by name, in this order."""
    return {study.name: study for study in studies}
