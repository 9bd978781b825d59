"""Rows of what a refused request costs a gateway and its TorchServe."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from report.fields import ResultError

# all requests answered; half of them refused, the upstream's connection kept, and closed
WAYS = ("answered", "kept", "closed")
PROCESSES = ("nginx", "java", "worker")


@dataclass(frozen=True)
class RefusalRow:
    """Requests at saturation, through the gateway, of one way (WAYS).

    refused: share of requests that were. clients: that asked at once, each on one connection over TLS. Of each round,
    in which all ways take turns: rate_rounds, requests a second; connections_rounds, TCP connections that were opened
    for a request; cpu_ms_rounds, CPU milliseconds a request, by process (PROCESSES).
    """

    SCOPE: ClassVar = ("way",)

    way: str
    refused: float
    clients: int
    rate_rounds: tuple[float, ...]
    connections_rounds: tuple[float, ...]
    cpu_ms_rounds: dict[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise ResultError(f"way: expected one of {', '.join(WAYS)}, got {self.way!r}")
        if set(self.cpu_ms_rounds) != set(PROCESSES):
            raise ResultError(f"cpu_ms_rounds: expected {', '.join(PROCESSES)}, got {', '.join(self.cpu_ms_rounds)}")
        lengths = {len(each) for each in (self.rate_rounds, self.connections_rounds, *self.cpu_ms_rounds.values())}
        if len(lengths) != 1 or 0 in lengths:
            raise ResultError(f"expected a value of everything in every round, got lengths {sorted(lengths)}")

    @property
    def cpu_ms(self) -> dict[str, float]:
        """By process, the median of the rounds."""
        return {name: median(rounds) for name, rounds in self.cpu_ms_rounds.items()}
