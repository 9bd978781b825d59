"""Forms of a mark that were tried and lost (docs/results/marks.md), next to the one that is served.

log p    y'_k ~ y_k exp(b), b such that a class at 1 % comes to 1 % + s: hidden where a model is sure
signs    bit i of the code is the sign of the centred projection, in place of its stripe
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from defenses.mark import Images, Integers, Marker, Probabilities, means

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
