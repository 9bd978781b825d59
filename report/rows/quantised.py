"""Rows of what a policy's precision costs its users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from report.fields import fractions


@dataclass(frozen=True)
class QuantisedRow:
    """One policy in a precision, against the same policy in float32, on the test split through their archives.

    images: of the test split. accuracy, float32_accuracy: of each; agreement: share of equal labels. layers: that
    multiply, of all graphs that answer or perturb; kept: those among them that stayed float32. method: how ranges were
    found, each once. held: the least agreement on validation images that the rule accepted a graph with
    (export/quantise.py). megabytes, float32_megabytes: of these graphs' files.
    """

    SCOPE: ClassVar = ("recipe", "policy")

    recipe: str
    policy: str
    precision: str
    images: int
    accuracy: float
    float32_accuracy: float
    agreement: float
    layers: int
    kept: int
    method: str
    held: float
    megabytes: float
    float32_megabytes: float

    def __post_init__(self) -> None:
        fractions(self, "accuracy", "float32_accuracy", "agreement", "held")
