"""Delays measured for moments, on a real server, and held against the first."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import delays
from report.rows.bench import BenchRow
from report.schema import read
from tests.conftest import RECIPE, Smoke


@pytest.mark.server
def test_each_delay_is_measured_and_none_costs_a_lone_client_less(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "delays.json"
    command = ["delays", str(RECIPE), "--store", str(smoke.store), "--rounds", "2", "--seconds", "0.3"]
    monkeypatch.setattr(sys, "argv", [*command, "--output", str(output)])
    monkeypatch.setattr(delays, "WARM_S", 2.0)
    monkeypatch.setattr(delays, "ROWS", 4)
    # far apart, so that a busy machine does not matter
    monkeypatch.setattr(delays, "DELAYS_MS", (200, 0))
    delays.main()
    rows = read(output).bench
    assert [(row.clients, row.max_batch_delay_ms) for row in rows] == [
        (clients, delay) for clients in delays.CLIENTS for delay in (200, 0)
    ]
    slow, fast = rows[:2]
    assert fast.p50_ms < 200 <= slow.p50_ms
    assert capsys.readouterr().out.splitlines()[:-1] == list(delays.compared(rows))


def test_rates_are_held_against_the_first_delay_round_by_round() -> None:
    facts = {"policy": "undefended", "architecture": "x", "path": "http", "batch": 1, "clients": 8, "p99_ms": 9.0}
    facts |= {"rss_mb": None, "study": "settings", "p50_ms": 4.0, "rows_per_s": 20.0}
    before = BenchRow(**facts, max_batch_delay_ms=2, p50_rounds=(4.0, 4.0, 2.0), rate_rounds=(10.0, 20.0, 40.0))
    now = BenchRow(**facts, max_batch_delay_ms=0, p50_rounds=(2.0, 1.0, 4.0), rate_rounds=(20.0, 30.0, 20.0))
    assert list(delays.compared([before, now]))[1] == (
        "8 clients, 0 ms: 20 rows/s, 1.500 times (0.500 to 2.000); p50 4.00 ms, 0.500 times"
    )
