"""A network of two layers and a gate's graph that are known by heart, and what they say of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from defenses.gate import Calibration, Gate, Threshold
from evaluation.scores.score import Known
from evaluation.scores.sight import Seen, Sight, watched

CLASSES, FEATURES, SIDE = 3, 6, 8
CALIBRATION = Calibration(
    1000, (0.0, 0.0), (1.0, 1.0), ((1.0, 0.0), (0.01, 1.0)), 1.0, (Threshold(0.01, 1.0, None, None),)
)
GATE = Gate("same", "reject", "robust", 0.95, 0.01, CALIBRATION)


def network() -> nn.Sequential:
    """Random weights, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, FEATURES), nn.ReLU(), nn.Linear(FEATURES, CLASSES)).eval()


def sight() -> Sight:
    """The gate draws an image as its left half is, mirrored; its auxiliary model is the network."""
    trained = network()
    head = trained[-1]
    assert isinstance(head, nn.Linear)

    def probabilities(images: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        with torch.inference_mode():
            answer: torch.Tensor = trained(torch.from_numpy(images)).softmax(1)
        return answer.numpy()

    def gate(images: np.ndarray[Any, np.dtype[np.float32]]) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
        half = images[..., : SIDE // 2]
        drawn = np.concatenate([half, half[..., ::-1]], axis=3)
        error = np.square(images - drawn).mean((1, 2, 3))[:, None]
        return {"error": error, "auxiliary": probabilities(drawn)}

    return Sight(GATE, gate, lambda images: {"probabilities": probabilities(images)}, watched(trained, head), head)


def images(count: int, *, seed: int = 0) -> torch.Tensor:
    """Smooth images (count,1,8,8) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(count, 1, 4, 4, generator=generator)
    return nn.functional.interpolate(small, size=SIDE, mode="bilinear").clamp(0, 1)


def known(*, training: int = 90, benign: int = 120) -> Known:
    """Fitted to such images; labels in turn."""
    look = sight()
    return Known(look(images(training, seed=1)), torch.arange(training) % CLASSES, look(images(benign, seed=2)))


def others(known: Known, count: int = 20) -> Seen:
    """Images that nothing was fitted to, some of them noise."""
    noise = torch.rand(count // 2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    return known.benign.other(torch.cat([images(count - count // 2, seed=4), noise]))
