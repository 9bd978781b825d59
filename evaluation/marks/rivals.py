"""What was tried in place of the mark that is served, and of its statistic (docs/results/marks.md).

Forms of a mark:

    log p      y'_k ~ y_k exp(b), b such that a class at 1 % comes to 1 % + s: hidden where a model is sure
    signs      bit i of the code is the sign of the centred projection, in place of its stripe

Statistics, what a suspect says more of each class than the owner does (f of evaluation/marks/evidence.py):

    uncapped   the logarithms of the probabilities as they are
    ranks      where each class stands among those of an image
    points     the difference of the probabilities, the cap at most
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from defenses.mark import Images, Integers, Marker, Probabilities, means
from evaluation.marks.evidence import CAP, EPSILON, Doubles, Excess, capped

# the probability at which the forms move as much
TYPICAL = 0.01


class LogMarker(Marker):
    """Moves log p."""

    def __call__(
        self, images: Images, probabilities: Probabilities, accounts: Sequence[str]
    ) -> tuple[Probabilities, NDArray[np.bool_]]:
        tops = probabilities.argmax(axis=1)
        classes = self.of(self.cell(images, tops), accounts)
        rows = np.arange(len(probabilities))
        shown = probabilities.astype(np.float64)
        wanted = shown[rows, classes] * (1 + self.mark.strength / TYPICAL)
        # the top class keeps its place
        shown[rows, classes] = np.minimum(wanted, (shown[rows, classes] + shown[rows, tops]) / 2)
        shown /= shown.sum(axis=1, keepdims=True)
        return shown.astype(np.float32), np.ones(len(rows), np.bool_)


class SignMarker(Marker):
    """Codes by signs."""

    def code(self, images: Images) -> Integers:
        blocks = means(images, self.mark.grid)
        centred = blocks - blocks.mean(axis=1, keepdims=True).astype(np.int64)
        code: Integers = (centred @ self.weights > 0) @ (1 << np.arange(self.mark.bits))
        return code


FORMS: Mapping[str, type[Marker]] = {"linear": Marker, "log p": LogMarker, "signs": SignMarker, "none": Marker}


def uncapped(suspect: Doubles, owner: Doubles) -> Doubles:
    """Differences of logarithms."""
    more: Doubles = np.log(suspect + EPSILON) - np.log(owner + EPSILON)
    return more


def ranks(suspect: Doubles, owner: Doubles) -> Doubles:
    """Differences of ranks."""
    mine, owners = (each.argsort(axis=1).argsort(axis=1).astype(np.float64) for each in (suspect, owner))
    more: Doubles = mine - owners
    return more


def points(suspect: Doubles, owner: Doubles) -> Doubles:
    """Differences of probabilities, capped."""
    return np.clip(suspect - owner, -CAP, CAP)


STATISTICS: Mapping[str, Excess] = {"capped": capped, "uncapped": uncapped, "ranks": ranks, "points": points}
