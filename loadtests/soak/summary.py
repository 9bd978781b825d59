"""A soak's records and samples in numbers, and the verdict: does anything grow, and does anything get slower?

The run is split into fifths. The first is warm-up: the second, right after it, is compared with the last. Medians, as
garbage comes and goes; with them the slope after warm-up (report/rows/soak.py). Samples follow one another
closely, so its interval is narrower than it should be: it is reported, not judged.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from loadtests.soak.records import ANSWERED, FAILED, LOST, Machine, Record
from loadtests.soak.schedule import BENIGN, Level
from report.rows.bounds import Bound
from report.rows.soak import FIFTHS, JAVA, Growth, Reached, Sample, Tried, Window, fifth, slope_of

GROWTH = 0.02
# what p99 may rise by: it rests on the slowest hundredth, so a little is chance, and on a fast service all of it
SLOWER, SLOWER_MS = 1.25, 5.0
# of the load generator: later than that, it is the generator that was measured
LATE_MS = 20.0
BUSY = 0.85
# of a level in the ramp, at its start: users come, queues fill
SETTLING_S = 2.0


def reached(records: Sequence[Record], machines: Sequence[Machine], levels: Sequence[Level]) -> list[Reached]:
    """Each level of the ramp but the first, which warms."""
    out = []
    for level in levels[1:]:
        begins = level.begins + SETTLING_S
        mine = [each for each in records if begins <= each.at + each.ms / 1000 < level.ends]
        good = [each for each in mine if each.what not in (FAILED, LOST)]
        times = [each.ms for each in good if each.role == BENIGN and each.what == ANSWERED]
        out.append(
            Reached(
                users=level.users,
                per_second=round(len(good) / (level.ends - begins), 1),
                p50_ms=percentile(times, 50),
                p99_ms=percentile(times, 99),
                client_cpu=busy(machines, begins, level.ends),
            )
        )
    return out


def tried(records: Sequence[Record], machines: Sequence[Machine], *, rate: float, seconds: float) -> Tried:
    """The result of a rate that was asked for so many seconds. Raises ValueError where nothing was asked."""
    mine = [each for each in records if each.at >= seconds / 2 and not each.hashes]
    if not mine:
        raise ValueError(f"expected requests in the second half of {seconds:g} s at {rate:g} requests/s, got none")
    times = latencies(mine)
    return Tried(
        rate=rate,
        behind=round(sum(not each.waited for each in mine) / len(mine), 4),
        p50_ms=percentile(times, 50),
        p99_ms=percentile(times, 99),
        client_cpu=busy(machines, seconds / 2, seconds),
    )


def windows(records: Sequence[Record], samples: Sequence[Sample], *, seconds: float, every: float) -> list[Window]:
    """The soak in steps of `every` seconds."""
    by_window: dict[int, list[Record]] = {}
    for record in records:
        by_window.setdefault(int(record.at // every), []).append(record)
    out = []
    for number in range(math.ceil(seconds / every)):
        mine, begins = by_window.get(number, []), number * every
        times = latencies(mine)
        out.append(
            Window(
                at=begins,
                requests=len(mine),
                p50_ms=percentile(times, 50),
                p99_ms=percentile(times, 99),
                late_p99_ms=percentile([each.late_ms for each in mine if each.waited], 99),
                queue_ms=_queued(samples, begins, begins + every),
                outcomes=dict(sorted(Counter(outcome(each) for each in mine).items())),
            )
        )
    return out


def outcome(record: Record) -> str:
    """The outcome of a request in a word or two: "answered", "lost", or status and code."""
    if record.what in (ANSWERED, LOST):
        return record.what
    return f"{record.status} {record.code or 'of TorchServe'}" if record.status != 200 else "200 not as promised"


def latencies(records: Iterable[Record]) -> list[float]:
    """Milliseconds from when they were due to the answers of benign requests."""
    return [each.ms for each in records if each.role == BENIGN and each.what == ANSWERED]


def growths(samples: Sequence[Sample], *, seconds: float) -> list[Growth]:
    """Of all processes together, of Java, and of the workers together."""
    parts: Mapping[str, NDArray[np.float64]] = {
        "all processes": np.array([each.pss_mb for each in samples]),
        "Java": np.array([_of(each, java=True) for each in samples]),
        "workers": np.array([_of(each, java=False) for each in samples]),
    }
    times = np.array([each.at for each in samples])
    return [growth(name, times, values, seconds=seconds) for name, values in parts.items()]


def growth(name: str, times: NDArray[np.float64], values: NDArray[np.float64], *, seconds: float) -> Growth:
    """How `values` (n,) in MB, taken at `times` (n,) in seconds, moved after warm-up."""
    early, late = fifth(times, 1, seconds), fifth(times, FIFTHS - 1, seconds)
    after = (times >= seconds / FIFTHS) & (times < seconds)
    slope, low, high = slope_of(times[after] / 3600, values[after]) or (None, None, None)
    return Growth(
        name, round(float(np.median(values[early])), 2), round(float(np.median(values[late])), 2), slope, low, high
    )


def verdict(records: Sequence[Record], samples: Sequence[Sample], *, rate: float, seconds: float) -> tuple[Bound, ...]:
    """What a soak promises. Raises ValueError where a fifth that is to be compared has no sample or no answer."""
    times = np.array([each.at for each in samples])
    due = np.array([each.at for each in records])
    for number in (1, FIFTHS - 1):
        if not fifth(times, number, seconds).any() or not fifth(due, number, seconds).any():
            raise ValueError(f"expected samples and requests in fifth {number + 1} of the run, got none")
    all_of_it, java, workers = growths(samples, seconds=seconds)
    early = percentile(latencies(_within(records, 1, seconds)), 99)
    late = percentile(latencies(_within(records, FIFTHS - 1, seconds)), 99)
    scheduled = [each for each in records if not each.hashes]
    pids = {tuple(process.pid for process in each.processes) for each in samples}
    allowed = 0.0 if early is None else round(max(SLOWER * early, early + SLOWER_MS), 2)
    return (
        Bound("growth of all processes' memory, share", round(all_of_it.share, 4), GROWTH),
        Bound("growth of Java's memory, share", round(java.share, 4), GROWTH),
        Bound("growth of the workers' memory, share", round(workers.share, 4), GROWTH),
        Bound("answers with a 5xx", sum(each.status >= 500 for each in records), 0),
        Bound("answers that were not what was promised", sum(_broken(each) for each in records), 0),
        Bound("requests without an answer", sum(each.what == LOST for each in records), 0),
        Bound("requests due and never sent", int(rate * seconds) - len(scheduled), 0),
        Bound("p99 in the last fifth, milliseconds", late, allowed),
        Bound("sets of processes seen, less one", len(pids) - 1, 0),
    )


def generator(records: Sequence[Record], machines: Sequence[Machine], *, seconds: float) -> tuple[Bound, ...]:
    """Whether the load generator kept up. It is no fault of the service where it did not: latencies, which count from
    when a request was due, are then too high and not too low."""
    waited = [each.late_ms for each in records if each.waited]
    return (
        Bound("p99 of its own delay, milliseconds", percentile(waited, 99), LATE_MS),
        Bound("share of a processor that it took", busy(machines, 0, seconds), BUSY),
    )


def busy(machines: Sequence[Machine], begins: float, ends: float) -> float | None:
    """The share of one processor that the load generator took in a stretch; None where it was not looked at."""
    mine = [each for each in machines if begins <= each.at < ends]
    if len(mine) < 2:
        return None
    return round((mine[-1].cpu_s - mine[0].cpu_s) / (mine[-1].at - mine[0].at), 3)


def percentile(values: Sequence[float], share: float) -> float | None:
    """Of any number of values; None of none."""
    return round(float(np.percentile(values, share)), 2) if values else None


def _within(records: Sequence[Record], number: int, seconds: float) -> list[Record]:
    length = seconds / FIFTHS
    return [each for each in records if number * length <= each.at < (number + 1) * length]


def _broken(record: Record) -> bool:
    return record.what == FAILED and record.status < 500


def _of(sample: Sample, *, java: bool) -> float:
    return sum(each.pss_mb for each in sample.processes if (each.name == JAVA) is java)


def _queued(samples: Sequence[Sample], begins: float, ends: float) -> float | None:
    """Mean milliseconds that a request of a stretch waited in TorchServe's queues."""
    mine = [each for each in samples if begins <= each.at < ends]
    before = [each for each in samples if each.at < begins]
    if not mine:
        return None
    first = before[-1] if before else mine[0]
    asked = mine[-1].requests - first.requests
    return round(1000 * (mine[-1].queue_s - first.queue_s) / asked, 3) if asked > 0 else None
