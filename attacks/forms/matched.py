"""The thief that matches a gate: tries what the service lets pass, and sends everything else in that shape.

A gate that scores how well an image is reconstructed (SAME, Xie et al., AAAI 2024) measures sharpness and contrast as
much as content: warped images are blurred, drawn ones too smooth, and are refused for that alone. The refusal is a bit
that any client sees. This thief sends its first images in several variants, turn by turn, drops the worse half of the
variants after each round (successive halving: Karnin, Koren and Somekh, ICML 2013), and sends all further images in the
one that is left. With b a binomial blur, variants are

    sharper     clip(x + a (x - b(x)), 0, 1)
    contrast    clip((x - 1/2) k + 1/2, 0, 1), at double size too, where the edges it makes can be averaged down
    softer      b(x)
    smaller     resized to a part of the side and back, as scikit-learn's digits were made; with contrast in between

A probe is an image of the wrapped thief like any other: charged, and where it is answered, kept as it was sent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional as F

from attacks.clone import Cloning
from attacks.forms.wrapping import Wrapping
from attacks.oracle import Answers
from attacks.service import Service
from attacks.thief import Thief

# in each round, over all variants that are left
PROBES = 240

Variant = Callable[[torch.Tensor], torch.Tensor]
"""images float32 (N, C, S, S) in [0, 1] to the same"""


def blurred(images: torch.Tensor) -> torch.Tensor:
    """Each channel under the binomial kernel (1 2 1) x (1 2 1) / 16, edges repeated: (N, C, S, S) to the same."""
    line = images.new_tensor([0.25, 0.5, 0.25])
    kernel = (line[:, None] * line).expand(images.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=images.shape[1])


def sharper(images: torch.Tensor, amount: float) -> torch.Tensor:
    """An unsharp mask."""
    return (images + amount * (images - blurred(images))).clamp(0, 1)


def contrast(images: torch.Tensor, factor: float) -> torch.Tensor:
    """Values drawn away from the middle gray."""
    return ((images - 0.5) * factor + 0.5).clamp(0, 1)


def fine_contrast(images: torch.Tensor, factor: float) -> torch.Tensor:
    """Contrast at double size: edges stay between two pixels where they were."""
    doubled = F.interpolate(images, scale_factor=2, mode="bicubic").clamp(0, 1)
    return F.avg_pool2d(contrast(doubled, factor), 2)


def smaller(images: torch.Tensor, part: float, factor: float = 1.0) -> torch.Tensor:
    """Down to `part` of the side, and back; with contrast in between."""
    size = list(images.shape[2:])
    smaller = [max(1, round(part * side)) for side in size]
    down = F.interpolate(images, size=smaller, mode="bilinear", antialias=True)
    return F.interpolate(contrast(down, factor), size=size, mode="bilinear")


def same(images: torch.Tensor) -> torch.Tensor:
    """As they are."""
    return images


# of equally good ones the first is kept: mild before strong, those that keep detail before those that do not
VARIANTS: dict[str, Variant] = {
    "same": same,
    "sharper-0.5": partial(sharper, amount=0.5),
    "sharper-1": partial(sharper, amount=1.0),
    "contrast-1.5": partial(contrast, factor=1.5),
    "contrast-2": partial(contrast, factor=2.0),
    "fine-contrast-2": partial(fine_contrast, factor=2.0),
    "fine-contrast-4": partial(fine_contrast, factor=4.0),
    "sharper-2": partial(sharper, amount=2.0),
    "contrast-3": partial(contrast, factor=3.0),
    "softer": blurred,
    "smaller-1/2": partial(smaller, part=1 / 2),
    "smaller-2/7": partial(smaller, part=2 / 7),
    "smaller-1/2-contrast-2": partial(smaller, part=1 / 2, factor=2.0),
    "smaller-2/7-contrast-2": partial(smaller, part=2 / 7, factor=2.0),
}


class MatchedThief(Wrapping):
    """`thief`'s images, each sent in a variant that the service was seen to refuse least.

    probes: images in each round, divided among the variants that are left; four rounds leave one of fourteen. Draws
    nothing: `seed` is there as for every form.
    """

    def __init__(
        self,
        thief: Thief,
        *,
        service: Service,
        cloning: Cloning,
        seed: int,
        probes: int = PROBES,
        variants: dict[str, Variant] = VARIANTS,
    ) -> None:
        if probes < len(variants):
            raise ValueError(f"probes: expected at least one for each of {len(variants)} variants, got {probes}")
        super().__init__(thief)
        self._probes = probes
        self._variants = variants
        self.left = list(variants)
        self._begin()

    def propose(self, rows: int) -> torch.Tensor | None:
        """The wrapped thief's next images in their variants; no request reaches beyond a round."""
        tried = len(self.left) > 1
        images = self._thief.propose(min(rows, self._probes - self._sent) if tried else rows)
        if images is None:
            return None
        self._turns = (self._sent + torch.arange(len(images))) % len(self.left)
        varied = images.clone()
        for number, name in enumerate(self.left):
            mine = self._turns == number
            if mine.any():
                varied[mine] = self._variants[name](images[mine])
        return varied

    def observe(self, images: torch.Tensor, answers: Answers) -> None:
        """Count refusals while there is a choice, and hand images and answers to the wrapped thief."""
        if len(self.left) > 1:
            self._sent += len(images)
            self._refused += self._turns[answers.refused].bincount(minlength=len(self.left))
            if self._sent == self._probes:
                self._halve()
        self._thief.observe(images, answers)

    def _begin(self) -> None:
        self._sent = 0
        self._refused = torch.zeros(len(self.left)).long()
        self._turns = torch.zeros(0).long()

    def _halve(self) -> None:
        """Keep the half that was refused least often, in its order."""
        asked = torch.arange(self._probes).remainder(len(self.left)).bincount(minlength=len(self.left))
        best = (self._refused / asked).argsort(stable=True)[: math.ceil(len(self.left) / 2)]
        self.left = [self.left[number] for number in sorted(best.tolist())]
        self._begin()
