"""Rows of training: how a checkpoint was made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from report.fields import fractions


@dataclass(frozen=True)
class TrainingRow:
    """How one checkpoint was trained, as its graphs record.

    predictor: the checkpoint. epochs of `seconds_per_epoch`, if known, on `device`, members trained together.
    diversity, coherence: of an ensemble on auxiliary images it never saw, MISLEADER's on augmented validation images.
    search: the steps of the search for lambda, if any. leak: how far a label names its member there,
    I(label; member) / log N. signatures: each member's most frequent class there and its share.
    """

    SCOPE: ClassVar = ("recipe", "predictor")

    recipe: str
    predictor: str
    members: int
    lambda_diversity: float | None
    epochs: int
    seconds_per_epoch: float | None
    device: str
    validation_accuracy: float
    diversity: float | None
    coherence: float | None
    search: tuple[dict[str, Any], ...] = ()
    leak: float | None = None
    signatures: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        fractions(self, "validation_accuracy", "diversity", "coherence", "leak")
