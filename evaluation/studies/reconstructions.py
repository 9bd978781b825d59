"""What a gate makes of images: RUN/reconstructions.png, benign images and each attacker's above their reconstructions.

    python -m evaluation.studies reconstructions RECIPE --policies same-observe --run reports/RECIPE

A gate's error is the distance between the two; where an attacker's image comes back as well as a customer's, the error
cannot distinguish them, and only the auxiliary model is left. The images lie at even distances in what was sent (of
JBDA's, after its seeds), and are of the benchmark's public data sets, not of any client.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from evaluation import recordings
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.studies.study import Found, Study, StudyError, Task
from report.figures import gates
from report.html import PICTURE

SHOWN = 8


def study(task: Task) -> Iterator[Found]:
    """The picture of one policy's gate; no rows. Raises StudyError where more than one policy is named."""
    if len(task.policies) != 1:
        raise StudyError(f"expected one policy, whose gate is pictured, got {', '.join(task.policies)}")
    shown = {f"benign ({task.test.name})": some(task.test.pixels)}
    for stream in recordings.recorded(task.job):
        part = stream.whole[-1]  # the one without seeds, where there are two
        shown[part.traffic] = some(stream.images[part.rows])
    for _, oracle in task.oracles():
        picture = gates.pictures({name: (rows, made(oracle, rows)) for name, rows in shown.items()})
        yield Found(says=str(written(task.folder / PICTURE, picture)))


def written(path: Path, picture: bytes) -> Path:
    """The path, once the whole picture stands there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(picture)
    unfinished.replace(path)
    return path


def some(images: torch.Tensor) -> NDArray[np.float32]:
    """SHOWN of images (N,C,S,S), at even distances."""
    chosen = torch.linspace(0, len(images) - 1, SHOWN).round().long()
    return np.ascontiguousarray(images[chosen].numpy())


def made(oracle: InProcessOracle, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """x^ of images (n,C,S,S), the same shape. Raises OracleError where the gate's graph does not return it."""
    name = oracle.gate_graph
    outputs = oracle.pipeline.graphs[name](images)
    if "reconstruction" not in outputs:
        raise OracleError(f"graph {name!r}: expected an output `reconstruction`, got {', '.join(outputs)}")
    side = math.isqrt(outputs["reconstruction"].shape[1] // images.shape[1])
    rebuilt = torch.from_numpy(outputs["reconstruction"].reshape(*images.shape[:2], side, side))
    # of a small copy: shown as large as the image
    return np.asarray(rebuilt if rebuilt.shape == images.shape else F.interpolate(rebuilt, size=images.shape[2:]))


STUDY = Study(
    "reconstructions",
    "what a gate makes of images, as a picture: RUN/reconstructions.png",
    study,
    policies="one policy with a gate",
    one_thread=True,
)
