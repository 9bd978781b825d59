"""What gates cost in time and in other number formats: real graphs, few rounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from bench.costs import gates, precision
from evaluation.detectors import gate
from evaluation.oracles import InProcessOracle, OracleError
from report.schema import Report
from tests.bench.command import cost
from tests.data_sets import digits_test
from tests.evaluation import gated


def measured(name: str, folder: Path, *policies: str, batches: str = "8") -> Report:
    recipe = gated.recipe(folder)
    words = ("--batches", batches, "--policies", *policies)
    return cost(name, *words, run=folder / "run", store=folder, recipe=recipe)


def test_the_program(tmp_path: Path) -> None:
    gated.archive(tmp_path, "undefended")
    for name in ("same", "other"):
        gated.archive(tmp_path, name, gate=gated.GATE)
    rows = {row.policy: row for row in measured("gates", tmp_path, "same", "other").gate_costs}
    assert set(rows) == {"same", "other"}
    size = (tmp_path / "graphs-same" / "same.onnx").stat().st_size
    for row in rows.values():
        assert (row.batch, row.rounds, len(row.ratio_rounds)) == (8, 3, 3)
        # the kernel's three numbers and the auxiliary model's; the axes are none
        assert (row.parameters, row.graph_bytes) == (3 + 784 * 10, size)
        assert min(row.predictor_us, row.gate_us, row.undefended_us) > 0
        assert row.policy_us > max(row.predictor_us, row.gate_us)
        assert row.ratio == np.median(row.ratio_rounds)
    assert rows["same"].undefended_us == rows["other"].undefended_us


def test_what_has_no_gate_or_other_threads_is_refused(tmp_path: Path) -> None:
    gated.archive(tmp_path, "undefended")
    gated.archive(tmp_path, "label", response={"rule": "label"})
    gated.archive(tmp_path, "two", gate=gated.GATE, threads=2)
    for policy, message in (
        ("label", "made-up-label: expected a policy with a gate, got none"),
        ("two", "made-up-two: expected a policy of one thread, got 2"),
        ("nothing", r"made-up-nothing\.mar: no such archive"),
    ):
        with pytest.raises(SystemExit, match=message):
            measured("gates", tmp_path, policy)
    with pytest.raises(SystemExit, match="2"):
        measured("gates", tmp_path, "two", batches="0")


def test_every_format_is_tried_and_reported(tmp_path: Path) -> None:
    gated.archive(tmp_path, "undefended")
    gated.archive(tmp_path, "same", gate=gated.GATE)
    rows = {row.format: row for row in measured("precision", tmp_path, "same").gate_precision}
    assert list(rows) == ["float32", *precision.CONVERT]
    assert rows["float32"].times == pytest.approx(1)
    assert set(rows["float32"].auroc) == {"knockoff (flower)", "steps", "steps, without its seeds"}
    for name in ("int8-dynamic", "int8-static"):
        row = rows[name]
        assert row.failed is None, row.failed
        assert row.us is not None
        assert row.graph_bytes is not None
        assert rows["float32"].graph_bytes is not None
        assert row.graph_bytes < 0.8 * rows["float32"].graph_bytes
        assert row.auroc["steps"] == pytest.approx(rows["float32"].auroc["steps"], abs=0.1)
    for row in rows.values():
        assert (row.us is None) == (row.failed is not None)
        assert str(tmp_path) not in str(row.failed)


def test_a_format_that_cannot_be_used_is_reported_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(source: Path, target: Path, images: precision.Images) -> None:
        raise RuntimeError(f"no kernel for {target.parent}/x\nand more")

    monkeypatch.setattr(precision, "CONVERT", {"float16": broken})
    gated.archive(tmp_path, "undefended")
    gated.archive(tmp_path, "same", gate=gated.GATE)
    _, row = measured("precision", tmp_path, "same").gate_precision
    assert (row.format, row.failed, row.us, row.auroc) == ("float16", "RuntimeError: no kernel for /x", None, {})


def test_the_pipeline_wears_another_graph_for_a_while(tmp_path: Path) -> None:
    images = digits_test().pixels[:20]
    with InProcessOracle(gated.archive(tmp_path, "same", gate=gated.GATE)) as oracle:
        path = tmp_path / "doubled.onnx"
        model = onnx.load(gates.gate_file(oracle))
        kernel = next(each for each in model.graph.initializer if each.name == "kernel")
        kernel.CopyFrom(onnx.numpy_helper.from_array(np.zeros((1, 1, 1, 3), np.float32), "kernel"))  # x^ is black
        onnx.save(model, path)
        own = gate(oracle, images)
        with precision.wearing(oracle, path):
            worn = gate(oracle, images)
        again = gate(oracle, images)
    assert np.allclose(worn, np.square(images.numpy()).sum((1, 2, 3)), rtol=1e-4)
    assert not np.allclose(worn, own)
    assert (again == own).all()


def test_bfloat16_rounds_to_the_nearest(tmp_path: Path) -> None:
    # 8 bits of fraction: steps of 1/128 between 1 and 2; a tie goes to the even one
    values = np.array([1.0, 1 + 1 / 256, 1 + 3 / 256, 1 + 1 / 128 + 1 / 1024, -3.0, 0.0], np.float32)
    tensor = onnx.numpy_helper.from_array(values, "some")
    precision._as_bfloat16(tensor, values)
    values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
    assert values.tolist() == [1.0, 1.0, 1 + 2 / 128, 1 + 1 / 128, -3.0, 0.0]


def test_a_reason_is_one_line_without_folders(tmp_path: Path) -> None:
    assert precision.reason(ValueError(f"bad\n{tmp_path}"), tmp_path) == "ValueError: bad"
    assert precision.reason(ValueError(""), tmp_path) == "ValueError: no reason given"


def test_a_graph_of_another_backend_has_no_onnx_file(tmp_path: Path) -> None:
    with InProcessOracle(gated.archive(tmp_path, "same", gate=gated.GATE)) as oracle:
        gates.gate_file(oracle).unlink()
        with pytest.raises(OracleError, match="made-up-same: expected the backend onnxruntime"):
            gates.gate_file(oracle)
