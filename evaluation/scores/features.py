r"""Scores of the victim's last layer but one, f(x), and of its logits z(x), fitted to its training images.

    mahalanobis       min_k (f - m_k)' S^-1 (f - m_k)          Lee et al., NeurIPS 2018: class means, one covariance
    nearest           ||f/|f| - its 50th nearest of training images||        Sun et al., ICML 2022
    energy            -log sum_k exp z_k                       Liu et al., NeurIPS 2020
    virtual-logit     a ||r|| - log sum_k exp z_k              Wang et al., CVPR 2022 (ViM)
    max-probability   log(1 - max_k p_k)                       Hendrycks and Gimpel, ICLR 2017

r is what is left of f - o, o = -W^+ b the head's origin, outside the D directions in which the training images' f - o
is largest, and a = mean max_k z_k / mean ||r|| over them. Features of a ReLU may never vary on the task: S gets a
thousandth of its mean variance on its diagonal.
"""

from __future__ import annotations

import numpy as np

from evaluation.scores.score import Known, Rule
from evaluation.scores.sight import Doubles, Seen, log_softmax, log_sum_exp

RIDGE = 1e-3
NEIGHBOURS = 50
# training images among which neighbours are looked for: Sun et al. lose little with a hundredth of ImageNet's
BANK = 10_000


def mahalanobis(known: Known) -> Rule:
    """See above."""
    features, labels = known.training.features, known.labels.numpy()
    classes = np.unique(labels)
    means = np.stack([features[labels == label].mean(axis=0) for label in classes])
    centred = features - means[np.searchsorted(classes, labels)]
    covariance = centred.T @ centred / len(centred)
    ridge = RIDGE * np.trace(covariance) / len(covariance)
    # with S^-1 = L L', a distance is one of points that L' has mapped
    whiten = np.linalg.cholesky(np.linalg.inv(covariance + ridge * np.eye(len(covariance))))
    centres = means @ whiten

    def distance(seen: Seen) -> Doubles:
        found: Doubles = _squared_distances(seen.features @ whiten, centres).min(axis=1)
        return found

    return distance


def nearest(known: Known) -> Rule:
    """See above."""
    bank = _unit(known.training.features[:BANK])
    place = min(NEIGHBOURS, len(bank)) - 1
    single = bank.astype(np.float32)

    def distance(seen: Seen) -> Doubles:
        cosines = _unit(seen.features).astype(np.float32) @ single.T
        kth = -np.partition(-cosines, place, axis=1)[:, place]
        found: Doubles = np.sqrt((2 - 2 * kth.astype(np.float64)).clip(min=0))
        return found

    return distance


def energy(known: Known) -> Rule:
    """See above."""
    del known
    return lambda seen: -log_sum_exp(seen.logits)


def max_probability(known: Known) -> Rule:
    """See above."""
    del known

    # as the sum of the others: where p is 1 but for rounding, they still differ
    return lambda seen: log_sum_exp(np.sort(log_softmax(seen.logits), axis=1)[:, :-1])


def virtual_logit(known: Known) -> Rule:
    """See above."""
    head = known.training.sight.head
    weight = head.weight.detach().double().numpy()
    bias = np.zeros(len(weight)) if head.bias is None else head.bias.detach().double().numpy()
    origin = -np.linalg.pinv(weight) @ bias
    shifted = known.training.features - origin
    directions = np.linalg.eigh(shifted.T @ shifted)[1]  # of rising eigenvalues
    outside = directions[:, : -dimensions(len(directions))]

    def residual(seen: Seen) -> Doubles:
        found: Doubles = np.linalg.norm((seen.features - origin) @ outside, axis=1)
        return found

    scale = float(known.training.logits.max(axis=1).mean() / residual(known.training).mean())
    return lambda seen: scale * residual(seen) - log_sum_exp(seen.logits)


def dimensions(features: int) -> int:
    """D of the paper for so many features; where there are fewer than it had, half."""
    return 1000 if features >= 2048 else 512 if features >= 768 else features // 2


def _unit(features: Doubles) -> Doubles:
    found: Doubles = features / np.linalg.norm(features, axis=1, keepdims=True).clip(min=np.finfo(np.float64).tiny)
    return found


def _squared_distances(points: Doubles, centres: Doubles) -> Doubles:
    squares = np.square(points).sum(axis=1)[:, None] + np.square(centres).sum(axis=1)
    found: Doubles = (squares - 2 * points @ centres.T).clip(min=0)
    return found
