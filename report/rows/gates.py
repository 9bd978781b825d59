"""Rows that say what a gate sees, whom it hits and what it costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from report.fields import ResultError, fractions


@dataclass(frozen=True)
class DetectionRow:
    """How well a detector tells an attack's queries (positive) from benign ones, each image by itself.

    detector: the policy; kind: what it scores by, a gate's score or one of two baselines. budget: the first queries
    that the attacker was charged for; seeds_left_out: judged without those at the beginning that are clean images of
    the task. n_attack, n_benign: rows judged.
    fpr95, fpr90: benign rows flagged where the threshold flags 95 or 90 % of the attack, linear between points of the
    ROC. tpr_at_1pct, tpr_at_01pct: of the attack flagged where at most 1 or 0.1 % of the benign rows are.
    ratio: share of attack rows that aupr, the average precision, is reported for. draws: 0 where all rows were judged,
    and aupr weighs them to that share; else how many seeded subsamples of that share every figure is a mean over.
    """

    SCOPE: ClassVar = ("recipe", "detector", "attack")
    KINDS: ClassVar = ("gate", "outlier-exposure", "disagreement")

    recipe: str
    detector: str
    kind: str
    attack: str
    budget: int
    seeds_left_out: bool
    ratio: float
    draws: int
    n_attack: int
    n_benign: int
    auroc: float
    aupr: float
    fpr95: float
    fpr90: float
    tpr_at_1pct: float
    tpr_at_01pct: float

    def __post_init__(self) -> None:
        fractions(self, "ratio", "auroc", "aupr", "fpr95", "fpr90", "tpr_at_1pct", "tpr_at_01pct")
        if self.kind not in self.KINDS:
            raise ResultError(f"kind: expected one of {', '.join(self.KINDS)}, got {self.kind!r}")


@dataclass(frozen=True)
class ScoreCurveRow:
    """How a detector's score, high for suspicious, is distributed over one traffic.

    malicious: whether an attacker sent it. percentiles: 101 values, the 0th to the 100th.
    """

    SCOPE: ClassVar = ("recipe", "detector", "traffic")

    recipe: str
    detector: str
    traffic: str
    malicious: bool
    images: int
    percentiles: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.percentiles) != 101 or list(self.percentiles) != sorted(self.percentiles):
            raise ResultError(f"percentiles: expected 101 rising values, got {self.percentiles}")


@dataclass(frozen=True)
class FalsePositiveRow:
    """Rows of one traffic that a gated policy, as served, does not simply answer: observed, refused or charged for.

    malicious: whether a flagged row is a hit and no mistake. stated: the false-positive rate that the policy's
    threshold was calibrated for. flagged: share of `images`; low, high: its 95 % interval (Wilson).
    """

    SCOPE: ClassVar = ("recipe", "policy", "traffic")

    recipe: str
    policy: str
    traffic: str
    malicious: bool
    stated: float
    images: int
    flagged: float
    low: float
    high: float

    def __post_init__(self) -> None:
        fractions(self, "stated", "flagged", "low", "high")
        if not self.low <= self.flagged <= self.high:
            raise ResultError(f"expected low <= flagged <= high, got {self.low}, {self.high}")


@dataclass(frozen=True)
class WorkRow:
    """What a policy with proof of work asks of one traffic: expected hashes a row, those that pay nothing included.

    charged: share of rows that pay. hashes_per_s: of the reference client on one core of this machine.
    """

    SCOPE: ClassVar = ("recipe", "policy", "traffic")

    recipe: str
    policy: str
    traffic: str
    malicious: bool
    images: int
    charged: float
    mean: float
    median: float
    p99: float
    largest: float
    hashes_per_s: float

    def __post_init__(self) -> None:
        fractions(self, "charged")
        if not self.hashes_per_s > 0:
            raise ResultError(f"hashes_per_s: expected above 0, got {self.hashes_per_s}")

    def seconds(self, hashes: float) -> float:
        """The reference client's time for so many hashes."""
        return hashes / self.hashes_per_s


@dataclass(frozen=True)
class GateCostRow:
    """What a gate adds to an answer: microseconds a row on one thread, in batches of `batch`, all measured in turn.

    predictor_us, gate_us: the two graphs alone; policy_us: the whole gated pipeline; undefended_us: that of the
    undefended policy. Medians over rounds. ratio: policy over undefended, the median of the rounds' own in
    ratio_rounds. parameters: numbers in the gate's graph; graph_bytes: its file.
    """

    SCOPE: ClassVar = ("recipe", "policy")

    recipe: str
    policy: str
    batch: int
    predictor_us: float
    gate_us: float
    policy_us: float
    undefended_us: float
    ratio: float
    rounds: int
    ratio_rounds: tuple[float, ...]
    parameters: int
    graph_bytes: int

    def __post_init__(self) -> None:
        if self.rounds < 1 or len(self.ratio_rounds) != self.rounds:
            raise ResultError(f"ratio_rounds: expected one of each of {self.rounds} rounds")


@dataclass(frozen=True)
class GatePrecisionRow:
    """A gate's graph in another number format: its time, and what that does to detection.

    us: microseconds a row on one thread, the graph alone; times: over float32's, the median of rounds. graph_bytes:
    the file. flagged: share of benign rows above the archive's threshold, which was calibrated with float32. auroc: by
    traffic. failed: why the format cannot be used here, and nothing else is reported; else None.
    """

    SCOPE: ClassVar = ("recipe", "policy")
    FORMATS: ClassVar = ("float32", "int8-dynamic", "int8-static", "float16", "bfloat16")

    recipe: str
    policy: str
    format: str
    batch: int
    us: float | None
    times: float | None
    graph_bytes: int | None
    flagged: float | None
    failed: str | None
    auroc: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fractions(self, "flagged")
        if self.format not in self.FORMATS:
            raise ResultError(f"format: expected one of {', '.join(self.FORMATS)}, got {self.format!r}")
        if (self.us is None) != (self.failed is not None):
            raise ResultError("expected a time, or a reason why there is none")
        if not all(0 <= value <= 1 for value in self.auroc.values()):
            raise ResultError(f"auroc: expected fractions, got {self.auroc}")
