"""A gate's calibration: the scores of benign images at the policies of a recipe (defenses/gate.py, benign.py here).

    python -m training.calibration RECIPE [--policies NAME ...] [--images DIR]

Reads the checkpoints of every [policies.NAME] with a gate: the gate's networks (training/same.py) and the predictor, a
black box that gives probabilities; writes runs/RECIPE/NAME.calibration.json (training/calibration/stored.py). Benign
images
are those of the recipe's validation split that trained neither of the gate's networks, or all of a folder: traffic of
the deployment itself, where it is known to be benign.

A predictor of one network is asked once an image: a checkpoint, or an adopted model (see
training/black_box.py). So is one behind a perturbation (MeCo), under a separate draw of noise for each image. Which
member of an ensemble answers an image is secret and as good as random, so every one does; or their mean, where that is
served. Where a policy has a precision, the very graphs answer that will be served (export/quantise.py), from build/.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

import recipes
from defenses.gate import FORMS
from pictures.model_input import ModelInput
from recipes.policies import FLOAT32
from training.black_box import black_box, graph_alone
from training.calibration.benign import RATES, calibration
from training.calibration.served import served
from training.calibration.stored import GateTable, write
from training.checkpoint import Checkpoint, load
from training.examples import examples
from training.same import Same, benign
from zoo.datasets import Data
from zoo.imagefolder import every_image
from zoo.images import parts, size_of
from zoo.masked_autoencoder import NAME
from zoo.perturbation import Perturbation
from zoo.shrink import copier

BATCH = 256

Answers = Callable[[torch.Tensor], torch.Tensor]
"""images (N,C,S,S) -> all that may be served for each: probabilities (N,M,K), one of M being as likely as another"""


@dataclass(frozen=True)
class Guarded:
    """What of a [policies.NAME] with a gate decides its scores; export/archive.py reads the whole."""

    predictor: str
    gate: GateTable
    perturb: dict[str, Any] | None = None
    average: bool = False
    precision: str = FLOAT32

    def __post_init__(self) -> None:
        if self.gate.form not in FORMS:
            raise ValueError(f"gate: form: expected one of {', '.join(FORMS)}, got {self.gate.form!r}")

    @property
    def perturbation(self) -> str | None:
        """The graph that perturbs, if there is one; the predictor's where the table names no other."""
        return None if self.perturb is None else self.perturb.get("graph", f"{self.predictor}-perturbation")


@dataclass(frozen=True)
class Task:
    """What a gate and the predictor behind it must share."""

    shape: tuple[int, int, int]
    classes: int

    @classmethod
    def of(cls, read: Checkpoint) -> Task:
        """Of a predictor, or a gate, whose networks may look at small copies."""
        plan = read.architectures[-1] if read.architectures[0].name == NAME else read.architectures[0]
        return cls(tuple(read.facts.get("images", plan.shape)), plan.arguments["classes"])

    def __str__(self) -> str:
        return f"{' x '.join(map(str, self.shape))} pixels and {self.classes} classes"


def guarded(recipe: recipes.Recipe, names: list[str] | None) -> dict[str, Guarded]:
    """The policies with a gate that were asked for, all of them where none was. Raises RecipeError."""
    kept, found = ("predictor", "gate", "perturb", "average", "precision"), {}
    for name, fields in recipe.tables.get("policies", {}).items():
        if "gate" in fields:
            known = {key: fields[key] for key in kept if key in fields}
            found[name] = recipes.build(Guarded, known, where=f"{recipe.path}: [policies.{name}]")
    wanted = list(found) if names is None else names
    missing = [name for name in wanted if name not in found]
    if missing or not wanted:
        raise recipes.RecipeError(
            f"{recipe.path}: expected policies with a gate, {', '.join(missing) or 'one at least'}; "
            f"it has {', '.join(found) or 'none'}"
        )
    return {name: found[name] for name in wanted}


def opened_gate(path: Path) -> Checkpoint:
    """The checkpoint of a gate's two networks. Raises CheckpointError, ValueError."""
    gate = load(path)
    names = [architecture.name for architecture in gate.architectures]
    if [name == NAME for name in names] != [True, False]:
        raise ValueError(
            f"{path}: expected a masked autoencoder and a classifier, got {', '.join(names)}; "
            "train them (python -m training.same)"
        )
    return gate


