"""The examples' classifier without a server: what an attest of each server has to come to.

The same campaign, seeds and target file, but the answers are made in this process, into reports/attest-NAME-in-process.
"""

from __future__ import annotations

import dataclasses
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from attest.campaign import order
from attest.campaign.order import Campaign, Options
from attest.measured import Measured
from attest.target import table
from attest.target.encoding import Encoded
from attest.target.wires import Reply, Wire


class InProcess:
    """A wire (attest.target.wires) whose other end is an ONNX file: PNG to probabilities (1,10)."""

    def __init__(self, model: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def send(self, encoded: Encoded, headers: Mapping[str, str] | None = None) -> Reply:
        """What the FastAPI example would answer."""
        started = time.perf_counter()
        pixels = np.asarray(Image.open(io.BytesIO(encoded.body)).convert("L"), np.float32)[None, None] / 255
        scores = self._session.run(["probabilities"], {"images": pixels})[0][0]
        body = json.dumps({"predictions": [{"scores": scores.tolist()}]}).encode()
        return Reply(200, body, round((time.perf_counter() - started) * 1000, 3))

    def close(self) -> None:
        """Nothing is open."""


def attest(wire: Wire, target_name: str, options: Options, *, budget: int, reports: Path) -> Measured:
    """The campaign of an example's target file, its pictures sent over `wire`."""
    path = table.path_of(target_name)
    target = dataclasses.replace(table.read(path), send="picture", format="png", rate=1e6, budget=budget, headers={})
    name = f"{target_name}-in-process"
    return order.run(Campaign(target, name, table.digest(path), reports / f"attest-{name}", options), wire)
