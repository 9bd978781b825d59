"""Response rules: what a client is shown of the probabilities that the predictor found.

A rule is a frozen dataclass whose fields are its hyper-parameters. It maps probabilities (N,K) float32, rows
summing to 1, to (N,K) float32 with entries >= 0, row by row, or to None where the client gets the label
alone. Its fact `keeps_label` says that the predictor's label still has a row's largest entry (another may tie
with it).

To add a rule: its class here, its line in RULES, its golden rows in tests/defenses/test_responses.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from defenses import ranges

Probabilities = NDArray[np.float32]


class Rule(Protocol):
    """What RULES holds. Raises ValueError on a number of classes that it cannot serve."""

    keeps_label: ClassVar[bool]

    def __call__(self, probabilities: Probabilities, /) -> Probabilities | None: ...


@dataclass(frozen=True)
class Soft:
    """y = p: every probability as the predictor gave it. Returns its argument, not a copy."""

    keeps_label: ClassVar[bool] = True

    def __call__(self, probabilities: Probabilities, /) -> Probabilities | None:
        return probabilities


@dataclass(frozen=True)
class Label:
    """No probabilities: the client gets argmax p alone."""

    keeps_label: ClassVar[bool] = True

    def __call__(self, probabilities: Probabilities, /) -> Probabilities | None:
        return None


@dataclass(frozen=True)
class TopK:
    """y_i = p_i for the k largest entries of a row, 0 elsewhere; rows are not renormalised.

    Of equal entries the one with the smaller index is kept first, so exactly k are kept and argmax is among
    them. k: from 1 to the number of classes.
    """

    k: int
    keeps_label: ClassVar[bool] = True

    def __post_init__(self) -> None:
        ranges.integer("k", self.k, 1, 10_000)

    def __call__(self, probabilities: Probabilities, /) -> Probabilities | None:
        classes = probabilities.shape[1]
        if self.k > classes:
            raise ValueError(f"k: expected at most the number of classes, {classes}, got {self.k}")
        kept = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.k]
        answered = np.zeros_like(probabilities)
        np.put_along_axis(answered, kept, np.take_along_axis(probabilities, kept, axis=1), axis=1)
        return answered


@dataclass(frozen=True)
class Rounded:
    """y = rint(p * 10^digits) / 10^digits in float32, halves to the even neighbour, without renormalising.

    Monotonic, so the largest entry stays a largest one, but a close second may come to equal it.
    digits: decimals kept, from 1 to 6 (float32 holds seven).
    """

    digits: int
    keeps_label: ClassVar[bool] = True

    def __post_init__(self) -> None:
        ranges.integer("digits", self.digits, 1, 6)

    def __call__(self, probabilities: Probabilities, /) -> Probabilities | None:
        return np.round(probabilities, self.digits)


RULES: dict[str, type[Rule]] = {
    "soft": Soft,
    "label": Label,
    "top_k": TopK,
    "rounded": Rounded,
}
