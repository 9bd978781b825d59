"""Response rules: what a client is shown of the probabilities that the predictor found.

Here are the rules that tell less of them (Tramèr et al., USENIX Security 2016) and the registry of all; those that
tell something else are in perturbation.py (noise, and what is a function of the row) and in poisoning.py (what is
worked out against a surrogate of the thief). defenses/responses/rule.py defines what a rule is.

To add a rule: its class, its line in RULES, its golden rows in tests/defenses/responses/test_registry.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from defenses import ranges
from defenses.responses.perturbation import AdaptiveMisinformation, RandomPerturbation, ReverseSigmoid
from defenses.responses.poisoning import GradientRedirection, Mad
from defenses.responses.rule import Context, Probabilities, Rule


@dataclass(frozen=True)
class Soft(Rule):
    """y = p: every probability as the predictor gave it. Returns its argument, not a copy."""

    keeps_label = True
    presents = True

    def __call__(self, probabilities: Probabilities, context: Context, /) -> Probabilities | None:
        return probabilities


@dataclass(frozen=True)
class Label(Rule):
    """No probabilities: the client gets argmax p alone."""

    keeps_label = True
    presents = True

    def hides(self, strength: float) -> str:
        return "'label' tells no probabilities, and a mark in labels would be wrong answers"

    def __call__(self, probabilities: Probabilities, context: Context, /) -> Probabilities | None:
        return None


@dataclass(frozen=True)
class TopK(Rule):
    """y_i = p_i for the k largest entries of a row, 0 elsewhere; rows are not renormalised.

    Of equal entries the one with the smaller index is kept first, so exactly k are kept and argmax is among
    them. k: from 1 to the number of classes.
    """

    k: int
    keeps_label = True
    presents = True

    def hides(self, strength: float) -> str:
        return "'top_k' with k = 1 tells no second class" if self.k == 1 else ""

    def __post_init__(self) -> None:
        ranges.integer("k", self.k, 1, 10_000)

    def __call__(self, probabilities: Probabilities, context: Context, /) -> Probabilities | None:
        classes = probabilities.shape[1]
        if self.k > classes:
            raise ValueError(f"k: expected at most the number of classes, {classes}, got {self.k}")
        kept = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.k]
        answered = np.zeros_like(probabilities)
        np.put_along_axis(answered, kept, np.take_along_axis(probabilities, kept, axis=1), axis=1)
        return answered


@dataclass(frozen=True)
class Rounded(Rule):
    """y = rint(p * 10^digits) / 10^digits in float32, halves to the even neighbour, without renormalising.

    Monotonic, so the largest entry stays a largest one, but a close second may come to equal it.
    digits: decimals kept, from 1 to 6 (float32 holds seven).
    """

    digits: int
    keeps_label = True
    presents = True

    def hides(self, strength: float) -> str:
        return f"'rounded' with digits = {self.digits} rounds it away" if strength < 10**-self.digits else ""

    def __post_init__(self) -> None:
        ranges.integer("digits", self.digits, 1, 6)

    def __call__(self, probabilities: Probabilities, context: Context, /) -> Probabilities | None:
        return np.round(probabilities, self.digits)


@dataclass(frozen=True)
class Steps(Rule):
    """The label and how sure it is, in steps: y = c_j at argmax p and (1 - c_j) / (K - 1) elsewhere, where the largest
    entry of p is at least j of the `edges`.

    A user learns when to look again, and a thief a number of steps. edges: where a step ends, rising, above 0 and below
    1. confidences: c, one more than edges, rising, above 0 and at most 1: how often labels of the step are right, which
    the owner has measured (docs/policies.md); the first above 1 / K. Of entries that tie the first is the label.
    """

    edges: tuple[float, ...]
    confidences: tuple[float, ...]
    keeps_label = True
    presents = True

    def hides(self, strength: float) -> str:
        return "'steps' tells no second class"

    def __post_init__(self) -> None:
        for name in ("edges", "confidences"):  # YAML and TOML know no tuples
            numbers = getattr(self, name)
            if not isinstance(numbers, list | tuple) or not numbers:
                raise ValueError(f"{name}: expected a list of numbers, got {numbers!r}")
            for number in numbers:
                ranges.number(name, number, above=0, most=1)
            if any(after <= before for before, after in pairwise(numbers)):
                raise ValueError(f"{name}: expected numbers that rise, got {numbers!r}")
            object.__setattr__(self, name, tuple(map(float, numbers)))
        if self.edges[-1] >= 1:
            raise ValueError(f"edges: expected numbers below 1, got {self.edges}")
        if len(self.confidences) != len(self.edges) + 1:
            raise ValueError(
                f"confidences: expected {len(self.edges) + 1}, one more than edges, got {len(self.confidences)}"
            )

    def __call__(self, probabilities: Probabilities, context: Context, /) -> Probabilities | None:
        classes = probabilities.shape[1]
        if self.confidences[0] * classes <= 1:
            raise ValueError(f"confidences: expected the first above 1 / {classes}, got {self.confidences[0]}")
        rows, labels = np.arange(len(probabilities)), probabilities.argmax(axis=1)
        step = np.searchsorted(np.array(self.edges), probabilities[rows, labels], side="right")
        confidence = np.array(self.confidences)[step]
        shown = np.tile(((1 - confidence) / (classes - 1)).astype(np.float32)[:, np.newaxis], classes)
        shown[rows, labels] = confidence
        return shown


RULES: dict[str, type[Rule]] = {
    "soft": Soft,
    "label": Label,
    "top_k": TopK,
    "rounded": Rounded,
    "steps": Steps,
    "randp": RandomPerturbation,
    "reverse_sigmoid": ReverseSigmoid,
    "mad": Mad,
    "grad": GradientRedirection,
    "adaptive_misinformation": AdaptiveMisinformation,
}
