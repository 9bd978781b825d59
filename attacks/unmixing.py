"""Unmixing: what the task's answers are, taken out of those of an ensemble whose members give themselves away.

EDM (Kariyappa et al., ICLR 2021) answers each query with one of N members, which disagree outside the task. Its
diversity term looks at the cosine of probabilities, and a constant in a member's logits satisfies it: off the task each
member answers mostly one class, its *signature*. So the answer's label names the member, and the other classes of the
answer still carry the task:

    centred    l - mean_k l, less its mean over all answers that have the same label
    mixture    the same, less the mean of the answer's component in a Gaussian mixture of all answers, weighed by
               how likely each component is: clusters that need not go by the label
    masked     the answer without its label, where that is a signature; the rest renormalised

with l = log max(y, LOG_FLOOR). All of it is worked out from the answers alone, which are paid for already: no member,
hash, key nor number of members is known. Every function takes probabilities float32 (N, K) whose rows sum to 1.
"""

from __future__ import annotations

import torch

# The smallest probability whose logarithm is believed.
LOG_FLOOR = 1e-7


def centred_log(probabilities: torch.Tensor, floor: float = LOG_FLOOR) -> torch.Tensor:
    """The logits behind `probabilities`, float (n, K), with mean 0 in every row; those below `floor` count as it."""
    logs = probabilities.clamp(min=floor).log()
    return logs - logs.mean(dim=1, keepdim=True)


def signatures(probabilities: torch.Tensor) -> torch.Tensor:
    """Which classes are the label of more answers than their share of all classes is: bool (K,)."""
    classes = probabilities.shape[1]
    counts = torch.bincount(probabilities.argmax(dim=1), minlength=classes)
    return counts * classes > len(probabilities)


def centred(probabilities: torch.Tensor) -> torch.Tensor:
    """Logits less their label's mean, (N, K)."""
    logits, labels = centred_log(probabilities), probabilities.argmax(dim=1)
    sums = logits.new_zeros(logits.shape[1], logits.shape[1])
    means = sums.index_add_(0, labels, logits) / torch.bincount(labels, minlength=len(sums)).clamp(min=1)[:, None]
    return logits - means[labels]


def uncovered(probabilities: torch.Tensor) -> torch.Tensor:
    """Logits less the mean of their component, (N, K): as many components as there are signatures.

    Fitted by expectation maximisation from a fixed seed: equal answers give equal logits.
    """
    # not at the top: every process that trains a clone or imitates a user would wait for it as long as for torch
    from sklearn.mixture import GaussianMixture

    logits = centred_log(probabilities)
    components = max(1, int(signatures(probabilities).sum()))
    mixture = GaussianMixture(components, covariance_type="diag", reg_covar=1e-2, random_state=0)
    likely = mixture.fit(logits.cpu().numpy()).predict_proba(logits.cpu().numpy())
    offsets = torch.from_numpy(likely @ mixture.means_).to(logits)
    return logits - offsets


def masked(probabilities: torch.Tensor) -> torch.Tensor:
    """(N, K): rows whose label is a signature without it (NaN there), the rest summing to 1; others as they are."""
    out = _hidden(probabilities)
    # float64: what is left of a sure answer is little, and it is all that counts
    left = probabilities.double().clamp(min=torch.finfo(torch.float32).tiny).masked_fill(out, 0)
    return (left / left.sum(dim=1, keepdim=True)).to(probabilities).masked_fill(out, torch.nan)


def masked_log(probabilities: torch.Tensor) -> torch.Tensor:
    """Logits of what `masked` leaves, each row's mean over its classes 0, (N, K); NaN where it leaves nothing."""
    logs = probabilities.clamp(min=LOG_FLOOR).log().masked_fill(_hidden(probabilities), torch.nan)
    return logs - logs.nanmean(dim=1, keepdim=True)


def second_labels(probabilities: torch.Tensor) -> torch.Tensor:
    """The likeliest of the classes that `masked` leaves, int64 (N,)."""
    return masked(probabilities).nan_to_num(-1.0).argmax(dim=1)


def _hidden(probabilities: torch.Tensor) -> torch.Tensor:
    """Which class of each row is its label and a signature, bool (N, K)."""
    labels = probabilities.argmax(dim=1)
    classes = torch.arange(probabilities.shape[1], device=labels.device)
    return (labels[:, None] == classes) & signatures(probabilities)
