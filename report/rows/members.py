"""Rows that say of an ensemble: its members, shifted images, and its cost."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from report.fields import ResultError, fractions

# the most that a routed answer may take, of its dearest member's time alone and of the same members' averaged answer's
ROUTED_OVER_DEAREST = 1.10
ROUTED_OVER_AVERAGED = 0.5


@dataclass(frozen=True)
class MemberRow:
    """One member of a MISLEADER ensemble, as its checkpoint records (training/misleader.py).

    predictor: the checkpoint; member: its number there, from 0. temperature, alpha, lambda_attacker: of its loss.
    epoch: the one that was kept, from 1. validation_accuracy, augmented_accuracy: on validation images, as they are
    and augmented. attacker_divergence: KL, in nats, of its attacker's responses from its own on augmented validation
    images; attacker_agreement: share of these on which both give the same label.
    """

    SCOPE: ClassVar = ("recipe", "predictor")

    recipe: str
    predictor: str
    member: int
    architecture: str
    parameters: int
    temperature: float
    alpha: float
    lambda_attacker: float
    epoch: int
    validation_accuracy: float
    augmented_accuracy: float
    attacker_divergence: float
    attacker_agreement: float

    def __post_init__(self) -> None:
        fractions(self, "alpha", "validation_accuracy", "augmented_accuracy", "attacker_agreement")
        if not (self.temperature > 0 and self.lambda_attacker >= 0):
            raise ResultError(
                f"expected temperature > 0 and lambda_attacker >= 0, got {self.temperature} and {self.lambda_attacker}"
            )


@dataclass(frozen=True)
class ShiftRow:
    """What a policy answers to the test images after one benign shift; NONE is the images as they are.

    shift: a name of evaluation/traffic.py, NONE, or TRAINED, the augmentation that the members were driven from
    their attackers on. kept: share of labels that the policy also gives the unshifted image. accuracy counts a refused
    row as wrong. ece: None where a policy serves labels only.
    """

    SCOPE: ClassVar = ("recipe", "policy")
    NONE: ClassVar = "none"
    TRAINED: ClassVar = "as trained against"

    recipe: str
    policy: str
    shift: str
    images: int
    accuracy: float
    kept: float
    ece: float | None

    def __post_init__(self) -> None:
        fractions(self, "accuracy", "kept", "ece")


@dataclass(frozen=True)
class EnsembleCostRow:
    """What an ensemble's answer to one batch costs in process, next to its members alone; milliseconds a batch.

    All rows of a recipe and a batch were measured side by side: round n of one is round n of every other.
    architectures: of the members, in order. forward_passes: network evaluations a row, the hash included. ms: the
    median of ms_rounds, each of which is a round's median over turns; in a turn every reachable member is used,
    equally often. members_met: how many those are. members_ms_rounds: each member's graph alone on whole batches, by
    its name. routed_ms_rounds: of a policy that routes, itself on batches that one member answers, by that member;
    hash_ms_rounds: its hash's graph alone; both empty without a route. peak_mb: growth of a fresh process's peak memory
    over that of one with the dearest member alone, after the same batches; held_mb: the same of what both hold then,
    for in a peak the opening of the largest graph can hide the rest. None: not measured.
    """

    SCOPE: ClassVar = ("recipe", "batch")

    recipe: str
    policy: str
    batch: int
    architectures: tuple[str, ...]
    members_met: int
    threads: int
    forward_passes: float
    ms: float
    ms_rounds: tuple[float, ...]
    members_ms_rounds: dict[str, tuple[float, ...]]
    routed_ms_rounds: dict[str, tuple[float, ...]]
    hash_ms_rounds: tuple[float, ...]
    peak_mb: float | None
    held_mb: float | None = None

    def __post_init__(self) -> None:
        if not self.architectures or len(self.members_ms_rounds) != len(self.architectures):
            raise ResultError(
                f"expected a time of each of {len(self.architectures)} members, got "
                f"{', '.join(self.members_ms_rounds) or 'none'}"
            )
        timed = [self.ms_rounds, *self.members_ms_rounds.values(), *self.routed_ms_rounds.values()]
        timed += [self.hash_ms_rounds] if self.hash_ms_rounds else []
        if not self.ms_rounds or {len(each) for each in timed} != {len(self.ms_rounds)}:
            raise ResultError("expected every graph's time and the policy's in every round")

    @property
    def dearest(self) -> str:
        """The graph of the member that takes longest alone."""
        return max(self.members_ms_rounds, key=lambda member: median(self.members_ms_rounds[member]))

    @property
    def times(self) -> float:
        """The policy's time over its dearest member's alone: median of the rounds' ratios."""
        return _ratio(self.ms_rounds, self.members_ms_rounds[self.dearest])

    @property
    def dearest_times(self) -> float | None:
        """The same of the rows that the dearest member answers; None without a route, or where it answered none."""
        routed = self.routed_ms_rounds.get(self.dearest)
        return None if routed is None else _ratio(routed, self.members_ms_rounds[self.dearest])

    def over(self, other: EnsembleCostRow) -> float:
        """This policy's time over that of `other`, measured in the same rounds: median of the rounds' ratios."""
        here, there = ((row.recipe, row.batch, len(row.ms_rounds)) for row in (self, other))
        if here != there:
            raise ResultError(f"expected rows of one recipe, batch and run, got {here} and {there}")
        return _ratio(self.ms_rounds, other.ms_rounds)


def _ratio(these: tuple[float, ...], those: tuple[float, ...]) -> float:
    return median(a / b for a, b in zip(these, those, strict=True))
