"""MISLEADER's settings in a recipe: its members, the constants of their losses, and the permitted cost of a strength.

training/misleader.py is the method. Its term acts on augmented images, whose right answer it knows, and nothing else in
the loss pays for them: shifted images of customers are what it costs. So a strength is held to two rules, for each
member by itself: what it may lose on the validation split, and what on augmented validation images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from training.search import Metrics, rising
from training.session import Optimisation
from zoo.augment import Augmentation


@dataclass(frozen=True)
class Member:
    """One of `members`: its architecture and options, and the constants of its loss.

    temperature: T. alpha: the weight of the teacher against the labels, in [0, 1]. lambda_attacker: lambda; several, in
    rising order, are searched.
    """

    architecture: str
    temperature: float = 2.0
    alpha: float = 0.3
    lambda_attacker: float | tuple[float, ...] = 0.0
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected > 0, got {self.temperature}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha: expected 0 to 1, got {self.alpha}")
        rising("lambda_attacker", self.lambda_attacker)

    @property
    def weight(self) -> float:
        """lambda, where it is one value."""
        assert isinstance(self.lambda_attacker, float), "a search comes first"
        return self.lambda_attacker


@dataclass(frozen=True)
class Misleader:
    """[networks.NAME] of the program misleader: the members, their thieves, and the augmented images between them.

    optimisation: of the members; the victim's where left out. augmented_batch: images of an augmented batch; 0: as many
    as of a labelled one. attacker_lr: of the thieves' SGD, on a cosine. attacker_steps: of a thief for each of its
    member. clip: largest norm of each network's gradient.
    lambda_diversity: EDM's term on augmented images; several, in rising order, are searched.
    search_rows, search_epochs: of each step of a search. allowed_drop: what a member's validation accuracy may lose to
    its lambda, as a fraction; allowed_augmented_drop: the same on augmented validation images.
    """

    members: tuple[Member, ...]
    augment: Augmentation
    optimisation: Optimisation | None = None
    augmented_batch: int = 0
    attacker_lr: float = 0.01
    attacker_steps: int = 5
    clip: float = 5.0
    lambda_diversity: float | tuple[float, ...] = 0.0
    as_released: bool = False
    search_rows: int = 12_000
    search_epochs: int = 2
    allowed_drop: float = 0.005
    allowed_augmented_drop: float = 0.01
    from_victim: bool = False

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise ValueError(f"members: expected at least 2, got {len(self.members)}")
        if not self.attacker_lr > 0 or self.attacker_steps < 1 or not self.clip > 0:
            raise ValueError(
                "expected attacker_lr > 0, attacker_steps >= 1 and clip > 0, got "
                f"{self.attacker_lr}, {self.attacker_steps}, {self.clip}"
            )
        if self.augmented_batch < 0:
            raise ValueError(f"augmented_batch: expected >= 0, got {self.augmented_batch}")
        rising("lambda_diversity", self.lambda_diversity)
        if self.search_rows < 1 or self.search_epochs < 1:
            raise ValueError(f"search_rows, search_epochs: expected >= 1, got {self.search_rows}, {self.search_epochs}")
        if not (0 < self.allowed_drop < 1 and 0 < self.allowed_augmented_drop < 1):
            raise ValueError(
                "allowed_drop, allowed_augmented_drop: expected fractions between 0 and 1, got "
                f"{self.allowed_drop}, {self.allowed_augmented_drop}"
            )
        counts = {len(values) for values in self._searched if isinstance(values, tuple)}
        if len(counts) > 1 or (counts and isinstance(self.lambda_diversity, tuple) and self._members_search):
            raise ValueError(
                "lambda_attacker, lambda_diversity: expected one search, of the members' values (equally many each) or "
                f"of the diversity's, got {self._searched}"
            )

    @property
    def _searched(self) -> list[float | tuple[float, ...]]:
        return [*(member.lambda_attacker for member in self.members), self.lambda_diversity]

    @property
    def _members_search(self) -> bool:
        return any(isinstance(member.lambda_attacker, tuple) for member in self.members)

    @property
    def rungs(self) -> int:
        """How many strengths there are to try; 0 where there is nothing to search."""
        return max(len(values) if isinstance(values, tuple) else 0 for values in self._searched)

    @property
    def one_strength(self) -> bool:
        """Whether what is searched is of all members at once."""
        return isinstance(self.lambda_diversity, tuple)

    def at(self, chosen: Sequence[int]) -> Misleader:
        """With each member's rung of a search, counted from 1; 0 is none of the term that is searched."""

        def value(given: float | tuple[float, ...], rung: int) -> float:
            if not isinstance(given, tuple):
                return given
            return given[rung - 1] if rung else 0.0

        return dataclasses.replace(
            self,
            members=tuple(
                dataclasses.replace(member, lambda_attacker=value(member.lambda_attacker, rung))
                for member, rung in zip(self.members, chosen, strict=True)
            ),
            lambda_diversity=value(self.lambda_diversity, min(chosen)),
        )

    def kept(self, reference: Metrics, seen: Metrics) -> list[bool]:
        """Whether each member keeps both rules, from the metrics of two checkpoints."""
        return [
            before["validation_accuracy"] - after["validation_accuracy"] <= self.allowed_drop
            and before["augmented_accuracy"] - after["augmented_accuracy"] <= self.allowed_augmented_drop
            for before, after in zip(reference["members"], seen["members"], strict=True)
        ]

    def entry(self, kind: str, chosen: Sequence[int], seen: Metrics, kept: Sequence[bool]) -> dict[str, Any]:
        """What a report shows of one training of a search: values by member."""
        tried = self.at(chosen)
        return {
            "step": kind,
            "lambda_attacker": [member.lambda_attacker for member in tried.members],
            "lambda_diversity": tried.lambda_diversity,
            **{
                name: [round(member[name], 4) for member in seen["members"]]
                for name in ("validation_accuracy", "augmented_accuracy", "attacker_divergence")
            },
            "kept": list(kept),
        }

    @property
    def candidates(self) -> str:
        """What was to be tried, for an error."""
        if self.one_strength:
            return f"lambda_diversity {self.lambda_diversity}"
        return ", ".join(f"{member.architecture} {member.lambda_attacker}" for member in self.members)
