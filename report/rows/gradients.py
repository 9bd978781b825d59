"""Rows of gradients: how well an attacker estimates them from responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from report.fields import ResultError


@dataclass(frozen=True)
class GradientRow:
    """How well an attacker's zeroth-order estimate of its loss's gradient points where the gradient without noise does.

    Over `directions` orthonormal probes of length `epsilon` an image: cosine of the estimated and the true coefficients
    along them, mean over images and its standard deviation. repeats: answers to each image and probe that the attacker
    averages, 1 for a plain one.
    """

    SCOPE: ClassVar = ("recipe", "policy", "traffic")

    recipe: str
    policy: str
    traffic: str
    epsilon: float
    repeats: int
    directions: int
    images: int
    cosine: float
    deviation: float

    def __post_init__(self) -> None:
        if not -1.001 <= self.cosine <= 1.001:
            raise ResultError(f"cosine: expected -1 to 1, got {self.cosine}")
