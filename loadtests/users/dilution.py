"""Dilution: benign images among the stolen ones, so that a client's traffic looks like its neighbours'.

With a dilution of d percent, d of every 100 images that a campaign sends are benign ones, at random places among the
rest. The stolen ones keep their order; the answers to the others are thrown away, and paid for.
"""

from __future__ import annotations

import torch


class Dilution:
    """Mixes benign images, drawn from `benign` (N, C, H, W) with replacement, into what an attacker asks.

    percent: of all images sent, 0 to 99. `generator` owns the draw and the places. stolen, sent: images so far.
    """

    def __init__(self, percent: int, benign: torch.Tensor | None, *, generator: torch.Generator) -> None:
        if not 0 <= percent < 100:
            raise ValueError(f"dilution: expected 0 to 99 percent, got {percent}")
        if percent and benign is None:
            raise ValueError("benign: expected images to dilute with, got none")
        self._percent = percent
        self._benign = benign
        self._generator = generator
        self.stolen = 0
        self.sent = 0

    def mix(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What to send in place of `images` (n, C, H, W): float32 (m, C, H, W), m >= n, and int64 (n,) ascending, where
        in it each image stands."""
        self.stolen += len(images)
        # of all that was sent so far, so that small exchanges do not round the share away
        total = round(self.stolen * 100 / (100 - self._percent))
        more = total - self.sent - len(images)
        self.sent = total
        if self._benign is None or not more:
            return images, torch.arange(len(images))
        chosen = torch.randint(len(self._benign), (more,), generator=self._generator)
        places = torch.randperm(len(images) + more, generator=self._generator)[: len(images)].sort().values
        mixed = torch.empty(len(images) + more, *images.shape[1:])
        stolen = torch.zeros(len(mixed), dtype=torch.bool)
        stolen[places] = True
        mixed[stolen], mixed[~stolen] = images, self._benign[chosen]
        return mixed, places
