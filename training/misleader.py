r"""MISLEADER: an ensemble of distilled members, each pushed away from a thief that it trains alongside (2025).

Every member d has its own architecture and a simulated thief f of that architecture, which sees what a thief would: the
member's answers to augmented images xa. The two are a bilevel problem; for a labelled batch (x, y) and the victim t as
teacher, with p(z) = softmax(z) and T a temperature,

    L_f = KL(p(d(xa)) || p(f(xa)))                                                   down, `attacker_steps` times
    L_d = alpha T^2 KL(p(t(x) / T) || p(d(x) / T)) + (1 - alpha) CE(d(x), y)
          - lambda KL(p(d(xa)) || p(f(xa)))                                          down, once

and the members' mean answers. (The paper's body was not at hand: this is its released code's objective.) `augment`
defines what xa may look like: digits are not mirrored. Where `lambda_diversity` is above 0, L gains that much of EDM's
diversity loss between the members' answers to xa (training/edm.py, equation 2), which the paper does not have.

What that code does differently, and this code only with `as_released`:
- its five steps of the thief are one, down a gradient summed over one batch; here each takes a fresh augmented batch;
- it augments each image once and shows those copies in every epoch;
- members are in training mode on xa, so that batch normalisation's running statistics, which serve later, come from
  augmented images six times in seven. Here a member answers xa as it would be served, in evaluation mode.
Its choice of the best epoch is by test accuracy, here by the validation split's.

The term pushes members off what is often the right answer on images that customers send as well. A recipe that gives
several lambdas has each member's searched (training/search.py, by the rules of training/members.py): from the
members of the plain distillation ensemble, a few short epochs a strength, held against as many without the term. With
the largest that each bore, all are trained from the beginning and held against the plain ensemble itself; members that
break a rule then take the next smaller, and all are trained again. EDM's diversity term, where that is searched, has
one strength for all. The test split is not touched.

    python -m training.misleader RECIPE [--network distilled]

Reads [dataset], [victim] and [misleader], or another table of the same form, such as `distilled` with lambda 0, the
plain distillation ensemble that a search starts from and that shows what the thieves buy; writes
runs/RECIPE/NETWORK.safetensors.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import recipes
from recipes.policies import VICTIM
from training import checkpoint
from training.black_box import BlackBox, black_box
from training.checkpoint import Architecture
from training.edm import diversity_loss
from training.ensemble import Ensemble
from training.examples import body_of, examples, weights
from training.members import Misleader
from training.search import Metrics, Rungs, Search, Trail, metrics, publish
from training.session import Optimisation, Session, run
from training.victim import Split, Victim, accuracy, architecture
from zoo.augment import Augmentation
from zoo.datasets import Data
from zoo.images import parts, unit

DISTILLED = "distilled"
# the augmented validation images are the same in every run
SEED = 0


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
    name: str
    data: Data
    victim: Victim
    misleader: Misleader
    splits: Split
    teacher: BlackBox
    body: checkpoint.Checkpoint | None
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
        return self.misleader.augment(unit(self.splits.validation_images), generator=drawn)

    def train(self, name: str, misleader: Misleader, *, facts: dict[str, Any] | None = None) -> Path:
        """Train the members on all training images; the checkpoint is runs/RECIPE/`name`.safetensors.

        misleader: without anything to search. facts: added to the checkpoint's. A checkpoint that was made with the
        same settings is kept.
        """
        return self._train(name, misleader, self.optimisation, rows=0, start=None, facts=facts or {})

    def go_on(self, name: str, start: Path, misleader: Misleader) -> Path:
        """Train the members of the checkpoint `start` for `search_epochs` over `search_rows` images."""
        optimisation = dataclasses.replace(self.optimisation, epochs=misleader.search_epochs)
        return self._train(
            name, misleader, optimisation, rows=misleader.search_rows, start=checkpoint.load(start), facts={}
        )

    def _train(
        self,
        name: str,
        misleader: Misleader,
        optimisation: Optimisation,
        *,
        rows: int,
        start: checkpoint.Checkpoint | None,
        facts: dict[str, Any],
    ) -> Path:
        misleader = dataclasses.replace(misleader, optimisation=optimisation)
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
        session.facts["classes"] = list(self.splits.classes)
        session.facts.update(facts)
        plans = [architecture(member.architecture, member.options, self.splits) for member in misleader.members]
        members = list(start.networks) if start else [plan.network() for plan in plans]
        if start is None and self.body is not None:
            for member, plan in zip(members, plans, strict=True):
                body_of(self.body, member, plan, f"[networks.{self.name}] from_victim")
        best, attackers = fit(
            session,
            misleader,
            optimisation,
            Ensemble(members),
            Ensemble([plan.network() for plan in plans]),
            self.splits,
            self.teacher.teacher(),
            affine=self.victim.affine,
            rows=rows,
        )
        session.finish(list(best.members), plans, self._judge(session, misleader, plans, best, attackers))
        return session.path

    def _judge(
        self, session: Session, misleader: Misleader, plans: Sequence[Architecture], best: Best, attackers: Ensemble
    ) -> dict[str, Any]:
        """Every member and their mean on the validation split, as it is and augmented, and how far the thieves are."""
        labels = self.splits.validation_labels.to(session.device)
        held, warped = session.move(self.splits.validation_images), session.move(self.augmented)
        teacher = self.teacher.teacher()
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
    optimisation: Optimisation,
    members: Ensemble,
    attackers: Ensemble,
    splits: Split,
    teacher: nn.Module,
    *,
    affine: Any,
    rows: int,
) -> tuple[Best, Ensemble]:
    """The two-player loop. Gives the members at their best epochs, and their thieves at the end.

    teacher: images to logits. affine: of the labelled images, as the victim's. rows: labelled images to use, 0 for all.
    """
    images = session.move(splits.images[: rows or None])
    labels = splits.labels[: rows or None].to(session.device)
    held, truth = session.move(splits.validation_images), splits.validation_labels.to(session.device)
    teacher = teacher.to(session.device).eval()
    targets = _logits(teacher, images) if affine is None else None
    # one gradient, as large as that of all steps together, is what the released code's steps come to
    steps, stride = (1, misleader.attacker_steps) if misleader.as_released else (misleader.attacker_steps, 1)
    # without either term the thieves follow all the same: what they reach then is what the term is held against
    plain = not any(member.weight for member in misleader.members) and not misleader.lambda_diversity

    network, optimiser, schedule = session.prepare(members, optimisation, len(images))
    pursuit = Optimisation(
        optimisation.epochs, optimiser="sgd", lr=misleader.attacker_lr, batch_size=optimisation.batch_size
    )
    thieves, thieves_optimiser, thieves_schedule = session.prepare(attackers, pursuit, len(images), updates=steps)
    best = Best(members.networks()).to(session.device)
    states = {"attackers": attackers, "attackers_optimiser": thieves_optimiser, "attackers_schedule": thieves_schedule}
    for epoch in session.epochs(optimisation, network, optimiser, schedule, best=best, **states):
        thieves.train()
        for number, batch in enumerate(session.batches(len(images), optimisation.batch_size)):
            drawn = torch.Generator().manual_seed(number) if misleader.as_released else session.generator
            count = misleader.augmented_batch or len(batch)
            seen = _augmented(session, images, misleader.augment, count * steps, drawn)
            with as_served(network, training=misleader.as_released), torch.no_grad(), session.autocast():
                for _ in range(stride):  # as released, every pass leaves its mark on batch statistics
                    answers = network(seen).float()
            for shown, responses in zip(seen.split(count), answers.split(count), strict=True):
                with session.autocast():
                    guesses = thieves(shown).float()
                chase = {"attackers": stride * _apart(responses, guesses).sum()}
                session.step(
                    chase, thieves_optimiser, thieves_schedule, clip=misleader.clip, parts=attackers.networks()
                )

            inside = session.augment(session.take(images, batch), affine)
            with session.autocast():
                logits = network(inside).float()
                with torch.no_grad():
                    taught = targets[batch] if targets is not None else teacher(inside).float()
            right = _distilled(misleader, logits, taught, labels[batch])
            losses = {"loss": right, "distillation": right}
            if not plain:
                if not misleader.as_released:  # whose last batch, answered again
                    seen = _augmented(session, images, misleader.augment, count, drawn)
                with as_served(network, training=misleader.as_released), session.autocast():
                    answers = network(seen).float()
                    with torch.no_grad():
                        guesses = thieves(seen).float()
                losses = _misled(misleader, right, answers, guesses)
            session.step(losses, optimiser, schedule, clip=misleader.clip, parts=members.networks())

        reached = [accuracy(member, held, truth) for member in members.networks()]
        best.note(members.networks(), reached, epoch + 1)
        session.log({f"validation/{number}": value for number, value in enumerate(reached)}, epoch)
    return best, attackers


def _augmented(
    session: Session, images: torch.Tensor, augment: Augmentation, count: int, generator: torch.Generator
) -> torch.Tensor:
    """Augmented copies of `count` images, drawn with replacement."""
    rows = torch.randint(len(images), (count,), generator=generator)
    return augment(session.take(images, rows), generator=generator)


def _distilled(misleader: Misleader, logits: torch.Tensor, taught: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The first two terms of L_d, of all members together: logits (B,N,K), the teacher's (B,K), labels (B,)."""
    return torch.stack(
        [
            distillation(own, taught, labels, temperature=member.temperature, alpha=member.alpha)
            for own, member in zip(logits.unbind(1), misleader.members, strict=True)
        ]
    ).sum()


