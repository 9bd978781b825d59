r"""Outlier exposure: a classifier that is sure of its task's images and of no others (Hendrycks et al., ICLR 2019).

For a labelled batch (x, y) and an equally large batch xo of auxiliary images, with logits z = f(.) and U the uniform
distribution over K classes:

    CE(U, z) = logsumexp(z) - mean(z)       (least, log K, where all logits of a row are equal)
    loss     = CE(f(x), y) + g * CE(U, f(xo)),   g = 1

in one step of the optimiser. Its largest probability then measures whether a query looks like the task: the score that
adaptive misinformation (training/misinformation.py) switches on, and a baseline defence by itself.

    python -m training.outlier_exposure RECIPE

Reads [dataset], [victim] (the architecture) and [networks.outlier_exposure]; writes
runs/RECIPE/outlier_exposure.safetensors.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import recipes
from training.examples import examples
from training.session import Optimisation, Session, run
from training.victim import Split, Victim, accuracy, architecture
from zoo.datasets import Data, load
from zoo.images import parts, size_of

NAME = "outlier_exposure"


@dataclass(frozen=True)
class OutlierExposure:
    """[networks.outlier_exposure]: the auxiliary data set and its weight.

    weight: g above. optimisation: as the victim's where left out. held_out: auxiliary images kept from training to
    report on.
    """

    auxiliary: str
    weight: float = 1.0
    optimisation: Optimisation | None = None
    held_out: int = 1000

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"weight: expected > 0, got {self.weight}")
        if self.held_out < 1:
            raise ValueError(f"held_out: expected >= 1, got {self.held_out}")


def uniform_loss(logits: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the uniform distribution to softmax(logits): (B,K) to a scalar, log K or more."""
    return (torch.logsumexp(logits, 1) - logits.mean(1)).mean()


def outside(auxiliary: str, held_out: int, *, like: Split, root: Path | None) -> tuple[torch.Tensor, torch.Tensor]:
    """An auxiliary set at the geometry of `like`: (held_out,C,S,S) images to report on, and all others to train on."""
    channels, size = like.images.shape[1], size_of(like.images)
    images = load(auxiliary, "train", root=root, size=size, channels=channels).stored
    if len(images) <= held_out:
        raise ValueError(f"auxiliary: expected more than {held_out} images (held_out), got {len(images)}")
    return images[:held_out], images[held_out:]


@torch.inference_mode()
def answers(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Probabilities (N,K) float32 on the images' device; the network is in evaluation mode afterwards."""
    network.eval()
    device = next(network.parameters()).device if any(True for _ in network.parameters()) else images.device
    return torch.cat([network(part).float().softmax(1) for part in parts(images, device=device)])


def main(arguments: argparse.Namespace) -> None:
    recipe = recipes.read(arguments.recipe)
    data, victim = recipe.section("dataset", Data), recipe.section("victim", Victim)
    exposure = recipe.network(arguments.network, OutlierExposure)
    optimisation = exposure.optimisation or victim.optimisation
    session = Session(
        recipe.name,
        arguments.network,
        {"dataset": data, "victim": victim, NAME: exposure},
        runs=arguments.runs,
        seed=arguments.seed,
    )
    if session.done():
        return
    splits = examples(recipe, data, arguments)
    session.facts["classes"] = list(splits.classes)
    unseen, strange = map(
        session.move, outside(exposure.auxiliary, exposure.held_out, like=splits, root=arguments.data)
    )
    images, labels = session.move(splits.images), splits.labels.to(session.device)
    plan = architecture(victim.architecture, victim.options, splits)
    network, optimiser, schedule = session.prepare(plan.network(), optimisation, len(images))

    for _ in session.epochs(optimisation, network, optimiser, schedule):
        for batch in session.batches(len(images), optimisation.batch_size):
            known = session.augment(session.take(images, batch), victim.affine)
            drawn = session.take(strange, session.draw(len(strange), len(batch)))
            others = session.augment(drawn, victim.affine)
            with session.autocast():
                # one forward pass for both: batch normalisation then trains on the mix that it will serve
                logits = network(torch.cat([known, others])).float()
            right = F.cross_entropy(logits[: len(batch)], labels[batch])
            unsure = uniform_loss(logits[len(batch) :])
            losses = {"loss": right + exposure.weight * unsure, "cross_entropy": right, "uniform": unsure}
            session.step(losses, optimiser, schedule)

    trained = session.accelerator.unwrap_model(network)
    held, truth = session.move(splits.validation_images), splits.validation_labels.to(session.device)
    metrics = {
        "validation_accuracy": accuracy(trained, held, truth),
        "confidence_inside": answers(trained, held).amax(1).mean().item(),
        "confidence_outside": answers(trained, unseen).amax(1).mean().item(),
    }
    session.finish([trained], [plan], metrics)


if __name__ == "__main__":
    run(NAME, main, network=NAME)
