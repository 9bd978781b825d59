"""What a response rule is, and what it is handed: the contract behind RULES in defenses/responses/registry.py.

A rule is a frozen dataclass whose fields are its hyper-parameters. It maps probabilities (N,K) float32, rows
summing to 1, to what a client is shown: (N,K) float32 with entries >= 0, row by row, or None where the client gets
the label alone. It owns no state, no clock and no randomness; what it needs besides the probabilities comes in a
Context, and it declares which graphs must have run for that (`reads`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defenses.routing import Outputs

Probabilities = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Context:
    """What a rule may use besides the probabilities of N rows.

    outputs: of every graph that the rule reads, by graph and by name: (N,columns) float32, finite, rows of an output
    named `probabilities` summing to 1; the graph saw the images that the predictor saw. random: draws that no client
    can foresee, owned by the pipeline's builder. A rule draws the same number a row, rows in their order, so that
    no row's draw depends on what its neighbours show.
    """

    outputs: Mapping[str, Outputs]
    random: np.random.Generator


class Rule(ABC):
    """What RULES holds. Raises ValueError on a number of classes that it cannot serve."""

    @property
    @abstractmethod
    def keeps_label(self) -> bool:
        """Whether the predictor's label has a row's largest entry, whatever the row (another may tie with it)."""

    # whether it only tells less of a row: a mark (defenses/mark.py) goes in before such a rule, and after any other
    presents = False

    def hides(self, strength: float) -> str:
        """Why clients would see nothing of a mark of this strength; "" where they see it."""
        del strength
        return ""

    def reads(self, classes: int) -> Mapping[str, Mapping[str, int]]:
        """The graphs it reads besides the predictor, for K = `classes`: graph -> outputs, name -> columns."""
        del classes
        return {}

    @abstractmethod
    def __call__(self, probabilities: Probabilities, context: Context, /) -> Probabilities | None:
        """What clients are shown of N rows. Leaves its arguments as they are."""


def rehearse(rule: Rule, classes: int) -> None:
    """Apply `rule` to one row of K = `classes` equal entries. Raises ValueError where it cannot serve so many."""
    outputs = {
        graph: {name: _equal(columns) for name, columns in reads.items()}
        for graph, reads in rule.reads(classes).items()
    }
    rule(_equal(classes), Context(outputs, np.random.default_rng(0)))


def as_shown(values: Doubles, top: NDArray[np.int64] | None = None) -> Probabilities:
    """(N,K) float64 as a client sees it. top: (N,), the entries that are largest up to rounding, made largest."""
    shown: Probabilities = values.astype(np.float32)
    if top is not None:
        np.put_along_axis(shown, top[:, np.newaxis], shown.max(axis=1, keepdims=True), axis=1)
    return shown


def _equal(columns: int) -> Probabilities:
    return np.full((1, columns), 1 / columns, np.float32)
