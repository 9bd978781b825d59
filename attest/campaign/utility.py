"""What the service is worth to its owner: his labelled images, over the same endpoint as everybody's."""

from __future__ import annotations

import torch

from attacks import metrics
from attest.asking import FAULTS, Asking
from attest.campaign.exact import percentiles, wilson
from attest.measured import Utility

PHASE = "utility"
PART = 64


def served(asking: Asking, images: torch.Tensor) -> torch.Tensor:
    """The served labels int64 (N,) of images float32 (N, C, H, W), REFUSED where there was no answer. Raises
    Stopped."""
    oracle = asking.phase(PHASE)
    return torch.cat([oracle(part).labels for part in images.split(PART)])


def utility(asking: Asking, truth: torch.Tensor) -> Utility:
    """What the ledger says of the phase. truth: int64 (N,); an image that was not asked about counts as refused."""
    entries = [entry for entry in asking.ledger.entries() if entry.phase == PHASE and entry.final]
    labels = torch.full_like(truth, -1)
    for entry in entries:
        labels[entry.place] = asking.label(entry)
    accuracy = metrics.accuracy(labels, truth)
    low, high = wilson(accuracy, len(truth))
    told = labels[labels >= 0]
    p50, p99 = percentiles([entry.ms for entry in entries if entry.kind == "answered"])
    asked = max(1, len(entries))
    return Utility(
        images=len(truth),
        accuracy=accuracy,
        low=low,
        high=high,
        majority=float(truth.bincount().max() / len(truth)),
        largest=float(told.bincount().max() / len(told)) if len(told) else 0.0,
        refused=sum(entry.kind in ("refused", "throttled", "challenged") for entry in entries) / asked,
        failed=sum(entry.kind in FAULTS for entry in entries) / asked,
        p50_ms=p50,
        p99_ms=p99,
    )
