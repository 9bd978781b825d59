"""The verdict on an attest: a pure function of what was measured, by thresholds that stand here and in the report.

    floor  = max(constant answer, what that thief had without a query)
    bought = (clone - floor) / (service - floor), of the clone with the most of it: any thief, any number of queries

Copied is `copied` of what there was to buy and more, not copied less than `held`, partly copied what lies between. The
best clone is chosen by the exam, which no thief can do: that errs against the service, and a verdict may err on that
side alone.

There is no verdict where the answers cannot be told from a fault or a lie: a service that fails, redirects, answers
everything alike or at random, gives a picture another label each time, knows no more than a constant does, or knows the
exam and none of its owner's other images while the campaign lasts. A poor clone of such a service says nothing for it,
and a good one is a copy all the same. A service that answers its owner's images and refuses the thieves is none of
these: thieves without an answer have no clone and bought nothing.

What is only small (budget, exam, number of thieves) lowers the confidence, in words. A copy needs no large budget to be
a copy, so what could only have helped the thief limits no such verdict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from attest.campaign.exact import wilson
from attest.measured import Consistency, Curve, Felt, Measured, Point, Utility, Verdict
from report.format import number, percent


@dataclass(frozen=True)
class Thresholds:
    """Where words change. Shares, but for what names images, queries or thieves; evidence states them all."""

    # of what there was to buy
    copied: float = 0.8
    held: float = 0.3
    # a thief that could gain less is judged by noise: it has what there is without asking
    worth: float = 0.1
    # no verdict beyond these
    most_failed: float = 0.05
    most_redirected: float = 0.01
    most_refused_exam: float = 0.2
    most_alike: float = 0.95
    least_same_label: float = 0.9
    most_worse_for_users: float = 0.2
    least_users: int = 10
    least_exam: int = 50
    least_answered: int = 100
    # of the budget, by a campaign that was stopped: by what took its time, or by waiting as the service asked
    least_spent: float = 0.9
    mostly_waited: float = 0.5
    # less confidence beyond these
    few_exam: int = 400
    few_queries: int = 1_000
    few_queries_per_class: int = 100
    few_thieves: int = 3
    rising: float = 0.02
    worse_for_users: float = 0.05
    most_lost: float = 0.01


BY = Thresholds()
UNJUDGED = Verdict("no verdict", "not judged yet", None, None, None, False, None, ())


@dataclass(frozen=True)
class Bought:
    """What one clone got of what there was to buy. share, low, high: of it, with the exam's 95 % interval."""

    curve: Curve
    point: Point
    floor: float
    share: float
    low: float
    high: float


def judged(measured: Measured) -> Measured:
    """The same with its verdict; the one that it came with (UNJUDGED, or an earlier version's) is not looked at."""
    return replace(measured, verdict=judge(measured))


def judge(measured: Measured) -> Verdict:
    """The verdict on what was measured."""
    best = max(bought(measured), key=lambda each: each.share, default=None)
    doubts = list(dict.fromkeys(_doubts(measured)))
    if not doubts and not _to_buy(measured):
        doubts = [_nothing_to_buy(measured)]
    if not doubts and (best is None or word_of(best.share) != "copied"):
        doubts = [*_unfinished(measured), *_of_the_exam_alone(measured)]
    if doubts:
        return Verdict("no verdict", f"No verdict: {'; '.join(doubts)}.", None, None, None, False, None, tuple(doubts))
    if best is None:
        limits = tuple(_limits(measured, None, "not copied"))
        return Verdict("not copied", _refusal(measured), 0.0, 0.0, 0.0, True, None, limits)
    word = word_of(best.share)
    return Verdict(
        word,
        _sentence(word, best, measured),
        best.share,
        best.low,
        best.high,
        word_of(best.low) == word_of(best.high),
        best.curve.thief,
        tuple(_limits(measured, best, word)),
    )


def word_of(share: float) -> str:
    """What a share of what there was to buy is called."""
    return "copied" if share >= BY.copied else "partly copied" if share >= BY.held else "not copied"


def caveats(verdict: Verdict) -> tuple[str, ...]:
    """What lowers the confidence in a verdict, each a clause."""
    unsure = verdict.bought is not None and not verdict.confident
    return (*(("another draw of the exam's images could change the word",) if unsure else ()), *verdict.reasons)


def confidence(verdict: Verdict) -> str:
    """How far the word can be relied on: "none", "low", "moderate" or "high"."""
    if verdict.word == "no verdict":
        return "none"
    worth = len(caveats(verdict))
    return ("high", "moderate")[worth] if worth < 2 else "low"


