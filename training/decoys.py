r"""Decoys: a classifier that answers a keyed function of the picture where the picture is none of its task's.

An ensemble of members that disagree off the task (training/edm.py) gives thieves two things back: each member's own
default class, which names it, and beneath it the task, which all members have learnt (docs/results/unmixing.md). A
decoy leaves neither: off the task the label is a function of the image that has nothing to do with the task, that a
network learns as easily, and that only the deployment's key knows. For an image x with block means m(x), as many as
`grid` squared a channel,

    u(x) = m(x) less its mean, scaled to length 1
    d(x) = argmax over classes k of w_k u(x)          w_k normal, drawn from the key

Every class is as likely as any other to an image without a direction of its own, and neighbours mostly share a class:
the function is smooth, so the network keeps it for images that nobody trained it on. For a labelled batch (x, y) and an
equally large batch xo of auxiliary images, varied as a thief would vary them,

    loss = CE(f(x), y) + g CE((1 - e) 1_d(xo) + e / K, f(xo))

Smoothing by e draws the classes below the decoy to one common shape: what they would otherwise tell is the task. The
auxiliary images are as outlier exposure has them (Hendrycks et al., ICLR 2019), and that an answer off the task should
mislead is of adaptive misinformation (Kariyappa and Qureshi, CVPR 2020), which needs a detector and a second network
for it, and misleads everybody alike.

    python -m training.decoys RECIPE [--network NAME]

Reads [dataset], [victim] and [networks.decoys]; writes runs/RECIPE/decoys.safetensors: one network, at the cost of one.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

import recipes
from training.checkpoint import Architecture, Checkpoint
from training.deployment_key import deployment_key, generator
from training.examples import examples, weights
from training.outlier_exposure import answers, outside
from training.session import Optimisation, Session, run
from training.victim import Split, Victim, accuracy, architecture
from zoo.augment import Augmentation
from zoo.datasets import Data

NAME = "decoys"


@dataclass(frozen=True)
class Decoys:
    """[networks.NAME] of the program decoys.

    auxiliary: images that are none of the task's. weight, smoothing, grid: g, e and blocks a side above. variation: of
    auxiliary images, on top of the victim's own. optimisation: as the victim's where left out. held_out: auxiliary
    images kept from training to report on. from_victim: the network starts as the victim, where its weights are known.
    """

    auxiliary: str
    weight: float = 1.0
    smoothing: float = 0.1
    grid: int = 4
    variation: Augmentation | None = None
    optimisation: Optimisation | None = None
    held_out: int = 1000
    from_victim: bool = True

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"weight: expected > 0, got {self.weight}")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing: expected 0 to below 1, got {self.smoothing}")
        if not 2 <= self.grid <= 64:
            raise ValueError(f"grid: expected 2 to 64 blocks a side, got {self.grid}")
        if self.held_out < 1:
            raise ValueError(f"held_out: expected >= 1, got {self.held_out}")


class Decoy(nn.Module):
    """d above, of images (N,C,S,S) float32 in [0,1], to labels (N,) int64. key: the deployment's, which alone draws w.

    An image of one colour has no direction, and is of class 0.
    """

    directions: torch.Tensor

    def __init__(self, key: bytes, *, grid: int, channels: int, classes: int) -> None:
        super().__init__()
        drawn = torch.randn(channels * grid**2, classes, generator=generator(key, "decoys"))
        self.grid = grid
        self.register_buffer("directions", drawn)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = F.adaptive_avg_pool2d(images, self.grid).flatten(1)
        return (F.normalize(means - means.mean(1, keepdim=True)) @ self.directions).argmax(1)


def start(plan: Architecture, victim: Checkpoint | None, wanted_by: str) -> nn.Module:
    """The network that training begins with: the victim, if given, or a fresh one. Raises ValueError where the
    architectures differ."""
    network = plan.network()
    if victim is not None:
        theirs = victim.architectures[0]
        if theirs.name != plan.name:
            raise ValueError(
                f"{wanted_by}: expected the victim's architecture, {theirs.name}, in [victim], got {plan.name}; set "
                "architecture to it, or from_victim to false"
            )
        network.load_state_dict(victim.networks[0].state_dict())
    return network


def fit(
    session: Session,
    decoys: Decoys,
    optimisation: Optimisation,
    victim: Victim,
    splits: Split,
    strange: torch.Tensor,
    network: nn.Module,
    decoy: Decoy,
) -> nn.Module:
    """The loop; the checkpoint is not written. strange: auxiliary images."""
    images, labels = session.move(splits.images), splits.labels.to(session.device)
    network, optimiser, schedule = session.prepare(network, optimisation, len(images))
    for _ in session.epochs(optimisation, network, optimiser, schedule):
        for batch in session.batches(len(images), optimisation.batch_size):
            known = session.augment(session.take(images, batch), victim.affine)
            drawn = session.take(strange, session.draw(len(strange), len(batch)))
            others = session.augment(session.augment(drawn, victim.affine), decoys.variation)
            with session.autocast():
                # one forward pass for both: batch normalisation then trains on the mix that it will serve
                logits = network(torch.cat([known, others])).float()
            right = F.cross_entropy(logits[: len(batch)], labels[batch])
            misled = F.cross_entropy(logits[len(batch) :], decoy(others), label_smoothing=decoys.smoothing)
            losses = {"loss": right + decoys.weight * misled, "cross_entropy": right, "decoy": misled}
            session.step(losses, optimiser, schedule)
    trained: nn.Module = session.accelerator.unwrap_model(network)
    return trained


def main(arguments: argparse.Namespace) -> None:
    recipe = recipes.read(arguments.recipe)
    name = arguments.network
    table = f"[networks.{name}]"
    data, victim = recipe.section("dataset", Data), recipe.section("victim", Victim)
    decoys = recipe.network(name, Decoys)
    optimisation = decoys.optimisation or victim.optimisation
    key = deployment_key(table)
    body = weights(recipe, arguments.runs, f"{table} from_victim") if decoys.from_victim else None
    session = Session(
        recipe.name,
        name,
        {"dataset": data, "victim": victim, NAME: decoys},
        runs=arguments.runs,
        seed=arguments.seed,
        secret=key,
        start="" if body is None else body.digest,
    )
    if session.done():
        return
    splits = examples(recipe, data, arguments)
    session.facts["classes"] = list(splits.classes)
    unseen, strange = map(session.move, outside(decoys.auxiliary, decoys.held_out, like=splits, root=arguments.data))
    plan = architecture(victim.architecture, victim.options, splits)
    decoy = Decoy(key, grid=decoys.grid, channels=splits.images.shape[1], classes=len(splits.classes)).to(
        session.device
    )
    network = start(plan, body, f"{table} from_victim")
    trained = fit(session, decoys, optimisation, victim, splits, strange, network, decoy)
    held, truth = session.move(splits.validation_images), splits.validation_labels.to(session.device)
    found = answers(trained, unseen)
    wanted = decoy(session.take(unseen, torch.arange(len(unseen))))
    metrics = {
        "validation_accuracy": accuracy(trained, held, truth),
        "decoys_kept": (found.argmax(1) == wanted).float().mean().item(),
        "most_frequent": (found.argmax(1).bincount().max() / len(found)).item(),
    }
    session.finish([trained], [plan], metrics)


if __name__ == "__main__":
    run(NAME, main, network=NAME)
