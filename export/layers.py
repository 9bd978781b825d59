"""The layers of an ONNX graph that multiply by weights of their own, and tensors as calibration inputs make them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Layer:
    """A Conv of images and one group, or a Gemm or MatMul by a matrix, of which no other node reads the weights, nor
    the bias (O,) if there is one."""

    node: onnx.NodeProto
    weights: Floats
    bias: Floats | None

    @property
    def axis(self) -> int:
        """Where the weights' output channels are; their inputs are at 1 - axis."""
        return 0 if self.node.op_type == "Conv" or attributes(self.node).get("transB") else 1


def layers_of(model: onnx.ModelProto) -> Iterator[Layer]:
    """All of them, in the graph's order."""
    stored = {each.name: each for each in model.graph.initializer}
    read = [name for node in model.graph.node for name in node.input]
    for node in model.graph.node:
        own = list(node.input[1:])
        if node.op_type not in ("Conv", "Gemm", "MatMul") or any(n not in stored or read.count(n) > 1 for n in own):
            continue
        weights, *bias = (numpy_helper.to_array(stored[name]) for name in own)
        layer = Layer(node, weights, bias[0] if bias else None)
        if not (_plain_convolution if node.op_type == "Conv" else _plain_product)(attributes(node), weights):
            continue
        if layer.bias is None or layer.bias.shape == (weights.shape[layer.axis],):
            yield layer


def _plain_convolution(has: Mapping[str, object], weights: Floats) -> bool:
    return weights.ndim == 4 and has.get("group", 1) == 1 and has.get("auto_pad", b"NOTSET") == b"NOTSET"


def _plain_product(has: Mapping[str, object], weights: Floats) -> bool:
    return weights.ndim == 2 and not has.get("transA") and has.get("alpha", 1) == has.get("beta", 1) == 1


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def put(model: onnx.ModelProto, initializers: Mapping[str, Floats]) -> None:
    """Give initializers, by name, other values."""
    for each in model.graph.initializer:
        if each.name in initializers:
            each.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(initializers[each.name], np.float32), each.name))


def observed(
    model: onnx.ModelProto, names: Iterable[str], feeds: Iterable[Mapping[str, Floats]]
) -> Iterator[dict[str, Floats]]:
    """Tensors of the graph by name, for one feed after another."""
    taken = {each.name for each in model.graph.input}
    inner = [name for name in dict.fromkeys(names) if name not in taken]
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # one order of sums, so the same bytes
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for feed in feeds:
        made = session.run(inner, dict(feed)) if inner else []  # for no name it would ask for all outputs
        yield {**feed, **dict(zip(inner, made, strict=True))}
