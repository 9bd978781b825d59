r"""MISLEADER: an ensemble of distilled members, each pushed away from a thief that it trains beside itself (2025).

Every member d, of an architecture of its own, has a simulated thief f of that architecture, which sees what a thief
would: the member's answers to augmented images xa. The two are a bilevel problem; for a labelled batch (x, y) and the
victim t as teacher, with p(z) = softmax(z) and T a temperature,

    L_f = KL(p(d(xa)) || p(f(xa)))                                                   down, `attacker_steps` times
    L_d = alpha T^2 KL(p(t(x) / T) || p(d(x) / T)) + (1 - alpha) CE(d(x), y)
          - lambda KL(p(d(xa)) || p(f(xa)))                                          down, once

and the members' mean answers. (The paper's body was not at hand: this is its released code's objective.) `augment`
says what xa may look like: digits are not mirrored. Where `lambda_diversity` is above 0, L gains that much of EDM's
diversity loss between the members' answers to xa (training/edm.py, equation 2), which the paper does not have.

What that code does otherwise, and this does not unless `as_released` says so:
- its five steps of the thief are one, down a gradient summed over one batch; here each takes a fresh augmented batch;
- it augments each image once and shows those copies in every epoch;
- members are in training mode on xa, so that batch normalisation's running statistics, which serve later, come from
  augmented images six times in seven. Here a member answers xa as it would be served, in evaluation mode.
Its choice of the best epoch is by test accuracy, here by the validation split's. A lambda is searched for each member
where a recipe gives several (training/misleader_search.py): the term pushes members off what is often the right answer
on images that customers send as well.

    python -m training.misleader RECIPE [--table distilled]

Reads [dataset], [victim] and [misleader], or another table of the same form, such as `distilled` with lambda 0, the
plain distillation ensemble that a search starts from and that shows what the thieves buy; writes
runs/RECIPE/<table>.safetensors.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import recipes
from training import checkpoint, misleader_search
from training.checkpoint import Architecture
from training.edm import diversity_loss
from training.ensemble import Ensemble
from training.lambda_search import rising
from training.session import Optimisation, Session, run
from training.victim import Split, Victim, accuracy, architecture, split
from zoo.augment import Augmentation
from zoo.datasets import Data

DISTILLED = "distilled"
# the augmented validation images are the same in every run
SEED = 0


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
    """[misleader]: the members, their thieves, and the augmented images between them.

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


def distillation(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, *, temperature: float, alpha: float
) -> torch.Tensor:
    """The first two terms of L_d: logits (B,K) of both, labels (B,) int64, to a scalar."""
    softened = divergence(teacher / temperature, student / temperature)
    return alpha * temperature**2 * softened + (1 - alpha) * F.cross_entropy(student, labels)


