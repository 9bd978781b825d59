"""A recipe's policies in 8 bits, from checkpoints to archives that serve, on the smoke product."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import onnx
import pytest

import recipes
from evaluation.studies import quantised
from evaluation.studies.study import StudyError, Task
from export import archive, quantise
from export.archive import PolicyTable, Serving
from tests.conftest import RECIPE, Smoke
from training.calibration import calibrate
from training.calibration.stored import CalibrationError

TWINS = ("undefended", "meco", "same-observe")
NARROW = tuple(f"{name}-int8" for name in TWINS)


@pytest.fixture(scope="module")
def made(smoke: Smoke, gated: Smoke, noisy: Smoke, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe with policies in 8 bits, and the folder of its runs, build and model_store."""
    folder = tmp_path_factory.mktemp("narrow")
    recipe = folder / "smoke.toml"
    tables = [f'[policies.{name}-int8]\nlike = "{name}"\nprecision = "int8"\n' for name in TWINS]
    recipe.write_text(RECIPE.read_text() + "\n".join(tables))
    shutil.copytree(gated.runs, folder / "runs")
    shutil.copytree(gated.build, folder / "build")
    places = ["--runs", str(folder / "runs"), "--build", str(folder / "build")]
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(quantise, "AGREEMENT", 0.97)  # 129 images: one is most of a percent
        changed.setattr(quantise, "DROP", 0.02)
        quantise.main([str(recipe), *places])
    calibrate.main(calibrate.parse([str(recipe), *places, "--policies", "same-observe-int8"]))
    for name in (*TWINS, *NARROW):
        built(recipe, folder, name)
    return recipe, folder


def built(path: Path, folder: Path, name: str) -> Path:
    recipe = recipes.read(str(path))
    table, serving = recipe.family("policies", PolicyTable)[name], recipe.section("serving", Serving)
    places = {"runs": folder / "runs", "build": folder / "build", "store": folder / "model_store"}
    return archive.archive(recipe, name, table, serving, **places, data=None)


def test_an_archive_in_8_bits_holds_its_graph_and_its_guard(made: tuple[Path, Path]) -> None:
    _, folder = made
    with zipfile.ZipFile(folder / "model_store/smoke-meco-int8.mar") as packed:
        names = set(packed.namelist())
        graph = onnx.load_from_string(packed.read("graphs/meco-int8.onnx"))
        guard = json.loads(packed.read("guard.json"))
    assert {name for name in names if name.startswith("graphs/")} == {
        "graphs/meco-int8.onnx",
        "graphs/meco-perturbation-int8.onnx",
    }
    kept = {each.key: each.value for each in graph.metadata_props}
    assert {"checkpoint", "architecture", "facts", "graph", "precision"} <= kept.keys()
    assert guard["members"].keys() == {"meco-int8"}
    assert guard["members"]["meco-int8"]["tolerance"] == json.loads(kept["precision"])["tolerance"]
    assert any(node.op_type == "QuantizeLinear" for node in graph.graph.node)


def test_the_same_inputs_give_the_same_bytes(made: tuple[Path, Path]) -> None:
    recipe, folder = made
    first = (folder / "model_store/smoke-undefended-int8.mar").read_bytes()
    assert built(recipe, folder, "undefended-int8").read_bytes() == first


def test_a_graph_that_is_there_is_not_made_again(made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    recipe, folder = made
    path = folder / "build/smoke/victim-int8.onnx"
    before = path.stat().st_mtime_ns
    places = ["--runs", str(folder / "runs"), "--build", str(folder / "build")]
    quantise.main([str(recipe), *places, "--policies", "undefended-int8"])
    assert path.stat().st_mtime_ns == before
    assert "victim-int8.onnx: accuracy" in capsys.readouterr().out


def test_a_gate_is_calibrated_on_the_graphs_it_is_served_with(made: tuple[Path, Path]) -> None:
    recipe, folder = made
    path = folder / "runs/smoke/same-observe-int8.calibration.json"
    right = path.read_text()
    path.write_text((folder / "runs/smoke/same-observe.calibration.json").read_text())
    try:
        with pytest.raises(CalibrationError, match="of another predictor"):
            built(recipe, folder, "same-observe-int8")
    finally:
        path.write_text(right)


def test_what_8_bits_cost_is_measured_through_the_archives(made: tuple[Path, Path], tmp_path: Path) -> None:
    path, folder = made
    recipe = recipes.read(str(path))
    task = Task(recipe, ("undefended", "undefended-int8", "meco", "meco-int8"), tmp_path, folder / "model_store")
    rows = {row.policy: row for found in quantised.study(task) for row in found.rows}
    assert rows.keys() == {"undefended-int8", "meco-int8"}
    for row in rows.values():
        assert row.agreement > 0.95
        assert row.layers - row.kept >= row.layers / 2
        assert row.megabytes < row.float32_megabytes
    lonely = Task(recipe, ("undefended-int8",), tmp_path, folder / "model_store")
    with pytest.raises(StudyError, match="NAME among the policies"):
        list(quantised.study(lonely))
