"""Many requests, one pipeline call: good rows side by side, answers back to each request in order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from defenses.pipeline import Answers, Pipeline, StageError
from handlers import wire
from handlers.errors import StageFailed, for_log
from handlers.wire import Rows

_log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What became of the joined rows: the answers to those that did not fail, in order, and who failed."""

    answers: Answers | None
    failed: frozenset[int]


class Reply(NamedTuple):
    """One request's answer: HTTP status, body, and the codes of the errors in it, for the metrics."""

    status: int
    body: bytes
    codes: tuple[str, ...]


def ask(pipeline: Pipeline, requests: Sequence[Rows]) -> Outcome:
    """Ask for the images of all requests, joined, in one call; one request's images are not copied.

    Where a stage fails on some rows, the others are asked again without them: rows that would be answered
    alone are answered here. MemoryError passes: TorchServe has an answer for it.
    """
    images = [rows.images for rows in requests if len(rows.images)]
    if not images:
        return Outcome(None, frozenset())
    joined = images[0] if len(images) == 1 else np.concatenate(images)
    alive = np.arange(len(joined))
    answers = None
    while answers is None and len(alive):
        try:
            answers = pipeline(joined if len(alive) == len(joined) else joined[alive])
            failure = answers.opened
        except StageError as error:
            failure = error
            alive = np.delete(alive, error.rows)
        if failure is not None:
            _log.error("stage %s, rows failed: %d: %s", failure.stage, len(failure.rows), for_log(failure.cause))
    return Outcome(answers, frozenset(range(len(joined))).difference(alive.tolist()))


def replies(requests: Sequence[Rows], outcome: Outcome) -> list[Reply]:
    """Each request's reply, in order."""
    out = []
    joined = answered = 0  # rows of earlier requests among the joined ones, and among the answers
    for rows in requests:
        errors = dict(rows.errors)
        lost = [place for image, place in enumerate(rows.places) if joined + image in outcome.failed]
        for place in lost:
            errors[place] = StageFailed("this row could not be answered; try again later", row=place)
        joined += len(rows.images)
        good = slice(answered, answered + len(rows.images) - len(lost))
        answered = good.stop
        codes = tuple(error.code for error in errors.values())
        if outcome.answers is None or good.start == good.stop:
            first = errors[min(errors)]
            out.append(Reply(first.status, wire.encode_error(first), codes))
        else:
            labels, shown = outcome.answers.labels[good], outcome.answers.probabilities
            body = wire.encode_answers(labels, None if shown is None else shown[good], errors)
            out.append(Reply(200, body, codes))
    return out
