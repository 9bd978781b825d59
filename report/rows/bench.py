"""Rows of speed: what an answer costs, and what a defense adds to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import ClassVar

from report.fields import ResultError

# content types of request bodies, as rows name them
RAW, PNG = "application/octet-stream", "image/png"
# forms of one row and its answer: this product's own, KServe's version 1, and the Open Inference Protocol
PROTOCOLS = ("raw float32", "PNG", "KServe v1, JSON", "OIP v2, binary", "OIP v2, JSON", "OIP v2, gRPC")


@dataclass(frozen=True)
class BenchRow:
    """Speed of one path to an answer: requests of `batch` rows from `clients` clients at once.

    p50_ms and rows_per_s are medians over rounds, whose own values stand in p50_rounds and rate_rounds (round n of
    every row was measured side by side); p99_ms is of all rounds' requests together. rss_mb, pss_mb: memory of one
    process that answers. study: what the row is for; only rows of one study are meant to be compared. body: content
    type, None in process; of the study "protocols" the form of a row (PROTOCOLS). workers, threads, batch_size,
    max_batch_delay_ms: as served; in process only threads. spinning: whether ONNX Runtime's threads spin while they
    wait. cpu_ms: CPU time of a row by who spent it ("process"; over HTTP "worker", "java", "client"; over gRPC also
    "front"). stages_ms: wall time of a row by stage, inside the process
    that answers, the median over rounds, whose own values stand in stages_rounds. None, or empty: not measured.
    """

    SCOPE: ClassVar = ("architecture", "policy", "backend", "path")
    PATHS: ClassVar = ("onnxruntime", "pipeline", "http", "grpc")
    STUDIES: ClassVar = ("paths", "single", "settings", "spinning", "clocks", "load", "protocols")

    policy: str
    architecture: str
    path: str
    batch: int
    clients: int
    p50_ms: float
    p99_ms: float
    rows_per_s: float
    rss_mb: float | None
    study: str = "load"
    backend: str | None = None
    body: str | None = None
    workers: int | None = None
    threads: int | None = None
    batch_size: int | None = None
    max_batch_delay_ms: int | None = None
    spinning: bool | None = None
    pss_mb: float | None = None
    p50_rounds: tuple[float, ...] = ()
    rate_rounds: tuple[float, ...] = ()
    cpu_ms: dict[str, float] = field(default_factory=dict)
    stages_ms: dict[str, float] = field(default_factory=dict)
    stages_rounds: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in (("path", self.PATHS), ("study", self.STUDIES)):
            if getattr(self, name) not in known:
                raise ResultError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")

    @property
    def outside_ms(self) -> float:
        """Worker time of a row over HTTP at saturation outside the handler: TorchServe, and waiting for a batch."""
        if self.workers is None:
            raise ResultError(f"a row of path {self.path!r} has no workers, so no time outside the handler")
        return max(0.0, 1000 * self.workers / self.rows_per_s - self.handler_ms)

    @property
    def handler_ms(self) -> float:
        """Wall time of a row in the handler: the stage "handle" is the whole of it, with what is in no other stage."""
        return self.stages_ms.get("handle", sum(self.stages_ms.values()))

    @property
    def rest_ms(self) -> float:
        """Wall time of a row in the handler that no stage but "handle" accounts for."""
        known = sum(spent for stage, spent in self.stages_ms.items() if stage != "handle")
        return max(0.0, self.handler_ms - known)


@dataclass(frozen=True)
class DefenseCostRow:
    """What a defense adds to the undefended victim's answer to one batch, in process.

    defense: its name; form: "served" (as this project's archives do it), or how else it was done ("naive": the papers'
    code's way). ms: median milliseconds a batch of all rounds, the victim included; ms_rounds: each round's median;
    victim_ms_rounds: the victim alone, measured side by side. peak_mb: growth of the process's peak memory over that of
    one with the victim alone, both after the same batches.
    """

    SCOPE: ClassVar = ("architecture", "batch")

    architecture: str
    batch: int
    defense: str
    form: str
    threads: int
    ms: float
    ms_rounds: tuple[float, ...]
    victim_ms_rounds: tuple[float, ...]
    peak_mb: float | None

    def __post_init__(self) -> None:
        if not self.ms_rounds or len(self.ms_rounds) != len(self.victim_ms_rounds):
            raise ResultError("expected the victim's time and the defense's in every round")

    @property
    def times(self) -> float:
        """The defended answer's time over the victim's alone: median of the rounds' ratios."""
        return median(a / b for a, b in zip(self.ms_rounds, self.victim_ms_rounds, strict=True))
