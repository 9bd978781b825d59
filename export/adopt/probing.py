"""A graph that is only looked at, and the images that it is looked at with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray

from pictures.model_input import ModelInput
from zoo import datasets
from zoo.images import convert

# images that outputs are looked at and rows compared with
PROBES = 12


def running(proto: onnx.ModelProto) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """A graph of one input as a function of images; its threads are all cores', for a model that is only looked at."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it also prints what it raises
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(None, {"images": images})[0]
        return found

    return run


def natural(taken: ModelInput) -> NDArray[np.float32]:
    """PROBES images (N,C,H,W) in [0,1]: crops of a photograph, noise, and what is all of one value."""
    crops = datasets.load("china", "test").pixels
    random = np.random.default_rng(0)
    some = crops[:: len(crops) // (PROBES - 4)][: PROBES - 4]  # the others need not grow to the model's size
    photographs = convert(some, size=(taken.height, taken.width), channels=taken.channels).numpy()
    noise = random.random((2, *taken.shape), dtype=np.float32)
    flat = np.stack([np.full(taken.shape, level, np.float32) for level in (0.2, 0.8)])
    probes = np.concatenate([photographs, noise, flat])
    levels: NDArray[np.float32] = np.rint(probes * 255) / np.float32(255)
    return levels


def one_line(error: Exception) -> str:
    """A runtime's words, without line breaks."""
    return " ".join(str(error).split())[:400] or type(error).__name__
