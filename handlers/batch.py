"""Many requests, one pipeline call: good rows side by side, answers back to each request in order.

The store is asked for a batch, not for a request: it looks once, counts all rows in one transaction, and spends all
solutions in another. A request whose principal has no room for a row is refused before it is decoded, unless those
before it in the same batch took that room. Others are counted, bad rows as well, before they are asked for, and refused
as a whole where they are over a limit. A row that the gate keeps from the client becomes an error at its place. Where
rows of a request want a proof of work, one challenge asks for the work of all of them; the request that comes again
with its solution is answered whole. Work beyond what a challenge may ask for is no discount: those rows are refused,
and the error asks for fewer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from defenses.budget import LABEL, PRICE, REFUSE
from defenses.gate import OBSERVE, PROOF_OF_WORK, REJECT
from defenses.limits import SHARED, Full, Limiter
from defenses.memory import StoreError
from defenses.pipeline import Answers, Pipeline, StageError
from defenses.work import SolutionError, SolutionExpired, SolutionInvalid, SolutionSpent, TooDear
from handlers.errors import (
    BudgetSpent,
    ExpiredSolution,
    InvalidSolution,
    RateLimited,
    Rejected,
    RequestError,
    SolutionRefused,
    SpentSolution,
    StageFailed,
    StoreFailed,
    TooMuchWork,
    WorkWanted,
    for_log,
)
from handlers.forms import Answered, Classes, Encoded
from handlers.rows import Rows

_log = logging.getLogger(__name__)

# of a request that could not be counted, and must be
FAILED = "failed"
_STORE_FAILED = "proof of work cannot be asked for or checked now; try again later"
_TOO_MUCH_WORK = "the rows of this request cost more work together than one challenge may ask for; send fewer rows"
_BUDGET_SPENT = "this account is answered no more; its operator knows why"
_UNCOUNTED = "rows cannot be counted now; try again later"
_SUSPECT = (OBSERVE, REJECT, PROOF_OF_WORK)
# treatments that leave nothing of a request
_WHOLE: dict[str | None, Callable[[], RequestError]] = {
    REFUSE: lambda: BudgetSpent(_BUDGET_SPENT),
    FAILED: lambda: StoreFailed(_UNCOUNTED),
}
_REFUSED: dict[type[SolutionError], type[SolutionRefused]] = {
    SolutionInvalid: InvalidSolution,
    SolutionExpired: ExpiredSolution,
    SolutionSpent: SpentSolution,
}


class Till(Protocol):
    """What asks for work and takes it: defenses.work.Toll, and what an evaluation puts in its place."""

    def challenge(self, digest: bytes, hashes: float) -> dict[str, Any]: ...

    def admit(self, offers: Sequence[tuple[str, bytes]]) -> Sequence[SolutionError | StoreError | None]: ...


class Outcome(NamedTuple):
    """What became of the joined rows: the answers to those that did not fail, in order, and who failed."""

    answers: Answers | None
    failed: frozenset[int]


class Suspect(NamedTuple):
    """A row whose score was above the gate's threshold: its place among the request's images and among its rows, what
    became of it, and its score and tail probability."""

    image: int
    row: int
    decision: str
    score: float
    tail: float


class Reply(NamedTuple):
    """One request's answer, and Retry-After in seconds (0: none); for metrics and the audit log, the codes of its
    errors, whether it challenges, and the rows that are suspect."""

    encoded: Encoded
    codes: tuple[str, ...]
    challenged: bool = False
    retry_after: int = 0
    suspects: tuple[Suspect, ...] = ()

    @property
    def status(self) -> int:
        """Of HTTP."""
        return self.encoded.status

    @property
    def body(self) -> bytes:
        """As it is sent."""
        return self.encoded.body


def unread(principals: Sequence[str], limiter: Limiter | None, *, open_: bool) -> list[RequestError | None]:
    """What each principal's request is refused with before it is decoded: there is room for no row. open_: see
    `limited`, which has the last word on all others."""
    if limiter is None or not principals:
        return [None] * len(principals)
    try:
        return [None if reached is None else _over(reached) for reached in limiter.full(principals)]
    except StoreError as error:
        _log.error("store: %s", for_log(error))
        return [None if open_ else StoreFailed(_UNCOUNTED) for _ in principals]


def limited(
    requests: Sequence[Rows], principals: Sequence[str], limiter: Limiter | None, *, open_: bool
) -> list[tuple[Rows, str | None]]:
    """The requests as they are answered, each counted for its principal or refused as a whole, and which limit that
    was.

    open_: requests that the store cannot count pass, as "unchecked".
    """
    found: list[tuple[Rows, str | None]] = [(rows, None) for rows in requests]
    if limiter is None:
        return found
    charges = {
        place: (principal, charge)
        for place, (rows, principal) in enumerate(zip(requests, principals, strict=True))
        if (charge := limiter.charge(len(rows.images), sum(error.unreadable for error in rows.errors.values())))
    }
    if not charges:
        return found
    try:
        taken = limiter.take(list(charges.values()))
    except StoreError as error:
        _log.error("store: %s", for_log(error))
        for place in charges:
            found[place] = _uncounted(requests[place], open_=open_)
        return found
    for place, full in zip(charges, taken, strict=True):
        if full is not None:
            found[place] = requests[place].as_refused(_over(full)), full.limit
    return found


def _uncounted(rows: Rows, *, open_: bool) -> tuple[Rows, str | None]:
    return (rows, "unchecked") if open_ else (rows.as_refused(StoreFailed(_UNCOUNTED)), None)


def _over(full: Full) -> RateLimited:
    message = f"enough rows were asked for now; try again in {full.seconds} s"
    return RateLimited(message, limit=full.limit, seconds=full.seconds)


def admitted(requests: Sequence[Rows], solutions: Sequence[str | None], till: Till | None) -> list[Rows]:
    """The requests as they are answered: paid for where one brought a solution that is good, and refused as a whole
    where it brought another. Policies without a till have no use for any. Nothing is spent on a request without a good
    row."""
    found = list(requests)
    if till is None:
        return found
    offers = {
        place: (solution, rows.digest)
        for place, (rows, solution) in enumerate(zip(requests, solutions, strict=True))
        if solution is not None and len(rows.images)
    }
    for place, wrong in zip(offers, till.admit(list(offers.values())), strict=True):
        found[place] = _judged(requests[place], wrong)
    return found


def _judged(rows: Rows, wrong: SolutionError | StoreError | None) -> Rows:
    """A request whose solution was looked at."""
    if wrong is None:
        return rows.as_paid()
    if isinstance(wrong, SolutionError):
        return rows.as_refused(_REFUSED[type(wrong)](str(wrong)))
    _log.error("store: %s", for_log(wrong))
    return rows.as_refused(StoreFailed(_STORE_FAILED))


def ask(pipeline: Pipeline, requests: Sequence[Rows], principals: Sequence[str] | None = None) -> Outcome:
    """Ask for the images of all requests, joined, in one call; one request's images are not copied. principals: of the
    requests, SHARED where they are left out.

    Where a stage fails on some rows, the others are asked again without them: rows that would be answered
    alone are answered here. MemoryError passes: TorchServe has an answer for it.
    """
    images = [rows.images for rows in requests if len(rows.images)]
    if not images:
        return Outcome(None, frozenset())
    joined = images[0] if len(images) == 1 else np.concatenate(images)
    paid = np.repeat([rows.paid for rows in requests], [len(rows.images) for rows in requests])
    accounts = _accounts(requests, principals)
    alive = np.arange(len(joined))
    answers = None
    while answers is None and len(alive):
        try:
            whole = len(alive) == len(joined)
            answers = pipeline(
                joined if whole else joined[alive],
                paid=paid[alive],
                accounts=accounts if whole else [accounts[row] for row in alive],
            )
            failure = answers.opened
        except StageError as error:
            failure = error
            alive = np.delete(alive, error.rows)
        if failure is not None:
            _log.error("stage %s, rows failed: %d: %s", failure.stage, len(failure.rows), for_log(failure.cause))
    return Outcome(answers, frozenset(range(len(joined))).difference(alive.tolist()))


def _accounts(requests: Sequence[Rows], principals: Sequence[str] | None) -> list[str]:
    """Whose each joined row is."""
    names = [SHARED] * len(requests) if principals is None else principals
    return [name for name, rows in zip(names, requests, strict=True) for _ in range(len(rows.images))]


def replies(
    requests: Sequence[Rows],
    outcome: Outcome,
    classes: Classes,
    till: Till | None = None,
    *,
    treatments: Sequence[str | None] | None = None,
    price: float = 0.0,
) -> list[Reply]:
    """Each request's reply, in order and in its own form. till: asks for the work; without one, rows that want some are
    only refused. treatments: of each request by its account's budget (handlers/budgets.py), none where left out; price:
    expected hashes of a row of one whose treatment is a price."""
    out = []
    joined = answered = 0  # rows of earlier requests among the joined ones, and among the answers
    for rows, treatment in zip(requests, treatments or [None] * len(requests), strict=True):
        errors = dict(rows.errors)
        shown, owing = [], {}  # answers that the client sees; hashes that a row owes, by its place
        suspects = []
        for image, place in enumerate(rows.places):
            if outcome.answers is None or joined + image in outcome.failed:
                errors[place] = StageFailed("this row could not be answered; try again later", row=place)
                continue
            decision = outcome.answers.decisions[answered]
            if decision in _SUSPECT and outcome.answers.scores is not None:
                scores = outcome.answers.scores
                suspects.append(
                    Suspect(image, place, decision, float(scores.score[answered]), float(scores.tail[answered]))
                )
            if decision == REJECT:
                errors[place] = Rejected("this row is refused", row=place)
            elif treatment == PRICE and not rows.paid:
                owing[place] = price
            elif decision == PROOF_OF_WORK:
                owing[place] = float(outcome.answers.work[answered])
            else:
                shown.append(answered)
            answered += 1
        joined += len(rows.images)
        if treatment in _WHOLE:
            shown, owing = [], {}
            errors = {0: _WHOLE[treatment]()}
        challenge = None
        if owing:
            challenge, wanted = _priced(rows, owing, till)
            errors |= wanted
        codes = tuple(error.code for error in errors.values())
        challenged = challenge is not None
        foremost = errors[min(owing or errors)] if errors else None
        wait = 0
        if outcome.answers is not None and shown:
            those, probabilities = _those(shown), outcome.answers.probabilities
            served = None if probabilities is None or treatment == LABEL else probabilities[those]
            encoded = rows.form.answers(
                Answered(outcome.answers.labels[those], served, errors, foremost, challenge), classes
            )
        else:
            assert foremost is not None  # every row is answered or at fault
            encoded = rows.form.error(foremost, challenge)
            wait = foremost.seconds if isinstance(foremost, RateLimited) else 0
        out.append(Reply(encoded, codes, challenged, wait, tuple(suspects)))
    return out


def _those(shown: list[int]) -> slice | list[int]:
    """An index of answers, in rising order: a slice where they are neighbours, which numpy takes a view of."""
    first, last = shown[0], shown[-1]
    return slice(first, last + 1) if last - first + 1 == len(shown) else shown


def _priced(
    rows: Rows, owing: Mapping[int, float], till: Till | None
) -> tuple[dict[str, Any] | None, dict[int, RequestError]]:
    """The request's challenge, and the errors of the rows that owe, by their place."""
    try:
        challenge = None if till is None else till.challenge(rows.digest, sum(owing.values()))
    except StoreError as error:
        _log.error("store: %s", for_log(error))
        return None, {place: StoreFailed(_STORE_FAILED, row=place) for place in owing}
    except TooDear:
        return None, {place: TooMuchWork(_TOO_MUCH_WORK, row=place) for place in owing}
    wanted = "this row is answered once the request's challenge is solved"
    return challenge, {place: WorkWanted(wanted, row=place) for place in owing}
