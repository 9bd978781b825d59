"""Rows of keyed marks: whether a clone's teacher is read from it, and how often somebody else is accused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from report.fields import ResultError, fractions


@dataclass(frozen=True)
class MarkRow:
    """A clone of marked answers, and what the owner reads from it for the account that asked.

    mark: what marked ("linear", or a rival form); strength: probability moved; parts: cells of each class. queries: in
    the transfer set. statistic: by which the clone was read ("capped", or a rival). l1: mean ||marked - unmarked||_1 of
    answers to test images, in [0, 2]; ece, ece_unmarked: expected calibration error of either. z, p, e: of
    evaluation.marks.evidence, p before it is multiplied by `accounts` tried, of the account that asked, the likelier
    one of a thief that has two. named: whether it has the least p of them all, and accounts * p is at most the bound.
    other: the least p of the accounts that did not ask.
    """

    SCOPE: ClassVar = ("recipe", "mark", "strength", "parts", "thief", "seed", "queries", "statistic")

    recipe: str
    mark: str
    strength: float
    parts: int
    thief: str
    seed: int
    queries: int
    statistic: str
    clone_accuracy: float
    victim_accuracy: float
    l1: float
    ece: float
    ece_unmarked: float
    images: int
    z: float
    p: float
    e: float
    accounts: int
    named: bool
    other: float

    def __post_init__(self) -> None:
        fractions(self, "clone_accuracy", "victim_accuracy", "ece", "ece_unmarked", "p", "other")


@dataclass(frozen=True)
class MarkNullRow:
    """Models that learnt nothing of an account's answers, each tried against several accounts or keys.

    models: networks that were trained apart; tries: tests in all, each against an account and a key of its own.
    bound: the stated chance of a false accusation a test. accused: tests with p at most the bound; low, high: the 95 %
    interval of their share (Clopper and Pearson). least: the least p of all.
    """

    SCOPE: ClassVar = ("recipe", "kind", "bound")

    recipe: str
    kind: str
    models: int
    tries: int
    bound: float
    accused: int
    low: float
    high: float
    least: float

    def __post_init__(self) -> None:
        fractions(self, "bound", "low", "high", "least")
        if not 0 <= self.accused <= self.tries:
            raise ResultError(f"accused: expected from 0 to {self.tries}, got {self.accused}")


@dataclass(frozen=True)
class MarkCostRow:
    """What a mark costs a row. batch: rows marked together; microseconds: a row, a round each."""

    SCOPE: ClassVar = ("recipe", "parts", "batch")

    recipe: str
    parts: int
    batch: int
    microseconds: tuple[float, ...]
