"""Rows of a gate's measurements that cannot be made."""

from __future__ import annotations

from typing import Any

import pytest

from report.schema import ResultError
from tests.report import synthetic


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        (synthetic.detection_row, {"auroc": 1.1}, "auroc: expected a fraction"),
        (synthetic.detection_row, {"kind": "magic"}, "kind: expected one of gate, outlier-exposure, disagreement"),
        (synthetic.false_positive_row, {"low": 0.02}, "expected low <= flagged <= high, got 0.02"),
        (synthetic.false_positive_row, {"high": 1.5}, "high: expected a fraction"),
        (synthetic.work_row, {"charged": -0.1}, "charged: expected a fraction"),
        (synthetic.work_row, {"hashes_per_s": 0.0}, "hashes_per_s: expected above 0"),
        (synthetic.gate_cost_row, {"rounds": 4}, "ratio_rounds: expected one of each of 4 rounds"),
        (synthetic.gate_precision_row, {"format": "int4"}, "format: expected one of float32"),
        (synthetic.gate_precision_row, {"us": None}, "expected a time, or a reason why there is none"),
        (synthetic.gate_precision_row, {"failed": "no kernel"}, "expected a time, or a reason why there is none"),
        (synthetic.gate_precision_row, {"auroc": {"knockoff": 90.0}}, "auroc: expected fractions"),
    ],
)
def test_rows_out_of_range_cannot_be_made(row: Any, changes: dict[str, Any], message: str) -> None:
    row()
    with pytest.raises(ResultError, match=message):
        row(**changes)


@pytest.mark.parametrize("percentiles", [[0.0] * 100, [1.0, *[0.0] * 100]])
def test_a_curve_has_a_hundred_and_one_rising_values(percentiles: list[float]) -> None:
    with pytest.raises(ResultError, match="percentiles: expected 101 rising values"):
        synthetic.curve_row("knockoff", 0, percentiles=percentiles)


def test_work_is_reported_in_seconds_too() -> None:
    assert synthetic.work_row(hashes_per_s=400.0).seconds(100.0) == 0.25
