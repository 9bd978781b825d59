r"""EDM: an Ensemble of Diverse Models (Kariyappa, Prakash, Qureshi, ICLR 2021, sec. 4.1, equations 1 to 3).

N members agree on the task and disagree everywhere else. For a labelled batch (x, y) and an equally large batch xo
of auxiliary images, with q_i = softmax(f_i(xo)):

    coherence(xo) = max_{a<b} cos(q_a, q_b)                                          (equation 1, reported)
    DivLoss       = mean_xo log sum_{a<b} exp(cos(q_a, q_b))                         (equation 2)
    loss          = 1/N sum_i CE(f_i(x), y) + lambda * DivLoss                       (equation 3)

All members are updated by one optimiser from this one loss. Cosines of probability vectors lie in [0, 1], so with P
pairs DivLoss lies in [log P, 1 + log P], not above 0 as the paper's appendix states: what is reported is
DivLoss - log P, in [0, 1]. The exponent's weights differ by a factor of e at most, so the gradient follows the mean
cosine; `temperature` t > 1 replaces equation 2 by 1/t log sum exp(t cos), nearer to the maximum. The paper's is 1.

The paper prints no lambda but a rule: benign accuracy may fall by less than half a point (sec. 5.1, appendix A.7: even
large lambdas cost little). So the largest admissible one is wanted, and a recipe that gives several has them searched
(training/search.py): from the members of the trained regular ensemble, one short epoch a lambda, each going on from the
last. The search ends at the first lambda whose members lose more on the validation split than the rule allows, or that
no longer lowers the diversity loss. With the largest that kept the rule the members are trained on everything and held
against the undefended victim; if they break the rule, the next smaller one is taken. The test split is not touched.

    python -m training.edm RECIPE [--network ensemble]

Reads [dataset], [victim] (the members' architecture) and [networks.edm], or another network of this program, such as
the regular ensemble with lambda 0 that the paper compares with; writes runs/RECIPE/NETWORK.safetensors.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import recipes
from recipes.policies import VICTIM
from training import checkpoint
from training.black_box import black_box
from training.ensemble import Ensemble, Stacked, ensemble_of
from training.examples import body_of, examples, reached, weights
from training.leak import leak, signatures
from training.search import Metrics, Rungs, Search, Trail, metrics, publish, rising
from training.session import Optimisation, Session, run
from training.victim import Split, Victim, accuracy, architecture
from zoo.datasets import Data, load
from zoo.images import parts, size_of

REGULAR = "ensemble"
# a step must lower the diversity loss, which lies in [0, 1], by this much for a larger lambda to be tried
SATURATED = 0.005


@dataclass(frozen=True)
class EDM:
    """[networks.NAME] of the program edm: ensemble size, the auxiliary data set, and the weight of the diversity term.

    lambda_diversity: lambda of equation 3; 0 trains a regular ensemble; several, in rising order, are searched.
    temperature: t above; 1 is the paper's. optimisation: as the victim's where left out. held_out: auxiliary images
    kept from training to report on. search_rows: training images of each step of a search. allowed_drop: what
    the members' mean accuracy on the validation split may lose to lambda, as a fraction. from_ensemble: the members
    start as the trained regular ensemble's ([ensemble]), not fresh: fewer epochs, and less accuracy lost. from_victim:
    they start as the victim with fresh last layers, where its weights are known.
    """

    auxiliary: str
    members: int = 5
    lambda_diversity: float | tuple[float, ...] = 1.0
    temperature: float = 1.0
    optimisation: Optimisation | None = None
    held_out: int = 1000
    search_rows: int = 12_000
    allowed_drop: float = 0.005
    from_ensemble: bool = False
    from_victim: bool = False

    def __post_init__(self) -> None:
        if self.from_ensemble and self.from_victim:
            raise ValueError("from_ensemble, from_victim: expected one of them, got both")
        if self.members < 2:
            raise ValueError(f"members: expected at least 2, got {self.members}")
        rising("lambda_diversity", self.lambda_diversity)
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected > 0, got {self.temperature}")
        if self.search_rows < 1 or not 0 < self.allowed_drop < 1:
            raise ValueError(
                f"expected search_rows >= 1 and 0 < allowed_drop < 1, got {self.search_rows}, {self.allowed_drop}"
            )

    @property
    def lambdas(self) -> tuple[float, ...]:
        """The candidates, in rising order."""
        given = self.lambda_diversity
        return given if isinstance(given, tuple) else (given,)


def pair_cosines(probabilities: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of every pair of members, (B,N,K) to (B,P) with P = N(N-1)/2, values in [0,1]."""
    unit = F.normalize(probabilities, dim=-1)
    gram = unit @ unit.transpose(1, 2)
    members = probabilities.shape[1]
    first, second = torch.triu_indices(members, members, offset=1)
    return gram[:, first, second]


