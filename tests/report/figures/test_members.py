"""Every thief, part, shift and policy is drawn, and always in the same way."""

from __future__ import annotations

from report.figures import members
from tests.report.synthetic import shift_row

THIEVES = ["knockoff, soft", "dfme, soft"]
CHANGES = {
    "distilled → misleader": {"knockoff, soft": (-0.1, True), "dfme, soft": (0.02, False)},
    "misleader → misleader-routed": {"knockoff, soft": (0.0, True)},
}


def test_changes_name_every_thief_and_comparison() -> None:
    drawn, again = (members.changes(CHANGES, thieves=THIEVES, even=1.0) for _ in range(2))
    for name in (*THIEVES, *CHANGES):
        assert f"<!-- {name} -->" in drawn
    assert again == drawn


def test_a_thief_with_nothing_to_take_is_hollow() -> None:
    full, hollow = (
        members.changes({"misleader": {"dfme, soft": (0.02, counted)}}, thieves=["dfme, soft"], even=1.0)
        for counted in (True, False)
    )
    assert hollow.count("fill-opacity: 0;") > full.count("fill-opacity: 0;")


def test_shifts_name_every_policy_and_shift() -> None:
    rows = [
        shift_row(policy=policy, shift=shift, accuracy=accuracy)
        for shift, accuracy in (("none", 0.99), ("moved 3 pixels", 0.9))
        for policy in ("undefended", "misleader")
    ]
    drawn = members.shifts(rows)
    for name in ("none", "moved 3 pixels", "undefended", "misleader"):
        assert f"<!-- {name} -->" in drawn
    assert members.shifts(rows) == drawn
