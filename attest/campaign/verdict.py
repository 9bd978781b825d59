"""The verdict: how much of the service's worth was bought, or why nobody can say.

    bought = (clone - floor) / (service - floor)         of the thief for whom it is most

where the floor is the better of a constant answer and what that thief had before its first query. The service's own
accuracy on the owner's images is the measure, so an endpoint that answers at random, always alike, or not at all has no
worth that could be stolen: that is no good grade but no verdict, and the reasons say so. All that may limit a verdict
is a reason too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attest.measured import Consistency, Curve, Point, Resistance, Utility, Verdict

COPIED, PARTLY = 0.9, 0.5
# of all queries, those that the service failed
MOST_FAILED = 0.05
# of the served labels, where the commonest true class has far less
CONSTANT = 0.95
# of the budget: with less spent, nothing can be said for the service
LEAST_SPENT = 0.9


def no_worth(utility: Utility, consistency: Consistency) -> Iterator[str]:
    """Why there is nothing to steal, before anybody tries."""
    if utility.failed > MOST_FAILED:
        yield f"{utility.failed:.0%} of the owner's images got no answer through the service's fault"
    if utility.largest > CONSTANT > utility.majority:
        yield f"{utility.largest:.0%} of the answers name the same class"
    if utility.low <= utility.majority:
        yield (
            f"it is right on {utility.accuracy:.1%} of the owner's images, no better than a constant answer "
            f"({utility.majority:.1%}): wrong classes, wrong preprocessing, or no service"
        )
    if consistency.kind == "unstable labels":
        yield f"the same picture gets another label {1 - (consistency.same_label or 0):.0%} of the time"


def unfit(resistance: Resistance, queries: int) -> Iterator[str]:
    """What the service failed to do during the campaign. queries: lines of the ledger."""
    for what, count in (
        ("ended in a server's error", resistance.failed),
        ("got no whole answer in time", resistance.dropped),
        ("were redirected elsewhere, which is not followed", resistance.redirected),
        ("got an answer that is not what the target file says", resistance.unread),
    ):
        if queries and count / queries > MOST_FAILED:
            yield f"{count / queries:.0%} of the queries {what}"


def verdict(
    utility: Utility,
    consistency: Consistency,
    resistance: Resistance,
    curves: Sequence[Curve],
    *,
    queries: int,
    budget: int,
    stopped: str | None,
) -> Verdict:
    """The verdict. queries: sent, of `budget`. stopped: why the campaign ended early, or None."""
    reasons = [*no_worth(utility, consistency), *unfit(resistance, queries)]
    limits = [f"the campaign ended early: {stopped}"] if stopped else []
    found = [(bought(curve, curve.last.accuracy, utility), curve) for curve in curves if curve.last is not None]
    if not found and not reasons:
        reasons.append("no thief got enough answers to train a clone")
    share, best = max(found, key=lambda each: each[0], default=(0.0, None))
    short = queries < LEAST_SPENT * budget and (best is None or best.ended == "stopped")
    if stopped and short and share < COPIED and not reasons:
        reasons.append(f"only {queries:,} of {budget:,} queries could be sent, too few to call it safe")
    if reasons or best is None or best.last is None:
        return _none((*reasons, *limits))
    low, high = (bought(best, end, utility) for end in (best.last.low, best.last.high))
    word = _word(share)
    return Verdict(
        word=word,
        sentence=_sentence(word, share, best, best.last, utility),
        bought=round(share, 4),
        low=round(low, 4),
        high=round(high, 4),
        confident=_word(low) == _word(high) == word,
        best=best.thief,
        reasons=tuple(limits),
    )


def bought(curve: Curve, accuracy: float, utility: Utility) -> float:
    """Of the service's worth above the thief's floor, what a clone of such accuracy has; 0 where the floor is as high."""
    floor = max(utility.majority, curve.no_query_accuracy or 0.0)
    worth = utility.accuracy - floor
    return max(0.0, (accuracy - floor) / worth) if worth > 0 else 0.0


def _word(share: float) -> str:
    return "copied" if share >= COPIED else "partly copied" if share >= PARTLY else "not copied"


def _sentence(word: str, share: float, best: Curve, point: Point, utility: Utility) -> str:
    worth = {
        "copied": "The service can be copied",
        "partly copied": "The service can be copied in part",
        "not copied": "The service was not copied",
    }[word]
    return (
        f"{worth} with {point.queries:,} queries: the best clone ({best.thief}) is right on {point.accuracy:.1%} of the "
        f"owner's images, the service on {utility.accuracy:.1%}; {share:.0%} of what the service has above what the thief "
        "had already."
    )


def _none(reasons: tuple[str, ...]) -> Verdict:
    return Verdict(
        "no verdict",
        f"No verdict: {reasons[0]}." if reasons else "No verdict.",
        bought=None,
        low=None,
        high=None,
        confident=False,
        best=None,
        reasons=reasons,
    )
