"""Response rules that turn the gradient a thief trains with, by a surrogate of the thief: a graph like any other.

A thief who trains on y' follows G^T y', where row k of G (K,P) is the gradient of log p_k of its network. Both rules
put a stand-in for that network and look for the y' within ||y' - y||_1 <= epsilon whose gradient is the worst.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from defenses import ranges
from defenses.responses.rule import Context, Doubles, Probabilities, Rule, as_shown

# Up to so many classes every vertex that keeps the label is tried, 2^(K-1) of them; above it they grow greedily.
ALL_VERTICES = 10
# A squared length below this is no direction: float64's rounding of numbers about 1.
NO_LENGTH = 1e-15

Number = TypeVar("Number", np.float64, np.int64)


@dataclass(frozen=True)
class Mad(Rule):
    """MAD, prediction poisoning: turn the thief's gradient by the largest angle. Orekondy et al., ICLR 2020.

    Of the extreme answers y* the one with the smallest cos(G^T y*, G^T y), then y' = (1 - a) y + a y* with
    a = epsilon / ||y - y*||_1, at most 1. The paper takes G with respect to the last layer's weights alone, of a
    network that was never trained. There the gradient of log p_k is (e_k - s) h^T, with s the surrogate's softmax and
    h its features, so the features cancel: cos(G^T y*, G^T y) = cos(y* - s, y - s), and one forward pass of the
    surrogate is all that a row costs. Where y = s the gradient is 0 and has no angle; the first extreme is taken.

    epsilon: above 0, at most 2. keep_label: extremes are the distributions that share their mass equally among some
    classes, the label one of them (the paper's argmax-preserving oracle: all subsets for K <= 10, greedily grown ones
    above); otherwise the K one-hot rows, and the label moves with y'. graph: the surrogate's; gives `probabilities`.
    """

    epsilon: float
    keep_label: bool = True
    graph: str = "surrogate"

    def __post_init__(self) -> None:
        ranges.number("epsilon", self.epsilon, above=0, most=2)
        ranges.boolean("keep_label", self.keep_label)
        ranges.identifier("graph", self.graph)

    @property
    def keeps_label(self) -> bool:
        return self.keep_label

    def reads(self, classes: int) -> Mapping[str, Mapping[str, int]]:
        return {self.graph: {"probabilities": classes}}

    def __call__(self, probabilities: Probabilities, context: Context, /) -> Probabilities | None:
        y = probabilities.astype(np.float64)
        angles = Angles.between(y, context.outputs[self.graph]["probabilities"].astype(np.float64))
        if not self.keep_label:
            extreme = _one_hot(angles)
        elif y.shape[1] <= ALL_VERTICES:
            extreme = _best_subset(angles, y)
        else:
            extreme = _grown_subset(angles, y.argmax(axis=1))
        distance = np.abs(y - extreme).sum(axis=1, keepdims=True)
        share = self.epsilon / np.maximum(distance, self.epsilon)  # at most 1
        return as_shown(y + share * (extreme - y), y.argmax(axis=1) if self.keep_label else None)


@dataclass(frozen=True, eq=False)
class Angles:
    """cos(c - s, y - s) of candidates c that share their mass equally among classes, up to a factor of the row.

    Everything is a sum over a candidate's classes, in one order for every row: no row's rounding, and so no choice
    between candidates that are as good, depends on the number of rows.

    away: y - s, (N,K). surrogate: s, (N,K). along: <s, y - s>, (N,1). length: ||s||^2, (N,1).
    """

    away: Doubles
    surrogate: Doubles
    along: Doubles
    length: Doubles

    @classmethod
    def between(cls, y: Doubles, surrogate: Doubles) -> Angles:
        away = y - surrogate
        along, length = ((surrogate * other).sum(axis=1, keepdims=True) for other in (away, surrogate))
        return cls(away, surrogate, along, length)

    def cosine(self, away: Doubles, surrogate: Doubles, classes: NDArray[np.int64]) -> Doubles:
        """(N,M) of candidates whose entries of `away` and `surrogate` sum to these; `classes`: how many they have."""
        squared = 1 / classes - 2 * surrogate / classes + self.length
        inner = away / classes - self.along
        cosine: Doubles = np.where(squared > NO_LENGTH, inner / np.sqrt(squared.clip(min=NO_LENGTH)), 0.0)
        return cosine


def _one_hot(angles: Angles) -> Doubles:
    """(N,K): the one-hot row with the smallest cosine, of equal ones the first."""
    worst = angles.cosine(angles.away, angles.surrogate, np.ones(1, np.int64)).argmin(axis=1)
    extreme: Doubles = np.eye(angles.away.shape[1])[worst]
    return extreme


def _best_subset(angles: Angles, y: Doubles) -> Doubles:
    """(N,K): of all subsets of classes with the label, the one with the smallest cosine.

    Subset m holds the label and, for every bit j of m, the class of rank j + 1: sums over subsets double with each
    class. Of equal ones the first, so the one of the likelier classes.
    """
    ranks = np.argsort(-y, axis=1, kind="stable")
    away, surrogate = (np.take_along_axis(values, ranks, axis=1) for values in (angles.away, angles.surrogate))
    classes = _over_subsets(np.ones((1, y.shape[1]), np.int64))
    chosen = angles.cosine(_over_subsets(away), _over_subsets(surrogate), classes).argmin(axis=1)[:, np.newaxis]
    held = np.concatenate([np.ones_like(chosen), chosen >> np.arange(y.shape[1] - 1) & 1], axis=1)
    extreme = np.empty_like(y)
    np.put_along_axis(extreme, ranks, held / held.sum(axis=1, keepdims=True), axis=1)
    return extreme


def _over_subsets(values: NDArray[Number]) -> NDArray[Number]:
    """(N,K) to (N,2^(K-1)): column 0 and the columns j + 1 of every bit j of m, added up."""
    sums = values[:, :1]
    for column in range(1, values.shape[1]):
        sums = np.concatenate([sums, sums + values[:, column : column + 1]], axis=1)
    return sums


def _grown_subset(angles: Angles, top: NDArray[np.int64]) -> Doubles:
    """(N,K): from the label alone, class after class, the one that lowers the cosine most, while one does."""
    held = np.zeros(angles.away.shape, np.bool_)
    np.put_along_axis(held, top[:, np.newaxis], True, axis=1)
    lowest = np.full(len(top), np.inf)
    growing = np.ones(len(top), np.bool_)
    while growing.any():
        away, surrogate = (
            np.where(held, values, 0).sum(axis=1, keepdims=True) for values in (angles.away, angles.surrogate)
        )
        classes = held.sum(axis=1, keepdims=True)
        lowest = np.minimum(lowest, angles.cosine(away, surrogate, classes)[:, 0])
        grown = angles.cosine(away + angles.away, surrogate + angles.surrogate, classes + 1)
        grown[held] = np.inf
        growing &= grown.min(axis=1) < lowest
        held[growing, grown.argmin(axis=1)[growing]] = True
    extreme: Doubles = held / held.sum(axis=1, keepdims=True)
    return extreme


@dataclass(frozen=True)
class GradientRedirection(Rule):
    """GRAD^2: turn the thief's gradient towards a direction v of ours. Mazeika et al., ICML 2022, v all ones.

    Maximises <G^T y', v> = <y', s> with s = G v under ||y' - y||_1 <= epsilon and the simplex: as much as epsilon / 2
    goes to the class with the largest s, taken from the classes with the smallest, whole entries first. The surrogate's
    graph gives s as `redirection`: a directional derivative of its log-softmax, found in the same forward pass
    (export/redirection.py). v is the same for every row: the paper's other choice, the batch's mean gradient, would
    let a client's answer depend on its neighbours' images.

    epsilon: above 0, at most 2. keep_label: no more is moved than leaves the label a largest entry; otherwise the label
    moves with y'. graph: the surrogate's.
    """

    epsilon: float
    keep_label: bool = False
    graph: str = "surrogate"

    def __post_init__(self) -> None:
        ranges.number("epsilon", self.epsilon, above=0, most=2)
        ranges.boolean("keep_label", self.keep_label)
        ranges.identifier("graph", self.graph)

    @property
    def keeps_label(self) -> bool:
        return self.keep_label

    def reads(self, classes: int) -> Mapping[str, Mapping[str, int]]:
        return {self.graph: {"redirection": classes}}

    def __call__(self, probabilities: Probabilities, context: Context, /) -> Probabilities | None:
        y = probabilities.astype(np.float64)
        top = y.argmax(axis=1)
        ranks = np.argsort(-context.outputs[self.graph]["redirection"], axis=1, kind="stable")
        best, others = ranks[:, :1], ranks[:, :0:-1]  # the others from the worst on
        held = np.take_along_axis(y, others, axis=1)
        below = held.cumsum(axis=1) - held  # what stands on classes that are worse
        moved = np.minimum(held.sum(axis=1, keepdims=True), self.epsilon / 2)
        if self.keep_label:
            moved = np.minimum(moved, _room(y, top[:, np.newaxis], best, others, below))
        taken = (moved - below).clip(0.0, held)
        shown = np.empty_like(y)
        np.put_along_axis(shown, others, held - taken, axis=1)
        np.put_along_axis(shown, best, np.take_along_axis(y, best, axis=1) + taken.sum(axis=1, keepdims=True), axis=1)
        return as_shown(shown, top if self.keep_label else None)


def _room(
    y: Doubles, top: NDArray[np.int64], best: NDArray[np.int64], others: NDArray[np.int64], below: Doubles
) -> Doubles:
    """(N,1): how much may move to `best` before a class overtakes the label `top`, both (N,1).

    The gap to best closes by what best receives and, once all that is worse than the label is spent, by what the label
    gives. What the label gives also brings it down to the classes that are better than it and keep what they have.
    """
    gap = np.take_along_axis(y, top, axis=1) - np.take_along_axis(y, best, axis=1)
    place = (others == top).argmax(axis=1)[:, np.newaxis]
    spare = np.take_along_axis(below, place, axis=1)
    better = np.where(np.arange(others.shape[1]) > place, np.take_along_axis(y, others, axis=1), 0.0)
    over = np.take_along_axis(y, top, axis=1) - better.max(axis=1, keepdims=True)
    room: Doubles = np.where(top == best, np.inf, np.minimum(np.minimum(gap, (gap + spare) / 2), spare + over))
    return room
