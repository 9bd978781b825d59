"""The rule: what it accepts, what it gives back to float32, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import recipes
from export import quantise
from export.graphs import ExportError, on_onnxruntime
from export.quantise import Found, Judge, found_in, in_8_bits

INPUTS, CLASSES = 16, 4


def two_layers(path: Path, *, loud: float) -> None:
    """images (rows,16) -> 16 units, of which the last is `loud` times the first input -> softmax of 4 of the others."""
    first = np.eye(INPUTS, dtype=np.float32)
    first[:, -1] = 0
    first[0, -1] = loud
    second = np.zeros((INPUTS, CLASSES), np.float32)
    second[1 : 1 + CLASSES] = 40 * np.eye(CLASSES)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["images", "first"], ["units"], name="first"),
            helper.make_node("Relu", ["units"], ["rectified"]),
            helper.make_node("MatMul", ["rectified", "second"], ["logits"], name="second"),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "two",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["rows", INPUTS])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", CLASSES])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def tried(path: Path, labels: np.ndarray | None = None) -> tuple[bytes, Found]:
    images = np.random.default_rng(0).random((512, INPUTS), dtype=np.float32)
    feeds = [{"images": part} for part in np.split(images, 16)]
    expected = on_onnxruntime(path)(images)["probabilities"]
    judge = Judge("int8", "made of", expected, labels, lambda graph: on_onnxruntime(graph)(images)["probabilities"])
    return in_8_bits(path, feeds, judge)


def test_a_graph_that_keeps_its_labels_is_taken_as_it_is(tmp_path: Path) -> None:
    two_layers(tmp_path / "two.onnx", loud=1.0)
    _, found = tried(tmp_path / "two.onnx")
    assert found.holds
    assert (found.layers, found.kept, found.images) == (2, (), 512)
    assert "2 of 2 layers in int8" in str(found)
    assert "accuracy not known (no labels)" in str(found)


def test_a_layer_that_costs_labels_is_given_back_to_float32(tmp_path: Path) -> None:
    """All units share one scale, and the loud one takes it: the second layer, which reads them, stays float32."""
    two_layers(tmp_path / "two.onnx", loud=2000.0)
    graph, found = tried(tmp_path / "two.onnx")
    assert found.holds
    assert found.kept == ("second",)
    assert found.agreement >= 0.995
    model = onnx.load_from_string(graph)
    (second,) = (node for node in model.graph.node if node.name == "second")
    assert second.input[1] == "second", "its weights are the float32 ones"


def test_what_does_not_hold_is_refused_with_words_to_act_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_layers(tmp_path / "two.onnx", loud=2000.0)
    monkeypatch.setattr(quantise, "MOST_KEPT", 0.25)
    with pytest.raises(
        ExportError, match=r"the rule does not hold: .*; nor with 0 of its layers .* Serve it with"
    ) as told:
        tried(tmp_path / "two.onnx")
    assert "labels equal on 0." in str(told.value)


def found(**changes: object) -> Found:
    plain: dict[str, object] = {
        **{"precision": "int8", "source": "", "method": "minmax", "layers": 4, "kept": (), "images": 1000},
        **{"accuracy": 0.9, "float32_accuracy": 0.9, "agreement": 0.995, "tolerance": 0.01},
    }
    return Found(**{**plain, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({}, True),
        ({"agreement": 0.9949}, False),
        ({"accuracy": 0.898}, True),
        ({"accuracy": 0.8979}, False),
        ({"accuracy": None, "float32_accuracy": None}, True),
        ({"accuracy": None, "float32_accuracy": None, "agreement": 0.99}, False),
    ],
)
def test_the_rule(changes: dict[str, object], holds: bool) -> None:
    assert found(**changes).holds is holds


def test_the_tolerance_is_half_the_margin_that_the_rule_lets_labels_lose() -> None:
    """1,000 rows, of which 5 are won by 0.1 or less: what moves probabilities by 0.05 moves no sixth label."""
    margins = np.concatenate([np.full(5, 0.02), np.full(995, 0.2)]).astype(np.float32)
    answers = np.stack([(1 + margins) / 2, (1 - margins) / 2], axis=1)
    seen = Judge("int8", "", answers, None, lambda _: answers).found(b"", method="minmax", layers=1)
    assert seen.tolerance == pytest.approx(0.1, abs=0.002)
    unsure = Judge("int8", "", answers, None, lambda _: np.full((1000, 2), 0.5, np.float32))
    assert unsure.found(b"", method="minmax", layers=1).tolerance == quantise.LEAST_TOLERANCE


def test_what_the_rule_saw_travels_in_the_graph(tmp_path: Path) -> None:
    path = tmp_path / "two.onnx"
    two_layers(path, loud=1.0)
    assert found_in(path) is None
    assert found_in(tmp_path / "none.onnx") is None
    graph, seen = tried(path)
    path.write_bytes(quantise._noted(graph, seen))
    assert found_in(path) == seen
    stated = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert json.loads(stated["precision"])["agreement"] == seen.agreement


def test_only_policies_with_a_precision_can_be_asked_for(tmp_path: Path) -> None:
    recipe = tmp_path / "plain.toml"
    recipe.write_text(
        '[dataset]\nname = "digits"\n[victim]\narchitecture = "conv3"\n[victim.optimisation]\nepochs = 1\n'
        '[policies.undefended]\npredictor = "victim"\n'
    )
    with pytest.raises(
        SystemExit, match="expected policies with a precision, got none; it has none; precision = 'int8'"
    ):
        quantise.main([str(recipe)])


def test_a_variant_is_two_lines_of_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[dataset]\nname = "digits"\n[victim]\narchitecture = "conv3"\n[victim.optimisation]\nepochs = 1\n'
        '[policies.undefended]\npredictor = "victim"\nresponse = { rule = "label" }\n'
        '[policies.undefended-int8]\nlike = "undefended"\nprecision = "int8"\n'
    )
    policies = recipes.read(str(path)).tables["policies"]
    assert policies["undefended-int8"] == {**policies["undefended"], "precision": "int8"}
