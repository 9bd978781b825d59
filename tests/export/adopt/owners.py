"""Small classifiers as owners bring them: one linear function of an image, in every form that exporters give it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.handlers.archives import weights

SHAPE = (3, 8, 8)
CLASSES = 4
W = weights("mine", 3 * 8 * 8, CLASSES) / 4

Images = np.ndarray


def images(rows: int, seed: int = 3) -> Images:
    """(rows,3,8,8) float32, whole levels of bytes."""
    random = np.random.default_rng(seed)
    return (random.integers(0, 256, (rows, *SHAPE)) / 255).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def right(given: Images) -> np.ndarray:
    """The classifier's probabilities."""
    return softmax((given.reshape(len(given), -1) - 0.5) @ W)


def model(
    nodes: Sequence[onnx.NodeProto],
    given: Sequence[object],
    outputs: Sequence[onnx.ValueInfoProto],
    *,
    kind: int = TensorProto.FLOAT,
    opset: int = 17,
    more: Sequence[onnx.TensorProto] = (),
    functions: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model of one input `x`, with the weights `W` and `half`."""
    constants = [numpy_helper.from_array(W, "W"), numpy_helper.from_array(np.float32(0.5), "half"), *more]
    graph = helper.make_graph(
        list(nodes), "owner", [helper.make_tensor_value_info("x", kind, given)], list(outputs), constants
    )
    domains = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in functions)]
    return helper.make_model(graph, opset_imports=domains, ir_version=8)


def value(name: str, shape: Sequence[object] | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def linear(source: str = "x") -> list[onnx.NodeProto]:
    """source (N,...) -> `logits` (N,4)."""
    return [
        helper.make_node("Flatten", [source], ["flat"]),
        helper.make_node("Sub", ["flat", "half"], ["centred"]),
        helper.make_node("MatMul", ["centred", "W"], ["logits"]),
    ]


def node(kind: str, source: str, target: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, [source], [target], **attributes)


def logits(rows: object = "n") -> onnx.ModelProto:
    return model(linear(), [rows, *SHAPE], [value("logits", [rows, CLASSES])])


def probabilities(opset: int = 17) -> onnx.ModelProto:
    return model(
        [*linear(), node("Softmax", "logits", "p", axis=1)], ["n", *SHAPE], [value("p", ["n", CLASSES])], opset=opset
    )


def log_probabilities() -> onnx.ModelProto:
    return model([*linear(), node("LogSoftmax", "logits", "p", axis=1)], ["n", *SHAPE], [value("p", ["n", CLASSES])])


def channels_last() -> onnx.ModelProto:
    nodes = [
        node("Transpose", "x", "turned", perm=[0, 3, 1, 2]),
        *linear("turned"),
        node("Softmax", "logits", "p", axis=1),
    ]
    return model(nodes, ["n", 8, 8, 3], [value("p", ["n", CLASSES])])


def all_free() -> onnx.ModelProto:
    """Batch, height and width free: only its convolution says how many channels there are."""
    kernel = np.ascontiguousarray(W.T.reshape(CLASSES, *SHAPE))
    nodes = [
        helper.make_node("Sub", ["x", "half"], ["centred"]),
        helper.make_node("Conv", ["centred", "kernel"], ["map"]),
        node("GlobalAveragePool", "map", "pooled"),
        node("Flatten", "pooled", "logits"),
    ]
    return model(
        nodes, ["n", "c", "h", "w"], [value("logits", ["n", CLASSES])], more=[numpy_helper.from_array(kernel, "kernel")]
    )


def flat() -> onnx.ModelProto:
    """Rows of numbers in the order of H x W x C, as scikit-learn's users make them."""
    order = np.arange(192).reshape(8, 8, 3).transpose(2, 0, 1).ravel()
    back = numpy_helper.from_array(np.ascontiguousarray(W[np.argsort(order)]), "W")
    made = model(linear(), ["n", 192], [value("logits", ["n", CLASSES])])
    made.graph.initializer[0].CopyFrom(back)
    return made


def bytes_last() -> onnx.ModelProto:
    """uint8, channels last, probabilities and labels: the habit of one serving system."""
    nodes = [
        node("Cast", "x", "floats", to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "most"], ["unit"]),
        node("Transpose", "unit", "turned", perm=[0, 3, 1, 2]),
        *linear("turned"),
        node("Softmax", "logits", "p", axis=1),
        node("ArgMax", "p", "label", axis=1, keepdims=0),
    ]
    outputs = [value("label", ["n"], TensorProto.INT64), value("p", ["n", CLASSES])]
    most = numpy_helper.from_array(np.float32(255), "most")
    return model(nodes, ["n", 8, 8, 3], outputs, kind=TensorProto.UINT8, more=[most])


