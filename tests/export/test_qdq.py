"""Graphs in 8 bits: what is in them, what is not, and sums that no CPU saturates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from export.graphs import Classifier, batch_dependent, on_onnxruntime, to_onnx
from export.qdq import METHODS, Qdq, QdqError
from zoo.models import build

SHAPE = (1, 28, 28)
METADATA = {"graph": "victim", "facts": "{}"}


def network(architecture: str, size: int = 28, channels: int = 1) -> nn.Module:
    torch.manual_seed(0)
    drawn = build(architecture, classes=10, channels=channels, size=size, mean=[0.3] * channels, std=[0.3] * channels)
    return Classifier(drawn).eval()


@pytest.fixture(scope="module")
def conv3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qdq") / "victim.onnx"
    to_onnx(network("conv3"), SHAPE, path, METADATA)
    return path


def images(count: int = 64, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(1).random((count, *shape), dtype=np.float32)


def made(path: Path, shape: tuple[int, ...] = SHAPE) -> Qdq:
    return Qdq(path, [{"images": images(shape=shape)}])


def kinds(graph: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(graph).graph.node]


@pytest.mark.parametrize("method", METHODS)
def test_answers_stay_near_and_metadata_stay(conv3: Path, method: str, tmp_path: Path) -> None:
    graph = made(conv3).graph(method, [])
    assert {each.key: each.value for each in onnx.load_from_string(graph).metadata_props} == METADATA
    right, got = (on_onnxruntime(each)(images())["probabilities"] for each in (conv3, graph))
    assert 0 < np.abs(right - got).max() < 0.02
    (tmp_path / "narrow.onnx").write_bytes(graph)
    assert not batch_dependent(tmp_path / "narrow.onnx")
    assert len(graph) < conv3.stat().st_size / 3


def test_the_same_inputs_give_the_same_bytes(conv3: Path) -> None:
    assert made(conv3).graph("minmax", []) == made(conv3).graph("minmax", [])


def test_normalisation_and_softmax_stay_and_logits_are_not_rounded(conv3: Path) -> None:
    graph = onnx.load_from_string(made(conv3).graph("minmax", [])).graph
    by_output = {output: node for node in graph.node for output in node.output}
    (softmax,) = (node for node in graph.node if node.op_type == "Softmax")
    assert by_output[softmax.input[0]].op_type == "Gemm"
    (divided,) = (node for node in graph.node if node.op_type == "Div")
    assert by_output[divided.input[0]].op_type == "Sub"
    assert by_output[divided.input[0]].input[0] == "images"


def test_a_layer_that_is_kept_multiplies_in_float32(conv3: Path) -> None:
    narrow = made(conv3)
    kept = narrow.layers[1]
    model = onnx.load_from_string(narrow.graph("minmax", [kept]))
    weights = {node.name: node.input[1] for node in model.graph.node if node.name in narrow.layers}
    whole = {each.name: each.data_type for each in model.graph.initializer}
    assert whole[weights[kept]] == TensorProto.FLOAT
    assert all(name.endswith("DequantizeLinear_Output") for layer, name in weights.items() if layer != kept)


def test_residuals_and_depthwise_layers_are_in_8_bits_too(tmp_path: Path) -> None:
    path, shape = tmp_path / "victim.onnx", (3, 32, 32)
    to_onnx(network("mobilenetv2", 32, 3), shape, path, METADATA)
    narrow = Qdq(path, [{"images": images(16, shape)}])
    graph = narrow.graph("minmax", [])
    assert "BatchNormalization" not in kinds(graph)
    right, got = (on_onnxruntime(each)(images(8, shape))["probabilities"] for each in (path, graph))
    assert np.abs(right - got).max() < 0.1


def test_no_sum_saturates_at_the_largest_weights_and_pixels(tmp_path: Path) -> None:
    path = tmp_path / "loud.onnx"
    linear(path, np.ones((64, 2), np.float32))
    graph = Qdq(path, [{"images": np.stack([np.zeros(64), np.ones(64)]).astype(np.float32)}]).graph("minmax", [])
    (sums,) = on_onnxruntime(graph)(np.ones((4, 64), np.float32)).values()
    np.testing.assert_allclose(sums, 64, rtol=0.02)
    weights = [numpy_helper.to_array(each) for each in onnx.load_from_string(graph).graph.initializer]
    assert max(int(np.abs(each.astype(int)).max()) for each in weights if each.dtype == np.int8) <= 64


def test_what_multiplies_nothing_is_refused(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["images"], ["probabilities"], axis=1)],
        "tree",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "tree.onnx")
    with pytest.raises(QdqError, match=r"expected one of Conv, .* to put in 8 bits, found Softmax"):
        made(tmp_path / "tree.onnx", (4,))


@pytest.mark.parametrize("opset", [11, 13])
def test_an_older_opset_is_converted(tmp_path: Path, opset: int) -> None:
    path = tmp_path / "old.onnx"
    linear(path, np.random.default_rng(0).random((64, 2), dtype=np.float32), opset=opset)
    graph = made(path, (64,)).graph("minmax", [])
    right, got = (next(iter(on_onnxruntime(each)(images(4, (64,))).values())) for each in (path, graph))
    np.testing.assert_allclose(right, got, rtol=0.02)


def linear(path: Path, weights: np.ndarray, opset: int = 17) -> None:
    """images (rows, 64) -> images @ weights."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["images", "weights"], ["sums"])],
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["rows", len(weights)])],
        [helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["rows", weights.shape[1]])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7), path)
