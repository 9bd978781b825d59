"""What TorchServe's stock image_classifier makes of a picture, without TorchServe: its transforms, its five best."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image
from torchvision import transforms

from attest.examples.torchserve_server import MEAN, STD, wrapped
from attest.target.encoding import Encoded
from attest.target.wires import Reply

# ts/torch_handler/image_classifier.py
TRANSFORMS = transforms.Compose(
    [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(mean=list(MEAN), std=list(STD)),
    ]
)
BEST = 5


class Stock:
    """A wire (attest.target.wires) whose other end is TorchScript behind the stock transforms."""

    def __init__(self, model: Path) -> None:
        self._model = wrapped(model)

    @torch.inference_mode()
    def send(self, encoded: Encoded, headers: Mapping[str, str] | None = None) -> Reply:
        """What the stock handler would answer."""
        started = time.perf_counter()
        picture = Image.open(io.BytesIO(encoded.body))
        best = self._model(TRANSFORMS(picture)[None]).softmax(dim=1)[0].topk(BEST)
        named = {str(int(kind)): float(value) for value, kind in zip(best.values, best.indices, strict=True)}
        return Reply(200, json.dumps(named).encode(), round((time.perf_counter() - started) * 1000, 3))

    def close(self) -> None:
        """Nothing is open."""
