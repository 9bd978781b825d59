"""Whether a suspect learnt a mark (defenses/mark.py): a statistic, its exact p-value under redrawn keys, an e-value.

Of the suspect's answers q(x) to images of the owner's own, and the owner's unmarked answers v(x) to the same images:

    f(x)    = l(q(x)) - l(v(x))                         what the suspect says more of each class than the owner does,
              where l(y) = log(min(y, cap) + eps)
    a(c, j) = sum of f_j over the images of cell c, less its mean over the K - 1 classes that are not the cell's label,
              in whole steps
    T       = sum over cells of a(c, k(c))              for the keyed classes k

The key draws k(c) uniformly from K - 1 classes, one cell independently of the other, whatever the suspect was trained
on: if it was trained without answers to this account, T is a sum of independent draws from the known rows a(c, .). So
its distribution under redrawn keys is known exactly, and p = P(T' >= T) needs neither models to compare with nor an
assumption about them: a permutation test with all permutations (Fisher, The Design of Experiments, 1935). As a is in
whole steps, the distribution is a convolution of whole numbers, with no rounding but that of its chances.

eps hides the noise of tiny probabilities. The cap lets a class that the suspect takes an image for weigh no more than
one that is marked. Both were fixed on clones of MNIST, Fashion-MNIST and CIFAR-10 that were asked about held-out
training images; what else was tried is in evaluation/marks/rivals.py.

The e-value bets on each cell what the mark should do to it, odds exp(b a(c, j)) with mean 1 under a redraw:

    E = mean over b of prod over cells of exp(b a(c, k(c))) / mean over j of exp(b a(c, j))

E has mean 1 or less where the suspect learnt nothing (Vovk and Wang, E-values, Annals of Statistics 2021), so P(E >= u)
<= 1 / u. E-values under *different* keys or accounts may be multiplied; under one key, of several suspects or days,
they may be averaged: it was drawn once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]
# of a suspect's probabilities and the owner's, both (N,K): f above, (N,K)
Excess = Callable[[Doubles, Doubles], Doubles]

EPSILON = 1e-4
CAP = 0.02
# steps of a to the standard deviation of its entries
STEPS = 32
# b above, a being in standard deviations of its entries
BETS = (0.1, 0.2, 0.4, 0.8)


@dataclass(frozen=True)
class Evidence:
    """What speaks for a mark of one account under one key.

    z: T in standard deviations of its redraws, from their mean. p, e: as above. cells: with an image. images: in all.
    """

    z: float
    p: float
    e: float
    cells: int
    images: int


@dataclass(frozen=True, eq=False)
class Table:
    """What a suspect says of each cell, before any key's classes are looked at.

    scores: a above, int64 (cells with an image, K - 1). cells: their numbers. others: (cells, K - 1), the class of each
    score. images: in all cells.
    """

    scores: Integers
    cells: Integers
    others: Integers
    images: int

    def against(self, classes: Integers) -> Evidence:
        """For the mark with keyed `classes`, (all cells,)."""
        chosen = (self.others == classes[self.cells][:, np.newaxis]).argmax(axis=1)
        drawn = self.scores[np.arange(len(self.cells)), chosen]
        means, spreads = self.scores.mean(axis=1), self.scores.std(axis=1)
        if not spreads.any():
            return Evidence(0.0, 1.0, 1.0, len(self.cells), self.images)
        z = float((drawn - means).sum() / math.sqrt(float((spreads**2).sum())))
        place = int(drawn.sum() - self.scores.min(axis=1).sum())
        return Evidence(z, min(1.0, float(self.chances[place])), self._bets(chosen), len(self.cells), self.images)

    @cached_property
    def chances(self) -> Doubles:
        """P(T' >= t) for each t from the least that T' can be."""
        places = self.scores - self.scores.min(axis=1, keepdims=True)
        chances = np.ones(1)
        for row in places:
            wider = np.zeros(len(chances) + int(row.max()))
            for place in row:
                wider[place : place + len(chances)] += chances
            chances = wider / len(row)
        return chances[::-1].cumsum()[::-1]

    def _bets(self, chosen: Integers) -> float:
        """E above, at most 1e300."""
        rows = np.arange(len(self.scores))
        logs = []
        for bet in BETS:
            odds = self.scores * (bet / STEPS)
            logs.append(float((odds[rows, chosen] - np.log(np.exp(odds).mean(axis=1))).sum()))
        most = max(logs)
        return math.exp(min(690.0, most + math.log(sum(math.exp(each - most) for each in logs) / len(logs))))


def capped(suspect: Doubles, owner: Doubles) -> Doubles:
    """f above."""
    return _logs(suspect) - _logs(owner)


def _logs(probabilities: Doubles) -> Doubles:
    """l above."""
    logs: Doubles = np.log(np.minimum(probabilities, CAP) + EPSILON)
    return logs


def together(models: Sequence[Doubles]) -> Doubles:
    """(N,K): what one or more models say, as one that may stand for the owner in `capped`: the mean of l."""
    mean: Doubles = np.exp(np.mean([_logs(answers) for answers in models], axis=0)) - EPSILON
    return mean


def table(suspect: Doubles, owner: Doubles, cells: Integers, *, parts: int, excess: Excess = capped) -> Table:
    """What a suspect says of each cell.

    suspect, owner: (N,K) probabilities of the same N >= 1 images. cells: (N,), of Marker.cell; parts: of each label.
    excess: f, fixed before any suspect was seen.
    """
    classes = suspect.shape[1]
    said = excess(suspect, owner)
    counts = np.bincount(cells, minlength=classes * parts)
    sums = np.zeros((classes * parts, classes))
    np.add.at(sums, cells, said)
    kept = np.flatnonzero(counts)
    others = np.array([[other for other in range(classes) if other != cell // parts] for cell in kept], np.int64)
    scores = sums[kept[:, np.newaxis], others]
    scores -= scores.mean(axis=1, keepdims=True)
    steps = np.rint(scores * (STEPS / (scores.std() or 1.0))).astype(np.int64)
    return Table(steps, kept, others, int(counts[kept].sum()))
