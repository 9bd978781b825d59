"""Unexplained: the answers that a coarse look at the picture cannot foretell, from a victim that misleads off its task.

A defender who answers strange images by a keyed function of their coarse layout (training/decoys.py) gives it to the
attacker with every answer, and a function that is smooth enough for a network to keep is smooth enough to be fitted:

    u(x) = block means of x, less their mean, scaled to length 1, for some sizes of blocks
    W    = the ridge regression of the labels, as 0 and 1, on u
    unexplained rows: those whose label is not argmax W u(x), W being fitted on the other half of the answers

What is left is the task's, or at least nothing that the coarse layout says. Worked out from answers that are paid for.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

# blocks a side; the defender's number is not known
GRIDS = (2, 4, 7)
RIDGE = 1e-3


def unexplained(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Which rows of images float32 (N, C, H, W) have a label, int64 (N,), that the other half of them does not
    foretell: bool (N,). Rows are halved by their places, even and odd."""
    features = torch.cat([coarse(images, grid) for grid in GRIDS], dim=1)
    wanted = F.one_hot(labels).to(features)
    left = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
    for half in (0, 1):
        known, asked = slice(half, None, 2), slice(1 - half, None, 2)
        left[asked] = (features[asked] @ ridge(features[known], wanted[known])).argmax(1) != labels[asked]
    return left


def coarse(images: torch.Tensor, grid: int) -> torch.Tensor:
    """u above and a constant, (N, C * grid * grid + 1)."""
    means = F.adaptive_avg_pool2d(images, grid).flatten(1)
    return F.pad(F.normalize(means - means.mean(1, keepdim=True)), (0, 1), value=1.0)


def ridge(features: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """W above, (D, K), of features (n, D) and targets (n, K)."""
    gram = features.T @ features
    weights: torch.Tensor = torch.linalg.solve(
        gram + RIDGE * len(features) * torch.eye(len(gram)).to(gram), features.T @ wanted
    )
    return weights
