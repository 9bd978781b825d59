"""A suspect model, whatever form it comes in: images to probabilities, or to labels as rows of 0 and 1.

    clone.onnx                                    opened here by ONNX Runtime
    http://127.0.0.1:8080/predictions/NAME        a server that speaks our wire format

The suspect is somebody else's: it gets images of the owner's, and nothing of the key.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from attacks.oracle import REFUSED, distributions
from deploy import direct
from evaluation.oracles import HttpOracle

Doubles = NDArray[np.float64]
Images = NDArray[np.float32]
Suspect = Callable[[Images], Doubles]

# in one request, or one run of a graph
ROWS = 16
SECONDS = 60.0
SUM_TOLERANCE = 1e-3


class SuspectError(ValueError):
    """A suspect that cannot be asked, or that answers about other classes."""


def opened(name: str, *, classes: int, token: str | None = None, rows: int = ROWS) -> Suspect:
    """What asks the suspect called `name` about images (N,C,H,W) float32 in [0, 1] and gives (N,K) float64 rows that
    sum to 1. token: of a server that wants one; rows: in one request to it. Raises SuspectError, when called too."""
    if name.startswith(("http://", "https://")):
        return _served(name, classes, token, rows)
    if not name.endswith(".onnx"):
        raise SuspectError(f"suspect: expected a file that ends in .onnx, or a URL of http or https, got {name!r}")
    return _onnx(Path(name), classes)


def _onnx(path: Path, classes: int) -> Suspect:
    if not path.is_file():
        raise SuspectError(f"suspect: {path}: no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has exceptions of its own for a file it cannot use
        raise SuspectError(f"suspect: {path} cannot be opened as ONNX: {error}") from error
    taken = session.get_inputs()[0]
    outputs = [output.name for output in session.get_outputs()]
    wanted = "probabilities" if "probabilities" in outputs else outputs[0]
    size = taken.shape[0] if isinstance(taken.shape[0], int) else ROWS

    def ask(images: Images) -> Doubles:
        try:
            parts = [images[start : start + size] for start in range(0, len(images), size)]
            rows = np.concatenate([session.run([wanted], {taken.name: part})[0] for part in parts])
        except Exception as error:
            raise SuspectError(f"suspect: {path} does not take images {images.shape[1:]}: {error}") from error
        return _rows(rows, classes, path.name)

    return ask


def _served(url: str, classes: int, token: str | None, rows: int) -> Suspect:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def post(body: bytes, content_type: str, more: dict[str, str] | None = None) -> tuple[int, bytes]:
        sent = {**headers, **(more or {}), "Content-Type": content_type}
        with direct.session() as session:
            answer = session.post(url, data=body, headers=sent, timeout=SECONDS)
        return answer.status_code, answer.content

    def ask(images: Images) -> Doubles:
        answers = HttpOracle(post, rows=rows)(torch.from_numpy(images))
        if (answers.labels == REFUSED).any():
            raise SuspectError(f"suspect: {url} refuses rows; ask with an account that it answers")
        return _rows(distributions(answers, classes).numpy(), classes, url)

    return ask


def _rows(values: NDArray[np.float32], classes: int, name: str) -> Doubles:
    """Rows that sum to 1: of logits, their softmax; of labels, 1 at the label."""
    if values.ndim == 1 and np.issubdtype(values.dtype, np.integer):
        ones: Doubles = np.eye(classes)[values]
        return ones
    if values.ndim != 2 or values.shape[1] != classes or not np.isfinite(values).all():
        raise SuspectError(f"suspect: {name}: expected finite rows of {classes} classes, got shape {values.shape}")
    rows = values.astype(np.float64)
    if rows.min() >= 0 and np.abs(rows.sum(axis=1) - 1).max() <= SUM_TOLERANCE:
        return rows
    shifted = np.exp(rows - rows.max(axis=1, keepdims=True))
    soft: Doubles = shifted / shifted.sum(axis=1, keepdims=True)
    return soft
