"""Channels of a tensor made more equally loud, since 8 bits a tensor have one step and the loudest channel sets it.

    W_out[c, :] / r_c,  b_out[c] / r_c,  W_in[:, c] * r_c        r_c^2: channel c's largest |value|, calibrated

It changes nothing in float32, since what stands between is homogeneous: f(x / r) = f(x) / r (Nagel et al., ICCV 2019).
There r balanced the ranges of two layers' weights, which have a scale a channel here. The root leaves half of the
spread to the weights that read the channel (Xiao et al., SmoothQuant, 2023). Tensors that a residual sum joins share
one r. Where a channel meets anything else, such as an output, a Clip or a depthwise layer, r is 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx

from export.layers import Floats, layers_of, observed, put

# maps channel c of every input to channel c of its output, and is homogeneous
HOMOGENEOUS = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Add")
# a channel that calibration hardly woke may be louder elsewhere: its range counts as that share of the loudest
LEAST = 1 / 16


def equalise(model: onnx.ModelProto, feeds: Iterable[Mapping[str, Floats]]) -> None:
    """Equalise the graph in place. Its shapes are inferred; feeds: calibration inputs."""
    groups = _groups(model)
    melted = {name for node in model.graph.node if node.op_type == "Relu" for name in node.input}  # never rounded
    members = [name for group in groups for name in group if name not in melted]
    loud: dict[str, Floats] = {}
    for given in observed(model, members, feeds):
        for name in members:
            values = np.abs(given[name])
            seen = values.max(axis=tuple(axis for axis in range(values.ndim) if axis != 1))
            loud[name] = np.maximum(loud.get(name, 0), seen)
    ratio: dict[str, Floats] = {}
    for group in groups if loud else ():
        largest = np.max([loud[name] for name in group if name in loud], axis=0)
        if largest.max() > 0:
            ratio.update(dict.fromkeys(group, np.sqrt(np.maximum(largest / largest.max(), LEAST))))
    changed: dict[str, Floats] = {}
    for layer in layers_of(model):
        weights, bias = layer.weights, layer.bias
        behind, before = ratio.get(layer.node.output[0]), ratio.get(layer.node.input[0])
        if behind is not None:
            weights = weights / _along(layer.axis, behind, weights.ndim)
            bias = bias if bias is None else bias / behind
        if before is not None:
            weights = weights * _along(1 - layer.axis, before, weights.ndim)
        changed[layer.node.input[1]] = weights
        if bias is not None:
            changed[layer.node.input[2]] = bias
    put(model, changed)


def _along(axis: int, values: Floats, dimensions: int) -> Floats:
    return values.reshape([-1 if each == axis else 1 for each in range(dimensions)])


def _groups(model: onnx.ModelProto) -> list[list[str]]:
    """The tensors that one r can be taken from: each begins behind layers and ends before layers."""
    shape = {each.name: [side.dim_value for side in each.type.tensor_type.shape.dim] for each in model.graph.value_info}
    group = {name: {name} for node in model.graph.node for name in (*node.input, *node.output)}
    fixed = {each.name for part in (model.graph.input, model.graph.output, model.graph.initializer) for each in part}
    layers = {layer.node.name for layer in layers_of(model)}
    for node in model.graph.node:
        touched = [*node.input, *node.output]
        if node.name in layers:
            # channels are at 1 in what it reads and writes, or it has no channels
            fixed.update(name for name in (node.input[0], node.output[0]) if len(shape.get(name, ())) not in (2, 4))
        elif _keeps_channels(node, shape):
            data = [*node.input[: 2 if node.op_type == "Add" else 1], node.output[0]]
            joined = set().union(*(group[name] for name in data))
            group.update(dict.fromkeys(joined, joined))
        else:
            fixed.update(touched)
    found = {id(each): each for each in group.values() if not each & fixed}
    return [sorted(each) for each in found.values()]


def _keeps_channels(node: onnx.NodeProto, shape: Mapping[str, list[int]]) -> bool:
    """Whether channel c of its output is a homogeneous function of channel c of its inputs, and of these alone."""
    inner, outer = shape.get(node.input[0], []), shape.get(node.output[0], [])
    if len(inner) < 2 or len(outer) < 2 or inner[1] != outer[1] or not inner[1]:
        return False
    if node.op_type == "Add":
        return inner == shape.get(node.input[1])
    if node.op_type in ("Reshape", "Flatten"):  # (N,C,1,1) to (N,C)
        return all(side == 1 for side in (*inner[2:], *outer[2:]))
    if node.op_type in ("ReduceMax", "ReduceMean"):  # of the places of images, which stay as sides of 1
        return len(inner) == len(outer) == 4 and outer[2:] == [1, 1]
    return node.op_type in HOMOGENEOUS and len(node.output) == 1
