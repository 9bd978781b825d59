"""What a clone is fitted to: its losses, each made from all answers of a transfer set.

    p              mean over the batch of sum_k -y_k log p_k, against the served probabilities y or the served label
    log-p          mean of |s_k - t_k|, with t = l - mean_k l and l = log max(y, LOG_FLOOR): the served logits, taken
                   back from the probabilities up to the shift that a softmax forgets (DFME: Truong et al., "Data-Free
                   Model Extraction", CVPR 2021, sec. 3.3). It weighs every class of an answer where the cross entropy
                   hears the likely ones alone.
    prior-adjusted -log softmax(s + log prior)_label, the prior being each label's share of the answers (Menon et al.,
                   "Long-Tail Learning via Logit Adjustment", ICLR 2021, eq. 10): an ensemble's favourites are frequent
                   for any query, and carry less information for it

and those of attacks/unmixing.py, for victims whose answers come from one of several members.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from attacks import unmixing
from attacks.names import LABELS
from attacks.unmixing import LOG_FLOOR as LOG_FLOOR
from attacks.unmixing import centred_log as centred_log

# of a batch: its logits (n, K) and the answers' rows (n,) that they belong to; a scalar
Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Loss:
    """`make` takes what was answered, labels int64 (N,) or probabilities float32 (N, K) whose rows sum to 1, as far as
    `reads` allows it."""

    make: Callable[[torch.Tensor], Distance]
    reads: tuple[str, ...] = LABELS


def likelihood(targets: torch.Tensor) -> Distance:
    """p, against labels or probabilities."""
    return lambda logits, rows: F.cross_entropy(logits, targets[rows])


def logits_of(aims: torch.Tensor) -> Distance:
    """|s - t|, against logits `aims` float32 (N, K); a class that is NaN there is left out of its row."""

    if not aims.isnan().any():
        return lambda logits, rows: F.l1_loss(logits.float(), aims[rows])

    def distance(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        known = ~aims[rows].isnan()
        return F.l1_loss(logits.float()[known], aims[rows][known])

    return distance


def masked_likelihood(targets: torch.Tensor) -> Distance:
    """p over the classes that a row has left, against probabilities (N, K) where those left out are NaN."""

    def distance(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        wanted = targets[rows]
        # not minus infinity, of which a probability of 0 would make NaN
        left = logits.masked_fill(wanted.isnan(), torch.finfo(logits.dtype).min / 2)
        return F.cross_entropy(left, wanted.nan_to_num(0.0))

    return distance


def prior_adjusted(targets: torch.Tensor) -> Distance:
    """The likelihood of labels, adjusted for their frequency."""

    frequencies = torch.bincount(targets)

    def distance(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        counts = F.pad(frequencies, (0, logits.shape[1] - len(frequencies))).clamp(min=1)
        return F.cross_entropy(logits + (counts / counts.sum()).log(), targets[rows])

    return distance


SOFT = ("soft",)
LOSSES = {
    "p": Loss(likelihood),
    "log-p": Loss(lambda targets: logits_of(centred_log(targets)), SOFT),
    "centred": Loss(lambda targets: logits_of(unmixing.centred(targets)), SOFT),
    "mixture": Loss(lambda targets: logits_of(unmixing.uncovered(targets)), SOFT),
    "masked": Loss(lambda targets: masked_likelihood(unmixing.masked(targets)), SOFT),
    "masked-log-p": Loss(lambda targets: logits_of(unmixing.masked_log(targets)), SOFT),
    "second-label": Loss(lambda targets: likelihood(unmixing.second_labels(targets)), SOFT),
    "prior-adjusted": Loss(prior_adjusted, ("hard",)),
}
