"""Rows of members, shifts and ensembles' costs: what they refuse, their ratios, and what they replace in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from report.rows.members import EnsembleCostRow, ShiftRow
from report.schema import Report, ResultError, merge, read
from tests.report.synthetic import RUN, ensemble_cost_row, member_row, shift_row


def cost_row(**changes: Any) -> EnsembleCostRow:
    """Averaged; in the second round the machine was twice as slow."""
    plain: dict[str, Any] = {
        "ms": 7.0,
        "ms_rounds": (6.0, 14.0, 7.0),
        "members_ms_rounds": {"misleader-0": (2.0, 4.0, 2.0), "misleader-1": (4.0, 8.0, 4.0)},
    }
    return ensemble_cost_row(**{**plain, **changes})


def routed_row(**changes: Any) -> EnsembleCostRow:
    """The same routed, measured in the same rounds."""
    plain: dict[str, Any] = {
        "policy": "misleader-routed",
        "ms": 3.5,
        "ms_rounds": (3.0, 7.0, 3.5),
        "routed_ms_rounds": {"misleader-0": (2.5, 5.0, 2.5), "misleader-1": (4.2, 8.8, 4.4)},
        "hash_ms_rounds": (0.1, 0.2, 0.1),
    }
    return cost_row(**{**plain, **changes})


def test_ratios_are_taken_inside_a_round() -> None:
    averaged, routed = cost_row(), routed_row()
    assert averaged.dearest == routed.dearest == "misleader-1"
    assert averaged.times == pytest.approx(1.75)
    assert averaged.dearest_times is None
    assert routed.times == pytest.approx(0.875)
    assert routed.dearest_times == pytest.approx(1.1)
    assert routed.over(averaged) == pytest.approx(0.5)


def test_a_dearest_member_that_is_never_met_has_no_time_of_its_rows() -> None:
    row = routed_row(members_met=1, routed_ms_rounds={"misleader-0": (2.5, 5.0, 2.5)})
    assert row.dearest_times is None


@pytest.mark.parametrize("changes", [{"recipe": "mnist"}, {"batch": 1}])
def test_rows_that_were_not_measured_side_by_side_have_no_ratio(changes: dict[str, Any]) -> None:
    with pytest.raises(ResultError, match="expected rows of one recipe, batch and run"):
        routed_row(**changes).over(cost_row())


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        (member_row, {"alpha": 1.5}, r"alpha: expected a fraction in \[0, 1\], got 1.5"),
        (member_row, {"attacker_agreement": -0.1}, "attacker_agreement: expected a fraction"),
        (member_row, {"temperature": 0.0}, "expected temperature > 0 and lambda_attacker >= 0, got 0.0 and 0.05"),
        (member_row, {"lambda_attacker": -0.1}, "got 2.0 and -0.1"),
        (shift_row, {"kept": 2.0}, "kept: expected a fraction"),
        (cost_row, {"architectures": ("small",)}, "expected a time of each of 1 members, got misleader-0, misleader-1"),
        (cost_row, {"ms_rounds": (6.0,)}, "expected every graph's time and the policy's in every round"),
        (cost_row, {"hash_ms_rounds": (6.0,)}, "expected every graph's time"),
        (cost_row, {"ms_rounds": (), "members_ms_rounds": {"a": (), "b": ()}}, "expected every graph's time"),
        (routed_row, {"routed_ms_rounds": {"misleader-0": (1.0,)}}, "expected every graph's time"),
    ],
)
def test_rows_out_of_range_cannot_be_made(row: Any, changes: dict[str, Any], message: str) -> None:
    row()
    with pytest.raises(ResultError, match=message):
        row(**changes)


def test_new_rows_replace_their_scope(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    first = Report(
        RUN,
        members=(member_row(), member_row(member=1), member_row(predictor="distilled")),
        shifts=(shift_row(), shift_row(shift=ShiftRow.TRAINED), shift_row(policy="undefended")),
        ensemble_costs=(cost_row(), routed_row(), cost_row(batch=1)),
    )
    assert merge(path, first) == read(path) == first
    # a policy timed by itself keeps none that it was not timed with
    merge(path, Report(RUN, members=(member_row(),), shifts=(shift_row(ece=None),), ensemble_costs=(cost_row(),)))
    merged = read(path)
    assert [(row.predictor, row.member) for row in merged.members] == [("distilled", 0), ("misleader", 0)]
    assert [(row.policy, row.shift) for row in merged.shifts] == [("undefended", "none"), ("misleader", "none")]
    assert [(row.policy, row.batch) for row in merged.ensemble_costs] == [("misleader", 1), ("misleader", 8)]
