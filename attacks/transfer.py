"""The transfer set: images with the answers they were given, from which clones are trained.

A refused row is charged but teaches nothing: it is left out, and the place of every kept row among the charged
queries is remembered, so that "what the thief had after n queries" stays exact.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from attacks.oracle import Answers, distributions, joined


@dataclass(frozen=True)
class TransferSet:
    """n answered images out of `charged` queries.

    images: float32 (n, C, H, W) in [0, 1].
    labels: int64 (n,), never REFUSED.
    probabilities: float32 (n, K) as served, or None where the service returns labels only.
    places: int64 (n,), ascending: the place of each row among the charged queries, from 0.
    charged: images shown to the victim, answered or not.
    work: float64 (n,), expected hashes paid from the row before until this row was known, for what was dropped between
        them too; None where nothing was paid.
    """

    images: torch.Tensor
    labels: torch.Tensor
    probabilities: torch.Tensor | None
    places: torch.Tensor
    charged: int
    work: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def paid(self) -> float:
        """Expected hashes paid for all of it."""
        return 0.0 if self.work is None else float(self.work.sum())

    def first(self, queries: int) -> TransferSet:
        """What was known after the first `queries` charged images (all of it, if fewer were charged)."""
        return self._rows(self.places < queries, charged=min(queries, self.charged))

    def where(self, kept: torch.Tensor) -> TransferSet:
        """The rows that `kept`, bool (n,), says, of as many charged queries."""
        return self._rows(kept, charged=self.charged)

    def split(self, share: float, *, generator: torch.Generator) -> tuple[TransferSet, TransferSet]:
        """A random (kept, held out) pair, `share` of the rows held out; order kept; the generator owns the draw."""
        held_out = torch.zeros(len(self), dtype=torch.bool)
        held_out[torch.randperm(len(self), generator=generator)[: round(share * len(self))]] = True
        return self._rows(~held_out, charged=self.charged), self._rows(held_out, charged=self.charged)

    def soft_targets(self) -> torch.Tensor:
        """float32 (n, K) rows that sum to 1: the served probabilities, renormalised where rounding or top-k took
        some away. A row served without any probability left falls back to its label.
        Raises ValueError where the service returned labels only."""
        if self.probabilities is None:
            raise ValueError("no soft targets: the service returned labels only; train with labels='hard'")
        return distributions(Answers(self.labels, self.probabilities), self.probabilities.shape[1])

    def _rows(self, keep: torch.Tensor, *, charged: int) -> TransferSet:
        probabilities = None if self.probabilities is None else self.probabilities[keep]
        work = None if self.work is None else self.work[keep]
        return TransferSet(self.images[keep], self.labels[keep], probabilities, self.places[keep], charged, work)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz; a failure leaves what stood at `path` before."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {"images": self.images, "labels": self.labels, "places": self.places}
        for name, optional in (("probabilities", self.probabilities), ("work", self.work)):
            if optional is not None:
                arrays[name] = optional
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with unfinished.open("wb") as file:
                np.savez(
                    file,
                    allow_pickle=False,
                    charged=np.int64(self.charged),
                    **{k: v.numpy() for k, v in arrays.items()},
                )
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TransferSet:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            tensors = {name: torch.from_numpy(file[name]) for name in file.files if name != "charged"}
            return cls(
                images=tensors["images"],
                labels=tensors["labels"],
                probabilities=tensors.get("probabilities"),
                places=tensors["places"],
                charged=int(file["charged"]),
                work=tensors.get("work"),
            )


class Collector:
    """Gathers a transfer set exchange by exchange; every image it is given counts as charged.

    keep: remember the latest exchanges only, as few of them as hold that many images (None: all).
    """

    def __init__(self, *, keep: int | None = None) -> None:
        self._images: deque[torch.Tensor] = deque()
        self._answers: deque[Answers] = deque()
        self._keep = keep
        self._charged = 0
        self._held = 0
        self._paid = 0.0  # for exchanges that are forgotten

    def add(self, images: torch.Tensor, answers: Answers) -> None:
        """Remember one exchange: images (N, C, H, W) and their N answers."""
        self._images.append(images)
        self._answers.append(answers)
        self._charged += len(images)
        self._held += len(images)
        while self._keep is not None and self._held - len(self._images[0]) >= self._keep:
            self._held -= len(self._images.popleft())
            forgotten = self._answers.popleft()
            self._paid += 0.0 if forgotten.work is None else float(forgotten.work.sum())

    def transfer_set(self) -> TransferSet:
        """All answered rows that are remembered. Raises ValueError before the first exchange."""
        if not self._images:
            raise ValueError("an empty transfer set: nothing was asked yet")
        responses = joined(self._answers)
        known = ~responses.refused
        work = None
        if responses.work is not None or self._paid:
            each = torch.zeros(self._held).double() if responses.work is None else responses.work
            work = (self._paid + each.cumsum(dim=0))[known].diff(prepend=torch.zeros(1).double())
        return TransferSet(
            images=torch.cat(list(self._images))[known],
            labels=responses.labels[known],
            probabilities=None if responses.probabilities is None else responses.probabilities[known],
            places=torch.arange(self._charged - self._held, self._charged)[known],
            charged=self._charged,
            work=work,
        )
