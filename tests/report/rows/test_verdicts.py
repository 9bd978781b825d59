"""Verdicts, doors and balance of rows that have few words or numbers."""

from __future__ import annotations

import pytest

from report.rows.bounds import Bound
from report.rows.controls import ControlRow
from report.rows.routing import entropy
from report.rows.selftest import Finding
from report.schema import ResultError


def test_a_bound_holds_up_to_its_limit_and_needs_a_value() -> None:
    assert [Bound("x", measured, 8).met for measured in (0, 8, 8.1, None)] == [True, True, False, False]


def test_an_unknown_verdict_cannot_be_made() -> None:
    with pytest.raises(ResultError, match="verdict: expected one of caught, missed, broken, failing, late, got 'fine'"):
        ControlRow("limits", "the limit", "a.py", ("tests/a.py::test_a",), 1.0, 1.0, "fine", "")
    with pytest.raises(
        ResultError, match="verdict: expected one of stopped, let through, warning, does not apply, not"
    ):
        Finding("limits", "(server)", "a request", "429", "429", "fine")


def test_balance_is_one_for_equal_shares_and_zero_for_one_member() -> None:
    assert entropy([5, 5, 5]) == pytest.approx(1)
    assert entropy([15, 0, 0]) == 0
    assert 0 < entropy([10, 4, 1]) < 1
