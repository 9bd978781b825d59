"""Rows of utility: what a policy costs its users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from report.fields import fractions


@dataclass(frozen=True)
class PolicyRow:
    """What a policy costs its users, measured on the test set against the undefended answers.

    l1 in [0, 2] and ece are None where a policy serves labels only. shifted_accuracy: on rotated and shifted test
    images. false_positive_rate: of a gate. forward_passes: network evaluations a query, the hash included.
    """

    SCOPE: ClassVar = ("recipe", "policy")

    recipe: str
    policy: str
    accuracy: float
    accuracy_drop: float
    label_flips: float
    l1: float | None
    ece: float | None
    shifted_accuracy: float
    false_positive_rate: float | None
    forward_passes: float

    def __post_init__(self) -> None:
        fractions(self, "accuracy", "label_flips", "ece", "shifted_accuracy", "false_positive_rate")