def coherence(probabilities: torch.Tensor) -> torch.Tensor:
    """Equation 1: the largest pair cosine of each row, (B,N,K) to (B,)."""
    return pair_cosines(probabilities).amax(1)


def diversity_loss(probabilities: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
    """Equation 2 less its lower bound log(P)/t: (B,N,K) probabilities to a scalar in [0,1]."""
    cosines = pair_cosines(probabilities)
    spread = torch.logsumexp(temperature * cosines, dim=1) - math.log(cosines.shape[1])
    return spread.mean() / temperature


@torch.inference_mode()
def answers(ensemble: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Every member's probabilities, (B,N,K) float32, the ensemble in evaluation mode."""
    ensemble.eval()
    device = next(ensemble.parameters()).device
    return torch.cat([ensemble(part).float().softmax(-1) for part in parts(images, device=device)])


@dataclass(frozen=True)
class Training:
    """All that one ensemble's training needs but lambda and the images it may see: a program's command line, read."""

    recipe: str
    name: str
    data: Data
    victim: Victim
    edm: EDM
    splits: Split
    auxiliary: torch.Tensor
    body: checkpoint.Checkpoint | None
    runs: Path
    seed: int

    @property
    def regular(self) -> Path:
        """Where the regular ensemble's checkpoint is."""
        return self.runs / self.recipe / f"{REGULAR}.safetensors"

    def train(self, name: str, *, lambda_diversity: float, facts: dict[str, Any] | None = None) -> Path:
        """Train the members on all training images; the checkpoint is runs/RECIPE/`name`.safetensors.

        facts: added to the checkpoint's. A checkpoint that was made with the same settings is kept.
        """
        edm = dataclasses.replace(self.edm, lambda_diversity=lambda_diversity)
        optimisation = edm.optimisation or self.victim.optimisation
        start = checkpoint.load(self.regular) if edm.from_ensemble else None
        return self._train(name, edm, optimisation, rows=0, start=start, facts=facts or {})

    def go_on(self, name: str, start: Path, *, lambda_diversity: float) -> Path:
        """Train the members of the checkpoint `start` for one epoch over `search_rows` images, under this lambda."""
        edm = dataclasses.replace(self.edm, lambda_diversity=lambda_diversity)
        optimisation = dataclasses.replace(edm.optimisation or self.victim.optimisation, epochs=1)
        return self._train(name, edm, optimisation, rows=edm.search_rows, start=checkpoint.load(start), facts={})

    def _train(
        self,
        name: str,
        edm: EDM,
        optimisation: Optimisation,
        *,
        rows: int,
        start: checkpoint.Checkpoint | None,
        facts: dict[str, Any],
    ) -> Path:
        settings = {
            "dataset": dataclasses.replace(self.data, rows=rows or self.data.rows),
            "victim": self.victim,
            "edm": dataclasses.replace(edm, optimisation=optimisation),
        }
        session = Session(
            self.recipe,
            name,
            settings,
            runs=self.runs,
            seed=self.seed,
            start="" if start is None else start.digest,
        )
        if session.done():
            return session.path
        session.facts["classes"] = list(self.splits.classes)
        session.facts.update(facts)
        plan = architecture(self.victim.architecture, self.victim.options, self.splits)
        members = self._members(plan, edm.members, start)
        ensemble = self._fit(session, edm, optimisation, members, rows=rows)
        reached = self._judge(ensemble, session, session.move(self.auxiliary[: edm.held_out]))
        favourites = ", ".join(f"{each['class']} ({each['share']:.0%})" for each in reached["signatures"])
        session.say(f"off the task the members' most frequent classes are {favourites}")
        session.finish(ensemble.networks(), [plan] * edm.members, reached)
        return session.path

    def _members(
        self, plan: checkpoint.Architecture, count: int, start: checkpoint.Checkpoint | None
    ) -> list[nn.Module]:
        """The networks that a training begins with."""
        if start:
            return list(start.networks)
        members = [plan.network() for _ in range(count)]
        if self.body is not None:
            for member in members:
                body_of(self.body, member, plan, f"[networks.{self.name}] from_victim")
        return members

    def _fit(
        self, session: Session, edm: EDM, optimisation: Optimisation, members: Sequence[nn.Module], *, rows: int
    ) -> Ensemble | Stacked:
        """The loop. rows: labelled images to use, 0 for all."""
        outside = session.move(self.auxiliary[edm.held_out :])
        images = session.move(self.splits.images[: rows or None])
        labels = self.splits.labels[: rows or None].to(session.device)
        network, optimiser, schedule = session.prepare(ensemble_of(members, session.device), optimisation, len(images))
        weight = float(edm.lambdas[0])
        for _ in session.epochs(optimisation, network, optimiser, schedule):
            for batch in session.batches(len(images), optimisation.batch_size):
                inside = session.augment(session.take(images, batch), self.victim.affine)
                shown = inside
                if weight:
                    # one forward pass for both: batch normalisation then trains on the mix that it will serve
                    drawn = session.take(outside, session.draw(len(outside), len(batch)))
                    others = session.augment(drawn, self.victim.affine)
                    shown = torch.cat([inside, others])
                with session.autocast():
                    logits = network(shown).float()
                known, strange = logits[: len(batch)], logits[len(batch) :]
                right = F.cross_entropy(known.flatten(0, 1), labels[batch].repeat_interleave(edm.members))
                losses = {"loss": right, "cross_entropy": right}
                if weight:
                    apart = diversity_loss(strange.softmax(-1), temperature=edm.temperature)
                    losses |= {"loss": right + weight * apart, "diversity": apart}
                session.step(losses, optimiser, schedule)
        trained: Ensemble | Stacked = session.accelerator.unwrap_model(network)
        return trained

    def _judge(self, ensemble: Ensemble | Stacked, session: Session, unseen: torch.Tensor) -> dict[str, Any]:
        """Accuracy of the members on the validation split; how far apart they are on unseen auxiliary images, and how
        far each gives itself away there."""
        held, truth = session.move(self.splits.validation_images), self.splits.validation_labels.to(session.device)
        each = [accuracy(member, held, truth) for member in ensemble.networks()]
        apart = answers(ensemble, unseen)
        return {
            "validation_accuracy": sum(each) / len(each),
            "validation_accuracy_worst": min(each),
            "diversity": diversity_loss(apart).item(),
            "coherence": coherence(apart).mean().item(),
            "coherence_inside": coherence(answers(ensemble, held)).mean().item(),
            "leak": leak(apart),
            "signatures": signatures(apart),
        }


def search_lambda(training: Training) -> None:
    """Leave runs/RECIPE/NETWORK.safetensors with the lambda that was found. Raises ValueError where none will do.

    Resumable: every training keeps its own checkpoint under runs/RECIPE/search.
    """
    name, edm, folder = training.name, training.edm, training.runs / training.recipe
    lambdas = (0.0, *edm.lambdas)
    undefended = {"validation_accuracy": reached(black_box(VICTIM, folder), training.splits)}
    metrics(training.regular, f"python -m training.edm --network {REGULAR}")

    def step(path: Path, rungs: Rungs) -> Path:
        weight = lambdas[rungs[0]]
        return training.go_on(f"search/{name}-{weight:g}-step", path, lambda_diversity=weight)

    def train(rungs: Rungs, trail: Trail) -> Path:
        weight = lambdas[rungs[0]]
        return training.train(f"search/{name}-{weight:g}", lambda_diversity=weight, facts={"search": trail})

    def drop(reference: Metrics, seen: Metrics) -> float:
        return float(reference["validation_accuracy"] - seen["validation_accuracy"])

    def entry(kind: str, rungs: Rungs, reference: Metrics, seen: Metrics, kept: Sequence[bool]) -> dict[str, Any]:
        shown = ("validation_accuracy", "diversity") if kind == "short" else ()
        return {
            "lambda": lambdas[rungs[0]],
            "step": kind,
            **{name: round(seen[name], 4) for name in shown},
            "drop": round(drop(reference, seen), 4),
            "kept": kept[0],
        }

    path = Search(
        rungs=len(edm.lambdas),
        step=step,
        train=train,
        kept=lambda reference, seen: [drop(reference, seen) <= edm.allowed_drop],
        entry=entry,
        worthwhile=lambda before, after: bool(before["diversity"] - after["diversity"] >= SATURATED),
    ).run(training.regular, undefended)
    if path is None:
        raise ValueError(
            f"[networks.{name}] lambda_diversity: none of {edm.lambda_diversity} keeps the members' accuracy within "
            f"{edm.allowed_drop} of the victim's {undefended['validation_accuracy']:.4f}; give smaller ones, or more "
            "epochs"
        )
    publish(path, folder / f"{name}.safetensors")


def main(arguments: argparse.Namespace) -> None:
    recipe = recipes.read(arguments.recipe)
    name = arguments.network
    data, victim, edm = (
        recipe.section("dataset", Data),
        recipe.section("victim", Victim),
        recipe.network(name, EDM),
    )
    splits = examples(recipe, data, arguments)
    channels, size = splits.images.shape[1], size_of(splits.images)
    auxiliary = load(edm.auxiliary, "train", root=arguments.data, size=size, channels=channels).stored
    if len(auxiliary) <= edm.held_out:
        raise ValueError(
            f"[networks.{name}] auxiliary: expected more than {edm.held_out} (held_out), got {len(auxiliary)}"
        )
    body = weights(recipe, arguments.runs, f"[networks.{name}] from_victim") if edm.from_victim else None
    training = Training(recipe.name, name, data, victim, edm, splits, auxiliary, body, arguments.runs, arguments.seed)
    if isinstance(edm.lambda_diversity, tuple):
        search_lambda(training)
    else:
        training.train(name, lambda_diversity=edm.lambda_diversity)


if __name__ == "__main__":
    run("edm", main, network="edm")
