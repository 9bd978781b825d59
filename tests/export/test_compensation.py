"""Weights rounded with error compensation: a smaller error of what layers give, on the grid that rounding has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import compensation
from export.compensation import LARGEST, compensated, compensated_layers, steps
from export.qdq import Qdq

INPUTS, UNITS = 24, 6


def inputs(count: int = 2000) -> np.ndarray:
    """Inputs that hang together, as a layer's do: (count, INPUTS)."""
    random = np.random.default_rng(0)
    return random.standard_normal((count, 5)) @ random.standard_normal((5, INPUTS)) + 1


def error(given: np.ndarray, weights: np.ndarray, rounded: np.ndarray) -> float:
    return float(np.square(given @ (weights - rounded).T).mean())


def test_a_layers_output_is_nearer_than_by_plain_rounding_and_weights_stay_on_its_grid() -> None:
    weights, given = np.random.default_rng(1).standard_normal((UNITS, INPUTS)), inputs()
    scales = steps(weights).astype(np.float64)
    made = compensated(weights, scales, given.T @ given / len(given), rounded=INPUTS)
    plain = np.round(weights / scales[:, None]) * scales[:, None]
    assert error(given, weights, made) < error(given, weights, plain) / 4
    whole = made / scales[:, None]
    np.testing.assert_allclose(whole, np.round(whole), atol=1e-9)
    assert np.abs(whole).max() <= LARGEST + 1e-9


def test_columns_in_blocks_are_rounded_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, given = np.random.default_rng(1).standard_normal((UNITS, INPUTS)), inputs()
    made = []
    for block in (1, 5, INPUTS):
        monkeypatch.setattr(compensation, "BLOCK", block)
        made.append(compensated(weights, steps(weights).astype(np.float64), given.T @ given / 2000, rounded=INPUTS))
    for other in made[1:]:
        np.testing.assert_allclose(made[0], other, atol=1e-9)


def test_inputs_that_do_not_hang_together_are_rounded_plainly() -> None:
    weights = np.random.default_rng(1).standard_normal((UNITS, INPUTS))
    scales = steps(weights).astype(np.float64)
    made = compensated(weights, scales, np.eye(INPUTS), rounded=INPUTS)
    np.testing.assert_allclose(made, np.round(weights / scales[:, None]) * scales[:, None])


def test_the_last_column_takes_what_the_others_shift() -> None:
    """Inputs that never change: the bias alone makes up for all rounding."""
    weights = np.random.default_rng(2).standard_normal((UNITS, 3))
    given = np.array([[0.3, 0.5, 1.0]])
    made = compensated(weights, steps(weights[:, :2]).astype(np.float64), given.T @ given, rounded=2)
    plain = weights.copy()
    plain[:, :2] = made[:, :2]
    assert error(given, weights, made) < error(given, weights, plain) / 100


def test_output_channels_are_independent() -> None:
    weights, given = np.random.default_rng(3).standard_normal((UNITS, INPUTS)), inputs()
    second, scales = given.T @ given / len(given), steps(weights).astype(np.float64)
    together = compensated(weights, scales, second, rounded=INPUTS)
    alone = compensated(weights[2:3], scales[2:3], second, rounded=INPUTS)
    np.testing.assert_array_equal(together[2:3], alone)


def test_a_row_of_zeros_has_the_scale_that_the_quantiser_gives_it() -> None:
    np.testing.assert_array_equal(steps(np.array([[0.0, 0.0], [-6.4, 3.2]])), np.array([1.0, 0.1], np.float32))


CASES = [(kind, groups) for kind in ("Conv", "Gemm", "GemmT", "MatMul") for groups in (1,)] + [("Conv", 4)]


def one_layer(path: Path, kind: str, groups: int) -> None:
    """images (rows,4[,6,6]) -> one layer of 8 channels."""
    random = np.random.default_rng(4)
    kernel = (3, 3) if kind == "Conv" else ()
    shape = {"Conv": (8, 4 // groups, *kernel), "GemmT": (8, 4)}.get(kind, (4, 8))
    stored = [numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), "weights")]
    if kind != "MatMul":
        stored.append(numpy_helper.from_array(random.standard_normal(8).astype(np.float32), "bias"))
    options = {"Conv": {"group": groups, "pads": [1, 1, 1, 1], "strides": [2, 1]}, "GemmT": {"transB": 1}}.get(kind, {})
    operator = "Gemm" if kind == "GemmT" else kind
    node = helper.make_node(operator, ["images", *(each.name for each in stored)], ["sums"], name="layer", **options)
    sides = [6, 6] if kind == "Conv" else []
    taken = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["rows", 4, *sides])
    given = helper.make_tensor_value_info("sums", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "layer", [taken], [given], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def feeds(kind: str) -> list[dict[str, np.ndarray]]:
    shape = (64, 4, 6, 6) if kind == "Conv" else (64, 4)
    return [{"images": np.random.default_rng(seed).random(shape, dtype=np.float32)} for seed in (5, 6)]


@pytest.mark.parametrize(("kind", "groups"), CASES)
def test_the_quantised_graph_holds_the_compensated_steps(tmp_path: Path, kind: str, groups: int) -> None:
    """Stored whole numbers times stored scales are the weights that compensation made; a depthwise layer has none."""
    path = tmp_path / "layer.onnx"
    one_layer(path, kind, groups)
    made = compensated_layers(onnx.load(path), feeds(kind))
    if groups > 1:
        assert not made
        return
    graph = onnx.load_from_string(Qdq(path, feeds(kind)).graph("minmax", [])).graph
    stored = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    ((_, rounded),) = made.items()
    (read,) = (node for node in graph.node if node.input[0] == "weights_quantized")
    scales = stored[read.input[1]]
    np.testing.assert_array_equal(scales, rounded.scales)
    along = scales.reshape([-1 if axis == rounded.axis else 1 for axis in range(rounded.initializers["weights"].ndim)])
    np.testing.assert_allclose(stored["weights_quantized"] * along, rounded.initializers["weights"], rtol=1e-6)
    plain = numpy_helper.to_array(onnx.load(path).graph.initializer[0]) / along
    assert (stored["weights_quantized"] != np.round(plain)).any()


def test_the_same_inputs_give_the_same_weights(tmp_path: Path) -> None:
    one_layer(tmp_path / "layer.onnx", "Conv", 1)
    one, other = (
        compensated_layers(onnx.load(tmp_path / "layer.onnx"), feeds("Conv"))["layer"].initializers for _ in "ab"
    )
    assert {name: values.tobytes() for name, values in one.items()} == {
        name: values.tobytes() for name, values in other.items()
    }


def test_the_widest_layers_are_rounded_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What their sums would take of memory grows with the square."""
    one_layer(tmp_path / "layer.onnx", "Conv", 1)
    for widest, made in ((36, {"layer"}), (35, set())):
        monkeypatch.setattr(compensation, "WIDEST", widest)
        assert set(compensated_layers(onnx.load(tmp_path / "layer.onnx"), feeds("Conv"))) == made
