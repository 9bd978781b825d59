"""Equalised channels: the same answers in float32, ranges nearer to one another, and what must not be scaled is not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.equalisation import equalise
from export.graphs import on_onnxruntime
from export.layers import observed

CHANNELS = 8


def network(between: str) -> onnx.ModelProto:
    """images (rows,3,8,8) -> Conv, `between`, a residual Conv, sum, mean, Gemm; the first one's channels differ."""
    random = np.random.default_rng(0)
    first = random.standard_normal((CHANNELS, 3, 3, 3)) * np.geomspace(1, 30, CHANNELS)[:, None, None, None]
    stored = {
        "first": first,
        "first_bias": random.standard_normal(CHANNELS),
        "second": random.standard_normal((CHANNELS, CHANNELS, 3, 3)) / 10,
        "last": random.standard_normal((CHANNELS, 4)),
        "last_bias": random.standard_normal(4),
        "sides": np.array([2, 3]),
        "six": np.array(6.0),
    }
    padded = {"pads": [1, 1, 1, 1]}
    clipped = ["units", "", "six"] if between == "Clip" else ["units"]
    nodes = [
        helper.make_node("Conv", ["images", "first", "first_bias"], ["units"], name="first", **padded),
        helper.make_node(between, clipped, ["rectified"], name="between"),
        helper.make_node("Conv", ["rectified", "second"], ["branch"], name="second", **padded),
        helper.make_node("Relu", ["branch"], ["positive"], name="positive"),
        helper.make_node("Add", ["rectified", "positive"], ["sum"], name="sum"),
        helper.make_node("ReduceMax", ["sum", "sides"], ["loudest"], name="loudest"),
        helper.make_node("Flatten", ["loudest"], ["row"], name="row"),
        helper.make_node("Gemm", ["row", "last", "last_bias"], ["logits"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["rows", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 4])],
        [
            numpy_helper.from_array(values.astype(np.int64 if name == "sides" else np.float32), name)
            for name, values in stored.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


def images() -> np.ndarray:
    return np.random.default_rng(1).random((32, 3, 8, 8), dtype=np.float32)


def spread(model: onnx.ModelProto, name: str) -> float:
    """The loudest channel's range as a multiple of the quietest's."""
    ((values),) = (given[name] for given in observed(model, [name], [{"images": images()}]))
    largest = values.max(axis=(0, 2, 3))
    return float(largest.max() / largest.min())


@pytest.mark.parametrize("between", ["Relu", "LeakyRelu"])
def test_ranges_come_nearer_and_answers_stay(between: str) -> None:
    model = network(between)
    right, before = on_onnxruntime(model.SerializeToString())(images())["logits"], spread(model, "rectified")
    equalise(model, [{"images": images()}])
    np.testing.assert_allclose(on_onnxruntime(model.SerializeToString())(images())["logits"], right, rtol=1e-4)
    assert spread(model, "rectified") < before / 2


def test_channels_behind_a_clip_stay_as_they_are() -> None:
    model = network("Clip")
    weights = model.graph.initializer[0].SerializeToString()
    right = on_onnxruntime(model.SerializeToString())(images())["logits"]
    equalise(model, [{"images": images()}])
    assert model.graph.initializer[0].SerializeToString() == weights
    np.testing.assert_allclose(on_onnxruntime(model.SerializeToString())(images())["logits"], right, rtol=1e-5)


def test_without_calibration_nothing_changes() -> None:
    model = network("Relu")
    as_it_was = model.SerializeToString(deterministic=True)
    equalise(model, [])
    assert model.SerializeToString(deterministic=True) == as_it_was
