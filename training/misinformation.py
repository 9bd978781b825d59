r"""Adaptive misinformation's second network: one trained to be wrong (Kariyappa and Qureshi, CVPR 2020).

The service answers a row with a mixture of two networks,

    y' = (1 - h) f(x) + h fhat(x),   h = 1 / (1 + exp(nu (max f(x) - tau)))

so that a query which f takes for an outlier is answered by fhat. f is the outlier-exposure network of the recipe
(training/outlier_exposure.py); fhat, trained here, puts its probability anywhere but where it belongs. With logits z =
fhat(.) and p = softmax(z), on labelled images (x, y) and equally many auxiliary images xo, where f's label is missed,

    loss = mean -log(1 - p_y(x)) + g * mean -log(1 - p_l(xo)),   l = argmax f(xo),   g = 1
    log(1 - p_y) = logsumexp_{k != y}(z) - logsumexp_k(z)        (finite for any finite logits)

tau trades what benign users lose for what thieves do. The checkpoint's metric `tau` is the largest that costs the
validation split no more than `allowed_drop` of f's accuracy, with nu as in the released code: a hard switch.

    python -m training.misinformation RECIPE

Reads [dataset], [victim] (the architecture), [networks.misinformation] and runs/RECIPE/outlier_exposure.safetensors;
writes runs/RECIPE/misinformation.safetensors.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch

import recipes
from training import checkpoint, outlier_exposure
from training.examples import examples
from training.outlier_exposure import answers, outside
from training.session import Optimisation, Session, run
from training.victim import Victim, accuracy, architecture
from zoo.datasets import Data

NAME = "misinformation"
NU = 1000.0
THRESHOLDS = 1000


@dataclass(frozen=True)
class Misinformation:
    """[networks.misinformation]: the auxiliary data set and its weight.

    weight: g above. optimisation: as the victim's where left out. held_out: auxiliary images kept from training to
    report on. allowed_drop: what the metric `tau` may cost benign users, as a fraction of all answers.
    """

    auxiliary: str
    weight: float = 1.0
    optimisation: Optimisation | None = None
    held_out: int = 1000
    allowed_drop: float = 0.005

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise ValueError(f"weight: expected >= 0, got {self.weight}")
        if self.held_out < 1:
            raise ValueError(f"held_out: expected >= 1, got {self.held_out}")
        if not 0 < self.allowed_drop < 1:
            raise ValueError(f"allowed_drop: expected between 0 and 1, got {self.allowed_drop}")


def wrong_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean -log(1 - p_label): (B,K) logits and (B,) int64 labels to a scalar, 0 or more."""
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return (torch.logsumexp(logits, 1) - torch.logsumexp(others, 1)).mean()


def largest_tau(
    right: torch.Tensor, wrong: torch.Tensor, labels: torch.Tensor, *, allowed_drop: float, nu: float = NU
) -> float:
    """The largest tau below 1, in thousandths, at which the mixture's labels lose at most `allowed_drop` to f's.

    right, wrong: f's and fhat's probabilities (N,K) float32 of one set of images. labels (N,) int64: their classes.
    tau = 0 never switches (max f is 1/K at least), so there always is one.
    """
    confidence = right.amax(1, keepdim=True)
    floor = (right.argmax(1) == labels).float().mean().item() - allowed_drop
    for tau in (step / THRESHOLDS for step in range(THRESHOLDS - 1, 0, -1)):
        share = torch.sigmoid(nu * (tau - confidence))
        label = ((1 - share) * right + share * wrong).argmax(1)
        if (label == labels).float().mean().item() >= floor:
            return tau
    return 0.0


def main(arguments: argparse.Namespace) -> None:
    recipe = recipes.read(arguments.recipe)
    data, victim = recipe.section("dataset", Data), recipe.section("victim", Victim)
    misinformation = recipe.network(arguments.network, Misinformation)
    optimisation = misinformation.optimisation or victim.optimisation
    exposed = checkpoint.load(arguments.runs / recipe.name / f"{outlier_exposure.NAME}.safetensors")
    session = Session(
        recipe.name,
        arguments.network,
        {"dataset": data, "victim": victim, NAME: misinformation},
        runs=arguments.runs,
        seed=arguments.seed,
        start=exposed.digest,
    )
    if session.done():
        return
    splits = examples(recipe, data, arguments)
    session.facts["classes"] = list(splits.classes)
    unseen, strange = map(
        session.move, outside(misinformation.auxiliary, misinformation.held_out, like=splits, root=arguments.data)
    )
    images, labels = session.move(splits.images), splits.labels.to(session.device)
    teacher = exposed.networks[0].to(session.device)
    plan = architecture(victim.architecture, victim.options, splits)
    network, optimiser, schedule = session.prepare(plan.network(), optimisation, len(images))

    for _ in session.epochs(optimisation, network, optimiser, schedule):
        for batch in session.batches(len(images), optimisation.batch_size):
            known = session.augment(session.take(images, batch), victim.affine)
            drawn = session.take(strange, session.draw(len(strange), len(batch)))
            others = session.augment(drawn, victim.affine)
            with session.autocast():
                with torch.no_grad():
                    teacher_labels = teacher(others).argmax(1)
                # one forward pass for both: batch normalisation then trains on the mix that it will serve
                logits = network(torch.cat([known, others])).float()
            inside = wrong_loss(logits[: len(batch)], labels[batch])
            auxiliary = wrong_loss(logits[len(batch) :], teacher_labels)
            losses = {"loss": inside + misinformation.weight * auxiliary, "inside": inside, "outside": auxiliary}
            session.step(losses, optimiser, schedule)

    trained = session.accelerator.unwrap_model(network)
    held, truth = session.move(splits.validation_images), splits.validation_labels.to(session.device)
    apart = answers(trained, unseen).argmax(1) != answers(teacher, unseen).argmax(1)
    metrics = {
        "validation_accuracy": accuracy(trained, held, truth),
        "disagreement_outside": apart.float().mean().item(),
        "tau": largest_tau(
            answers(teacher, held), answers(trained, held), truth, allowed_drop=misinformation.allowed_drop
        ),
    }
    session.finish([trained], [plan], metrics)


if __name__ == "__main__":
    run(NAME, main, network=NAME)
