"""A real archive in miniature: it answers whether an image is bright, shows where it runs, and fails on demand.

The handler speaks the wire format that readiness relies on; everything else is as small as it gets.
"""

from __future__ import annotations

import base64
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import yaml

HANDLER = """
import json, os, struct
from ts.metrics.metric_type_enum import MetricTypes


class Brightness:
    def initialize(self, context):
        failure = context.model_yaml_config["handler"].get("failure")
        if failure == "raise":
            raise RuntimeError("graph edm-0.onnx does not load: unexpected end of file")
        if failure == "exit":
            os._exit(7)

    def handle(self, data, context):
        return [self.answer(i, row["body"], context) for i, row in enumerate(data)]

    def answer(self, i, body, context):
        rows = context.metrics.get_metric("torchwarden_rows_total", MetricTypes.COUNTER)
        rows.add_or_update(1, [context.model_name, "answer"])
        stage = context.metrics.get_metric("torchwarden_stage_seconds", MetricTypes.HISTOGRAM)
        stage.add_or_update(0.002, [context.model_name, "member"])
        pixels = struct.unpack(f"<{len(body) // 4}f", body)
        bright = sum(pixels) / len(pixels)
        prediction = {"label": int(bright > 0.5), "probabilities": [1 - bright, bright]}
        context.set_response_content_type(i, "application/json")
        asked_by = context.get_request_header(i, "Torchwarden-Principal")
        content = {"predictions": [prediction], "pid": os.getpid(), "environment": dict(os.environ)}
        return json.dumps(content | {"principal": asked_by})
"""


def pixels(bright: float) -> bytes:
    """One 1x2x2 image of even brightness as float32 little-endian."""
    return struct.pack("<4f", *[bright] * 4)


def build(
    store: Path,
    name: str,
    *,
    key_env: str | None = None,
    failure: str | None = None,
    accepted: tuple[tuple[float, ...], ...] = ((0.25, 0.75),),
    config: dict[str, Any] | None = None,
    without: str | None = None,
    handler: str = HANDLER,
) -> Path:
    """Write store/<name>.mar; golden.json takes `accepted` for right; `without` is a member to leave out."""
    settings: dict[str, Any] = {
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": 1,
        "maxBatchDelay": 1,
        "responseTimeout": 10,
        "startupTimeout": 60,
        "handler": {
            "threads": 1,
            "response": {"rule": "soft"},
            "key_env": key_env,
            "failure": failure,
            "input": {"channels": 1, "height": 2, "width": 2},
            "class_names": ["dark", "bright"],
        },
    }
    manifest = {
        "createdOn": "01/01/1980 00:00:00",
        "runtime": "python",
        "archiverVersion": "0.12.0",
        "model": {
            "modelName": name,
            "handler": "handler.py",
            "modelVersion": "1.0",
            "configFile": "model-config.yaml",
        },
    }
    members = {
        "handler.py": handler,
        "model-config.yaml": yaml.safe_dump(settings | (config or {})),
        "golden.json": json.dumps({"image": base64.b64encode(pixels(0.75)).decode(), "accepted": accepted}),
        "MAR-INF/MANIFEST.json": json.dumps(manifest),
    }
    store.mkdir(parents=True, exist_ok=True)
    path = store / f"{name}.mar"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for member, text in members.items():
            if member != without:
                archive.writestr(member, text)
    return path
