"""What a score is: fitted to images that are known to be benign, then a number for any image, high meaning suspicious.

Every fit sees the images that trained the victim, and benign ones that trained nothing. Where the threshold lies is
decided on further ones, so that a score which was fitted too closely gains nothing by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from evaluation.scores.sight import Doubles, Seen

Rule = Callable[[Seen], Doubles]
"""N images -> (N,), finite"""

# so that what never varies is not divided by nothing
LEAST_SPREAD = 1e-3


@dataclass(frozen=True, eq=False)
class Known:
    """What a score is fitted to. training: the images that trained the victim, with their labels (N,). benign: such as
    trained nothing. rules: those that were fitted already, by name: several scores may be put together."""

    training: Seen
    labels: torch.Tensor
    benign: Seen
    rules: dict[str, Rule] = field(default_factory=dict)


Fit = Callable[[Known], Rule]


@dataclass(frozen=True)
class Score:
    """family: what it reads, one of FAMILIES. fit: makes its rule."""

    family: str
    fit: Fit


FAMILIES = ("gate", "image", "features", "combined")


class Once:
    """A rule that scores the same images once, since scores are made of others."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    def __call__(self, seen: Seen) -> Doubles:
        """The rule's (N,)."""
        if self not in seen.scores:
            seen.scores[self] = self._rule(seen)
        return seen.scores[self]


def scale(benign: Doubles) -> tuple[float, float]:
    """The median of benign values (N,), and their median absolute deviation."""
    centre = float(np.median(benign))
    return centre, max(float(np.median(np.abs(benign - centre))), LEAST_SPREAD)


def two_sided(fit: Fit) -> Fit:
    """How far the score lies from the median of benign images, in their median absolute deviations, on either side."""

    def fitted(known: Known) -> Rule:
        rule = fit(known)
        centre, spread = scale(rule(known.benign))

        def apart(seen: Seen) -> Doubles:
            found: Doubles = np.abs(rule(seen) - centre) / spread
            return found

        return apart

    return fitted


def threshold(benign: Doubles, rate: float) -> float:
    """The score that a further benign image exceeds with a probability of at most `rate`: of N benign scores (N,) the
    m-th largest, m = floor(rate (N + 1)). Raises ValueError where N is too small."""
    rank = math.floor(rate * (len(benign) + 1))
    if not rank:
        raise ValueError(f"expected at least {math.ceil(1 / rate) - 1} benign images for {rate}, got {len(benign)}")
    return float(np.sort(benign)[-rank])
