"""What an attest says of controls: each state by what was seen, and nothing good without a verdict."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from attest.measured import Resistance
from attest.report.controls import STATES, controls
from tests.attest.synthetic import curve, made

NAMES = (
    "AML.T0024.002",
    "AML.M0002",
    "AML.M0004",
    "AML.M0015",
    "AML.M0024",
    "ML05:2023",
    "11.2.2",
    "11.3.1",
    "11.3.2",
    "11.3.3",
    "11.3.4",
    "12.2.4",
)
HELD = (curve("knockoff", 0.13, 0.14), curve("jbda", 0.2, 0.21, no_query_accuracy=0.15), curve("dfme", 0.11, 0.11))
SOFT, HARD = curve("knockoff", 0.5), curve("knockoff (label-only)", 0.4, labels="hard")
NEVER = Resistance()


def states(**fields: Any) -> dict[str, str]:
    return {row.name: row.state for row in controls(made(**fields))}


def test_every_control_has_a_row_a_state_and_a_reason() -> None:
    rows = controls(made())
    assert tuple(row.name for row in rows) == NAMES
    assert all(row.state in STATES and row.why for row in rows)


def test_without_a_verdict_nothing_is_tested() -> None:
    assert set(states(resistance=Resistance(failed=5000, throttled=100, throttled_after=1)).values()) == {"not tested"}


@pytest.mark.parametrize(
    ("curves", "state"),
    [(HELD, "passed"), ((SOFT,), "partly"), (made().curves, "failed")],
    ids=["held", "partly", "copied"],
)
def test_the_technique_is_what_the_verdict_says(curves: Any, state: str) -> None:
    found = states(curves=curves)
    assert (found["AML.T0024.002"], found["ML05:2023"]) == (state, state)


@pytest.mark.parametrize(
    ("scale", "curves", "state"),
    [
        ("label", (SOFT,), "passed"),
        ("probabilities", (SOFT,), "failed"),
        ("probabilities", (SOFT, HARD), "failed"),
        ("logits", (SOFT, HARD), "failed"),
        ("top-k", (SOFT, HARD), "partly"),
        ("probabilities", (SOFT, curve("knockoff (label-only)", 0.49, labels="hard")), "passed"),
    ],
)
def test_numbers_are_judged_by_what_they_are_worth(scale: str, curves: Any, state: str) -> None:
    found = states(curves=curves, target=dataclasses.replace(made().target, scale=scale))
    assert (found["AML.M0002"], found["11.3.2"]) == (state, state)


def test_numbers_are_compared_within_one_thief_at_equal_queries() -> None:
    """A thief that was dropped early says nothing of the numbers that another went on with."""
    dropped = curve("knockoff (label-only)", 0.1, labels="hard")
    dropped = dataclasses.replace(dropped, points=(dataclasses.replace(dropped.points[0], queries=2500),))
    found = {row.name: row for row in controls(made(curves=(curve("knockoff", 0.11, 0.4, 0.5, 0.6), dropped)))}
    assert (found["AML.M0002"].state, "+1.0 points" in found["AML.M0002"].why) == ("passed", True)
    other = {row.name: row for row in controls(made(curves=(curve("jbda", 0.5), dropped)))}
    assert "was not measured" in other["11.3.2"].why


THROTTLED = Resistance(throttled=10, throttled_after=5, waited_s=3.0)
FLAGGED = Resistance(flagged=10, flagged_after=5)
REFUSED = Resistance(refused=10, refused_after=5)
WORK = Resistance(challenges=10, challenged_after=5, hashes=1e6)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (
            NEVER,
            {
                "AML.M0004": "failed",
                "11.2.2": "failed",
                "11.3.4": "failed",
                "11.3.1": "not tested",
                "AML.M0015": "not tested",
            },
        ),
        (THROTTLED, {"AML.M0004": "passed", "11.2.2": "partly", "11.3.4": "passed", "11.3.1": "not tested"}),
        (FLAGGED, {"AML.M0004": "failed", "11.3.4": "partly", "11.3.1": "passed", "AML.M0015": "passed"}),
        (REFUSED, {"AML.M0004": "passed", "11.3.4": "passed", "11.3.1": "passed"}),
        (WORK, {"AML.M0004": "passed", "11.3.4": "passed", "11.3.1": "passed"}),
    ],
    ids=["never", "throttled", "flagged", "refused", "work"],
)
def test_responses_that_held(seen: Resistance, expected: dict[str, str]) -> None:
    assert states(curves=HELD, resistance=seen).items() >= expected.items()


def test_limits_within_which_it_was_copied_were_not_sized() -> None:
    found = states(resistance=THROTTLED)
    assert (found["AML.M0004"], found["11.2.2"], found["11.3.4"]) == ("partly", "failed", "partly")


def test_what_no_client_sees_is_never_passed() -> None:
    for seen in (NEVER, THROTTLED, FLAGGED, REFUSED, WORK):
        found = states(curves=HELD, resistance=seen)
        assert {found[name] for name in ("AML.M0024", "11.3.3", "12.2.4")} == {"not tested"}
