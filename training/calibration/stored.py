"""The file between training/calibration and export/archive.py: one policy's calibration, and what it belongs to.

A gate's scores are meaningful only next to those of benign images, and these depend on its networks, on who answers,
and on how the score is put together. The file states all of that, and an archive takes no calibration of anything else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.checkpoint import CheckpointError, load


class CalibrationError(ValueError):
    """A calibration that is missing, damaged, or another gate's."""


@dataclass(frozen=True)
class GateTable:
    """`gate` of a recipe's [policies.NAME]: as in the archive (defenses/gate.py), but for the calibration.

    graph: checkpoint of the gate's two networks (training/same.py).
    """

    action: str
    form: str
    alpha: float
    false_positive_rate: float
    graph: str = "same"
    work: dict[str, Any] | None = None


def path_of(policy: str, folder: Path) -> Path:
    """Where a policy's calibration lies among the checkpoints of its recipe."""
    return folder / f"{policy}.calibration.json"


def write(
    policy: str, table: GateTable, content: Mapping[str, Any], folder: Path, *, gate: str, predictor: str
) -> Path:
    """Write a policy's calibration, whole or not at all. content: `source`, `images` and `calibration`; gate,
    predictor: digests of the checkpoints."""
    path = path_of(policy, folder)
    stated = {"gate": gate, "predictor": predictor, "form": table.form, "alpha": table.alpha}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps({**stated, **content}, indent=1, allow_nan=False) + "\n", "utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def calibrated(policy: str, table: GateTable, folder: Path, *, predictor: str) -> dict[str, Any]:
    """The `gate` section of a policy: its table with its calibration. predictor: the digest of who answers. Raises
    CalibrationError, CheckpointError."""
    path = path_of(policy, folder)
    again = f"calibrate it (python -m training.calibration RECIPE --policies {policy})"
    try:
        content = json.loads(path.read_text("utf-8"))
        gate = load(folder / f"{table.graph}.safetensors").digest
        stated = {name: content[name] for name in ("gate", "predictor", "form", "alpha")}
        calibration = content["calibration"]
        images, rates = calibration["images"], [each["rate"] for each in calibration["thresholds"]]
    except FileNotFoundError:
        raise CalibrationError(f"{path}: a gate needs a calibration, found none; {again}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CalibrationError(f"{path}: damaged ({type(error).__name__}: {error}); {again}") from error
    wanted = {"gate": gate, "predictor": predictor, "form": table.form, "alpha": table.alpha}
    for name, value in wanted.items():
        if stated[name] != value:
            raise CalibrationError(f"{path}: of another {name}: expected {value!r}, got {stated[name]!r}; {again}")
    if table.false_positive_rate not in rates:
        raise CalibrationError(
            f"[policies.{policy}] gate: false_positive_rate: expected one of {rates}, the rates that "
            f"{images} benign images are enough for, got {table.false_positive_rate}"
        )
    section: dict[str, Any] = {
        "graph": table.graph,
        "action": table.action,
        "form": table.form,
        "alpha": table.alpha,
        "false_positive_rate": table.false_positive_rate,
        "calibration": calibration,
    }
    return section if table.work is None else {**section, "work": table.work}
