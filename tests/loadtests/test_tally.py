"""Counts and thresholds of a run."""

from __future__ import annotations

import pytest

from loadtests.tally import ENOUGH, Kind, LoadTest, Tally

PNG = Kind("benign", "digits-edm", "image/png", 1)
RAW = Kind("benign", "digits-edm", "application/octet-stream", 8)
NAN = Kind("hostile", "digits-edm", "nan", 1)


def tally(**limits: float) -> Tally:
    return Tally(LoadTest(**{"warm_up_s": 2.0, **limits}), started=100.0, ended=112.0)  # type: ignore[arg-type]


def filled(count: Tally, kind: Kind, latencies: list[float], *, failure: str | None = None) -> Tally:
    for ms in latencies:
        count.add(kind, ms=ms, at=105.0, failure=failure)
    return count


def test_a_good_run_breaks_nothing() -> None:
    run = filled(tally(p99_ms=50), PNG, [10.0] * 200)
    run.judge("digits-edm", right=95, rows=100)
    assert run.broken() == []
    assert not run.hopeless


def test_the_warm_up_counts_for_answers_but_not_for_latency() -> None:
    run = filled(tally(p99_ms=50), PNG, [10.0] * 100)
    run.add(PNG, ms=900.0, at=101.9, failure="status 503, expected 200")
    assert run.requests[PNG] == 101
    assert max(run.latencies_ms[PNG]) == 10.0
    assert run.broken() == [
        "failure_ratio 0.0099 is above 0.0 (1 of 101 benign image/png to digits-edm failed, "
        "first: status 503, expected 200)",
    ]


def test_p99_is_judged_over_all_benign_requests_of_a_model() -> None:
    run = filled(filled(tally(p99_ms=50), PNG, [10.0] * 98), RAW, [400.0] * 2)
    filled(run, NAN, [9000.0] * 50)
    # 100 values, sorted: the 99th percentile lies .01 beyond the 99th of them, which is 400
    assert run.broken() == ["p99 of digits-edm is 400 ms, above 50 ms"]


def test_benign_accuracy_has_a_floor_for_each_model() -> None:
    run = filled(tally(benign_accuracy=0.9), PNG, [1.0])
    run.judge("digits-edm", right=8, rows=10)
    run.judge("digits-undefended", right=10, rows=10)
    assert run.broken() == ["benign accuracy of digits-edm is 0.8000, below 0.9"]


def test_a_run_without_benign_requests_proves_nothing() -> None:
    assert filled(tally(), NAN, [1.0]).broken() == ["no benign request was answered"]


def test_errors_of_users_break_a_run() -> None:
    run = filled(tally(), PNG, [1.0])
    run.errors.append("thief: gone")
    assert run.broken() == ["thief: gone"]


def test_a_run_is_hopeless_only_after_enough_requests() -> None:
    run = filled(tally(failure_ratio=0.5), PNG, [1.0] * (ENOUGH - 1), failure="wrong")
    assert not run.hopeless
    assert filled(run, PNG, [1.0]).hopeless


def test_the_summary_by_hand() -> None:
    run = filled(filled(tally(), RAW, [1.0, 2.0, 3.0]), NAN, [5.0], failure="wrong")
    run.judge("digits-edm", right=20, rows=24)
    summary = run.summary()
    raw, nan = summary["kinds"]
    # 3 requests of 8 rows in the 10 seconds after the warm-up; p99 = 2 + .98 * 1
    assert raw == {
        **vars(RAW),
        "requests": 3,
        "failures": 0,
        "first_failure": None,
        "p50_ms": 2.0,
        "p99_ms": 2.98,
        "rows_per_s": 2.4,
    }
    assert (nan["what"], nan["failures"], nan["first_failure"]) == ("nan", 1, "wrong")
    assert summary["seconds"] == 12.0
    assert summary["accuracy"] == {"digits-edm": 20 / 24}
    assert summary["failure_ratio"] == 0.25


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"benign": 0}, "expected benign >= 1"),
        ({"failure_ratio": 1.5}, r"failure_ratio: expected a share in \[0, 1\], got 1.5"),
        ({"p99_ms": -1.0}, "p99_ms: expected >= 0, got -1.0"),
    ],
)
def test_ranges(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoadTest(**fields)  # type: ignore[arg-type]