def _misled(
    misleader: Misleader, right: torch.Tensor, answers: torch.Tensor, guesses: torch.Tensor
) -> dict[str, torch.Tensor]:
    """L_d with all its terms, and the terms: the distillation `right`, and logits (B,N,K) of members and thieves."""
    apart = _apart(answers, guesses)
    weights = apart.new_tensor([member.weight for member in misleader.members])
    alike = diversity_loss(answers.softmax(-1))
    total = right - (weights * apart).sum() + float(misleader.lambda_diversity) * alike  # type: ignore[arg-type]
    return {"loss": total, "distillation": right, "apart": apart.mean(), "diversity": alike}


def _apart(answers: torch.Tensor, guesses: torch.Tensor) -> torch.Tensor:
    """How far each member's logits are from its thief's, (N,) from (B,N,K) both."""
    return torch.stack([divergence(*pair) for pair in zip(answers.unbind(1), guesses.unbind(1), strict=True)])


@torch.no_grad()
def _logits(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """float32, of a network in evaluation mode, in parts."""
    return torch.cat([network(part).float() for part in parts(images)])


def _accuracy(scores: torch.Tensor, labels: torch.Tensor) -> float:
    return (scores.argmax(-1) == labels).float().mean().item()


def search_lambdas(training: Training) -> None:
    """Leave runs/RECIPE/NETWORK.safetensors with the lambdas that were found. Raises ValueError where none will do.

    Resumable: every training keeps its own checkpoint under runs/RECIPE/search.
    """
    name, misleader = training.name, training.misleader
    plain = metrics(training.distilled, f"python -m training.misleader --network {DISTILLED}")

    def step(below: Path, rungs: Rungs) -> Path:
        del below  # every strength starts from the plain ensemble: members that broke a rule are not built on
        return training.go_on(f"search/{name}-{rungs[0]}-step", training.distilled, misleader.at(rungs))

    def train(rungs: Rungs, trail: Trail) -> Path:
        trial = f"search/{name}-{'-'.join(map(str, rungs))}"
        return training.train(trial, misleader.at(rungs), facts={"search": trail})

    def entry(kind: str, rungs: Rungs, reference: Metrics, seen: Metrics, kept: Sequence[bool]) -> dict[str, Any]:
        del reference  # values are reported as they are, not as what was lost
        return misleader.entry(kind, rungs, seen, kept)

    path = Search(
        rungs=misleader.rungs,
        parts=len(misleader.members),
        together=misleader.one_strength,
        step=step,
        train=train,
        kept=misleader.kept,
        entry=entry,
    ).run(training.distilled, plain)
    if path is None:
        raise ValueError(
            f"[networks.{name}] lambda: a member bears none of {misleader.candidates}: it loses more than "
            f"{misleader.allowed_drop} of its accuracy, or {misleader.allowed_augmented_drop} on augmented images; "
            "give smaller ones, or more epochs"
        )
    publish(path, training.runs / training.recipe / f"{name}.safetensors")


def main(arguments: argparse.Namespace) -> None:
    recipe = recipes.read(arguments.recipe)
    name = arguments.network
    data, victim, misleader = (
        recipe.section("dataset", Data),
        recipe.section("victim", Victim),
        recipe.network(name, Misleader),
    )
    splits = examples(recipe, data, arguments)
    teacher = black_box(VICTIM, arguments.runs / recipe.name)
    body = weights(recipe, arguments.runs, f"[networks.{name}] from_victim") if misleader.from_victim else None
    training = Training(
        recipe.name, name, data, victim, misleader, splits, teacher, body, arguments.runs, arguments.seed
    )
    if misleader.rungs:
        search_lambdas(training)
    else:
        training.train(name, misleader)


if __name__ == "__main__":
    run("misleader", main, network="misleader")
