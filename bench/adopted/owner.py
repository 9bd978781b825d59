"""The owner's network: timm's ResNet-18 at 224, of which the last layer alone has learnt, in the forms owners have.

Time and memory do not depend on what a network knows, but adoption asks a model's answers about its preprocessing
(export/adopt/trial.py), so they must be better than chance: the last layer is fitted to the features of some labelled
photographs by least squares.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from pictures.files import opened
from pictures.model_input import ModelInput

NAME = "resnet18"
ARCHITECTURE = f"timm:{NAME}"
SIDE = 224
# timm's own of this network
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TAKEN = ModelInput((SIDE, SIDE), fit="crop", resize=235, interpolation="bicubic", mean=MEAN, std=STD)
# added to the squared features' sums, as a share of their mean: fewer photographs than features
RIDGE = 0.1
OPSET = 18
ROWS = torch.export.Dim("rows", min=1)
PART = 32


@dataclass(frozen=True)
class Owner:
    """Files of one network. weights: its state dict. graph: ONNX, logits, normalisation left outside. expect: its own
    predictions for the photographs, as `--expect` takes them. classes: names in the order of its columns."""

    weights: Path
    graph: Path
    expect: Path
    classes: Path


class Learnt(NamedTuple):
    """network: timm's, in evaluation mode. classes: names in the order of its columns. predicted: its class of each
    photograph that it was fitted to."""

    network: Any  # its methods are in no type of torch's
    classes: tuple[str, ...]
    predicted: dict[Path, str]


def learnt(photographs: Path, *, seed: int, name: str = NAME) -> Learnt:
    """A timm network, fitted to labelled photographs, a folder for each class."""
    import timm  # not at the top: it brings torchvision and all of torch\'s compiler, which take seconds

    files = sorted(photographs.glob("*/*.jpg"))
    names = tuple(sorted({file.parent.name for file in files}))
    labels = torch.tensor([names.index(file.parent.name) for file in files])
    torch.manual_seed(seed)
    network: Any = timm.create_model(name, num_classes=len(names)).eval()
    with torch.inference_mode():
        features = torch.cat(
            [_features(network, _pixels(files[first : first + 16])) for first in range(0, len(files), 16)]
        )
    _fit(network.get_classifier(), features, labels, len(names))
    with torch.inference_mode():
        predicted = network.get_classifier()(features).argmax(1).tolist()
    return Learnt(network, names, {path: names[label] for path, label in zip(files, predicted, strict=True)})


def make(folder: Path, photographs: Path, *, seed: int) -> Owner:
    """The files in `folder` of a network that was fitted to labelled photographs."""
    network, classes, predicted = learnt(photographs, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    owner = Owner(folder / f"{NAME}.pth", folder / f"{NAME}.onnx", folder / "expect.csv", folder / "classes.txt")
    torch.save(network.state_dict(), owner.weights)
    exported(network, torch.zeros(2, 3, SIDE, SIDE), owner.graph)
    with owner.expect.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label"])
        writer.writerows((path.relative_to(photographs), label) for path, label in predicted.items())
    owner.classes.write_text("\n".join(classes) + "\n")
    return owner


def exported(module: nn.Module, like: torch.Tensor, path: Path, *, free: bool = True) -> None:
    """A module as it answers, in ONNX. free: of any number of rows, or of as many as `like` has."""
    program = torch.onnx.export(
        module.eval(),
        (like,),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: ROWS},) if free else None,
    )
    assert program is not None
    program.save(path)


def _pixels(files: Sequence[Path]) -> torch.Tensor:
    """Photographs as the network takes them (N,3,S,S)."""
    images = torch.stack([torch.from_numpy(opened(file).fitted(TAKEN.geometry)) for file in files])
    return (images / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def _features(network: Any, images: torch.Tensor) -> torch.Tensor:
    """What the last layer sees (N,F)."""
    found: torch.Tensor = network.forward_head(network.forward_features(images), pre_logits=True)
    return found


@torch.no_grad()
def _fit(last: nn.Linear, features: torch.Tensor, labels: torch.Tensor, classes: int) -> None:
    """Least squares on one-hot labels, in float64."""
    x = F.pad(features.double(), (0, 1), value=1.0)
    square = x.T @ x
    ridge = RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=torch.float64)
    solution = torch.linalg.solve(square + ridge, x.T @ F.one_hot(labels, classes).double())
    # logits ten times as large: probabilities of a network that is sure of itself
    last.weight.copy_(10 * solution[:-1].T.float())
    last.bias.copy_(10 * solution[-1].float())
