"""The undefended victim: one classifier trained by cross-entropy on the recipe's data set.

    python -m training.victim RECIPE

Reads [dataset] and [victim]; writes runs/RECIPE/victim.safetensors. A tenth of the training split is held out as
the validation split that every later choice in this package is made on; the test split is for reports alone.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import recipes
from training.checkpoint import Architecture
from training.session import Optimisation, Session, run
from zoo.augment import Affine
from zoo.datasets import Data, Images
from zoo.images import parts, size_of, unit

VALIDATION_SHARE = 0.1
# images of a memory map, which lie in an order as good as random, that its mean and deviation are taken of
STATISTICS = 512
# of a channel that never varies
LEAST_STD = 1e-3


@dataclass(frozen=True)
class Victim:
    """[victim]: architecture, its options (such as Conv3's width), fit and augmentation."""

    architecture: str
    optimisation: Optimisation
    options: dict[str, Any] = field(default_factory=dict)
    affine: Affine | None = None


@dataclass(frozen=True)
class Split:
    """A labelled set split for training: images (N,C,H,W) and labels (N,) int64 of each part.

    Images are float32 in [0,1], or uint8 in a memory map; `Session.take` and `zoo.images.parts` read either.
    """

    images: torch.Tensor
    labels: torch.Tensor
    validation_images: torch.Tensor
    validation_labels: torch.Tensor
    classes: tuple[str, ...]


def split(data: Images, *, rows: int = 0) -> Split:
    """Cut off the validation tenth, the same in every program and run; then keep `rows` training images (0: all)."""
    if data.labels is None:
        raise ValueError(f"{data.name}: expected a labelled data set to train a classifier on, got an unlabelled one")
    validation, training = _parts(data, rows)
    return Split(
        data.stored[training],
        data.labels[training],
        data.stored[validation],
        data.labels[validation],
        data.classes,
    )


def training_images(data: Images, rows: int = 0) -> torch.Tensor:
    """The images that `split` trains on, of a data set that may have no labels."""
    return data.stored[_parts(data, rows)[1]]


def _parts(data: Images, rows: int) -> tuple[torch.Tensor, torch.Tensor] | tuple[slice, slice]:
    """Which rows are held out, and which are trained on."""
    held = int(len(data) * VALIDATION_SHARE)
    last = held + rows if rows else len(data)
    if data.stored.dtype == torch.uint8:
        # rows of a map lie in an order as good as random (zoo/stored.py), and a slice of them copies nothing
        return slice(held), slice(held, last)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    return order[:held], order[held:last]


def architecture(name: str, options: dict[str, Any], data: Split) -> Architecture:
    """The architecture fitted to a data set: its geometry, classes, and the mean and deviation of its pixels."""
    mean, std = statistics(data.images)
    return Architecture(
        name,
        {
            "classes": len(data.classes),
            "channels": data.images.shape[1],
            "size": size_of(data.images),
            "mean": [round(value, 6) for value in mean],
            "std": [round(value, 6) for value in std],
            **options,
        },
    )


def statistics(images: torch.Tensor) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel's pixels in [0,1]; of a memory map those of STATISTICS images."""
    some = unit(images[:STATISTICS]) if images.dtype == torch.uint8 else images
    return some.mean((0, 2, 3)).tolist(), some.std((0, 2, 3)).clamp(min=LEAST_STD).tolist()


@torch.inference_mode()
def accuracy(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of rows whose largest logit is the label's; the network is in evaluation mode afterwards."""
    network.eval()
    right = torch.cat([network(part).argmax(1) for part in parts(images, device=labels.device)]) == labels
    return right.float().mean().item()


def fit(
    session: Session, splits: Split, plan: Architecture, optimisation: Optimisation, affine: Affine | None
) -> nn.Module:
    """Train one classifier by cross-entropy; what comes back is on the session's device, its checkpoint not written."""
    images, labels = session.move(splits.images), splits.labels.to(session.device)
    network, optimiser, schedule = session.prepare(plan.network(), optimisation, len(images))
    for _ in session.epochs(optimisation, network, optimiser, schedule):
        for rows in session.batches(len(images), optimisation.batch_size):
            with session.autocast():
                loss = F.cross_entropy(network(session.augment(session.take(images, rows), affine)), labels[rows])
            session.step({"loss": loss}, optimiser, schedule)
    trained: nn.Module = session.accelerator.unwrap_model(network)
    return trained


def main(arguments: argparse.Namespace) -> None:
    recipe = recipes.read(arguments.recipe)
    data, victim = recipe.section("dataset", Data), recipe.section("victim", Victim)
    session = Session(
        recipe.name, "victim", {"dataset": data, "victim": victim}, runs=arguments.runs, seed=arguments.seed
    )
    if session.done():
        return
    splits = split(data.load("train", arguments.data), rows=data.rows)
    session.facts["classes"] = list(splits.classes)
    plan = architecture(victim.architecture, victim.options, splits)
    trained = fit(session, splits, plan, victim.optimisation, victim.affine)
    held_out = accuracy(trained, session.move(splits.validation_images), splits.validation_labels.to(session.device))
    session.finish([trained], [plan], {"validation_accuracy": held_out})


if __name__ == "__main__":
    run("victim", main)
