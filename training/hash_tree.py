r"""A tree of secret hyperplanes whose leaves get equal shares of all traffic and keep an image's copies together.

EDM's hash (class and confidence) is balanced on its task alone: uniform noise is one class to it, and goes to one
member. A tree of random projections, each node split at the median of what reaches it (Dasgupta and Freund, "Random
projection trees and low dimensional manifolds", STOC 2008), gives every leaf the same share of the images it was grown
on, so its depth resolves noise as well as digits. But a random direction sees what an affine copy changes as much as
what distinguishes images. So each node draws its direction among the best discriminants of the images that reach it:

    normal = L^-T V z,   z ~ N(0, I),   V: first `rank` eigenvectors of L^-1 B L^-T,   W = L L^T

with B the covariance of the images' features and W the mean square of what warping an image adds to them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.fixed_point import LARGEST_WEIGHT

Floats = NDArray[np.float64]

# of a hyperplane's coefficients: with features up to 255 and an offset that they reach, what a HashNet can add up
LARGEST_SUM = 2**14 - 1
RIDGE = 0.01


@dataclass(frozen=True)
class Tree:
    """`tree` of [networks.hash]: levels, which buy balance for invariance; eigenvectors that a node draws from."""

    depth: int = 5
    rank: int = 4

    def __post_init__(self) -> None:
        for name, value, most in (("depth", self.depth, 12), ("rank", self.rank, 1000)):
            if not 1 <= value <= most:
                raise ValueError(f"{name}: expected 1 to {most}, got {value}")

    @property
    def nodes(self) -> int:
        """How many hyperplanes the tree has."""
        return (1 << self.depth) - 1

    def grow(self, features: Floats, copies: Floats, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Hyperplanes as HashNet.place takes them: whole normals (nodes,F) and offsets (nodes,), level by level.

        features (n,F): of the images; copies (k,n,F): of k warped copies of each. Node p's children are 2p + 1, where
        normal . features <= offset, and 2p + 2. rng: draws the directions; where it is seeded is where the secret is.
        """
        normals, offsets = [], []
        level = [np.arange(len(features))]
        for _ in range(self.depth):
            below = []
            for reached in level:
                # a node that too few images reach is split as the whole is
                rows = reached if len(reached) > 2 * self.rank else np.arange(len(features))
                basis = _discriminants(features[rows], copies[:, rows], self.rank)
                normal = _whole(basis @ rng.standard_normal(basis.shape[1]))
                offset = np.floor(np.median(features[rows] @ normal))
                right = features[reached] @ normal > offset
                below += [reached[~right], reached[right]]
                normals.append(normal)
                offsets.append(offset)
            level = below
        return torch.from_numpy(np.stack(normals)), torch.from_numpy(np.array(offsets))


def _discriminants(features: Floats, copies: Floats, rank: int) -> Floats:
    """Directions (F, rank) along which images differ most for what warping moves them."""
    moved = (copies - features).reshape(-1, features.shape[1])
    within = moved.T @ moved / len(moved)
    # features that nothing moves would be infinitely telling
    within += np.eye(len(within)) * (RIDGE * np.trace(within) / len(within) + 1e-3)
    whiten = np.linalg.inv(np.linalg.cholesky(within))
    _, vectors = np.linalg.eigh(whiten @ np.cov(features.T, bias=True) @ whiten.T)
    basis: Floats = whiten.T @ vectors[:, ::-1][:, :rank]
    return basis


def _whole(normal: Floats) -> Floats:
    """The direction in whole numbers, as long as a HashNet takes."""
    size = np.abs(normal)
    scaled: Floats = np.trunc(normal * min(LARGEST_SUM / size.sum(), LARGEST_WEIGHT / size.max()))
    return scaled
