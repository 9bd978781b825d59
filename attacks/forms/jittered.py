"""The jittering thief: every image K times, each copy moved by a grey level or two, and the mean of the answers.

    copy = clip(x + j / 255, 0, 1),   every value of j drawn uniformly from {-L, ..., L}

Against services whose noise is a function of the query (a generator seeded by a keyed digest of the image), which
repeated images (repeats.py) do not average away: a copy is next to nothing to a model, and another image to a digest
of its bytes. Noise that a coarser code seeds, one that near images share, stays in the mean. Clipping pulls
copies of pure black and white inwards, by L (L + 1) / (2 (2 L + 1)) grey levels on average: 0.6 for L = 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attacks.clone import Cloning
from attacks.forms.averaging import AveragingThief
from attacks.names import COPIES
from attacks.service import Service
from attacks.thief import Thief


@dataclass(frozen=True)
class Jitter:
    """Independent noise of at most `levels` of 255 grey levels on every value of an image."""

    levels: int

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= 255:
            raise ValueError(f"levels: expected 1 to 255 grey levels, got {self.levels}")

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """As zoo.augment.Variation."""
        steps = torch.randint(-self.levels, self.levels + 1, images.shape, generator=generator)
        return images + steps.to(images) / 255


STRENGTH = Jitter(levels=2)


class JitteredThief(AveragingThief):
    """`thief`'s images, each asked about in `copies` copies that `strength` moves; `seed` owns their randomness."""

    def __init__(
        self,
        thief: Thief,
        *,
        service: Service,
        cloning: Cloning,
        seed: int,
        copies: int = COPIES,
        strength: Jitter = STRENGTH,
    ) -> None:
        super().__init__(thief, service=service, cloning=cloning, seed=seed, copies=copies, strength=strength)