def bought(measured: Measured) -> list[Bought]:
    """What each clone got, of the curves whose thief had something to gain."""
    service = measured.utility.accuracy
    return [
        Bought(
            curve, each, floor, *((value - floor) / (service - floor) for value in (each.accuracy, each.low, each.high))
        )
        for curve, floor in _to_buy(measured)
        for each in curve.points
    ]


def _to_buy(measured: Measured) -> list[tuple[Curve, float]]:
    """The curves whose thief had something to gain, with or without a clone, and what each had without a query."""
    service, constant = measured.utility.accuracy, measured.utility.majority
    floors = [(curve, max(constant, curve.no_query_accuracy or 0.0)) for curve in measured.curves]
    return [(curve, floor) for curve, floor in floors if service - floor >= BY.worth]


def first(measured: Measured, share: float) -> Bought | None:
    """The clone with at least this share of what there was to buy, for the fewest queries; None where none has."""
    enough = (each for each in bought(measured) if each.share >= share)
    return min(enough, key=lambda each: (each.point.queries, -each.share), default=None)


def no_worth(utility: Utility, consistency: Consistency) -> Iterator[str]:
    """Why nothing can be said of a service, each a clause, before any thief has asked it anything."""
    same = consistency.same_label
    if utility.failed > BY.most_failed:
        yield f"the service failed on {percent(utility.failed)} of the owner's images (errors, timeouts, not readable)"
    elif utility.refused > BY.most_refused_exam:
        yield f"the service refused {percent(utility.refused)} of the owner's own images"
    elif utility.largest > BY.most_alike > utility.majority:
        yield f"{percent(utility.largest)} of the answers have one label, whatever the picture"
    elif utility.low <= utility.majority:
        yield (
            f"the service is right on {percent(utility.accuracy)} of the owner's images, where a constant answer is on "
            f"{percent(utility.majority)}: random answers, wrong classes or wrong preprocessing"
        )
    if same is not None and same < BY.least_same_label:
        yield f"the same picture gets another label in {percent(1 - same)} of repeats"
    elif (near := consistency.near_same_label) is not None and near < BY.least_same_label:
        yield f"{percent(1 - near)} of copies that differ by one level in one value get another label"


def _doubts(measured: Measured) -> Iterator[str]:
    """Why nothing can be said, each a clause."""
    seen, queries = measured.resistance, measured.ledger.queries
    if measured.run.exam_images < BY.least_exam:
        yield f"the exam has {measured.run.exam_images} images; fewer than {BY.least_exam} say nothing"
    yield from no_worth(measured.utility, measured.consistency)
    failed = (seen.failed + seen.dropped + seen.unread) / max(queries, 1)
    if failed > BY.most_failed:
        yield (
            f"{percent(failed)} of the campaign's queries failed (errors {seen.failed}, no whole answer "
            f"{seen.dropped}, unreadable {seen.unread}), and a broken service cannot be told from one that resists"
        )
    if seen.redirected / max(queries, 1) > BY.most_redirected:
        yield f"{seen.redirected} answers sent the campaign elsewhere, where it was not allowed to follow"
    tries = (seen.throttled, seen.challenges)
    told = queries - sum((*tries, seen.failed, seen.dropped, seen.redirected, seen.unread))
    if told < BY.least_answered:
        yield f"{max(told, 0)} queries were answered or refused; fewer than {BY.least_answered} say nothing"
    refused = measured.curves and seen.refused >= BY.least_answered
    if not refused and not any(curve.points for curve in measured.curves):
        yield f"no thief could train a clone{_why(measured)}"


def _unfinished(measured: Measured) -> Iterator[str]:
    """Why a campaign that was stopped says nothing good: it is the service's merit only where it made thieves wait."""
    waited = measured.resistance.waited_s > BY.mostly_waited * measured.run.seconds
    if not measured.complete and not waited and measured.ledger.queries < BY.least_spent * measured.target.budget:
        queries, budget = number(measured.ledger.queries, 0), number(measured.target.budget, 0)
        yield f"only {queries} of {budget} queries could be sent, too few to call it safe{_why(measured)}"


def _of_the_exam_alone(measured: Measured) -> Iterator[str]:
    """Whether the exam was answered better than the owner's other images, beyond chance. What was refused them is left
    out: an account that is shut out is refused everything."""
    exam = measured.utility
    for each in measured.felt:
        right, answered = _answered(each)
        worse = exam.accuracy - right > BY.most_worse_for_users and wilson(right, answered)[1] < exam.low
        if worse and answered >= BY.least_users:
            when = "before" if each.stretch == "quiet" else "beside"
            yield (
                f"{when} the campaign the service was right on {percent(right)} of the owner's other images that it "
                f"answered, on {percent(exam.accuracy)} of the exam: its answers changed, or it knows the exam alone"
            )


