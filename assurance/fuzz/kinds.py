"""Which cases a run has: the case of a number is the same in every run with that seed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from assurance.fuzz import (
    documents,
    envelopes,
    formats,
    inference,
    messages,
    metadata,
    multipart,
    pictures,
    rows,
)
from assurance.fuzz.case import Case, Subject

IDEAS = (
    *pictures.IDEAS,
    *formats.IDEAS,
    *metadata.IDEAS,
    *documents.IDEAS,
    *rows.IDEAS,
    *inference.IDEAS,
    *envelopes.IDEAS,
    *multipart.IDEAS,
    *messages.IDEAS,
)
# in every so many cases, one of the rare ones
RARELY = 400


def case(number: int, seed: int, subjects: Sequence[Subject]) -> Case:
    """The case of that number. Ideas come in turn, on each subject in turn."""
    rng = Random(f"{seed}/{number}")
    turn, place = divmod(number, len(IDEAS))
    make = IDEAS[place]
    if number % RARELY == RARELY - 1:
        make = messages.RARE[number // RARELY % len(messages.RARE)]
    return make(rng, subjects[turn % len(subjects)])
