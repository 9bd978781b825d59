"""The file between calibration and archive: what comes back, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training import checkpoint
from training.calibration.stored import CalibrationError, GateTable, calibrated, path_of, write
from training.checkpoint import Architecture, CheckpointError, load

TABLE = GateTable("proof-of-work", "robust", 0.8, 0.01, work={"mean_benign": 9.0})
CALIBRATION = {
    "images": 400,
    "centres": [0.0, 0.5],
    "spreads": [1.0, 0.25],
    "tail": [[1.0, -3.0], [0.025, 4.0]],
    "excess": 1.5,
    "thresholds": [{"rate": 0.01, "score": 5.0, "low": 4.5, "high": None}],
}
CONTENT = {"source": "images", "images": 400, "calibration": CALIBRATION}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a gate's checkpoint, which is not read here, and the calibration of the policy `own`."""
    arguments = {"classes": 2, "channels": 1, "size": 28, "mean": [0.5], "std": [0.5]}
    plan = Architecture("lenet5", arguments)
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "same.safetensors", [plan.network()], [plan], {})
    write("own", TABLE, CONTENT, tmp_path, gate=digest(tmp_path), predictor="abc")
    return tmp_path


def digest(folder: Path) -> str:
    return load(folder / "same.safetensors").digest


def test_a_calibration_comes_back_in_its_gate_s_section(folder: Path) -> None:
    expected = {
        "graph": "same",
        "action": "proof-of-work",
        "form": "robust",
        "alpha": 0.8,
        "false_positive_rate": 0.01,
        "calibration": CALIBRATION,
        "work": {"mean_benign": 9.0},
    }
    assert calibrated("own", TABLE, folder, predictor="abc") == expected
    del expected["work"]
    rejects = replace(TABLE, action="reject", work=None)
    assert calibrated("own", rejects, folder, predictor="abc") == {**expected, "action": "reject"}


def test_the_file_says_whose_it_is(folder: Path) -> None:
    content = json.loads(path_of("own", folder).read_text())
    stated = {"gate": digest(folder), "predictor": "abc", "form": "robust", "alpha": 0.8}
    assert content == {**stated, **CONTENT}


@pytest.mark.parametrize(
    ("change", "predictor", "message"),
    [
        ({}, "def", "of another predictor: expected 'def', got 'abc'"),
        ({"form": "paper"}, "abc", "of another form: expected 'paper', got 'robust'"),
        ({"alpha": 0.5}, "abc", r"of another alpha: expected 0\.5, got 0\.8"),
    ],
)
def test_another_s_calibration_is_refused(folder: Path, change: dict[str, Any], predictor: str, message: str) -> None:
    with pytest.raises(CalibrationError, match=rf"{message}; calibrate it \(python -m .* RECIPE --policies own\)"):
        calibrated("own", replace(TABLE, **change), folder, predictor=predictor)


def test_another_gate_s_calibration_is_refused(folder: Path) -> None:
    write("own", TABLE, CONTENT, folder, gate="0" * 64, predictor="abc")
    with pytest.raises(CalibrationError, match=f"of another gate: expected '{digest(folder)}', got '0+'; calibrate it"):
        calibrated("own", TABLE, folder, predictor="abc")


def test_a_rate_that_nobody_calibrated_is_refused(folder: Path) -> None:
    message = (
        r"\[policies\.own\] gate: false_positive_rate: expected one of \[0\.01\], the rates that 400 benign images are "
        r"enough for, got 0\.001"
    )
    with pytest.raises(CalibrationError, match=message):
        calibrated("own", replace(TABLE, false_positive_rate=0.001), folder, predictor="abc")


def test_a_missing_calibration_names_the_command(folder: Path) -> None:
    message = (
        r"other\.calibration\.json: a gate needs a calibration, found none; .*training\.calibration RECIPE --pol.*other"
    )
    with pytest.raises(CalibrationError, match=message):
        calibrated("other", TABLE, folder, predictor="abc")


def test_a_missing_gate_is_reported_as_a_checkpoint_is(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*absent\.safetensors: train it first"):
        calibrated("own", replace(TABLE, graph="absent"), folder, predictor="abc")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        (json.dumps(CONTENT), "KeyError: 'gate'"),
        (json.dumps({**CONTENT, "gate": "", "predictor": "", "form": "", "alpha": 0}), None),
        (json.dumps({"gate": "", "predictor": "", "form": "", "alpha": 0, "calibration": {}}), "KeyError: 'images'"),
    ],
)
def test_a_damaged_calibration_is_reported(folder: Path, text: str, found: str | None) -> None:
    path_of("own", folder).write_text(text)
    message = rf"damaged \({found}.*; calibrate it" if found else "of another gate"
    with pytest.raises(CalibrationError, match=message):
        calibrated("own", TABLE, folder, predictor="abc")


def test_what_cannot_be_written_leaves_the_file_as_it_was(folder: Path) -> None:
    before = path_of("own", folder).read_text()
    with pytest.raises(ValueError, match="JSON"):
        write("own", TABLE, {"calibration": math.nan}, folder, gate="", predictor="")
    assert path_of("own", folder).read_text() == before
    assert {path.name for path in folder.iterdir()} == {"same.safetensors", "own.calibration.json"}
