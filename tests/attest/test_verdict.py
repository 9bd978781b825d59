"""The verdict: every threshold from both sides, and no good word for an endpoint that lies."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from attest import verdict
from attest.measured import Felt, LedgerFacts, Resistance
from tests.attest.synthetic import QUERIES, curve, made
from tests.pages import text

MADE = made()
HELD = (curve("knockoff", 0.13, 0.14), curve("jbda", 0.2, 0.21, no_query_accuracy=0.15), curve("dfme", 0.11, 0.11))


def utility(**changed: Any) -> Any:
    return dataclasses.replace(MADE.utility, **changed)


def ledger(queries: int = QUERIES, lost: int = 0) -> LedgerFacts:
    return LedgerFacts(queries, "0" * 64, queries, lost)


def test_the_formula_by_hand() -> None:
    """service 0.9, constant 0.1: 0.5 is half of what there was to buy. What a thief had before is its own."""
    found = made(
        utility=utility(accuracy=0.9, low=0.88, high=0.92, majority=0.1),
        curves=(
            curve("knockoff", 0.3, 0.5, no_query_accuracy=None),
            curve("in-distribution", 0.7, no_query_accuracy=0.6),
        ),
    )
    first, half, owned = verdict.bought(found)
    assert (first.floor, owned.floor) == (0.1, 0.6)
    assert [round(each.share, 6) for each in (first, half, owned)] == [0.25, 0.5, 0.333333]
    assert (round(half.low, 6), round(half.high, 6)) == (0.475, 0.525)
    assert (found.verdict.word, found.verdict.best) == ("partly copied", "knockoff")
    assert found.verdict.sentence == (
        "Partly copied: knockoff (soft labels) made a clone that is right on 50.0 %, where the service is on 90.0 %, "
        "with 10\u202f000 queries for 12.00 EUR. That is 50.0 % of what there was to buy."
    )


@pytest.mark.parametrize(
    ("share", "word"),
    [
        (1.1, "copied"),
        (0.8, "copied"),
        (0.799, "partly copied"),
        (0.3, "partly copied"),
        (0.299, "not copied"),
        (-1, "not copied"),
    ],
)
def test_words_change_at_their_thresholds(share: float, word: str) -> None:
    assert verdict.word_of(share) == word


def test_the_best_of_all_clones_counts_not_the_last_one() -> None:
    assert made(curves=(curve("knockoff", 0.96, 0.2), *HELD)).verdict.word == "copied"


def test_a_copy_is_first_had_at_the_fewest_queries() -> None:
    first = verdict.first(MADE, verdict.BY.copied)
    assert first is not None
    assert (first.curve.thief, first.point.queries) == ("in-distribution", 5000)
    assert verdict.first(made(curves=HELD), verdict.BY.copied) is None


# an endpoint that lies or fails, in as many ways: each of its own, with thieves that got nothing
LIES: dict[str, tuple[dict[str, Any], str]] = {
    "random labels": (
        {"utility": utility(accuracy=0.1, low=0.09, high=0.11, largest=0.12)},
        "random answers, wrong classes or wrong preprocessing",
    ),
    "always the same": (
        {"utility": utility(accuracy=0.114, low=0.1, high=0.13, largest=1.0)},
        "100.0 % of the answers have one label",
    ),
    "another label each time": (
        {"consistency": dataclasses.replace(MADE.consistency, same_label=0.8, kind="unstable labels")},
        "the same picture gets another label in 20.0 % of repeats",
    ),
    "another label for what looks the same": (
        {"consistency": dataclasses.replace(MADE.consistency, near_same_label=0.8, kind="keyed")},
        "20.0 % of copies that differ by one level in one value get another label",
    ),
    "right for a while": (
        {"felt": (Felt("quiet", 100, 0.0, 0.98, 8.0, 20.0), Felt("campaign", 100, 0.0, 0.7, 8.0, 20.0))},
        "beside the campaign the service was right on 70.0 % of the owner's other images that it answered, on 98.5 %",
    ),
    "right on the exam alone": (
        {"felt": (Felt("quiet", 100, 0.0, 0.1, 8.0, 20.0), Felt("campaign", 0, 0.0, 0.0, 8.0, 20.0))},
        "before the campaign the service was right on 10.0 % of the owner's other images that it answered, on 98.5 %",
    ),
    "a tenth fails": ({"resistance": Resistance(failed=1000)}, "10.0 % of the campaign's queries failed"),
    "drops connections": ({"resistance": Resistance(dropped=600)}, "no whole answer 600"),
    "cannot be read": ({"resistance": Resistance(unread=600)}, "unreadable 600"),
    "fails on the exam": ({"utility": utility(failed=0.1)}, "the service failed on 10.0 % of the owner's images"),
    "refuses the exam": ({"utility": utility(refused=0.3)}, "the service refused 30.0 % of the owner's own images"),
    "redirects": ({"resistance": Resistance(redirected=101)}, "101 answers sent the campaign elsewhere"),
    "throttles everything": ({"resistance": Resistance(throttled=QUERIES - 99)}, "99 queries were answered or refused"),
    "is too slow to be asked": (
        {"ledger": ledger(99), "resistance": Resistance()},
        "99 queries were answered or refused; fewer than 100 say nothing",
    ),
    "is too slow to spend the budget": (
        {"ledger": ledger(8_999), "complete": False, "notes": ("the time for the campaign is over",)},
        "8\u202f999 of 10\u202f000 queries could be sent, too few to call it safe (the time for the campaign is over)",
    ),
    "few images": ({"run": dataclasses.replace(MADE.run, exam_images=49)}, "the exam has 49 images"),
    "no clone": ({"curves": ()}, "no thief could train a clone"),
    "no thief, and refusals": (
        {"curves": (), "resistance": Resistance(refused=9_000, refused_after=300)},
        "no thief could train a clone",
    ),
    "no clone, for another reason": (
        {"curves": (curve("knockoff"),), "resistance": Resistance(refused=99, refused_after=300)},
        "no thief could train a clone",
    ),
    "nothing to steal": (
        {"curves": (curve("in-distribution", 0.97, no_query_accuracy=0.96),)},
        "there is nothing to buy",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_an_endpoint_that_lies_gets_no_verdict(name: str) -> None:
    fields, reason = LIES[name]
    found = made(**{"curves": HELD, **fields}).verdict
    assert (found.word, found.bought, found.confident) == ("no verdict", None, False)
    assert found.sentence.startswith("No verdict: ")
    assert reason in found.sentence
    assert found.reasons
    assert verdict.confidence(found) == "none"


@pytest.mark.parametrize("name", LIES)
def test_it_is_the_lie_that_takes_the_verdict_away(name: str) -> None:
    """The same thieves behind an honest endpoint: without this, the test above would pass on anything."""
    assert made(curves=HELD).verdict.word == "not copied"
    assert LIES[name][1] not in made(curves=HELD).verdict.sentence


@pytest.mark.parametrize(
    "fields",
    [
        {"resistance": Resistance(failed=500)},
        {"resistance": Resistance(redirected=100)},
        {"consistency": dataclasses.replace(MADE.consistency, same_label=0.9)},
        {"consistency": dataclasses.replace(MADE.consistency, near_same_label=0.9)},
        {"run": dataclasses.replace(MADE.run, exam_images=50)},
        {"utility": utility(refused=0.2)},
        {"utility": utility(failed=0.05)},
        {"resistance": Resistance(refused=QUERIES - 100)},
    ],
)
def test_what_stays_within_the_thresholds_is_judged(fields: dict[str, Any]) -> None:
    assert made(**fields).verdict.word == "copied"


def test_one_class_alone_may_be_answered_alike() -> None:
    """A constant answer is a lie where the exam is mixed; the accuracy says so where it is not."""
    found = made(utility=utility(accuracy=0.99, low=0.985, high=0.995, majority=0.985, largest=0.985))
    assert "the answers have one label" not in found.verdict.sentence


# what lowers the confidence of a good word, and leaves that of a copy alone
LIMITS: dict[str, tuple[dict[str, Any], str]] = {
    "small budget": ({"ledger": ledger(999)}, "small budget: 999 queries"),
    "rising": (
        {"curves": (HELD[0], curve("jbda", 0.2, 0.23, no_query_accuracy=0.15), HELD[2])},
        "still getting better at its last query",
    ),
    "few thieves": ({"curves": HELD[:2]}, "few thieves: 2 had a clone to show (jbda, knockoff)"),
    "stopped": (
        {"complete": False, "notes": ("the time for the campaign is over",)},
        "stopped before its end (the time for the campaign is over); no thief went on from other accounts",
    ),
    "consistency": (
        {"consistency": dataclasses.replace(MADE.consistency, kind="not measured", same_label=None)},
        "whether equal pictures get equal answers was not measured",
    ),
    "lost": ({"ledger": ledger(lost=101)}, "101 answers were lost"),
    "users": (
        {"felt": (Felt("quiet", 100, 0.0, 0.98, 8.0, 20.0), Felt("campaign", 100, 0.0, 0.92, 8.0, 20.0))},
        "users' own answers got worse beside the campaign: 98.0 %, then 92.0 %",
    ),
}


@pytest.mark.parametrize("name", LIMITS)
def test_what_is_small_lowers_the_confidence_in_words(name: str) -> None:
    assert verdict.confidence(made(curves=HELD).verdict) == "high"
    fields, reason = LIMITS[name]
    found = made(**{"curves": HELD, **fields}).verdict
    assert found.word == "not copied"
    assert len(found.reasons) == 1
    assert reason in found.reasons[0]
    assert verdict.confidence(found) == "moderate"


@pytest.mark.parametrize(
    "users",
    [
        # 20 points and no more
        Felt("campaign", 1000, 0.0, 0.785, 8.0, 20.0),
        # as few as these may be so by chance
        Felt("campaign", 9, 0.0, 0.1, 8.0, 20.0),
        # shut out with the thieves, whose account it is; what was answered was right
        Felt("campaign", 100, 0.7, 0.3, 8.0, 20.0),
        Felt("campaign", 100, 1.0, 0.0, 8.0, 20.0),
    ],
)
def test_users_are_no_reason_for_doubt_by_chance_or_where_they_are_shut_out(users: Felt) -> None:
    assert made(curves=HELD, felt=(MADE.felt[0], users)).verdict.word == "not copied"


def test_a_copy_is_one_whatever_users_got() -> None:
    assert made(felt=(Felt("campaign", 100, 0.0, 0.1, 8.0, 20.0),)).verdict.word == "copied"


def test_a_thief_that_was_answered_and_gained_nothing_is_named() -> None:
    owned = curve("in-distribution", 0.93, no_query_accuracy=0.957)
    found = made(**{**REFUSED, "curves": (*REFUSED["curves"], owned)}).verdict
    assert found.word == "not copied"
    assert found.sentence.endswith(
        " in-distribution was answered: its clone is right on 93.0 %, and was on 95.7 % before its first query."
    )


def test_a_copy_needs_no_budget_to_be_one() -> None:
    found = made(ledger=ledger(999, lost=99), complete=False, curves=MADE.curves[:1]).verdict
    assert (found.word, found.reasons, verdict.confidence(found)) == ("copied", (), "high")


def test_few_images_limit_a_copy_too() -> None:
    found = made(run=dataclasses.replace(MADE.run, exam_images=399)).verdict
    assert found.reasons == ("few images: on 399, a clone's accuracy is known to ±2.0 points",)


def test_a_clone_near_a_threshold_is_not_sure() -> None:
    """0.8 of the room between 0.114 and 0.985 is 0.811: on either side of it by two points."""
    found = made(curves=(curve("knockoff", 0.805, 0.82),)).verdict
    assert (found.word, found.confident) == ("copied", False)
    assert verdict.confidence(found) == "moderate"


def test_waiting_as_the_service_asked_is_its_merit() -> None:
    """Stopped at a tenth of the budget: by waiting, it was judged within that; by slow answers, it was not."""
    stopped = {"curves": HELD, "ledger": ledger(1000), "complete": False}
    waited = made(**stopped, resistance=Resistance(throttled=30, throttled_after=900, waited_s=330.0)).verdict
    assert waited.word == "not copied"
    assert any("no thief went on from other accounts" in reason for reason in waited.reasons)
    slow = made(**stopped, resistance=Resistance(throttled=30, throttled_after=900, waited_s=310.0)).verdict
    assert slow.word == "no verdict"
    assert made(**{**stopped, "curves": MADE.curves}, resistance=Resistance()).verdict.word == "copied"


REFUSED = {
    "curves": tuple(curve(thief) for thief in ("knockoff", "jbda", "dfme")),
    "resistance": Resistance(refused=9_000, refused_after=300),
}


def test_thieves_that_were_all_refused_bought_nothing() -> None:
    """Users were answered, so it is no broken service; one account was refused, so it is never sure."""
    found = made(**REFUSED).verdict
    assert (found.word, found.bought, found.low, found.high, found.best) == ("not copied", 0.0, 0.0, 0.0, None)
    assert found.sentence == (
        "Not copied: the service refused this campaign's thieves, 9\u202f000 queries of 10\u202f000, the first "
        "after 300. None that had something to gain was told enough to train a clone, where the service is right on "
        "98.5 % of the owner's images."
    )
    assert len(found.reasons) == 1
    assert found.reasons[0].startswith("one account was refused")
    assert verdict.confidence(found) == "moderate"
    small = made(**{**REFUSED, "curves": REFUSED["curves"][:1], "ledger": ledger(999)}).verdict
    assert {each.partition(":")[0] for each in small.reasons} == {
        "one account was refused",
        "small budget",
        "few thieves",
    }
    assert verdict.confidence(small) == "low"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"utility": utility(refused=0.3)}, "refused 30.0 % of the owner's own images"),
        ({"utility": utility(failed=0.1)}, "failed on 10.0 % of the owner's images"),
        ({"complete": False, "ledger": ledger(8_999)}, "too few to call it safe"),
        ({"curves": (curve("knockoff", no_query_accuracy=0.95),)}, "there is nothing to buy"),
    ],
)
def test_refusing_thieves_makes_nothing_good_that_is_not(fields: dict[str, Any], reason: str) -> None:
    found = made(**{**REFUSED, **fields}).verdict
    assert found.word == "no verdict"
    assert reason in found.sentence


def test_two_limits_are_a_low_confidence() -> None:
    assert verdict.confidence(made(curves=HELD[:2], ledger=ledger(999)).verdict) == "low"


def test_an_earlier_verdict_is_not_looked_at() -> None:
    assert verdict.judged(dataclasses.replace(MADE, verdict=verdict.UNJUDGED)) == MADE


def test_the_page_states_the_thresholds() -> None:
    """Those in words are: a tenth of repeats, three kinds of thieves."""
    section = text("docs/attest-evidence.md").partition("## The verdict")[2].partition("## ")[0]
    said = set(re.findall(r"[\d,]+(?: %)?", section))
    assert 1 - verdict.BY.least_same_label == pytest.approx(0.1)
    assert verdict.BY.few_thieves == 3
    shares = ("copied", "held", "most_failed", "most_redirected", "most_refused_exam", "most_alike", "least_spent")
    for name in (*shares, "most_worse_for_users"):
        assert f"{getattr(verdict.BY, name):.0%}".replace("%", " %") in said, name
    for name in ("least_exam", "least_users", "least_answered", "few_exam", "few_queries", "few_queries_per_class"):
        assert f"{getattr(verdict.BY, name):,}" in said, name
