"""Rows of input noise: what it does to answers, and how much of it an average over copies takes away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from report.fields import ResultError, fractions


@dataclass(frozen=True)
class NoiseRow:
    """What a policy's input perturbation does to one kind of traffic, measured once under each of several noise seeds.

    l1: mean ||T(x + h) - T(x)||_1 of the policy's own predictor T, in [0, 2], a seed each. accuracy: of the answers, a
    seed each; empty where images have no labels. label_flips: share of labels that T(x) would not have given, a seed
    each. rms: of h over the pixels, in [0, 1] pixel units, mean over images and seeds; largest: |h| anywhere.
    """

    SCOPE: ClassVar = ("recipe", "policy", "traffic")

    recipe: str
    policy: str
    traffic: str
    images: int
    l1: tuple[float, ...]
    label_flips: tuple[float, ...]
    accuracy: tuple[float, ...]
    rms: float
    largest: float

    def __post_init__(self) -> None:
        if not self.l1 or len(self.label_flips) != len(self.l1) or len(self.accuracy) not in (0, len(self.l1)):
            raise ResultError("expected one l1, one label_flips and, with labels, one accuracy for each seed")


@dataclass(frozen=True)
class DenoisingRow:
    """How far the mean answer over several copies of an image is from T(x), the policy's predictor without noise.

    copying: "identical" or "jittered" copies, `copies` of each of `images`. l1: mean ||mean answer - T(x)||_1, in
    [0, 2]. kept: share of labels of the mean answer that are T(x)'s.
    """

    SCOPE: ClassVar = ("recipe", "policy", "traffic")

    recipe: str
    policy: str
    traffic: str
    copying: str
    copies: int
    images: int
    l1: float
    kept: float

    def __post_init__(self) -> None:
        fractions(self, "kept")
