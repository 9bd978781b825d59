"""Whether the same question gets the same answer: repeats, and copies that nobody can see.

Every image is asked about several times, with the others in between, and then as copies of which one value differs by
one level. Where repeats are equal and such copies are answered as if anew, what moves the answers is keyed by the
image's exact bytes. A key by what an image looks like cannot be told from no noise at all, and is called deterministic.
"""

from __future__ import annotations

import torch

from attacks.oracle import Answers
from attest.asking import Asking
from attest.measured import Consistency

PHASE = "consistency"
REPEATS, COPIES = 3, 3
# of l1: what another order of sums may change; and what one level in one value changes in no network
EQUAL, MOVED = 1e-4, 0.02
# a share of repeats with another label, above which labels cannot be relied on
UNSTABLE = 0.1
LEVEL = 1 / 255


def consistency(asking: Asking, images: torch.Tensor, *, seed: int) -> Consistency:
    """Ask 1 + REPEATS + COPIES times about images float32 (N, C, H, W) in [0, 1]. Raises Stopped."""
    oracle, generator = asking.phase(PHASE), torch.Generator().manual_seed(seed)
    first = oracle(images)
    repeats = [oracle(images) for _ in range(REPEATS)]
    copies = [oracle(near(images, generator)) for _ in range(COPIES)]
    same, moved = _against(first, repeats)
    near_same, near_moved = _against(first, copies)
    return Consistency(
        images=len(images),
        repeats=REPEATS,
        same_label=same,
        l1=moved,
        near_copies=COPIES,
        near_same_label=near_same,
        near_l1=near_moved,
        kind=kind(same, moved, near_moved),
    )


UNKNOWN = Consistency(0, 0, None, None, 0, None, None, "not measured")


def near(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Copies of which one random value differs by one level of 255, towards the middle, so that it stays in [0, 1]."""
    flat = images.reshape(len(images), -1).clone()
    places = torch.randint(flat.shape[1], (len(flat), 1), generator=generator)
    values = flat.gather(1, places)
    flat.scatter_(1, places, torch.where(values < 0.5, values + LEVEL, values - LEVEL))
    return flat.reshape(images.shape)


def kind(same: float | None, moved: float | None, near_moved: float | None) -> str:
    """One of measured.KINDS."""
    if same is None:
        return "not measured"
    if same < 1 - UNSTABLE:
        return "unstable labels"
    if moved is not None and moved > EQUAL:
        return "noisy"
    return "keyed" if near_moved is not None and near_moved > MOVED else "deterministic"


def _against(first: Answers, others: list[Answers]) -> tuple[float | None, float | None]:
    """Over all rows that were answered both times: the share with the same label; and of those that were both told in
    numbers, the mean l1."""
    same, moved = [], []
    for other in others:
        both = ~(first.refused | other.refused)
        same.append((first.labels == other.labels)[both].double())
        if first.probabilities is not None and other.probabilities is not None:
            apart = (first.probabilities - other.probabilities)[both].abs().sum(dim=1).double()
            moved.append(apart[~apart.isnan()])
    labels, numbers = torch.cat(same), torch.cat(moved) if moved else torch.zeros(0)
    return (
        float(labels.mean()) if len(labels) else None,
        float(numbers.mean()) if len(numbers) else None,
    )
