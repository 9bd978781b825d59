"""The seed set: labelled images of the victim's task that a thief has before its first query."""

from __future__ import annotations

import os
from collections.abc import Sequence
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
        """What `Thief.own` returns: known without a query."""
        return TransferSet(self.pixels, self.labels, None, torch.arange(len(self)), charged=0)


def load(dataset: str, service: Service, root: str | os.PathLike[str] | None) -> Labelled:
    """The training split of `dataset` (another one if the name pins it) in the geometry of the service.

    Raises ValueError for images without labels, or with labels of another task.
    """
    images = datasets.load(dataset, "train", root=root, size=service.size, channels=service.channels)
    return Labelled(images.pixels, task_labels(images, service))


def task_labels(images: datasets.Images, service: Service) -> torch.Tensor:
    """The labels of `images`, int64 (N,). Raises ValueError where they have none, or some of another task."""
    if images.labels is None:
        raise ValueError(f"dataset: expected labelled images of the victim's task, got {images.name!r} without labels")
    if len(images) and int(images.labels.max()) >= service.classes:
        raise ValueError(
            f"dataset: expected labels of the victim's task, 0 to {service.classes - 1}, "
            f"got {int(images.labels.max())} in {images.name!r}"
        )
    return images.labels


def joined(parts: Sequence[Labelled]) -> Labelled:
    """All rows of at least one part, in their order."""
    return Labelled(torch.cat([part.pixels for part in parts]), torch.cat([part.labels for part in parts]))


def check_seeds(count: int) -> None:
    """Raises ValueError for fewer seeds than an attack can start from."""
    if count < 2:
        raise ValueError(f"seeds: expected at least 2 images, got {count}")


def seeds(
    dataset: str,
    count: int,
    service: Service,
    root: str | os.PathLike[str] | None,
    *,
    generator: torch.Generator,
) -> Labelled:
    """`count` images of `dataset`, as `load` gives it, as many of each class as there can be; see `balanced`."""
    images = load(dataset, service, root)
    return images.rows(balanced(images.labels, count, generator=generator))


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
