"""The victim as a black box: images in, probabilities out, and nothing else.

SAME guards any classifier, MISLEADER distils any, and EDM needs no more than labels, so the victim may be one that was
trained elsewhere. `make adopt` leaves it as runs/RECIPE/victim.onnx, one graph from images (N,C,H,W) float32 in [0,1]
to probabilities, or, where its weights fit a network of zoo.models, as a checkpoint like any other (export/adopt/).

A distillation loss needs no logits: they differ from log p by a constant a row, and softmax(log p / T) = softmax(z /
T). So what tells probabilities is an exact teacher.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from recipes.policies import ONNX
from training import checkpoint
from training.checkpoint import Checkpoint, CheckpointError
from zoo.images import Images, parts
from zoo.perturbation import Perturbation

GRAPH = ONNX
# the least probability whose logarithm is taken: float32's least normal number
TINY = float(np.finfo(np.float32).tiny)

Answer = Callable[[torch.Tensor], torch.Tensor]
"""images (N,C,H,W) float32 in [0,1] -> probabilities (N,K) float32 on the images' device"""


@dataclass(frozen=True)
class BlackBox:
    """answer: the classifier. shape: (C,H,W) of its images. classes: names, in the order of its columns. digest: of the
    file it came from. facts: of that file."""

    answer: Answer
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    digest: str
    facts: dict[str, Any]

    def teacher(self) -> Teacher:
        """The same as a network."""
        return Teacher(self.answer)


class Teacher(nn.Module):
    """Images (N,C,H,W) to log p (N,K), which are logits up to a constant a row; no gradient passes."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self._answer = answer

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self._answer(images.float()).clamp(min=TINY).log()


def graph_alone(name: str, folder: Path) -> Path | None:
    """The graph of an adopted model whose weights are not known, None where there is a checkpoint, or nothing."""
    graph = folder / f"{name}{GRAPH}"
    return graph if graph.is_file() and not graph.with_suffix(".safetensors").is_file() else None


def black_box(name: str, folder: Path) -> BlackBox:
    """The classifier of that name in a recipe's folder of checkpoints: a checkpoint with one network that answers, or
    an adopted graph. Raises CheckpointError, ValueError."""
    graph = graph_alone(name, folder)
    if graph is not None:
        return _graph(graph)
    return _network(checkpoint.load(folder / f"{name}.safetensors"))


def labelled(images: Images, box: BlackBox) -> Images:
    """The images as they are, or, where they have no labels, with those that the victim gives them."""
    if images.labels is not None:
        return images
    with torch.inference_mode():
        labels = torch.cat([box.answer(part).argmax(1) for part in parts(images.stored, most=64)])
    return dataclasses.replace(images, labels=labels, classes=box.classes)


def digest_of(graphs: Sequence[Path]) -> str:
    """Of several graphs' files, in their order. Raises CheckpointError where one is missing."""
    state = hashlib.sha256()
    for path in graphs:
        if not path.is_file():
            raise CheckpointError(f"no graph at {path}: make it first (python -m export.quantise RECIPE)")
        state.update(hashlib.sha256(path.read_bytes()).digest())
    return state.hexdigest()


def _network(read: Checkpoint) -> BlackBox:
    if len(read.networks) != 1 or isinstance(read.networks[0], Perturbation):
        raise ValueError(f"{read.path}: expected a checkpoint of one classifier, got {len(read.networks)} networks")
    network = read.networks[0]

    @torch.inference_mode()
    def answer(images: torch.Tensor) -> torch.Tensor:
        # channels last: half the time of a large network on a CPU
        shown = images.contiguous(memory_format=torch.channels_last)
        response: torch.Tensor = network.to(images.device)(shown).float().softmax(1)
        return response

    return BlackBox(answer, read.architectures[0].shape, tuple(read.facts["classes"]), read.digest, dict(read.facts))


def opened(path: Path) -> Any:
    """A session of ONNX Runtime on the CPU. Raises what that raises."""
    import onnxruntime  # here, because a victim that was trained here needs none of it

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def _graph(path: Path) -> BlackBox:
    try:
        session = opened(path)
        facts = json.loads(session.get_modelmeta().custom_metadata_map["facts"])
        channels, height, width = session.get_inputs()[0].shape[1:]
    except Exception as error:  # the runtime's own, and of a file that no adoption has made
        raise CheckpointError(f"{path}: damaged ({error}); adopt the model again (make adopt)") from error

    def answer(images: torch.Tensor) -> torch.Tensor:
        (probabilities,) = session.run(["probabilities"], {"images": images.cpu().contiguous().numpy()})
        return torch.from_numpy(probabilities).to(images.device)

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return BlackBox(answer, (channels, height, width), tuple(facts["classes"]), digest, facts)
