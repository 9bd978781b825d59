"""What became of requests, worked out by hand, and the tools of faults; the faults are in tests/e2e/test_faults.py."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import redis

from assurance import faults
from assurance.faults import redis_failover
from assurance.faults.clients import Answer, Client, Door, FaultError
from assurance.faults.clock import Clock
from assurance.faults.disk_full import Ballast, mounted
from assurance.faults.figures import Outcome, impact
from assurance.faults.payers import Payer, Solved
from bench.redis_server import RedisServer, free_port, replica_of
from report.fields import ResultError
from report.rows.bounds import Bound
from report.rows.faults import CUT, LOST, RIGHT, WRONG, FaultRow
from report.schema import Report, read, write
from tests.report import synthetic

CHECKOUT = Path(__file__).resolve().parents[3]


def outcome(begun: float, ended: float, what: str = RIGHT) -> Outcome:
    return Outcome("digits", begun, ended, what)


STORY = [
    outcome(0.0, 0.9),  # before the fault
    outcome(0.8, 1.2),  # under way, and answered
    outcome(0.9, 11.0, LOST),
    outcome(0.95, 1.1, "500 of TorchServe"),
    outcome(1.3, 3.5),
    outcome(2.0, 2.0, CUT),
    outcome(3.6, 3.8),
]


def test_the_impact_on_clients_is_counted_from_the_fault_on() -> None:
    seen = impact(STORY, 1.0, 5.0, clients=2)
    assert (seen.sent, seen.right, seen.clients) == (6, 3, 2)
    assert seen.others == {LOST: 1, CUT: 1, "500 of TorchServe": 1}
    assert seen.count(LOST, CUT, WRONG) == 2
    assert seen.gap_s == 2.3
    # begun at 3.6, after the last that failed had begun; one begun at 1.3 was answered too, but then came a cut
    assert seen.back_s == 2.8
    assert (seen.p50_ms, seen.slowest_ms) == (400.0, 2200.0)


def test_nobody_is_back_while_requests_still_fail() -> None:
    seen = impact([outcome(1.5, 1.6), outcome(2.0, 2.1, CUT)], 1.0, 3.0, clients=1)
    assert seen.back_s is None
    assert seen.gap_s == 1.4
    assert impact([], 1.0, 3.0, clients=1).gap_s == 2.0


def test_a_bound_is_broken_by_more_and_by_nothing_at_all() -> None:
    bounds = (Bound("lost", 8, 8), Bound("wrong", 1, 0), Bound("seconds until it is back", None, 10))
    row = FaultRow("worker_killed", "one worker", 2, impact(STORY, 1.0, 5.0, clients=2), None, bounds)
    assert row.broken == [
        "worker_killed (one worker, run 2): wrong: expected at most 0, got 1",
        "worker_killed (one worker, run 2): seconds until it is back: expected at most 10, got none at all",
    ]


def test_a_row_survives_its_file(tmp_path: Path) -> None:
    seen = impact(STORY, 1.0, 5.0, clients=2)
    row = FaultRow("worker_killed", "one worker", 0, seen, None, (Bound("lost", 0, 0),), {"batch": 8.0, "stated": None})
    report = Report(synthetic.RUN, faults=(row,))
    write(tmp_path / "faults.json", report)
    assert read(tmp_path / "faults.json") == report


def test_a_row_without_bounds_promises_nothing() -> None:
    with pytest.raises(ResultError, match="expected bounds, got none"):
        FaultRow("worker_killed", "one worker", 0, None, None, ())


def test_every_fault_is_described_on_the_page() -> None:
    described = (CHECKOUT / "report/pages/resilience.md.j2").read_text()
    found = []
    for module in pkgutil.iter_modules(faults.__path__):
        if module.name != "__main__":
            fault = importlib.import_module(f"assurance.faults.{module.name}")
            # what measures a fault is `measure`, and its name is the row's
            if hasattr(fault, "measure"):
                found.append(module.name)
    assert len(found) >= 10
    assert [name for name in found if f"`{name}`" not in described] == []


def test_a_redis_is_killed_frozen_and_comes_back_empty(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    client = redis.Redis.from_url(server.url, socket_timeout=0.3)
    try:
        client.set("a", 1)
        server.freeze()
        with pytest.raises(redis.TimeoutError):
            client.get("a")
        server.thaw()
        assert client.get("a") == b"1"
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.get("a")
        server.start()
        assert client.get("a") is None
    finally:
        client.close()
        server.close()


def test_a_replica_takes_its_primary_s_place_and_gives_it_back(tmp_path: Path) -> None:
    with contextlib.closing(RedisServer(tmp_path)) as primary:
        primary.start()
        address, client = primary.port, redis.Redis.from_url(primary.url)
        primary.client.set("a", 1)
        (tmp_path / "replica").mkdir()
        with contextlib.closing(client), replica_of(primary, tmp_path / "replica") as replica:
            with pytest.raises(redis.ReadOnlyError):
                replica.client.set("a", 2)
            replica.promote()
            primary.move(free_port())
            replica.move(address)
            client.set("a", 2)
            assert (primary.client.get("a"), replica.client.get("a")) == (b"1", b"2")
            replica.move(free_port())
            primary.move(address)
            assert client.get("a") == b"1"


def test_every_time_that_a_solution_pays_is_counted() -> None:
    """A model that takes each solution three times; only the client is a stand-in."""

    class Gullible(Payer):
        tries = 0

        def solved(self) -> Solved:
            return Solved(np.zeros((1, 2, 2), np.float32), "", 0.0)

        def spend(self, solved: Solved) -> Answer:
            self.tries += 1
            return Answer(200, b"", "", 0.0)

    client = Client(Door("http://127.0.0.1:1", {}), patience_s=1.0)
    purse = redis_failover.Purse(Gullible(client, "digits", np.zeros((1, 1, 2, 2), np.float32)))
    saved = purse.fill()
    assert sorted(purse.paid.values()) == [0, 1]
    purse.spend_all()
    assert sorted(purse.paid.values()) == [2, 3]
    assert purse.paid[saved] == 2


def test_a_clock_moves_for_who_was_started_under_it_and_for_nobody_else(tmp_path: Path) -> None:
    """Python in Java's place: what is started through the wrapper reads the moved clock, its monotonic one aside."""
    clock = Clock(tmp_path, Path(sys.executable))
    program = "import time; print(time.time(), time.monotonic())"

    def read() -> tuple[float, float]:
        seen = subprocess.run([clock.java, "-c", program], capture_output=True, text=True, check=True).stdout.split()
        return float(seen[0]), float(seen[1])

    assert abs(read()[0] - time.time()) < 5
    clock.jump(3600)
    moved, monotonic = read()
    assert abs(moved - time.time() - 3600) < 5
    assert abs(monotonic - time.monotonic()) < 5
    clock.jump(0)
    assert abs(read()[0] - time.time()) < 5


def test_a_small_disk_is_filled_and_emptied(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk") as possible:
        if not possible:
            pytest.skip("this user may not mount a small disk")
        file, ballast = tmp_path / "disk" / "file", Ballast(tmp_path / "disk" / "ballast")
        ballast.take()
        with pytest.raises(OSError, match="No space left"):
            file.write_text("x" * 8192)
        ballast.give()
        file.write_text("x" * 8192)
        ballast.close()
    assert not file.exists()


def test_without_the_library_a_clock_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assurance.faults.clock.PLACES", ("/nowhere/libfaketime*.so.1",))
    with pytest.raises(FaultError, match="apt-get install faketime"):
        Clock(tmp_path, Path(sys.executable))
