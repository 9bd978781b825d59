"""Rows of ensembles: where rows are routed, how invariant and how dear that is, and how far members agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from report.fields import ResultError, fractions


@dataclass(frozen=True)
class RoutingRow:
    """How many rows of one kind of traffic a policy sent to one of its members."""

    SCOPE: ClassVar = ("recipe", "policy")

    recipe: str
    policy: str
    traffic: str
    member: int
    rows: int


@dataclass(frozen=True)
class InvarianceRow:
    """Where random affine copies of a traffic's images go: rotated by up to `degrees`, shifted, scaled by a share.

    policy: or the name of a public hash modulo as many members. kept: share of copies with their image's member.
    sorted_counts: each image's copies counted by member and sorted, the largest first, summed over the images.
    """

    SCOPE: ClassVar = ("recipe", "policy")

    recipe: str
    policy: str
    traffic: str
    degrees: float
    shift: float
    scale: float
    images: int
    copies: int
    kept: float
    sorted_counts: tuple[int, ...]

    def __post_init__(self) -> None:
        fractions(self, "kept")
        if sum(self.sorted_counts) != self.images * self.copies:
            raise ResultError(f"sorted_counts: expected {self.images} x {self.copies} copies in all")


@dataclass(frozen=True)
class HashCostRow:
    """Median microseconds a row, in batches of `batch`: of the whole route stage, and of the router's Python."""

    SCOPE: ClassVar = ("recipe", "policy")

    recipe: str
    policy: str
    batch: int
    stage_us: float
    router_us: float


@dataclass(frozen=True)
class CoherenceRow:
    """How far the members of a policy agree on one kind of traffic (EDM, ICLR 2021, equation 1).

    percentiles: 101 values, the 0th to the 100th, of the images' coherence, each in [0, 1].
    """

    SCOPE: ClassVar = ("recipe", "policy")

    recipe: str
    policy: str
    traffic: str
    images: int
    mean: float
    percentiles: tuple[float, ...]

    def __post_init__(self) -> None:
        fractions(self, "mean")
        if len(self.percentiles) != 101 or not all(0 <= value <= 1 for value in self.percentiles):
            raise ResultError(f"percentiles: expected 101 fractions, got {self.percentiles}")


def entropy(rows: Sequence[int]) -> float:
    """Entropy of a count of rows by member, over that of equal shares: 0 one member, 1 all of them equally."""
    total = sum(rows)
    return sum(n / total * math.log(total / n) for n in rows if n) / math.log(len(rows))
