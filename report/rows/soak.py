"""Rows of a soak: a constant load for minutes, what became of it, and what the server's processes held meanwhile.

The run is split into fifths, of which the first is warm-up. Slopes are Theil and Sen's (the median of the slopes
between all pairs of samples), with Sen's interval at 95 percent (JASA 1968), which outliers do not move.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from report.rows.bounds import Bound

FIFTHS = 5
# of requests that find every user waiting for an answer: a service that keeps a rate up is not behind
BEHIND = 0.01
Z95 = 1.959964
# the name of TorchServe's front end among the processes
JAVA = "java"


@dataclass(frozen=True)
class Reached:
    """A level of the ramp: so many users, and the requests a second that were answered or refused in order."""

    users: int
    per_second: float
    p50_ms: float | None
    p99_ms: float | None
    client_cpu: float | None


@dataclass(frozen=True)
class Tried:
    """A rate at which the open loop asked for a while, its second half. behind: the share of requests for which no user
    was free, all of them waiting for answers; latencies are of benign requests, from when they were due."""

    rate: float
    behind: float
    p50_ms: float | None
    p99_ms: float | None
    client_cpu: float | None

    @property
    def kept_up(self) -> bool:
        """Whether the service did as much as it was asked."""
        return self.behind <= BEHIND


@dataclass(frozen=True)
class Window:
    """Some seconds of the soak, from `at` on; latencies are of benign requests, from when they were due."""

    at: float
    requests: int
    p50_ms: float | None
    p99_ms: float | None
    late_p99_ms: float | None
    queue_ms: float | None
    outcomes: dict[str, int]


@dataclass(frozen=True)
class Growth:
    """Of one amount of memory, in MB: the median of the second fifth and of the last, and the slope in between, with
    its interval, in MB an hour (None for too few samples)."""

    name: str
    early_mb: float
    late_mb: float
    slope: float | None
    slope_low: float | None
    slope_high: float | None

    @property
    def share(self) -> float:
        """By how much it grew."""
        return self.late_mb / self.early_mb - 1


@dataclass(frozen=True)
class Process:
    """One process. name: "java", or a worker's "worker N", N counting from 0 by pid. cpu_s: so far."""

    name: str
    pid: int
    rss_mb: float
    pss_mb: float
    cpu_s: float
    threads: int
    files: int


@dataclass(frozen=True)
class Sample:
    """All of it once. at: seconds from the start. queue_s, requests: of TorchServe, so far. MB of the instance's
    files: state (the store), logs, the audit log."""

    at: float
    processes: tuple[Process, ...]
    queue_s: float
    requests: float
    state_mb: float
    logs_mb: float
    audit_mb: float

    @property
    def pss_mb(self) -> float:
        """Of all processes together."""
        return sum(each.pss_mb for each in self.processes)


@dataclass(frozen=True)
class SoakRow:
    """One soak. effort: how long and how hard, by name. rate: requests a second. unfinished: why it did not get to its
    end, None where it did. verdict, generator: bounds of the service, and of the load generator."""

    SCOPE: ClassVar = ("recipe",)

    recipe: str
    policies: tuple[str, ...]
    effort: dict[str, float]
    ramp: tuple[Reached, ...]
    tries: tuple[Tried, ...]
    rate: float
    unfinished: str | None
    verdict: tuple[Bound, ...]
    generator: tuple[Bound, ...]
    growth: tuple[Growth, ...]
    windows: tuple[Window, ...]
    samples: tuple[Sample, ...]

    @property
    def outcomes(self) -> Counter[str]:
        """What became of all requests."""
        total: Counter[str] = Counter()
        for window in self.windows:
            total.update(window.outcomes)
        return total

    def p99_of(self, number: int) -> float | None:
        """The median of the windows' 99th percentiles in a fifth of the run, counted from 0; None of none."""
        times, values = self._p99s()
        mine = values[fifth(times, number, self._seconds)]
        return float(np.median(mine)) if len(mine) else None

    @property
    def p99_slope(self) -> tuple[float, float, float] | None:
        """Theil and Sen's slope of the windows' 99th percentiles after warm-up, in ms an hour, and its interval."""
        times, values = self._p99s()
        after = times >= self._seconds / FIFTHS
        return slope_of(times[after] / 3600, values[after])

    @property
    def _seconds(self) -> float:
        return 60 * self.effort["minutes"]

    def _p99s(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        pairs = [(window.at, window.p99_ms) for window in self.windows if window.p99_ms is not None]
        times, values = np.array(pairs, np.float64).reshape(-1, 2).T
        return times, values

    def ends(self, of: Callable[[Sample], float]) -> tuple[float, float]:
        """A figure of the first sample and of the last."""
        return of(self.samples[0]), of(self.samples[-1])


def fifth(times: NDArray[np.float64], number: int, seconds: float) -> NDArray[np.bool_]:
    """Which of `times` lie in a fifth of the run, counted from 0."""
    length = seconds / FIFTHS
    return (times >= number * length) & (times < (number + 1) * length)


def slope_of(times: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[float, float, float] | None:
    """Theil and Sen's slope and the ends of Sen's interval at 95 percent; None for fewer than three values."""
    n = len(times)
    if n < 3:
        return None
    first, second = np.triu_indices(n, 1)
    slopes = np.sort((values[second] - values[first]) / (times[second] - times[first]))
    spread = Z95 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = int(max(0, math.floor((len(slopes) - spread) / 2)))
    high = int(min(len(slopes) - 1, math.ceil((len(slopes) + spread) / 2)))
    return round(float(np.median(slopes)), 2), round(float(slopes[low]), 2), round(float(slopes[high]), 2)
