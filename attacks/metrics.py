"""What an attack gains and what a defense costs its users: exact definitions.

Served labels and probabilities may hold refused rows (label REFUSED, probabilities NaN). All results are fractions
in [0, 1] but for `l1`, which lies in [0, 2].
"""

from __future__ import annotations

import torch

from attacks.oracle import REFUSED

ECE_BINS = 15


def accuracy(labels: torch.Tensor, truth: torch.Tensor) -> float:
    """Share of rows whose label is the true one; both int64 (N,). A refused row is wrong."""
    return _share(labels == truth)


def agreement(clone: torch.Tensor, served: torch.Tensor) -> float:
    """Fidelity: share of rows where the clone's label is the served one; both int64 (N,).

    A refused row counts as disagreement: there was nothing to agree with. A service that answers at random has no
    unique answer, so its agreement stays below 1 even for a perfect clone.
    """
    return _share((clone == served) & (served != REFUSED))


def normalised_accuracy(clone_accuracy: float, served_accuracy: float) -> float:
    """Clone accuracy as a share of the accuracy of the victim *as served*, the defense included (EDM, sec. 5.2)."""
    if not served_accuracy > 0:
        raise ValueError(f"served_accuracy: expected above 0, got {served_accuracy}")
    return clone_accuracy / served_accuracy


def label_flips(served: torch.Tensor, clean: torch.Tensor) -> float:
    """Share of rows where the defense changed the undefended label; both int64 (N,). A refused row is changed."""
    return _share(served != clean)


def l1(served: torch.Tensor, clean: torch.Tensor) -> float:
    """Mean over rows of sum_k |p_served - p_clean|, in [0, 2]; both float32 (N, K). Refused rows are left out."""
    answered = ~served.isnan().any(dim=1)
    if not answered.any():
        raise ValueError("l1: expected at least one answered row, got none")
    return (served[answered].double() - clean[answered].double()).abs().sum(dim=1).mean().item()


def ece(probabilities: torch.Tensor, truth: torch.Tensor) -> float:
    """Expected calibration error (Guo et al., ICML 2017) in 15 equal-width bins of the largest probability.

    sum over bins of (rows in bin / rows) * |accuracy - mean confidence|; bin b holds (b/15, (b+1)/15]. Probabilities
    float32 (N, K) as served, truth int64 (N,). Refused rows are left out.
    """
    answered = ~probabilities.isnan().any(dim=1)
    if not answered.any():
        raise ValueError("ece: expected at least one answered row, got none")
    confidence, label = probabilities[answered].max(dim=1)
    # in float32: the double nearest to float32's 3/15 lies above the edge and would fall into the next bin
    bins = (torch.ceil(confidence * ECE_BINS).long() - 1).clamp(0, ECE_BINS - 1)
    surplus = (label == truth[answered]).double() - confidence.double()
    gap = torch.zeros(ECE_BINS, dtype=torch.float64).index_add_(0, bins, surplus)
    return (gap.abs().sum() / len(confidence)).item()


def _share(hits: torch.Tensor) -> float:
    if not len(hits):
        raise ValueError("expected at least one row, got none")
    return hits.double().mean().item()
