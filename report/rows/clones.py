"""Rows of attacks: the clones trained, and whether an attack over HTTP ends as one in process does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attacks.names import in_form
from report.fields import ResultError, fractions

# the readings of the answers that a clone is trained on: probabilities, or the label alone
LABELS = ("soft", "hard")
# how an attacker's queries reached the policy; results from before this was written down do not say
HTTP, IN_PROCESS = "http", "in process"
PATHS = ("", HTTP, IN_PROCESS)


def spent(queries: int, budget: int) -> str:
    """What an attacker asked, in words that say so where it was less than it might have."""
    return f"{queries} of {budget} queries" if queries < budget else f"{queries} queries"


@dataclass(frozen=True)
class AttackRow:
    """One clone: the attack it was trained from, how it was trained, and how good it became.

    labels: "soft" or "hard", which reading of the answers it was trained on. budget: charged queries it could use.
    seed: of the clone's training; the run's seed is the attacker's.
    adaptive: the adaptive form of the attack, None for the plain one. held_out: its agreement with the attacker's own
    held-out answers, by which the attacker chooses a recipe. agreement: with the served labels on the test set.
    victim_accuracy: of the policy as served. queries: charged, fewer than the budget where the attack had no more
    images. rejected: charged rows without an answer. seconds: of training. path: one of PATHS.
    """

    SCOPE: ClassVar = ("recipe", "policy", "attack", "adaptive")

    recipe: str
    policy: str
    attack: str
    adaptive: str | None
    labels: str
    budget: int
    seed: int
    clone_recipe: str
    clone_accuracy: float
    agreement: float
    held_out: float
    no_query_accuracy: float | None
    victim_accuracy: float
    queries: int
    rejected: int
    pow_hashes: int
    seconds: float
    path: str = ""

    def __post_init__(self) -> None:
        fractions(self, "clone_accuracy", "agreement", "held_out", "no_query_accuracy", "victim_accuracy")
        if self.labels not in LABELS:
            raise ResultError(f"labels: expected 'soft' or 'hard', got {self.labels!r}")
        if self.path not in PATHS:
            raise ResultError(f"path: expected one of {', '.join(map(repr, PATHS))}, got {self.path!r}")


@dataclass(frozen=True)
class AgreementRow:
    """One clone of an attack in process and the same of an attack over HTTP, shared by `clients` clients.

    adaptive: as of AttackRow. same_images: share of the images asked about that were the same, in the same order.
    largest_difference: between probabilities returned for these, None where labels alone were; label_differences:
    labels among them that differ. in_process, over_http: clone accuracies. allowed: how far these may lie apart.
    """

    SCOPE: ClassVar = ("recipe", "policy", "attack", "adaptive")

    recipe: str
    policy: str
    attack: str
    adaptive: str | None
    labels: str
    budget: int
    clone_recipe: str
    seed: int
    clients: int
    same_images: float
    label_differences: int
    largest_difference: float | None
    in_process: float
    over_http: float
    allowed: float

    def __post_init__(self) -> None:
        fractions(self, "same_images", "in_process", "over_http")

    @property
    def thief(self) -> str:
        """The attack, and its form where it has one."""
        return in_form(self.attack, self.adaptive)

    @property
    def agrees(self) -> bool:
        return abs(self.in_process - self.over_http) <= self.allowed
