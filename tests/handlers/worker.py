"""A handler as TorchServe's worker has it, with a context that records what TorchServe would receive."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from handlers import wire
from handlers.handler import TorchWarden

SHAPE = (1, 4, 5)
METRICS = {
    "rows_total": "decision",
    "member_rows_total": "member",
    "errors_total": "code",
    "scores_total": "tail",
    "work_total": "event",
    "limited_rows_total": "limit",
    "budget_total": "event",
    "marked_rows_total": "strength",
    "audit_total": "event",
    "stage_seconds": "stage",
}


class Metric:
    """Counts as TorchServe's metrics do."""

    def __init__(self, dimension: str) -> None:
        self.dimension_names, self.metric_type = ["ModelName", dimension], Kind("counter")
        self.counted: dict[str, float] = {}

    def add_or_update(self, value: float, dimensions: list[str]) -> None:
        self.counted[dimensions[1]] = self.counted.get(dimensions[1], 0) + value


class Kind(str):
    """TorchServe's enum of kinds of metric, as far as it is used."""


class Context:
    """What a handler sees of TorchServe."""

    model_name = "digits-edm"

    def __init__(self, folder: Path) -> None:
        self.system_properties = {"model_dir": str(folder), "gpu_id": None}
        self.counts = {name: Metric(dimension) for name, dimension in METRICS.items()}
        self.metrics = SimpleNamespace(get_metric=lambda name, *kind: self.counts[name.removeprefix("torchwarden_")])
        self.requests: list[dict[str, Any]] = []
        self.status: dict[int, tuple[int, str]] = {}
        self.sent: dict[int, dict[str, str]] = {}

    def get_all_request_header(self, index: int) -> dict[str, Any]:
        return self.requests[index]

    def get_request_header(self, index: int, key: str) -> Any:
        return self.requests[index].get(key)

    def get_request_id(self, index: int) -> str:
        return f"request-{index}"

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:
        self.status[idx] = (code, phrase)

    def set_response_content_type(self, index: int, value: str) -> None:
        self.set_response_header(index, "content-type", value)

    def set_response_header(self, index: int, key: str, value: str) -> None:
        self.sent.setdefault(index, {})[key] = value


class Worker:
    """A handler and its context: `ask` sends one batch of (headers, body) and gives (status, body) for each."""

    def __init__(self, folder: Path) -> None:
        self.context = Context(folder)
        self.handler = TorchWarden()
        self.handler.initialize(self.context)
        self.graphs: Any = self.handler._pipeline.graphs

    def ask(self, *requests: tuple[dict[str, Any], Any]) -> list[tuple[int, Any]]:
        self.context.requests = [headers for headers, _ in requests]
        self.context.status, self.context.sent = {}, {}
        bodies = self.handler.handle([{} if body is None else {"body": body} for _, body in requests], self.context)
        assert len(bodies) == len(requests)
        assert all(isinstance(body, bytes) for body in bodies)
        return [(self.context.status[index][0], json.loads(body)) for index, body in enumerate(bodies)]


def images(rows: int, seed: int = 0) -> np.ndarray:
    levels = np.random.default_rng(seed).integers(0, 256, (rows, *SHAPE))
    return (levels / np.float32(255)).astype(np.float32)


def request(pixels: np.ndarray, content_type: str = wire.RAW) -> tuple[dict[str, Any], bytearray]:
    """As a worker receives it: TorchServe adds the body's own content type under its name."""
    headers = {"body": {"content-type": content_type}, "Content-Type": content_type, "Accept": "*/*"}
    return headers, bytearray(wire.encode_rows(pixels, content_type))
