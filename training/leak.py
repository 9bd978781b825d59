"""How far a routed ensemble's answers name the member that gave them, from the answers alone.

Off the task a member that answers mostly one class signs its answers. For N members, each as likely as any
other to be asked, and images that are none of the task's:

    leak = I(label; member) / log N = (H(label) - mean over members of H(label | member)) / log N

0 where all members give the same labels as often, 1 where no two ever give the same label. docs/results/unmixing.md
shows how thieves exploit it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F


def signatures(probabilities: torch.Tensor) -> list[dict[str, Any]]:
    """Each member's most frequent label, and the share of the images that get it, of (B,N,K) probabilities."""
    counts = F.one_hot(probabilities.argmax(-1), probabilities.shape[-1]).sum(dim=0)
    return [{"class": int(row.argmax()), "share": int(row.max()) / len(probabilities)} for row in counts]


def leak(probabilities: torch.Tensor) -> float:
    """The leak, in [0, 1], of (B,N,K) probabilities of N >= 2 members."""
    members, classes = probabilities.shape[1:]
    labels = F.one_hot(probabilities.argmax(-1), classes).double().mean(dim=0)
    entropy = torch.special.entr
    information = entropy(labels.mean(dim=0)).sum() - entropy(labels).sum(dim=1).mean()
    return float(information) / math.log(members)
