"""A soak's schedule, its arithmetic and its verdict, each promise broken in turn."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadtests.soak import records, schedule, summary
from loadtests.soak.records import ANSWERED, FAILED, LOST, REFUSED, Machine, Notebook, Record
from loadtests.soak.schedule import BENIGN, THIEF, Level, Mix, Open, Ramp
from report.rows.soak import Process, Sample

SECONDS, RATE = 100.0, 10.0


def record(at: float, **changes: Any) -> Record:
    plain: dict[str, Any] = {
        "role": BENIGN,
        "model": 0,
        "ms": 10.0,
        "late_ms": 0.5,
        "waited": True,
        "status": 200,
        "code": "",
        "what": ANSWERED,
        "hashes": 0,
    }
    return Record(at=at, **{**plain, **changes})


def sample(at: float, java_mb: float = 300.0, worker_mb: float = 100.0, **changes: Any) -> Sample:
    processes = (
        Process("java", 10, java_mb + 20, java_mb, at, 50, 100),
        Process("worker 0", 11, worker_mb + 30, worker_mb, at, 5, 20),
    )
    plain: dict[str, Any] = {
        "processes": processes,
        "queue_s": at / 1000,
        "requests": 10 * at,
        "state_mb": 0.1,
        "logs_mb": 0.0,
        "audit_mb": 0.0,
    }
    return Sample(at=at, **{**plain, **changes})


def good() -> dict[str, Any]:
    """A run that keeps every promise."""
    return {
        "records": [record(number / RATE) for number in range(int(SECONDS * RATE))],
        "machines": [Machine(float(at), 0.2 * at, 1000.0) for at in range(100)],
        "samples": [sample(float(at)) for at in range(0, 100, 2)],
    }


def broken(run: dict[str, Any]) -> list[str]:
    verdict = summary.verdict(run["records"], run["samples"], rate=RATE, seconds=SECONDS)
    generator = summary.generator(run["records"], run["machines"], seconds=SECONDS)
    return [bound.what for bound in (*verdict, *generator) if not bound.met]


def test_a_fifth_of_all_requests_is_the_attackers_and_models_take_turns() -> None:
    mix = Mix(0.2, models=3)
    dealt = [mix.next(None) for _ in range(60)]
    for start in range(0, 60, 5):
        assert Counter(due.role for due in dealt[start : start + 5]) == {BENIGN: 4, THIEF: 1}
    for role, count in ((BENIGN, 48), (THIEF, 12)):
        mine = [due for due in dealt if due.role == role]
        assert [due.number for due in mine] == list(range(count))
        assert Counter(due.model for due in mine) == {0: count / 3, 1: count / 3, 2: count / 3}
    assert {Mix(0.0, 1).next(None).role for _ in range(10)} == {BENIGN}
    with pytest.raises(ValueError, match=r"a share in \[0, 1\), got 1"):
        Mix(1.0, 1)


def test_an_open_loops_requests_are_due_whatever_became_of_the_others() -> None:
    loop = Open(Mix(0.0, 1), rate=4.0, seconds=2.0)
    taken = [loop.take(user, now) for user, now in ((3, 0.0), (1, 50.0), (1, 50.0))]
    assert [due.at for due in taken if due is not None] == [0.0, 0.25, 0.5]
    rest = [loop.take(0, 0.0) for _ in range(6)]
    assert [due.at for due in rest if due is not None] == [0.75, 1.0, 1.25, 1.5, 1.75]
    assert rest[-1] is None


def test_a_ramp_lets_so_many_users_ask_at_a_time() -> None:
    levels = schedule.levels((1, 4), warm_s=10, level_s=5)
    assert levels == (Level(4, 0, 10), Level(1, 10, 15), Level(4, 15, 20))
    ramp = Ramp(Mix(0.0, 1), levels)
    first, second = ramp.take(3, 9.0), ramp.take(0, 12.0)
    assert isinstance(first, schedule.Due)
    assert isinstance(second, schedule.Due)
    assert second.at is None
    assert ramp.take(1, 12.0) == 3.0, "seconds until the next level"
    assert ramp.take(0, 20.0) is None


def test_notes_can_be_read_while_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    assert records.read(path) == ([], [])
    notebook = Notebook(path)
    for number in range(3):
        notebook.note(record(float(number)))
        notebook.write(Machine(float(number), 0.5, 77.0))
    with path.open("a") as file:
        file.write('{"machine": [3.0, ')
    found, machines = records.read(path, skip=1)
    assert found == [record(1.0), record(2.0)]
    assert machines == [Machine(1.0, 0.5, 77.0), Machine(2.0, 0.5, 77.0)]


def test_a_good_run_keeps_every_promise() -> None:
    assert broken(good()) == []


def changed(index: int, **changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(run: dict[str, Any]) -> None:
        run["records"][index] = dataclasses.replace(run["records"][index], **changes)

    return change


def growing(**slopes: float) -> Callable[[dict[str, Any]], None]:
    def change(run: dict[str, Any]) -> None:
        run["samples"] = [
            sample(each.at, 300 + slopes.get("java", 0) * each.at, 100 + slopes.get("worker", 0) * each.at)
            for each in run["samples"]
        ]

    return change


def slower(run: dict[str, Any]) -> None:
    run["records"] = [dataclasses.replace(each, ms=10 + (each.at > 80) * 6) for each in run["records"]]


def another_worker(run: dict[str, Any]) -> None:
    other = dataclasses.replace(run["samples"][30].processes[1], pid=12)
    run["samples"][30] = dataclasses.replace(run["samples"][30], processes=(run["samples"][30].processes[0], other))


def late(run: dict[str, Any]) -> None:
    run["records"] = [dataclasses.replace(each, late_ms=25.0) for each in run["records"]]


def busy(run: dict[str, Any]) -> None:
    run["machines"] = [dataclasses.replace(each, cpu_s=0.95 * each.at) for each in run["machines"]]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (growing(java=0.2), ["growth of all processes' memory, share", "growth of Java's memory, share"]),
        (growing(worker=0.05), ["growth of the workers' memory, share"]),
        (changed(7, status=503, what=FAILED), ["answers with a 5xx"]),
        (changed(7, what=FAILED), ["answers that were not what was promised"]),
        (changed(7, status=0, what=LOST), ["requests without an answer"]),
        (lambda run: run["records"].pop(), ["requests due and never sent"]),
        (slower, ["p99 in the last fifth, milliseconds"]),
        (another_worker, ["sets of processes seen, less one"]),
        (late, ["p99 of its own delay, milliseconds"]),
        (busy, ["share of a processor that it took"]),
    ],
)
def test_each_promise_can_be_broken(change: Callable[[dict[str, Any]], object], expected: list[str]) -> None:
    run = good()
    change(run)
    assert broken(run) == expected


def test_refusals_in_order_payments_and_warm_up_break_nothing() -> None:
    run = good()
    run["records"][3] = record(0.3, role=THIEF, status=428, code="proof_of_work", what=REFUSED, ms=900.0)
    run["records"].append(record(0.4, role=THIEF, hashes=16, waited=False))
    run["samples"][0] = sample(0.0, java_mb=900.0)
    assert broken(run) == []


def test_a_run_that_ended_early_has_no_verdict() -> None:
    run = good()
    run["samples"] = run["samples"][:20]
    with pytest.raises(ValueError, match="fifth 5 of the run, got none"):
        summary.verdict(run["records"], run["samples"], rate=RATE, seconds=SECONDS)


def test_windows_hold_latencies_from_when_requests_were_due() -> None:
    run = good()
    run["records"][2] = record(0.2, status=428, code="proof_of_work", what=REFUSED, role=THIEF, ms=5000.0)
    run["records"][4] = record(0.4, status=500, what=FAILED)
    first, second, *_ = summary.windows(run["records"], run["samples"], seconds=SECONDS, every=5.0)
    assert (first.at, first.requests, second.at) == (0.0, 50, 5.0)
    assert first.outcomes == {"answered": 48, "428 proof_of_work": 1, "500 of TorchServe": 1}
    assert (first.p50_ms, first.p99_ms, first.late_p99_ms) == (10.0, 10.0, 0.5)
    assert second.queue_ms == pytest.approx(0.1), "a millisecond a second, for ten requests"


def test_saturation_leaves_out_how_a_level_begins() -> None:
    levels = schedule.levels((2,), warm_s=10, level_s=12)
    asked = [record(at / 10, late_ms=0.0, ms=0.0) for at in range(220)]
    asked += [record(11.0 + at / 1000) for at in range(100)]  # a burst in the level's first two seconds
    (reached,) = summary.reached(asked, [Machine(float(at), 0.5 * at, 0.0) for at in range(22)], levels)
    assert (reached.users, reached.per_second, reached.client_cpu) == (2, 10.0, 0.5)


def test_a_rate_is_kept_up_if_users_are_free_in_its_second_half() -> None:
    asked = [record(at / 10) for at in range(200)]
    asked[:90] = [record(each.at, waited=False, ms=5000.0) for each in asked[:90]]
    asked.append(record(15.0, role=THIEF, hashes=16, waited=False))
    machines = [Machine(float(at), 0.5 * at, 0.0) for at in range(20)]
    tried = summary.tried(asked, machines, rate=10.0, seconds=20.0)
    assert tried == summary.Tried(rate=10.0, behind=0.0, p50_ms=10.0, p99_ms=10.0, client_cpu=0.5)
    assert tried.kept_up
    asked[150:152] = [record(each.at, waited=False, ms=300.0) for each in asked[150:152]]
    tried = summary.tried(asked, machines, rate=10.0, seconds=20.0)
    assert (tried.behind, tried.kept_up) == (0.02, False)
    with pytest.raises(ValueError, match=r"second half of 20 s at 10 requests/s, got none"):
        summary.tried(asked[:100], machines, rate=10.0, seconds=20.0)


def test_what_is_reported_is_strict_json() -> None:
    """No NaN for what was not measured: the file of a run that went wrong is the one that is needed."""
    bounds = summary.generator([], [], seconds=SECONDS)
    assert [bound.measured for bound in bounds] == [None, None]
    json.dumps([vars(bound) for bound in bounds], allow_nan=False)
