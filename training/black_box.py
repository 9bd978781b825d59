"""A victim as a black box: images in, probabilities out, and nothing else.

SAME needs no more of the classifier that it guards, so it can guard one that was trained elsewhere: a checkpoint of the
recipe, or the user's ONNX file with one input, images (N,C,S,S) float32 in [0,1] with N free, and one output,
probabilities (N,K) float32 whose rows sum to 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from recipes.policies import ONNX as ONNX
from training import checkpoint
from training.checkpoint import Checkpoint
from zoo.perturbation import Perturbation

# largest |sum - 1| of a row of probabilities
SUM_TOLERANCE = 1e-3

Answer = Callable[[torch.Tensor], torch.Tensor]
"""images (N,C,S,S) float32 in [0,1] -> probabilities (N,K) float32 on the images' device"""


@dataclass(frozen=True)
class BlackBox:
    """answer: the victim. digest: of the file it came from."""

    answer: Answer
    digest: str


def black_box(victim: str, folder: Path) -> BlackBox:
    """The victim of that name: a path that ends in .onnx, or a checkpoint in `folder` with one network that answers.
    Raises CheckpointError, ValueError."""
    if victim.endswith(ONNX):
        return _graph(Path(victim))
    return _network(checkpoint.load(folder / f"{victim}.safetensors"))


def _network(read: Checkpoint) -> BlackBox:
    if len(read.networks) != 1 or isinstance(read.networks[0], Perturbation):
        raise ValueError(f"{read.path}: expected a checkpoint of one classifier, got {len(read.networks)} networks")
    network = read.networks[0]

    @torch.inference_mode()
    def answer(images: torch.Tensor) -> torch.Tensor:
        response: torch.Tensor = network.to(images.device)(images).float().softmax(1)
        return response

    return BlackBox(answer, read.digest)


def _graph(path: Path) -> BlackBox:
    import onnxruntime  # here, because a victim of the recipe needs none of it

    if not path.is_file():
        raise ValueError(f"victim: expected an ONNX file, found none at {path}")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) != 4:
        raise ValueError(
            f"{path}: expected one input (N,C,S,S) and one output (N,K), got inputs "
            f"{[each.shape for each in inputs]} and outputs {[each.shape for each in outputs]}"
        )

    wanted = tuple(inputs[0].shape[1:])

    def answer(images: torch.Tensor) -> torch.Tensor:
        shown = tuple(images.shape[1:])
        if any(isinstance(side, int) and side != got for side, got in zip(wanted, shown, strict=True)):
            raise ValueError(
                f"{path}: expected images {wanted} (C,H,W), got {shown}; give [dataset] the size and channels it takes"
            )
        (response,) = session.run(None, {inputs[0].name: images.cpu().numpy()})
        probabilities = torch.from_numpy(response)
        if probabilities.ndim != 2 or not bool(((probabilities.sum(1) - 1).abs() <= SUM_TOLERANCE).all()):
            raise ValueError(
                f"{path}: expected an output (N,K) of probabilities, whose rows sum to 1, got {tuple(response.shape)} "
                f"with sums from {response.sum(-1).min():.4g} to {response.sum(-1).max():.4g}; "
                "end the graph with a Softmax"
            )
        return probabilities.to(images.device)

    return BlackBox(answer, hashlib.sha256(path.read_bytes()).hexdigest())
