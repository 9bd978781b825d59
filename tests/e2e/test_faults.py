"""Real faults on real servers, once each and briefly; `make faults` measures the same functions longer and again.

Each fault states what it promises (assurance/faults); here every promise must be kept.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from assurance.faults import clock_jumped, plan, start_refused
from assurance.faults.hostile_client import Pace
from assurance.faults.plan import Effort, Subjects
from deploy import java
from handlers.key import make_key
from report.rows.faults import FaultRow
from tests.conftest import Smoke
from zoo import datasets

pytestmark = pytest.mark.drill

EFFORT = Effort(clients=8, patience_s=10.0, settle_s=1.0)
ON_A_SERVER = (
    ("worker_killed", "one worker"),
    ("worker_killed", "one of two workers"),
    ("waiting_worker_killed", "nothing to do"),
    ("waiting_worker_killed", "gathering a batch"),
    ("worker_stalled", "one worker"),
    ("one_solution_twice", "two workers"),
    ("store_full", "no write succeeds"),
    ("redis_gone", "killed"),
    ("redis_gone", "frozen"),
    ("redis_failover", "primary killed"),
    ("redis_failover", "primary cut off"),
    ("frontend_killed", "and started again"),
    ("server_terminated", "without a gateway"),
    ("server_terminated", "behind the gateway"),
)

Measured = dict[tuple[str, str], FaultRow]


@pytest.fixture(scope="module")
def subjects(smoke: Smoke, gated: Smoke) -> Subjects:
    return Subjects(
        plain=smoke.archive("undefended"),
        gated=gated.archive("same-pow"),
        benign=datasets.load("digits", "test").pixels[:16].numpy(),
        suspect=datasets.load("flower", "train").pixels[:60].numpy(),
        java=java.find(),
    )


@pytest.fixture(scope="module")
def on_a_server(subjects: Subjects, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    folder = tmp_path_factory.mktemp("faults")
    with plan.stage(subjects, folder, folder / "run", EFFORT) as start:
        yield {(row.fault, row.case): row for row in start().rows(0)}


def test_every_fault_of_a_round_is_measured(on_a_server: Measured) -> None:
    assert tuple(on_a_server) == ON_A_SERVER


@pytest.mark.parametrize(("fault", "case"), ON_A_SERVER)
def test_a_fault_costs_no_more_than_is_promised(on_a_server: Measured, fault: str, case: str) -> None:
    row = on_a_server[fault, case]
    assert not row.broken
    if row.struck is not None and fault not in ("frontend_killed", "server_terminated"):
        assert row.struck.right, "a fault without traffic would promise nothing"


def test_requests_of_a_batch_that_was_being_gathered_are_never_answered(on_a_server: Measured) -> None:
    """The limit that the page states; if TorchServe ever answers them, the advice on patience can go."""
    row = on_a_server["waiting_worker_killed", "gathering a batch"]
    assert row.struck is not None
    assert row.struck.count("lost") == row.facts["batch"] - 1  # type: ignore[operator]
    assert row.struck.right == row.facts["batch"] - 1  # type: ignore[operator]


def test_solutions_of_a_life_pay_where_it_goes_on_and_nowhere_else(on_a_server: Measured) -> None:
    spent, paid = "403 solution_spent", "200"
    fact = "the first life's unspent one, after each change"
    assert on_a_server["redis_failover", "primary killed"].facts[fact] == f"{spent}, {spent}"
    assert on_a_server["redis_failover", "primary cut off"].facts[fact] == f"{spent}, {paid}, {spent}"


def test_the_audit_log_says_so_when_it_cannot_be_written(on_a_server: Measured) -> None:
    assert on_a_server["store_full", "no write succeeds"].facts["audit lines counted as failed"] > 0  # type: ignore[operator]


@pytest.mark.alone
def test_a_clock_that_jumps_lets_no_solution_pay_twice(
    subjects: Subjects, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = list(plan.with_a_clock(subjects, tmp_path_factory.mktemp("clock"), EFFORT, run=0))
    assert [row.case for row in rows] == [clock_jumped.AHEAD, clock_jumped.BEHIND]
    assert not [line for row in rows for line in row.broken]


def test_of_many_at_once_one_solution_pays_for_one(on_a_server: Measured) -> None:
    facts = on_a_server["one_solution_twice", "two workers"].facts
    assert facts["workers"] == 2
    assert facts["refused as spent"] == facts["rounds"] * (facts["requests a round"] - 1)  # type: ignore[operator]


def test_what_a_worker_had_that_hangs_gets_an_error(on_a_server: Measured) -> None:
    """TorchServe kills it, which answers its batch; a worker that woke up again by itself would answer it right."""
    assert on_a_server["worker_stalled", "one worker"].facts["answered with an error"] > 0  # type: ignore[operator]


def test_a_hostile_client_costs_others_no_answer(subjects: Subjects, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What it costs them in time is measured where nothing else runs; that it is held back is seen here."""
    folder = tmp_path_factory.mktemp("hostile")
    with contextlib.closing(
        plan.with_a_hostile_client(subjects, folder, EFFORT, Pace(rounds=1, phase_s=5.0), run=0)
    ) as rows:
        limited = next(rows)
    promised = {bound.what: bound for bound in limited.bounds}
    slower = [what for what in promised if what.startswith("median latency")]
    assert [promised.pop(what).limit for what in slower] == [1.25, 1.25]
    assert all(bound.met for bound in promised.values())
    assert limited.facts["hostile requests a second"] > 50  # type: ignore[operator]
    responses = str(limited.facts["hostile requests"])
    assert "cut" in responses or "429 too_many_requests" in responses


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_costs_no_more_than_is_promised(
    subjects: Subjects, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = list(plan.on_a_small_disk(subjects, tmp_path_factory.mktemp("disk"), EFFORT, run=0))
    if not rows:
        pytest.skip("this root may not mount a small disk")
    assert not rows[0].broken


@pytest.mark.parametrize("case", ["damaged archive", "no key", "world-readable key"])
def test_a_start_that_cannot_be_right_is_refused(subjects: Subjects, tmp_path: Path, case: str) -> None:
    row = start_refused.measure(subjects.gated, tmp_path, case, run=0)
    assert not row.broken


def test_a_start_that_is_not_refused_breaks_the_promise(
    subjects: Subjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(archive: Path, key: Path) -> tuple[Path, str]:
        other = key.with_name("other.key")
        make_key(other)
        return other, str(archive)

    monkeypatch.setitem(start_refused.CASES, "nothing at all", nothing)
    try:
        row = start_refused.measure(subjects.gated, tmp_path, "nothing at all", run=0)
    finally:
        start_refused.Instance("refused", tmp_path, (subjects.gated,)).stop()
    kept = {bound.what: bound.met for bound in row.bounds}
    assert not kept["starts that ended well"]
    assert not kept["processes left running"]