def answers(
    predictor: Checkpoint, perturbation: Perturbation | None, images: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Answers of a checkpoint, to perturbed images where there is a perturbation; generator: on the CPU, its noise."""
    if perturbation is not None:
        noise = torch.randn(len(images), *perturbation.noise_shape, generator=generator)
        images = perturbation.to(images.device)(images, noise.to(images.device))
    networks = (network for network in predictor.networks if not isinstance(network, Perturbation))
    return torch.stack([network.to(images.device)(images).float().softmax(1) for network in networks], dim=1)


def opened_predictor(table: Guarded, folder: Path, build: Path, task: Task) -> tuple[Answers, str]:
    """What the predictor of a policy answers with, and its digest. build: the folder of the recipe's graphs."""
    if table.precision != FLOAT32:
        narrow, digest, shape = served(table.predictor, table.perturbation, table.precision, build)
        _same_task(build, Task(shape, task.classes), task)
        return lambda images: narrow(images).mean(1, keepdim=True) if table.average else narrow(images), digest
    path, graph = folder / f"{table.predictor}.safetensors", graph_alone(table.predictor, folder)
    if graph is not None:
        box = black_box(table.predictor, folder)
        _same_task(graph, Task(box.shape, len(box.classes)), task)
        return lambda images: box.answer(images)[:, None], box.digest
    read, perturbation = load(path), _perturbation(table, folder)
    _same_task(path, Task.of(read), task)
    generator = torch.Generator().manual_seed(0)

    def answer(images: torch.Tensor) -> torch.Tensor:
        responses = answers(read, perturbation, images, generator)
        return responses.mean(1, keepdim=True) if table.average else responses

    return answer, read.digest


def _same_task(path: Path, predictor: Task, gate: Task) -> None:
    if predictor != gate:
        raise ValueError(
            f"{path}: expected a predictor for the task of the gate, {gate}, got one for {predictor}; retrain the gate"
        )


def _perturbation(table: Guarded, folder: Path) -> Perturbation | None:
    if table.perturbation is None:
        return None
    read = load(folder / f"{table.perturbation.removesuffix('-perturbation')}.safetensors")
    for network in read.networks:
        if isinstance(network, Perturbation):
            return network
    raise ValueError(f"{read.path}: expected a perturbation, found none; train one (python -m training.meco)")


@torch.inference_mode()
def measure(gate: Checkpoint, answer: Answers, images: torch.Tensor) -> dict[str, NDArray[np.float64]]:
    """The terms (N,M,2) of images (N,C,H,W) in every form, by its name; a progress bar goes to stderr."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    autoencoder, auxiliary = (network.to(device) for network in gate.networks)
    side = gate.architectures[0].shape[1]
    look = copier(size_of(images), side).to(device)
    pixels = images[0].numel()  # as the policy counts them, whatever the gate looks at
    found: dict[str, list[NDArray[np.float64]]] = {form: [] for form in FORMS}
    for shown in tqdm(parts(images, most=BATCH, device=device), desc="benign images", unit="batch"):
        seen = look(shown)
        rebuilt = autoencoder(seen)
        error = _doubles((seen - rebuilt).square().mean((1, 2, 3)))
        expected, responses = _doubles(auxiliary(rebuilt).float().softmax(1)), _doubles(answer(shown))
        if responses.shape[2] != expected.shape[1]:
            raise ValueError(f"expected a predictor of {expected.shape[1]} classes, got one of {responses.shape[2]}")
        for form, rows in found.items():
            each = (FORMS[form].terms(error, served, expected, pixels) for served in responses.swapaxes(0, 1))
            rows.append(np.stack([*each], axis=1))
    return {form: np.concatenate(rows) for form, rows in found.items()}


def _doubles(values: torch.Tensor) -> NDArray[np.float64]:
    return values.double().cpu().numpy()


def traffic(folder: Path | None, recipe: recipes.Recipe, arguments: argparse.Namespace, task: Task) -> torch.Tensor:
    """Benign images (N,C,H,W): of a folder, or of the recipe's validation split."""
    data = recipe.section("dataset", Data)
    if folder is not None:
        channels, height, width = task.shape
        return every_image(folder, data.input or ModelInput((height, width), channels))
    images = benign(examples(recipe, data, arguments))
    if tuple(images.shape[1:]) != task.shape:
        raise ValueError(f"expected images for the gate's task, {task}, got {tuple(images.shape)}; retrain the gate")
    return images


def main(arguments: argparse.Namespace) -> None:
    recipe = recipes.read(arguments.recipe)
    folder = arguments.runs / recipe.name
    measured: dict[tuple[str, str, str | None, bool, str], dict[str, NDArray[np.float64]]] = {}
    for name, table in guarded(recipe, arguments.policies).items():
        gate = opened_gate(folder / f"{table.gate.graph}.safetensors")
        task = Task.of(gate)
        answer, digest = opened_predictor(table, folder, arguments.build / recipe.name, task)
        # what the gate's network says of benign images, unless the command line does
        stated = recipe.network(table.gate.graph, Same).benign if table.gate.graph in recipe.networks else ""
        benign_images = arguments.images or (Path(stated) if stated else None)
        # policies that differ in what they do with a score share what it is made of
        shared = table.gate.graph, table.predictor, table.perturbation, table.average, table.precision
        if shared not in measured:
            measured[shared] = measure(gate, answer, traffic(benign_images, recipe, arguments, task))
        terms, form = measured[shared], table.gate.form
        made = calibration(terms[form], form=form, alpha=table.gate.alpha)
        for rate in set(RATES) - {threshold["rate"] for threshold in made["thresholds"]}:
            print(f"{name}: {made['images']} images are too few for a threshold at {rate:g}", file=sys.stderr)
        source = "validation split" if benign_images is None else "images"
        content = {"source": source, "images": made["images"], "calibration": made}
        print(write(name, table.gate, content, folder, gate=gate.digest, predictor=digest))


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.calibration", description="what benign images score")
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
    parser.add_argument("--policies", nargs="+", default=None, help="which [policies.NAME] (all that have a gate)")
    parser.add_argument("--images", type=Path, default=None, help="folder of benign images (the validation split)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the checkpoints (runs)")
    parser.add_argument("--build", type=Path, default=Path("build"), help="folder of the graphs (build)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    return parser.parse_args(words)
