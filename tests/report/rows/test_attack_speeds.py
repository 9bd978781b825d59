"""Rates of the attacks, worked out by hand."""

from __future__ import annotations

import pytest

from report.rows.attack_speeds import AttackSpeedRow
from report.schema import ResultError


def test_rates_follow_from_what_was_measured() -> None:
    row = AttackSpeedRow("mnist", "undefended", "knockoff", "lenet5", 2, 0, 500, 2.0, 3.0, 1.0, 4.0)
    assert row.queries_per_s == 250
    assert row.of_an_epoch == 0.5
    assert str(row).startswith("knockoff   500 queries, 250/s (6.000 ms CPU each), 0.50 of an epoch of training")
    with pytest.raises(ResultError, match="queries, seconds: expected above 0, got 0, "):
        AttackSpeedRow("mnist", "undefended", "dfme", "lenet5", 2, 0, 0, 2.0, 3.0, 1.0, None)
