"""What an archive's members say of the guard's rows, which the machine that serves must say too (defenses/guard.py)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from defenses import guard
from export.graphs import Answer
from pictures.geometry import Geometry

# of a graph's metadata, what the rule of acceptance saw of it (export/quantise.py)
ENTRY = "precision"


def guarded(section: Mapping[str, Any], graphs: Path, image: str, opened: Callable[[str], Answer]) -> str:
    """guard.json of a policy. graphs: the folder of its graphs. image: of golden.json. opened: a graph, by its name."""
    golden = np.frombuffer(base64.b64decode(image), "<f4").reshape(Geometry(**section["input"]).shape)
    perturb = section["perturb"]
    said = guard.answers(
        {name: opened(name) for name in section["members"]},
        None if perturb is None else opened(perturb["graph"]),
        guard.rows(golden),
        () if perturb is None else tuple(perturb["noise_shape"]),
    )
    return guard.stated(said, {name: _tolerance(graphs / f"{name}.onnx") for name in section["members"]})


def _tolerance(path: Path) -> float:
    metadata = {each.key: each.value for each in onnx.load(path).metadata_props}
    return float(json.loads(metadata[ENTRY])["tolerance"])