def divergence(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """KL(softmax first || softmax second) of logits (B,K), mean over rows, in nats; gradients flow into both."""
    return F.kl_div(second.log_softmax(-1), first.log_softmax(-1), reduction="batchmean", log_target=True)


@contextmanager
def as_served(network: nn.Module, *, training: bool) -> Iterator[None]:
    """The network in evaluation mode, so that what it is shown leaves no trace in its buffers; unless `training`."""
    network.train(training)
    try:
        yield
    finally:
        network.train()


class Best(nn.Module):
    """Each member as it was after the epoch in which it was most accurate on the validation split.

    accuracy: (N,) float32, epoch: (N,) int64, counted from 1; buffers, so that an interrupted run keeps them.
    """

    accuracy: torch.Tensor
    epoch: torch.Tensor

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(copy.deepcopy(member) for member in members)
        self.register_buffer("accuracy", torch.full((len(members),), -1.0))
        self.register_buffer("epoch", torch.zeros(len(members), dtype=torch.int64))

    def note(self, members: Sequence[nn.Module], accuracies: Sequence[float], epoch: int) -> None:
        """Keep the members that are no less accurate than they ever were: of equal epochs the last counts."""
        for number, (member, reached) in enumerate(zip(members, accuracies, strict=True)):
            if reached >= self.accuracy[number]:
                self.members[number].load_state_dict(member.state_dict())
                self.accuracy[number], self.epoch[number] = reached, epoch


@dataclass(frozen=True)
class Training:
    """All that one ensemble's training needs but its lambdas: a program's command line, read."""

    recipe: str
    table: str
    data: Data
    victim: Victim
    misleader: Misleader
    cut: Split
    teacher: checkpoint.Checkpoint
    runs: Path
    seed: int

    @property
    def distilled(self) -> Path:
        """Where the plain distillation ensemble's checkpoint is."""
        return self.runs / self.recipe / f"{DISTILLED}.safetensors"

    @property
    def optimisation(self) -> Optimisation:
        return self.misleader.optimisation or self.victim.optimisation

    @functools.cached_property
    def augmented(self) -> torch.Tensor:
        """The validation images, each augmented once."""
        drawn = torch.Generator().manual_seed(SEED)
        return self.misleader.augment(self.cut.validation_images, generator=drawn)

    def train(self, name: str, misleader: Misleader, *, facts: dict[str, Any] | None = None) -> Path:
        """Train the members on all training images; the checkpoint is runs/RECIPE/`name`.safetensors.

        misleader: without anything to search. facts: added to the checkpoint's. A checkpoint that was made with the
        same settings is kept.
        """
        return self._train(name, misleader, self.optimisation, rows=0, start=None, facts=facts or {})

    def go_on(self, name: str, start: Path, misleader: Misleader) -> Path:
        """Train the members of the checkpoint `start` for `search_epochs` over `search_rows` images."""
        how = dataclasses.replace(self.optimisation, epochs=misleader.search_epochs)
        return self._train(name, misleader, how, rows=misleader.search_rows, start=checkpoint.load(start), facts={})

    def _train(
        self,
        name: str,
        misleader: Misleader,
        how: Optimisation,
        *,
        rows: int,
        start: checkpoint.Checkpoint | None,
        facts: dict[str, Any],
    ) -> Path:
        misleader = dataclasses.replace(misleader, optimisation=how)
        session = Session(
            self.recipe,
            name,
            {
                "dataset": dataclasses.replace(self.data, rows=rows or self.data.rows),
                "victim": self.victim,
                "misleader": misleader,
            },
            runs=self.runs,
            seed=self.seed,
            start=self.teacher.digest if start is None else f"{self.teacher.digest} {start.digest}",
        )
        if session.done():
            return session.path
        session.facts["classes"] = list(self.cut.classes)
        session.facts.update(facts)
        plans = [architecture(member.architecture, member.options, self.cut) for member in misleader.members]
        members = list(start.networks) if start else [plan.network() for plan in plans]
        best, attackers = fit(
            session,
            misleader,
            how,
            Ensemble(members),
            Ensemble([plan.network() for plan in plans]),
            self.cut,
            self.teacher.networks[0],
            affine=self.victim.affine,
            rows=rows,
        )
        session.finish(list(best.members), plans, self._judge(session, misleader, plans, best, attackers))
        return session.path

    def _judge(
        self, session: Session, misleader: Misleader, plans: Sequence[Architecture], best: Best, attackers: Ensemble
    ) -> dict[str, Any]:
        """Every member and their mean on the validation split, as it is and augmented, and how far the thieves are."""
        labels = self.cut.validation_labels.to(session.device)
        held, warped = session.move(self.cut.validation_images), session.move(self.augmented)
        teacher = self.teacher.networks[0].to(session.device)
        together = Ensemble(list(best.members)).eval()
        clean, shifted, stolen = (
            _logits(each, images) for each, images in ((together, held), (together, warped), (attackers.eval(), warped))
        )
        rows: list[dict[str, Any]] = [
            {
                "architecture": plan.name,
                "parameters": sum(weight.numel() for weight in network.parameters()),
                "temperature": member.temperature,
                "alpha": member.alpha,
                "lambda_attacker": member.lambda_attacker,
                "epoch": int(best.epoch[number]),
                "validation_accuracy": _accuracy(clean[:, number], labels),
                "augmented_accuracy": _accuracy(shifted[:, number], labels),
                "attacker_divergence": divergence(shifted[:, number], stolen[:, number]).item(),
                "attacker_agreement": _accuracy(stolen[:, number], shifted[:, number].argmax(-1)),
            }
            for number, (member, plan, network) in enumerate(
                zip(misleader.members, plans, together.networks(), strict=True)
            )
        ]
        return {
            "validation_accuracy": sum(row["validation_accuracy"] for row in rows) / len(rows),
            "ensemble_accuracy": _accuracy(clean.softmax(-1).mean(1), labels),
            "ensemble_augmented": _accuracy(shifted.softmax(-1).mean(1), labels),
            "teacher_accuracy": accuracy(teacher, held, labels),
            "teacher_augmented": accuracy(teacher, warped, labels),
            "diversity": diversity_loss(shifted.softmax(-1)).item(),
            "members": rows,
        }


def fit(
    session: Session,
    misleader: Misleader,
    how: Optimisation,
    members: Ensemble,
    attackers: Ensemble,
    cut: Split,
    teacher: nn.Module,
    *,
    affine: Any,
    rows: int,
) -> tuple[Best, Ensemble]:
    """The two-player loop. Gives the members at their best epochs, and their thieves at the end.

    teacher: images to logits. affine: of the labelled images, as the victim's. rows: labelled images to use, 0 for all.
    """
    images = session.move(cut.images[: rows or None])
    labels = cut.labels[: rows or None].to(session.device)
    held, truth = session.move(cut.validation_images), cut.validation_labels.to(session.device)
    teacher = teacher.to(session.device).eval()
    told = _logits(teacher, images) if affine is None else None
    # one gradient, as large as that of all steps together, is what the released code's steps come to
    steps, stride = (1, misleader.attacker_steps) if misleader.as_released else (misleader.attacker_steps, 1)
    # without either term the thieves follow all the same: what they reach then is what the term is held against
    plain = not any(member.weight for member in misleader.members) and not misleader.lambda_diversity

    network, optimiser, schedule = session.prepare(members, how, len(images))
    pursuit = Optimisation(how.epochs, optimiser="sgd", lr=misleader.attacker_lr, batch_size=how.batch_size)
    thieves, thieves_optimiser, thieves_schedule = session.prepare(attackers, pursuit, len(images), updates=steps)
    best = Best(members.networks()).to(session.device)
    beside = {"attackers": attackers, "attackers_optimiser": thieves_optimiser, "attackers_schedule": thieves_schedule}
    for epoch in session.epochs(how, network, optimiser, schedule, best=best, **beside):
        thieves.train()
        for number, batch in enumerate(session.batches(len(images), how.batch_size)):
            drawn = torch.Generator().manual_seed(number) if misleader.as_released else session.generator
            count = misleader.augmented_batch or len(batch)
            seen = _augmented(images, misleader.augment, count * steps, drawn)
            with as_served(network, training=misleader.as_released), torch.no_grad(), session.accelerator.autocast():
                for _ in range(stride):  # as released, every pass leaves its mark on batch statistics
                    answers = network(seen).float()
            for shown, told_of in zip(seen.split(count), answers.split(count), strict=True):
                with session.accelerator.autocast():
                    guesses = thieves(shown).float()
                chase = torch.stack([divergence(*pair) for pair in _pairs(told_of, guesses)]).sum()
                session.step(
                    {"attackers": stride * chase},
                    thieves_optimiser,
                    thieves_schedule,
                    clip=misleader.clip,
                    parts=attackers.networks(),
                )

            inside = session.augment(images[batch], affine)
            with session.accelerator.autocast():
                logits = network(inside).float()
                with torch.no_grad():
                    taught = told[batch] if told is not None else teacher(inside).float()
            right = torch.stack(
                [
                    distillation(own, taught, labels[batch], temperature=member.temperature, alpha=member.alpha)
                    for own, member in zip(logits.unbind(1), misleader.members, strict=True)
                ]
            ).sum()
            losses = {"loss": right, "distillation": right}
            if not plain:
                if not misleader.as_released:  # whose last batch, answered anew
                    seen = _augmented(images, misleader.augment, count, drawn)
                with as_served(network, training=misleader.as_released), session.accelerator.autocast():
                    answers = network(seen).float()
                    with torch.no_grad():
                        guesses = thieves(seen).float()
                apart = torch.stack([divergence(*pair) for pair in _pairs(answers, guesses)])
                weights = apart.new_tensor([member.weight for member in misleader.members])
                alike = diversity_loss(answers.softmax(-1))
                total = right - (weights * apart).sum() + float(misleader.lambda_diversity) * alike  # type: ignore[arg-type]
                losses = {"loss": total, "distillation": right, "apart": apart.mean(), "diversity": alike}
            session.step(losses, optimiser, schedule, clip=misleader.clip, parts=members.networks())

        reached = [accuracy(member, held, truth) for member in members.networks()]
        best.note(members.networks(), reached, epoch + 1)
        session.log({f"validation/{number}": value for number, value in enumerate(reached)}, epoch)
    return best, attackers


def _augmented(images: torch.Tensor, augment: Augmentation, count: int, generator: torch.Generator) -> torch.Tensor:
    """Augmented copies of `count` images, drawn with replacement."""
    rows = torch.randint(len(images), (count,), generator=generator).to(images.device)
    return augment(images[rows], generator=generator)


def _pairs(answers: torch.Tensor, guesses: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Each member's logits and its thief's, (B,K) both, from (B,N,K)."""
    return zip(answers.unbind(1), guesses.unbind(1), strict=True)


@torch.no_grad()
def _logits(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """float32, of a network in evaluation mode, in parts."""
    return torch.cat([network(part).float() for part in images.split(512)])


def _accuracy(scores: torch.Tensor, labels: torch.Tensor) -> float:
    return (scores.argmax(-1) == labels).float().mean().item()


def main(arguments: argparse.Namespace) -> None:
    recipe = recipes.read(arguments.recipe)
    table = arguments.table
    data, victim, misleader = (
        recipe.section("dataset", Data),
        recipe.section("victim", Victim),
        recipe.section(table, Misleader),
    )
    cut = split(data.load("train", arguments.data), rows=data.rows)
    teacher = checkpoint.load(arguments.runs / recipe.name / "victim.safetensors")
    training = Training(recipe.name, table, data, victim, misleader, cut, teacher, arguments.runs, arguments.seed)
    if misleader.rungs:
        misleader_search.search(training)
    else:
        training.train(table, misleader)


if __name__ == "__main__":
    run("misleader", main, table="misleader")
