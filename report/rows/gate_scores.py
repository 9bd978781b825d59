"""Rows that compare scores by which a gate could judge a query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from report.fields import ResultError, fractions


@dataclass(frozen=True)
class GateScoreRow:
    """One score, as it was fitted and given a threshold.

    family: "gate", "image", "features" or "combined". reads_features: whether it needs the victim's weights. shifted:
    whether shifted images were among the benign ones that it was fitted to and its threshold is of. images: as many as
    the threshold rests on.
    rate: the threshold's. benign: images of the test split; flagged: share of them above it; low, high: its 95 %
    interval (Wilson). cost: processor time of an answer with the score, as a multiple of one without, the median of
    `rounds` paired measurements of `rows` images each; cost_low, cost_high: their quartiles.
    """

    SCOPE: ClassVar = ("recipe", "policy")

    recipe: str
    policy: str
    score: str
    family: str
    reads_features: bool
    shifted: bool
    images: int
    rate: float
    benign: int
    flagged: float
    low: float
    high: float
    cost: float
    cost_low: float
    cost_high: float
    rows: int
    rounds: int

    def __post_init__(self) -> None:
        fractions(self, "rate", "flagged", "low", "high")
        if not self.low <= self.flagged <= self.high:
            raise ResultError(f"expected low <= flagged <= high, got {self.low}, {self.flagged}, {self.high}")
        if not 1 <= self.cost_low <= self.cost <= self.cost_high:
            raise ResultError(
                f"expected 1 <= cost_low <= cost <= cost_high, got {self.cost_low}, {self.cost}, {self.cost_high}"
            )


@dataclass(frozen=True)
class GateTrafficRow:
    """What one score makes of some traffic.

    shifted: as in GateScoreRow. traffic: an attack, or a shift of the test images. malicious: which of both. form: the
    adaptive form of an attack, or None; of "matched" the queries after its probes alone, all sent as `variant`, which
    is what it chose. images: how many were judged. refused: share of them above the threshold; auroc: against the test
    images.
    """

    SCOPE: ClassVar = ("recipe", "policy")

    recipe: str
    policy: str
    score: str
    shifted: bool
    traffic: str
    malicious: bool
    form: str | None
    variant: str | None
    images: int
    refused: float
    auroc: float

    def __post_init__(self) -> None:
        fractions(self, "refused", "auroc")
        if (self.form is None) != (self.variant is None):
            raise ResultError(f"variant: expected one where there is a form, got {self.form!r} and {self.variant!r}")
        if not self.malicious and self.form is not None:
            raise ResultError(f"form: expected None for benign traffic, got {self.form!r}")
