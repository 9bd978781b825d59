"""What becomes of the requests of a batch by the budgets of their accounts (defenses/budget.py).

Scores are counted before anybody is answered, rows of one account in the order of their requests, and an account whose
budget is spent by the end of a batch is treated so in the whole of it. A paid row was counted when it was first sent,
and is not again. Where the store fails, every request of the batch that must be counted is refused; where the policy
opens on failures, it is answered as "unchecked".
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from defenses.budget import Accounts, Standing
from defenses.memory import StoreError
from handlers.batch import FAILED, Outcome
from handlers.errors import for_log
from handlers.request import Request

# of a request that could not be counted, and need not be
UNCHECKED = "unchecked"

_log = logging.getLogger(__name__)


class Charged(NamedTuple):
    """treatments: of each request, None (as ever), the policy's `then`, FAILED or UNCHECKED. crossed: by the index of
    an account's first request, how it stands, where its budget was spent by this very batch."""

    treatments: list[str | None]
    crossed: dict[int, Standing]


def charged(requests: Sequence[Request], outcome: Outcome, accounts: Accounts, *, then: str, open_: bool) -> Charged:
    """Count the scored rows of all requests for their principals. then: of the policy's budget. open_: see above."""
    treatments: list[str | None] = [None] * len(requests)
    scores: dict[str, list[float]] = {}
    asking: dict[str, list[int]] = {}
    for index, (request, found) in enumerate(zip(requests, _scores(requests, outcome), strict=True)):
        if len(request.rows.images):
            asking.setdefault(request.principal, []).append(index)
            scores.setdefault(request.principal, []).extend([] if request.rows.paid else found)
    if not asking:
        return Charged(treatments, {})
    try:
        standings = accounts.charge({name: np.array(each, np.float64) for name, each in scores.items()})
    except StoreError as error:
        _log.error("store: %s", for_log(error))
        failed = UNCHECKED if open_ else FAILED
        return Charged([failed if len(request.rows.images) else None for request in requests], {})
    crossed = {}
    for name, standing in standings.items():
        for index in asking[name] if standing.spent else ():
            treatments[index] = then
        if standing.new:
            crossed[asking[name][0]] = standing
    return Charged(treatments, crossed)


def _scores(requests: Sequence[Request], outcome: Outcome) -> list[list[float]]:
    """The scores of each request's rows that were answered; none where the gate scored none."""
    found = None if outcome.answers is None or outcome.answers.scores is None else outcome.answers.scores.score
    each: list[list[float]] = []
    joined = answered = 0
    for request in requests:
        count = len(request.rows.images)
        alive = sum(joined + image not in outcome.failed for image in range(count))
        each.append([] if found is None else found[answered : answered + alive].tolist())
        joined += count
        answered += alive
    return each
