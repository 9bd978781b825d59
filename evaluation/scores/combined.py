r"""Several scores as one, conformally: of each its p-value among benign images, then one number of all of them.

    p_i = (1 + #{benign images that score at least as high}) / (n + 1)

    bonferroni   -log(m min_i p_i)                     one of them is enough
    fisher       -2 sum_i log p_i                      all of them count
    normal       sum_i F^-1(1 - p_i) / sqrt(m)         F the normal distribution

The scores are not independent, so none of the three has the distribution that its inventor gave it; the threshold is
that of other benign images, which makes up for it. Beyond the largest of the n benign scores all p are 1 / (n + 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from evaluation.scores.score import Fit, Known, Rule
from evaluation.scores.sight import Doubles, Seen

Combine = Callable[[Doubles], Doubles]
"""p-values (N,m) in (0, 1) -> (N,)"""


def bonferroni(p: Doubles) -> Doubles:
    """See above."""
    found: Doubles = -np.log(p.shape[1] * p.min(axis=1))
    return found


def fisher(p: Doubles) -> Doubles:
    """See above."""
    found: Doubles = -2 * np.log(p).sum(axis=1)
    return found


def normal(p: Doubles) -> Doubles:
    """See above."""
    found: Doubles = -torch.special.ndtri(torch.from_numpy(p)).sum(1).numpy() / math.sqrt(p.shape[1])
    return found


COMBINATIONS: Mapping[str, Combine] = {"bonferroni": bonferroni, "fisher": fisher, "normal": normal}


def together(combine: Combine, names: Sequence[str]) -> Fit:
    """Of scores that were fitted before, by name."""

    def fitted(known: Known) -> Rule:
        rules = [known.rules[name] for name in names]
        benign = [np.sort(rule(known.benign)) for rule in rules]

        def score(seen: Seen) -> Doubles:
            return combine(np.stack([p_values(rule(seen), b) for rule, b in zip(rules, benign, strict=True)], axis=1))

        return score

    return fitted


def p_values(scores: Doubles, benign: Doubles) -> Doubles:
    """Of scores (N,) among benign ones (n,) that rise: at most n / (n + 1), so that none is certain to be benign."""
    higher = len(benign) - np.searchsorted(benign, scores, side="left")
    found: Doubles = (1 + higher).clip(max=len(benign)) / (len(benign) + 1)
    return found