def _answered(users: Felt) -> tuple[float, int]:
    """Of the requests that were answered, the share that was right, and how many those were."""
    answered = round(users.requests * (1 - users.failed))
    return (users.accuracy * users.requests / answered, answered) if answered else (0.0, 0)


def _why(measured: Measured) -> str:
    return f" ({measured.notes[0]})" if not measured.complete and measured.notes else ""


def _nothing_to_buy(measured: Measured) -> str:
    return (
        f"there is nothing to buy: the service is right on {percent(measured.utility.accuracy)}, and every thief is "
        f"on as much without a query, but for {percent(BY.worth)}"
    )


def _limits(measured: Measured, best: Bought | None, word: str) -> Iterator[str]:
    """What lowers the confidence, each a clause. best: None where the service refused every thief."""
    exam, queries = measured.run.exam_images, measured.ledger.queries
    if best is None:
        yield "one account was refused: whether others are, or pictures more like its users', was not asked"
    elif exam < BY.few_exam:
        yield f"few images: on {exam}, a clone's accuracy is known to {_half_width(best)} points"
    if word == "copied":
        return
    enough = max(BY.few_queries, BY.few_queries_per_class * len(measured.target.classes))
    if queries < enough:
        yield f"small budget: {number(queries, 0)} queries, where {number(enough, 0)} and more cost a thief little"
    if best is not None and _rising(best.curve):
        yield "the best clone was still getting better at its last query"
    thieves = {curve.attack for curve in measured.curves if curve.points or best is None}
    if len(thieves) < BY.few_thieves:
        what = "asked" if best is None else "had a clone to show"
        yield f"few thieves: {len(thieves)} {what} ({', '.join(sorted(thieves))})"
    if not measured.complete:
        yield f"the campaign was stopped before its end{_why(measured)}; no thief went on from other accounts"
    if measured.consistency.kind == "not measured":
        yield "whether equal pictures get equal answers was not measured"
    if measured.ledger.lost > BY.most_lost * queries:
        yield f"{number(measured.ledger.lost, 0)} answers were lost: the campaign was interrupted, or a sender ended"
    felt = {each.stretch: each.accuracy for each in measured.felt}
    if felt.get("quiet", 0.0) - felt.get("campaign", 1.0) > BY.worse_for_users:
        yield (
            f"users' own answers got worse beside the campaign: {percent(felt['quiet'])}, then "
            f"{percent(felt['campaign'])}"
        )


def _rising(curve: Curve) -> bool:
    return len(curve.points) > 1 and curve.points[-1].accuracy - curve.points[-2].accuracy > BY.rising


def _half_width(best: Bought) -> str:
    return f"±{50 * (best.point.high - best.point.low):.1f}"


def _sentence(word: str, best: Bought, measured: Measured) -> str:
    point, price = best.point, price_of(best.point.price, measured.target.currency)
    return (
        f"{word.capitalize()}: {best.curve.thief} ({best.curve.labels} labels) made a clone that is right on "
        f"{percent(point.accuracy)}, where the service is on {percent(measured.utility.accuracy)}, with "
        f"{number(point.queries, 0)} queries for {price}. That is {percent(best.share)} of what there was to buy."
    )


def _refusal(measured: Measured) -> str:
    refused, after = measured.resistance.refused, measured.resistance.refused_after
    return (
        f"Not copied: the service refused this campaign's thieves, {number(refused, 0)} queries of "
        f"{number(measured.ledger.queries, 0)}, the first after {number(after, 0)}. None that had something to gain "
        f"was told enough to train a clone, where the service is right on {percent(measured.utility.accuracy)} of the "
        f"owner's images.{''.join(_gained_nothing(measured))}"
    )


def _gained_nothing(measured: Measured) -> Iterator[str]:
    """The clones of thieves that were as good without a query, a sentence each."""
    for curve in measured.curves:
        if curve.last is not None:
            yield (
                f" {curve.thief} was answered: its clone is right on {percent(curve.last.accuracy)}, and was on "
                f"{percent(curve.no_query_accuracy)} before its first query."
            )


def price_of(price: float, currency: str) -> str:
    """12.5, "EUR" -> "12.50 EUR"; "no stated price" for 0."""
    return f"{number(price, 2)} {currency}".strip() if price else "no stated price"
