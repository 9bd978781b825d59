"""What a load test counts while it runs, and the thresholds it must meet.

Locust's own percentiles are rounded to two digits and mix benign with hostile requests, so latencies are kept here,
request by request. The first `warm_up_s` seconds (a Java machine that still compiles, cold caches) count for
correctness but not for latency.

In a run with attackers, the impact on benign users while the attack lasts is a finding and not a fault: their latencies
and refused requests are reported next to the same figures of the stretch before the attack, and only that stretch is
compared with the limit of latency. A broken response stays a fault.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ENOUGH = 100


@dataclass(frozen=True)
class LoadTest:
    """[loadtest]: the traffic, and when a run fails.

    benign, hostile: users of each kind. think_ms: a benign user's mean pause between requests. warm_up_s: seconds
    at the start whose latencies are not judged. p99_ms: slowest 99th percentile allowed to any policy's benign
    requests, those during an attack aside. failure_ratio: share of requests, hostile ones included, that may get a
    wrong answer. benign_accuracy: share of benign rows whose label must be the true one, for each policy.
    sum_tolerance: how far a row's probabilities may be from a sum of 1 (more for policies that round or truncate them).
    most_hashes: a user who is asked for more work than that for one request goes without the answer.
    """

    benign: int = 4
    hostile: int = 1
    think_ms: float = 20.0
    warm_up_s: float = 3.0
    p99_ms: float = 500.0
    failure_ratio: float = 0.0
    benign_accuracy: float = 0.9
    sum_tolerance: float = 1e-3
    most_hashes: float = 1e6

    def __post_init__(self) -> None:
        if self.benign < 1 or self.hostile < 0:
            raise ValueError(f"expected benign >= 1 and hostile >= 0, got {self.benign} and {self.hostile}")
        for name in ("failure_ratio", "benign_accuracy"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a share in [0, 1], got {getattr(self, name)}")
        for name in ("think_ms", "warm_up_s", "p99_ms", "sum_tolerance", "most_hashes"):
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


@dataclass(frozen=True)
class Record:
    """One finished request, begun at `at` (seconds since the epoch).

    failure: why it failed, if it did. rejected: whether the service turned it away in order, as it does when its queue
    is full or a defense refuses. right: rows with the true label, of an answered benign request. hashes: attempts that
    it took to pay for the answer, before the request began.
    """

    kind: Kind
    ms: float
    at: float
    failure: str | None = None
    rejected: bool = False
    right: int | None = None
    hashes: int = 0


@dataclass
class Attack:
    """The attack of a run, on one model. quiet: since when benign users had the service for themselves.

    began, ended: as `quiet` seconds since the epoch, None for not yet. stolen: images that the attack asked about.
    sent: images that its clients sent, benign ones among them included.
    """

    model: str
    clients: int
    dilution: int
    quiet: float | None = None
    began: float | None = None
    ended: float | None = None
    stolen: int = 0
    sent: int = 0

    def during(self, at: float) -> bool:
        """Whether a request begun then coincided with the attack."""
        return self.began is not None and self.began <= at <= (self.ended or math.inf)


@dataclass
class Tally:
    """One run's counts. started, ended: seconds since the epoch, set by the run."""

    limits: LoadTest
    started: float = 0.0
    ended: float = 0.0
    records: list[Record] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    attack: Attack | None = None
    reported: int = 0
    _failed: int = 0

    def add(
        self,
        kind: Kind,
        *,
        ms: float,
        at: float,
        failure: str | None = None,
        rejected: bool = False,
        right: int | None = None,
        hashes: int = 0,
    ) -> None:
        """Count one finished request; see Record."""
        record = Record(kind, ms, at, failure, rejected, right, hashes)
        self.records.append(record)
        self._failed += self._faulty(record)

    @property
    def failure_ratio(self) -> float:
        """Failed requests as a share of all."""
        return sum(map(self._faulty, self.records)) / max(1, len(self.records))

    @property
    def hopeless(self) -> bool:
        """Whether enough requests failed that the run need not go on."""
        return len(self.records) >= ENOUGH and self._failed / len(self.records) > self.limits.failure_ratio

    def broken(self) -> list[str]:
        """One line for each threshold that was not met; empty for a good run."""
        limits, lines = self.limits, list(self.errors)
        if self.failure_ratio > limits.failure_ratio:
            faults = [record for record in self.records if self._faulty(record)]
            ((worst, count),) = Counter(record.kind for record in faults).most_common(1)
            first = next(record.failure for record in faults if record.kind == worst)
            lines.append(
                f"failure_ratio {self.failure_ratio:.4f} is above {limits.failure_ratio} "
                f"({count} of {sum(record.kind == worst for record in self.records)} {worst.role} {worst.what} "
                f"to {worst.model} failed, first: {first})"
            )
        for model, mine in self._benign().items():
            judged = [record.ms for record in mine if self._timed(record) and not self._attacked(record)]
            p99 = _percentile(judged, 99)
            if p99 is not None and p99 > limits.p99_ms:
                lines.append(f"p99 of {model} is {p99:.0f} ms, above {limits.p99_ms:.0f} ms")
        for model, accuracy in self.accuracy().items():
            if accuracy < limits.benign_accuracy:
                lines.append(f"benign accuracy of {model} is {accuracy:.4f}, below {limits.benign_accuracy}")
        if not self._benign():
            lines.append("no benign request was answered")
        return lines

    def accuracy(self) -> dict[str, float]:
        """Of each model: the share of answered benign rows that got the true label."""
        return {model: accuracy for model, mine in self._benign().items() if (accuracy := _accuracy(mine)) is not None}

    def summary(self) -> dict[str, Any]:
        """The run as it is written to a file: counts and latencies of each kind, accuracies, the impact of an attack on
        benign users, broken thresholds."""
        seconds = max(self.ended - self.started - self.limits.warm_up_s, 1e-9)
        kinds: dict[Kind, list[Record]] = defaultdict(list)
        for record in self.records:
            kinds[record.kind].append(record)
        return {
            "seconds": round(self.ended - self.started, 2),
            "kinds": [self._kind(kind, kinds[kind], seconds) for kind in sorted(kinds)],
            "accuracy": self.accuracy(),
            "failure_ratio": self.failure_ratio,
            "attack": self._impact(self.attack) if self.attack is not None else None,
            "broken": self.broken(),
        }

    def news(self) -> dict[str, Any]:
        """What a worker of a distributed run reports to its master now and then: what is new, in plain values."""
        fresh = self.records[self.reported :]
        self.reported = len(self.records)
        return {
            "records": [[*dataclasses.astuple(record.kind), *dataclasses.astuple(record)[1:]] for record in fresh],
            "errors": list(self.errors),
            "attack": dataclasses.asdict(self.attack) if self.attack else None,
        }

    def hear(self, news: Sequence[Mapping[str, Any]]) -> None:
        """Add what one worker has reported."""
        if not news:
            return
        if news[-1]["attack"]:
            self.attack = Attack(**news[-1]["attack"])
        self.errors += news[-1]["errors"]
        for role, model, what, rows, *rest in (record for each in news for record in each["records"]):
            self.records.append(Record(Kind(role, model, what, rows), *rest))

    def _kind(self, kind: Kind, mine: Sequence[Record], seconds: float) -> Mapping[str, Any]:
        latencies = [record.ms for record in mine if self._timed(record)]
        reasons = [record.failure for record in mine if record.failure is not None]
        return {
            **vars(kind),
            "requests": len(mine),
            "failures": len(reasons),
            "first_failure": reasons[0] if reasons else None,
            "p50_ms": _percentile(latencies, 50),
            "p99_ms": _percentile(latencies, 99),
            "rows_per_s": round(len(latencies) * kind.rows / seconds, 1),
            "hashes": sum(record.hashes for record in mine),
        }

    def _impact(self, attack: Attack) -> dict[str, Any]:
        """The attack, and its impact on benign users of its model: their requests before and during it."""
        mine = self._benign().get(attack.model, [])
        began, ended = attack.began or self.ended, attack.ended or self.ended
        quiet = attack.quiet or began
        return {
            **dataclasses.asdict(attack),
            "before": _stretch([record for record in mine if quiet <= record.at < began], began - quiet),
            "during": _stretch([record for record in mine if attack.during(record.at)], ended - began),
        }

    def _benign(self) -> dict[str, list[Record]]:
        """Benign requests by model, all content types together."""
        together: dict[str, list[Record]] = defaultdict(list)
        for record in self.records:
            if record.kind.role == "benign":
                together[record.kind.model].append(record)
        return together

    def _timed(self, record: Record) -> bool:
        return record.at - self.started >= self.limits.warm_up_s

    def _attacked(self, record: Record) -> bool:
        return self.attack is not None and self.attack.during(record.at)

    def _faulty(self, record: Record) -> bool:
        """Whether it failed, and not because the service had an attack on its hands."""
        excused = record.kind.role == "benign" and record.rejected and self._attacked(record)
        return record.failure is not None and not excused


def _stretch(records: Sequence[Record], seconds: float) -> dict[str, Any]:
    """Benign requests in a stretch of time; latencies are those of answered requests."""
    answered = [record for record in records if record.failure is None]
    rejections = sum(record.rejected for record in records)
    return {
        "seconds": round(max(0.0, seconds), 2),
        "requests": len(records),
        "rejections": rejections,
        "errors": len(records) - len(answered) - rejections,
        "accuracy": _accuracy(records),
        **{f"p{share}_ms": _percentile([record.ms for record in answered], share) for share in (50, 95, 99)},
    }


def _accuracy(records: Iterable[Record]) -> float | None:
    judged = [(record.right, record.kind.rows) for record in records if record.right is not None]
    return sum(right for right, _ in judged) / sum(rows for _, rows in judged) if judged else None


def _percentile(values: Sequence[float], share: int) -> float | None:
    return round(float(np.percentile(values, share)), 3) if values else None
