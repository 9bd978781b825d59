"""Rows of what an attack does to benign users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from report.fields import ResultError, fractions


@dataclass(frozen=True)
class FeltRow:
    """The impact on benign users of one model in one stretch of a run: before an attack began, or during it.

    labels: what the attacker read ("both" where what it asked did not depend on that). clients: of the attacker, which
    shared the attack. dilution: percent of benign images among theirs. stolen: all images that the attack asked about;
    sent: images that its clients sent, and were charged for. users: benign ones. p50_ms, p95_ms, p99_ms: latencies of
    the benign requests that were answered. rejections: of `requests`, those the service turned away; errors: those
    that failed otherwise. accuracy: share of answered rows with the true label. None: no request was answered.
    """

    SCOPE: ClassVar = ("recipe", "policy", "attack", "labels", "clients", "dilution")
    STRETCHES: ClassVar = ("before", "during")

    recipe: str
    policy: str
    attack: str
    labels: str
    clients: int
    dilution: int
    stretch: str
    stolen: int
    sent: int
    users: int
    seconds: float
    requests: int
    rejections: int
    errors: int
    accuracy: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None

    def __post_init__(self) -> None:
        fractions(self, "accuracy")
        if self.stretch not in self.STRETCHES:
            raise ResultError(f"stretch: expected one of {', '.join(self.STRETCHES)}, got {self.stretch!r}")
        if self.rejections + self.errors > self.requests:
            raise ResultError(f"expected at most {self.requests} rejections and errors of as many requests")
