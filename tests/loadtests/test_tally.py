"""Counts and thresholds of a run."""

from __future__ import annotations

import json

import pytest

from loadtests.tally import ENOUGH, Attack, Kind, LoadTest, Tally

PNG = Kind("benign", "digits-edm", "image/png", 1)
RAW = Kind("benign", "digits-edm", "application/octet-stream", 8)
HUNDRED = Kind("benign", "digits-edm", "application/octet-stream", 100)
NAN = Kind("hostile", "digits-edm", "nan", 1)


def tally(**limits: float) -> Tally:
    return Tally(LoadTest(**{"warm_up_s": 2.0, **limits}), started=100.0, ended=112.0)  # type: ignore[arg-type]


def filled(count: Tally, kind: Kind, latencies: list[float], *, failure: str | None = None) -> Tally:
    for ms in latencies:
        count.add(kind, ms=ms, at=105.0, failure=failure)
    return count


def test_a_good_run_breaks_nothing() -> None:
    run = filled(tally(p99_ms=50), PNG, [10.0] * 200)
    run.add(HUNDRED, ms=10, at=105, right=95)
    assert run.broken() == []
    assert not run.hopeless


def test_the_warm_up_counts_for_answers_but_not_for_latency() -> None:
    run = filled(tally(p99_ms=50), PNG, [10.0] * 100)
    run.add(PNG, ms=900.0, at=101.9, failure="status 503, expected 200")
    (png,) = run.summary()["kinds"]
    assert (png["requests"], png["p99_ms"]) == (101, 10.0)
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
    run.add(Kind("benign", "digits-edm", "application/json", 10), ms=1, at=105, right=8)
    run.add(Kind("benign", "digits-undefended", "application/json", 10), ms=1, at=105, right=10)
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
    run = filled(tally(), NAN, [5.0], failure="wrong")
    for ms, right, hashes in ((1.0, 5, 0), (2.0, 7, 40), (3.0, 8, 2)):
        run.add(RAW, ms=ms, at=105.0, right=right, hashes=hashes)
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
        "hashes": 42,
    }
    assert (nan["what"], nan["failures"], nan["first_failure"]) == ("nan", 1, "wrong")
    assert summary["seconds"] == 12.0
    assert summary["accuracy"] == {"digits-edm": 20 / 24}
    assert summary["failure_ratio"] == 0.25
    assert summary["attack"] is None


def attacked() -> Tally:
    """Quiet from 104, attack from 106 to 110: PNG requests of 10, 20, 30 ms before it, of 100 and 300 ms during it."""
    run = tally(p99_ms=50)
    run.attack = Attack(
        "digits-edm", clients=10, dilution=50, quiet=104.0, began=106.0, ended=110.0, stolen=60, sent=120
    )
    for at, ms, right in ((103, 900, 0), (104, 10, 1), (104.5, 20, 1), (105.9, 30, 0), (106, 100, 1), (110, 300, 1)):
        run.add(PNG, ms=ms if at >= 104 else 1.0, at=at, right=right)
    run.add(PNG, ms=5.0, at=107, failure="status 503, expected 200", rejected=True)
    return run


def test_the_impact_on_benign_users_by_hand() -> None:
    run = attacked()
    run.add(PNG, ms=5.0, at=108, failure="no answer")
    run.add(Kind("benign", "digits-undefended", "image/png", 1), ms=7777.0, at=108, right=1)
    run.add(Kind("thief", "digits-edm", "knockoff", 64), ms=8888.0, at=108)
    attack = run.summary()["attack"]
    assert attack["before"] == {
        "seconds": 2.0,
        "requests": 3,
        "rejections": 0,
        "errors": 0,
        "accuracy": 2 / 3,
        "p50_ms": 20.0,
        "p95_ms": 29.0,  # 20 + .9 * 10
        "p99_ms": 29.8,
    }
    assert attack["during"] == {
        "seconds": 4.0,
        "requests": 4,
        "rejections": 1,
        "errors": 1,
        "accuracy": 1.0,
        "p50_ms": 200.0,
        "p95_ms": 290.0,
        "p99_ms": 298.0,
    }
    assert (attack["clients"], attack["dilution"], attack["stolen"], attack["sent"]) == (10, 50, 60, 120)


def test_being_slow_or_turned_away_during_an_attack_is_a_finding() -> None:
    run = attacked()
    run.limits = LoadTest(warm_up_s=2.0, p99_ms=50, benign_accuracy=0.5)
    assert run.broken() == []


def test_a_broken_answer_during_an_attack_is_a_fault_and_so_is_a_rejection_before_it() -> None:
    for at, rejected in ((107.0, False), (105.0, True)):
        run = attacked()
        run.add(PNG, ms=5.0, at=at, failure="status 503", rejected=rejected)
        assert [line for line in run.broken() if line.startswith("failure_ratio")]


def test_an_attack_that_did_not_begin_left_nothing_to_feel() -> None:
    run = filled(tally(), PNG, [10.0] * 3)
    run.attack = Attack("digits-edm", clients=1, dilution=0)
    attack = run.summary()["attack"]
    assert attack["during"]["requests"] == attack["before"]["requests"] == 0
    assert attack["during"]["p50_ms"] is attack["during"]["accuracy"] is None


def test_a_master_counts_what_its_workers_tell() -> None:
    thieving, other, alone = attacked(), filled(tally(p99_ms=50), RAW, [7.0] * 4), attacked()
    filled(alone, RAW, [7.0] * 4)
    for run in (other, alone):
        run.add(RAW, ms=8.0, at=105.5, hashes=5)
    thieving.errors.append("thief: unfinished")
    early = [thieving.news()]
    thieving.errors.clear()
    filled(thieving, NAN, [3.0])
    filled(alone, NAN, [3.0])
    master = tally(p99_ms=50)
    for news in ([*early, thieving.news()], [other.news()], []):
        master.hear(json.loads(json.dumps(news)))
    assert master.summary() == alone.summary()


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
