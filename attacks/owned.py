"""What a thief has of the victim's own task before its first query: labelled images of the same distribution."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from attacks.service import Service
from attacks.transfer import TransferSet
from zoo import datasets


@dataclass(frozen=True, eq=False)
class Labelled:
    """pixels float32 (N, C, H, W) in [0, 1] with their true labels, int64 (N,)."""

    pixels: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, chosen: torch.Tensor) -> Labelled:
        """The rows at the positions `chosen`, int64 (n,), in that order."""
        return Labelled(self.pixels[chosen], self.labels[chosen])

    def as_transfer_set(self) -> TransferSet:
        """What `Thief.own` says of them: known without a query."""
        return TransferSet(self.pixels, self.labels, None, torch.arange(len(self)), charged=0)


def load(dataset: str, service: Service, root: str | os.PathLike[str] | None) -> Labelled:
    """The training split of `dataset` (another one if the name pins it) in the geometry of the service.

    Raises ValueError for images without labels, or with labels of another task.
    """
    images = datasets.load(dataset, "train", root=root, size=service.size, channels=service.channels)
    if images.labels is None:
        raise ValueError(f"dataset: expected labelled images of the victim's task, got {dataset!r} without labels")
    if len(images) and int(images.labels.max()) >= service.classes:
        raise ValueError(
            f"dataset: expected labels of the victim's task, 0 to {service.classes - 1}, "
            f"got {int(images.labels.max())} in {dataset!r}"
        )
    return Labelled(images.pixels, images.labels)


def balanced(labels: torch.Tensor, count: int, *, generator: torch.Generator) -> torch.Tensor:
    """`count` random positions in `labels`, int64 (count,), in random order, as many of each class as there can be.

    Classes differ by one at most unless one is exhausted. Raises ValueError where there are fewer than `count`.
    """
    if count > len(labels):
        raise ValueError(f"seeds: expected at most the {len(labels)} images there are, got {count}")
    order = torch.randperm(len(labels), generator=generator)
    shuffled = labels[order]
    turn = torch.empty_like(shuffled)
    for kind in shuffled.unique():
        turn[shuffled == kind] = torch.arange(int((shuffled == kind).sum()))
    # the first of every class, then the second of every class: stable, so that the draw stays random within a turn
    chosen = order[turn.argsort(stable=True)[:count]]
    return chosen[torch.randperm(count, generator=generator)]
