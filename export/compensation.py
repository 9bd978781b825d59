"""Weights rounded with error compensation: what one column's rounding does to a layer's output, the next ones undo.

    H = X^T X / n + d mean(diag) I      X (n,D): the layer's inputs on calibration images, and a 1 for its bias
    for each column j, the loudest input first:
        q_j = s clamp(round(w_j / s), -64, 64)
        w_k <- w_k - (w_j - q_j) U_jk / U_jj, k > j       U: upper Cholesky factor of H^-1

(Frantar et al., GPTQ, 2022; the order of columns is their "act order".) The bias is the last column and is not rounded,
so a shift of the output's mean ends in it (Nagel et al., ICCV 2019). s is absmax / 64 an output channel, the scale that
plain rounding would take; it is stated to the quantiser, for which every weight is then a whole number of steps.

X are float32's inputs, so a layer's weights depend on no other layer's precision. Inputs as the layers before round
them, with float32's output as the aim (GPTAQ, 2025), were tried on a ResNet-9: probabilities moved no less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from export.layers import Floats, Layer, attributes, layers_of, observed

Doubles = NDArray[np.float64]

# columns whose errors reach those further on together, in one product of matrices
BLOCK = 64
LARGEST = 64  # of a weight, in steps: 7 bits
DAMPING = 0.01
# products in one of a layer's sums: what H of it takes grows with the square, 512 MiB at this many
WIDEST = 8192
# of a convolution's output, that count of each image; drawn once
POSITIONS = 32


@dataclass(frozen=True, eq=False)
class Rounded:
    """A layer's weights on their grid. weights, bias: initializers by name, float32. scales: (O,) float32, of the
    weights called `name`, along `axis`."""

    name: str
    axis: int
    scales: Floats
    initializers: Mapping[str, Floats]


def compensated_layers(model: onnx.ModelProto, feeds: Iterable[Mapping[str, Floats]]) -> dict[str, Rounded]:
    """The layers by name whose weights can be compensated: Conv of one group, Gemm and MatMul by a matrix, with sums of
    at most WIDEST products. Others, such as depthwise ones, are not in it."""
    layers = [each for each in layers_of(model) if each.weights.size // each.weights.shape[each.axis] <= WIDEST]
    second: dict[str, Doubles] = {}
    images = 0
    for given in observed(model, [layer.node.input[0] for layer in layers], feeds):
        images += 1
        for layer in layers:
            columns = _columns(layer, given[layer.node.input[0]])
            if layer.bias is not None:
                columns = np.column_stack([columns, np.ones(len(columns))])
            summed = columns.T @ columns / len(columns)
            second[layer.node.name] = second.get(layer.node.name, 0) + summed
    return {layer.node.name: _rounded(layer, second[layer.node.name] / images) for layer in layers if images}


def _matrix(layer: Layer) -> Doubles:
    """(O,D) its weights."""
    channels = layer.weights.shape[layer.axis]
    return np.moveaxis(layer.weights, layer.axis, 0).reshape(channels, -1).astype(np.float64)


def _rounded(layer: Layer, second: Doubles) -> Rounded:
    """second: (D,D), or (D+1,D+1) with a bias, the mean of x x^T."""
    matrix, name = _matrix(layer), layer.node.input[1]
    scales = steps(matrix)
    whole = matrix if layer.bias is None else np.column_stack([matrix, layer.bias])
    made = compensated(whole, scales.astype(np.float64), second, rounded=matrix.shape[1])
    weights = made[:, : matrix.shape[1]].astype(np.float32)
    # a matrix that is multiplied from the left has its outputs at 1
    changed = {name: weights.T if layer.axis else weights.reshape(layer.weights.shape)}
    if layer.bias is not None:
        changed[layer.node.input[2]] = made[:, -1].astype(np.float32)
    return Rounded(name, layer.axis, scales, changed)


def steps(matrix: Doubles) -> Floats:
    """(O,) the scale of each row of weights (O,D): absmax / 64, 1 of a row of zeros, as the quantiser has it."""
    scales: Floats = (np.abs(matrix).max(axis=1) / LARGEST).astype(np.float32)
    scales[scales < np.finfo(np.float32).tiny] = 1
    return scales


def compensated(matrix: Doubles, scales: Doubles, second: Doubles, *, rounded: int) -> Doubles:
    """(O,D) weights of which the first `rounded` columns are whole multiples of scales (O,), at most 64 of them, the
    rest moved to make up for it; second: (D,D), the mean of x x^T over inputs x."""
    damped = second + DAMPING * second.diagonal().mean() * np.eye(len(second))
    order = np.concatenate([np.argsort(-second.diagonal()[:rounded], kind="stable"), np.arange(rounded, len(second))])
    upper = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    made = matrix[:, order]
    for start in range(0, rounded, BLOCK):
        stop = min(start + BLOCK, rounded)
        errors = np.empty((len(made), stop - start))
        for column in range(start, stop):
            grid = scales * np.clip(np.round(made[:, column] / scales), -LARGEST, LARGEST)
            errors[:, column - start] = (made[:, column] - grid) / upper[column, column]
            made[:, column] = grid
            made[:, column + 1 : stop] -= np.outer(errors[:, column - start], upper[column, column + 1 : stop])
        made[:, stop:] -= errors @ upper[start:stop, stop:]
    back = np.empty_like(made)
    back[:, order] = made
    return back


def _columns(layer: Layer, given: Floats) -> Doubles:
    """(n,D) what the layer's weights are multiplied by: patches of a convolution's input at drawn positions."""
    if layer.node.op_type != "Conv":
        return given.reshape(-1, given.shape[-1]).astype(np.float64)
    has = attributes(layer.node)
    pads: Sequence[int] = has.get("pads", [0, 0, 0, 0])  # type: ignore[assignment]
    top, left, bottom, right = pads
    padded = torch.nn.functional.pad(torch.from_numpy(given), (left, right, top, bottom))
    patches = torch.nn.functional.unfold(
        padded,
        layer.weights.shape[2:],
        dilation=has.get("dilations", 1),  # type: ignore[arg-type]
        stride=has.get("strides", 1),  # type: ignore[arg-type]
    ).numpy()
    drawn = np.random.default_rng(0).integers(patches.shape[2], size=(len(patches), min(POSITIONS, patches.shape[2])))
    some: Floats = np.take_along_axis(patches, drawn[:, None, :], axis=2)
    return some.transpose(0, 2, 1).reshape(-1, patches.shape[1]).astype(np.float64)
