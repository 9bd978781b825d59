"""Rows of other model servers around the same file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from report.fields import ResultError, known

OURS, TRITON = "TorchWarden", "nvidia-pytriton"
FLOAT32, INT8 = "float32", "int8"


@dataclass(frozen=True)
class PeerRow:
    """One server around one ONNX file, alone on the machine with its client; a value for each round.

    network: its architecture; file: which of its files. version: of the server's packages. sends: how a picture
    travels. workers, threads: what computes, and each one's threads; batch, delay_ms: the most rows of a call, and how
    long one waits for others; about: what else is set. Of one client: p50_rounds and p99_rounds, a request's
    milliseconds; single_rounds, rows a second. Of many: rate_rounds, rows a second. memory_rounds: PSS of all the
    server's processes after that, in megabytes (10^6 bytes). checked: answers
    that were compared with the file's in process, before and while it was timed; apart: the largest difference of a
    probability. why: what kept it from being measured; None where it was.
    """

    SCOPE: ClassVar = ("network", "file", "server")

    server: str
    version: str
    network: str
    file: str
    sends: str
    workers: int
    threads: int
    batch: int
    delay_ms: float
    about: str
    p50_rounds: tuple[float, ...] = ()
    p99_rounds: tuple[float, ...] = ()
    single_rounds: tuple[float, ...] = ()
    rate_rounds: tuple[float, ...] = ()
    memory_rounds: tuple[float, ...] = ()
    checked: int = 0
    apart: float | None = None
    why: str | None = None

    def __post_init__(self) -> None:
        known(self, file=(FLOAT32, INT8))
        names = ("p50_rounds", "p99_rounds", "single_rounds", "rate_rounds", "memory_rounds")
        lengths = {len(getattr(self, name)) for name in names}
        if len(lengths) != 1 or (lengths == {0}) != (self.why is not None):
            raise ResultError(f"{self.server}: expected every value in every round, or `why` there is none")
        if self.why is None and (not self.checked or self.apart is None):
            raise ResultError(f"{self.server}: expected figures of answers that were checked")