def half() -> onnx.ModelProto:
    nodes = [
        node("Cast", "x", "floats", to=TensorProto.FLOAT),
        *linear("floats"),
        node("Softmax", "logits", "p32", axis=1),
        node("Cast", "p32", "p", to=TensorProto.FLOAT16),
    ]
    return model(nodes, ["n", *SHAPE], [value("p", ["n", CLASSES], TensorProto.FLOAT16)], kind=TensorProto.FLOAT16)


def fixed(rows: int) -> onnx.ModelProto:
    """The batch is fixed in the shape and within."""
    shape = numpy_helper.from_array(np.array([rows, 192], np.int64), "rows")
    nodes = [helper.make_node("Reshape", ["x", "rows"], ["some"]), *linear("some")]
    return model(nodes, [rows, *SHAPE], [value("logits", [rows, CLASSES])], more=[shape])


def one_within() -> onnx.ModelProto:
    """Free by what is declared, for one image by what is done."""
    shape = numpy_helper.from_array(np.array([1, 192], np.int64), "rows")
    nodes = [helper.make_node("Reshape", ["x", "rows"], ["some"]), *linear("some")]
    return model(nodes, ["n", *SHAPE], [value("logits", ["n", CLASSES])], more=[shape])


def branches() -> onnx.ModelProto:
    """A branch reads values from outside, under names of ours."""
    inner = {
        f"{name}_branch": helper.make_graph(
            [
                helper.make_node("MatMul", ["images", "W"], [f"{name}_logits"]),
                node("Softmax", f"{name}_logits", name, axis=1),
            ],
            name,
            [],
            [value(name, None)],
        )
        for name in ("then", "else")
    }
    nodes = [
        node("Flatten", "x", "flat"),
        helper.make_node("Sub", ["flat", "half"], ["images"]),
        helper.make_node("If", ["always"], ["probabilities"], **inner),
    ]
    always = numpy_helper.from_array(np.array(True), "always")
    return model(nodes, ["n", *SHAPE], [value("probabilities", ["n", CLASSES])], more=[always])


def column(sigmoid: bool) -> onnx.ModelProto:
    """One number an image: the logit of the second class against the first, or what a Sigmoid makes of it."""
    difference = numpy_helper.from_array(np.array([[-1], [1], [0], [0]], np.float32), "difference")
    nodes = [*linear(), helper.make_node("MatMul", ["logits", "difference"], ["z"])]
    if sigmoid:
        nodes.append(node("Sigmoid", "z", "p"))
    return model(nodes, ["n", *SHAPE], [value("p" if sigmoid else "z", ["n", 1])], more=[difference])


def two_classes(given: Images) -> np.ndarray:
    """What `column` means."""
    first = (given.reshape(len(given), -1) - 0.5) @ W
    return softmax(first[:, :2])


def saved(made: onnx.ModelProto, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(made, path)
    return path


FORMS: dict[str, Callable[[], onnx.ModelProto]] = {
    "logits": logits,
    "batch of one declared": lambda: logits(1),
    "batch of one within": one_within,
    "batch of one": lambda: fixed(1),
    "batch of three": lambda: fixed(3),
    "probabilities": probabilities,
    "probabilities, opset 11": lambda: probabilities(11),
    "log-probabilities": log_probabilities,
    "channels last": channels_last,
    "all free": all_free,
    "flat": flat,
    "bytes, channels last, with labels": bytes_last,
    "float16": half,
    "branches": branches,
}
