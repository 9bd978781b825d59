"""What a load test counts while it runs, and the thresholds it must meet.

Locust's own percentiles are rounded to two digits and mix benign with hostile requests, so latencies are kept here,
one list for each kind of request. The first `warm_up_s` seconds (a Java machine that still compiles, cold caches)
count for correctness but not for latency.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ENOUGH = 100


@dataclass(frozen=True)
class LoadTest:
    """[loadtest]: the traffic, and when a run fails.

    benign, hostile: users of each kind. think_ms: a benign user's mean pause between requests. warm_up_s: seconds
    at the start whose latencies are not judged. p99_ms: slowest 99th percentile allowed to any policy's benign
    requests. failure_ratio: share of requests, hostile ones included, that may get a wrong answer. benign_accuracy:
    share of benign rows whose label must be the true one, for each policy. sum_tolerance: how far a row's
    probabilities may be from a sum of 1 (more for policies that round or cut them).
    """

    benign: int = 4
    hostile: int = 1
    think_ms: float = 20.0
    warm_up_s: float = 3.0
    p99_ms: float = 500.0
    failure_ratio: float = 0.0
    benign_accuracy: float = 0.9
    sum_tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if self.benign < 1 or self.hostile < 0:
            raise ValueError(f"expected benign >= 1 and hostile >= 0, got {self.benign} and {self.hostile}")
        for name in ("failure_ratio", "benign_accuracy"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a share in [0, 1], got {getattr(self, name)}")
        for name in ("think_ms", "warm_up_s", "p99_ms", "sum_tolerance"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected >= 0, got {getattr(self, name)}")


@dataclass(frozen=True, order=True)
class Kind:
    """What is counted together: requests of one role ("benign", "thief", "hostile") to one model.

    what: the content type, or the name of the hostile case. rows: in each request.
    """

    role: str
    model: str
    what: str
    rows: int


@dataclass
class Tally:
    """One run's counts. started, ended: seconds since the epoch, set by whoever runs the users."""

    limits: LoadTest
    started: float = 0.0
    ended: float = 0.0
    latencies_ms: dict[Kind, list[float]] = field(default_factory=lambda: defaultdict(list))
    requests: dict[Kind, int] = field(default_factory=lambda: defaultdict(int))
    failures: dict[Kind, int] = field(default_factory=lambda: defaultdict(int))
    reasons: dict[Kind, str] = field(default_factory=dict)
    right: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    rows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    errors: list[str] = field(default_factory=list)

    def add(self, kind: Kind, *, ms: float, at: float, failure: str | None = None) -> None:
        """Count one finished request, begun at `at` (seconds since the epoch); failure: why it failed, if it did."""
        self.requests[kind] += 1
        if failure is not None:
            self.failures[kind] += 1
            self.reasons.setdefault(kind, failure)
        if at - self.started >= self.limits.warm_up_s:
            self.latencies_ms[kind].append(ms)

    def judge(self, model: str, *, right: int, rows: int) -> None:
        """Count benign rows and how many of them got the true label."""
        self.right[model] += right
        self.rows[model] += rows

    @property
    def failure_ratio(self) -> float:
        """Failed requests as a share of all."""
        return sum(self.failures.values()) / max(1, sum(self.requests.values()))

    @property
    def hopeless(self) -> bool:
        """Whether enough requests failed that the run need not go on."""
        return sum(self.requests.values()) >= ENOUGH and self.failure_ratio > self.limits.failure_ratio

    def broken(self) -> list[str]:
        """One line for each threshold that was not met; empty for a good run."""
        limits, lines = self.limits, list(self.errors)
        if self.failure_ratio > limits.failure_ratio:
            worst = max(self.failures, key=lambda kind: self.failures[kind])
            lines.append(
                f"failure_ratio {self.failure_ratio:.4f} is above {limits.failure_ratio} "
                f"({self.failures[worst]} of {self.requests[worst]} {worst.role} {worst.what} to {worst.model} failed, "
                f"first: {self.reasons[worst]})"
            )
        for model, latencies in self._benign().items():
            p99 = float(np.percentile(latencies, 99))
            if p99 > limits.p99_ms:
                lines.append(f"p99 of {model} is {p99:.0f} ms, above {limits.p99_ms:.0f} ms")
        for model, rows in self.rows.items():
            accuracy = self.right[model] / rows
            if accuracy < limits.benign_accuracy:
                lines.append(f"benign accuracy of {model} is {accuracy:.4f}, below {limits.benign_accuracy}")
        if not any(kind.role == "benign" for kind in self.requests):
            lines.append("no benign request was answered")
        return lines

    def summary(self) -> dict[str, Any]:
        """The run as it is written to a file: counts and latencies of each kind, accuracies, broken thresholds."""
        seconds = max(self.ended - self.started - self.limits.warm_up_s, 1e-9)
        return {
            "seconds": round(self.ended - self.started, 2),
            "kinds": [self._kind(kind, seconds) for kind in sorted(self.requests)],
            "accuracy": {model: self.right[model] / rows for model, rows in self.rows.items()},
            "failure_ratio": self.failure_ratio,
            "broken": self.broken(),
        }

    def _kind(self, kind: Kind, seconds: float) -> Mapping[str, Any]:
        latencies = self.latencies_ms[kind]
        return {
            **vars(kind),
            "requests": self.requests[kind],
            "failures": self.failures[kind],
            "first_failure": self.reasons.get(kind),
            "p50_ms": round(float(np.percentile(latencies, 50)), 3) if latencies else None,
            "p99_ms": round(float(np.percentile(latencies, 99)), 3) if latencies else None,
            "rows_per_s": round(len(latencies) * kind.rows / seconds, 1),
        }

    def _benign(self) -> dict[str, list[float]]:
        """Benign latencies by model, all content types together."""
        together: dict[str, list[float]] = defaultdict(list)
        for kind, latencies in self.latencies_ms.items():
            if kind.role == "benign" and latencies:
                together[kind.model] += latencies
        return together
