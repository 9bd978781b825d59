from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from attest.campaign.exact import percentiles, wilson
from attest.campaign.verdict import verdict
from attest.measured import Consistency, Curve, Point, Resistance, Utility, Verdict

UTILITY = Utility(500, 0.9, 0.87, 0.92, 0.1, 0.12, 0.0, 0.0, 5.0, 9.0)
CONSISTENT = Consistency(20, 3, 1.0, 0.0, 3, 1.0, 0.001, "deterministic")


def curve(accuracy: float, *, floor: float | None = None, spread: float = 0.02, ended: str = "budget") -> Curve:
    point = Point(900, accuracy, accuracy - spread, accuracy + spread, accuracy, 0, 1.8, "sgd")
    return Curve("knockoff", "knockoff", None, "soft", None, 0, floor, (point,), ended)


def judge(*curves: Curve, queries: int = 1000, stopped: str | None = None, **changes: Any) -> Verdict:
    parts = {"utility": UTILITY, "consistency": CONSISTENT, "resistance": Resistance(), **changes}
    return verdict(
        parts["utility"], parts["consistency"], parts["resistance"], curves,
        queries=queries, budget=1000, stopped=stopped,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("accuracy", "word", "share", "confident"),
    [
        (0.88, "copied", 0.975, True),  # (0.88 - 0.1) / (0.9 - 0.1)
        (0.81, "partly copied", 0.8875, False),
        (0.60, "partly copied", 0.625, True),
        (0.20, "not copied", 0.125, True),
        (0.05, "not copied", 0.0, True),
    ],
)
def test_a_verdict_is_the_share_of_what_the_service_has_above_the_floor(
    accuracy: float, word: str, share: float, confident: bool
) -> None:
    found = judge(curve(0.15), curve(accuracy))
    if accuracy > 0.15:
        assert (found.word, found.bought, found.confident) == (word, share, confident)
    assert found.word == word
    assert found.best == "knockoff"


def test_what_a_thief_had_already_was_not_bought() -> None:
    assert judge(curve(0.8, floor=0.8)).bought == 0
    assert judge(curve(0.85, floor=0.8)).bought == 0.5


def test_the_worst_thief_for_the_owner_decides() -> None:
    assert judge(curve(0.2), curve(0.88), curve(0.5)).word == "copied"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"utility": {"accuracy": 0.11, "low": 0.08, "high": 0.14}}, "no better than a constant answer (10.0%)"),
        ({"utility": {"largest": 1.0}}, "100% of the answers name the same class"),
        ({"utility": {"failed": 0.1}}, "10% of the owner's images got no answer through the service's fault"),
        ({"consistency": {"same_label": 0.2, "kind": "unstable labels"}}, "another label 80% of the time"),
        ({"resistance": {"failed": 100}}, "10% of the queries ended in a server's error"),
        ({"resistance": {"dropped": 80}}, "8% of the queries got no whole answer in time"),
        ({"resistance": {"redirected": 990}}, "99% of the queries were redirected elsewhere"),
        ({"resistance": {"unread": 60}}, "6% of the queries got an answer that is not what the target file says"),
    ],
)
def test_a_service_that_lies_or_fails_has_no_grade(changes: dict[str, dict[str, Any]], said: str) -> None:
    whole = {"utility": UTILITY, "consistency": CONSISTENT, "resistance": Resistance()}
    parts = {name: dataclasses.replace(whole[name], **each) for name, each in changes.items()}  # type: ignore[type-var]
    found = judge(curve(0.1), **parts)
    assert found.word == "no verdict"
    assert found.bought is None
    assert any(said in reason for reason in found.reasons)
    assert found.sentence.startswith("No verdict: ")


def test_a_campaign_that_could_not_spend_its_budget_calls_nothing_safe() -> None:
    why = "the service asks to wait 3600 s"
    assert judge(curve(0.2, ended="stopped"), queries=300, stopped=why).word == "no verdict"
    # but what was copied with less was copied
    found = judge(curve(0.88, ended="stopped"), queries=300, stopped=why)
    assert found.word == "copied"
    assert found.reasons == (f"the campaign ended early: {why}",)


def test_without_a_clone_there_is_no_verdict() -> None:
    assert judge().reasons == ("no thief got enough answers to train a clone",)


def test_the_interval_of_a_share() -> None:
    low, high = wilson(0.5, 100)  # Wilson's own: 0.404, 0.596
    assert (round(low, 3), round(high, 3)) == (0.404, 0.596)
    assert wilson(1.0, 20)[1] == pytest.approx(1)
    assert 0.8 < wilson(1.0, 20)[0] < 0.9
    assert wilson(0.0, 0) == (0, 1)


def test_percentiles_of_times() -> None:
    assert percentiles([]) == (0, 0)
    assert percentiles([1.0, 2.0, 3.0]) == (2.0, 2.98)
