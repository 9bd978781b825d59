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
from numpy.typing import NDArray

from defenses.budget import Accounts, Asked, Standing
from defenses.memory import StoreError
from defenses.policy import Policy
from handlers.audit import digest
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


def charged(requests: Sequence[Request], outcome: Outcome, accounts: Accounts | None, policy: Policy) -> Charged:
    """Count the scored rows of all requests for their principals; nothing where there are no accounts, or the policy
    has no budget."""
    treatments: list[str | None] = [None] * len(requests)
    if accounts is None or policy.budget is None:
        return Charged(treatments, {})
    then, open_ = policy.budget.then, policy.on_stage_error == "open"
    asked: dict[str, list[tuple[float, int]]] = {}
    asking: dict[str, list[int]] = {}
    for index, (request, found) in enumerate(zip(requests, _scored(requests, outcome), strict=True)):
        if len(request.rows.images):
            asking.setdefault(request.principal, []).append(index)
            asked.setdefault(request.principal, []).extend([] if request.rows.paid else found)
    if not asking:
        return Charged(treatments, {})
    try:
        standings = accounts.charge({name: _asked(each) for name, each in asked.items()})
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


def _asked(rows: Sequence[tuple[float, int]]) -> Asked:
    scores, marks = [score for score, _ in rows], [mark for _, mark in rows]
    return Asked(np.array(scores, np.float64), np.array(marks, np.uint32))


def _scored(requests: Sequence[Request], outcome: Outcome) -> list[list[tuple[float, int]]]:
    """The score and the mark of each request's rows that were answered; none where the gate scored none."""
    scores = None if outcome.answers is None else outcome.answers.scores
    each: list[list[tuple[float, int]]] = []
    joined = answered = 0
    for request in requests:
        images = request.rows.images
        alive = [image for number, image in enumerate(images, joined) if number not in outcome.failed]
        found = [] if scores is None else scores.score[answered : answered + len(alive)].tolist()
        each.append([(score, _mark(image)) for score, image in zip(found, alive, strict=False)])
        joined += len(images)
        answered += len(alive)
    return each


def _mark(image: NDArray[np.float32]) -> int:
    """Four bytes of an image's digest."""
    return int.from_bytes(bytes.fromhex(digest(image))[:4], "little")
