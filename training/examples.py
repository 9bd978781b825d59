"""What a program trains on and starts from: a recipe's images with labels, and the weights of its victim."""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import nn

from recipes import Recipe
from recipes.policies import VICTIM
from training import checkpoint
from training.black_box import BlackBox, black_box, graph_alone, labelled
from training.checkpoint import Architecture, Checkpoint, CheckpointError
from training.victim import Split, accuracy, split
from zoo.datasets import Data


def examples(recipe: Recipe, data: Data, arguments: argparse.Namespace) -> Split:
    """The training split of [dataset]. Where it has no labels, the victim's are taken: that is all EDM and others need.

    Raises DatasetError, CheckpointError.
    """
    images = data.load("train", arguments.data)
    if images.labels is None:
        images = labelled(images, black_box(VICTIM, arguments.runs / recipe.name))
    return split(images, rows=data.rows)


def weights(recipe: Recipe, runs: Path, wanted_by: str) -> Checkpoint:
    """The victim's checkpoint, for what starts from its weights. Raises CheckpointError where only its answers are
    known."""
    folder = runs / recipe.name
    graph = graph_alone(VICTIM, folder)
    if graph is not None:
        raise CheckpointError(
            f"{wanted_by}: expected a victim whose weights are known, {graph} is a graph alone; adopt it "
            "from a state dict, a TorchScript or a .pt2 file with --architecture timm:NAME, or set it to false: then "
            "[victim] says which network is trained in its place, from labels"
        )
    return checkpoint.load(folder / f"{VICTIM}.safetensors")


def reached(victim: BlackBox, splits: Split) -> float:
    """The victim's accuracy on the validation split: as its checkpoint has it, measured where it was adopted."""
    stated = victim.facts.get("metrics", {}).get("validation_accuracy")
    if stated is not None:
        return float(stated)
    return accuracy(victim.teacher(), splits.validation_images, splits.validation_labels)


def body_of(victim: Checkpoint, network: nn.Module, plan: Architecture, wanted_by: str) -> None:
    """Copy the victim's weights into a network of its architecture, all but its last linear layer, which stays fresh:
    members that started alike would learn alike. Raises ValueError where the architectures differ."""
    theirs = victim.architectures[0]
    if theirs.name != plan.name:
        raise ValueError(
            f"{wanted_by}: expected members of the victim's architecture, {theirs.name}, got {plan.name}; set [victim] "
            "architecture to it, or from_victim to false"
        )
    last = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    kept = {name: value for name, value in victim.networks[0].state_dict().items() if not name.startswith(f"{last}.")}
    network.load_state_dict(kept, strict=False)
