"""What the examples' servers share: an ONNX classifier on one thread, a picture's file to its pixels, options.

It runs in the servers' own venvs as well, so it needs numpy, ONNX Runtime and Pillow and nothing else.
"""

from __future__ import annotations

import argparse
import io
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

Images = NDArray[np.float32]


class Classifier:
    """images (N,C,H,W) float32 in [0, 1] -> probabilities (N,K). C is 1 or 3; C, H and W are the file's."""

    def __init__(self, model: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.shape: tuple[int, ...] = tuple(self._session.get_inputs()[0].shape[1:])
        self.classes = int(self._session.get_outputs()[0].shape[1])

    def __call__(self, images: Images) -> Images:
        probabilities: Images = self._session.run(["probabilities"], {"images": images})[0]
        return probabilities

    def decode(self, file: bytes) -> Images:
        """(C,H,W) of a picture's file, resized where it has another size."""
        channels, height, width = self.shape
        picture = Image.open(io.BytesIO(file)).convert("L" if channels == 1 else "RGB")
        if picture.size != (width, height):
            picture = picture.resize((width, height))
        pixels = np.asarray(picture, np.float32).reshape(height, width, channels) / 255
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def options(program: str, about: str, **defaults: Any) -> argparse.Namespace:
    """The command line of a server: model, port, workers, batch, delay_ms."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=about)
    parser.add_argument("model", help="ONNX file: images (N,C,H,W) in [0, 1] to probabilities (N,K)")
    parser.add_argument("--port", type=int, default=8100, help="on 127.0.0.1 (8100)")
    parser.add_argument("--workers", type=int, default=1, help="that compute side by side, one thread each (1)")
    parser.add_argument("--batch", type=int, default=1, help="rows of one call of the graph, at most")
    parser.add_argument("--delay-ms", type=float, default=0, help="that a row waits for others at most")
    parser.set_defaults(**defaults)
    return parser.parse_args()
