"""What a graph takes and gives: layout, size, type, batch, outputs, and how each is known.

Declared shapes say most of it. What they leave free is said by the graph itself (the channels of its first convolution,
a transposition at its beginning) or asked for; what an exporter declared and the graph does not keep shows when it
runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from export.adopt.wrapping import producer
from export.graphs import ExportError

CHANNELS = (1, 3)
TYPES = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.UINT8: "uint8",
}
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
# largest |sum - 1| of a row of probabilities, as the service has it (defenses/pipeline.py)
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Takes:
    """name: of the input. layout, type, shape (C,H,W): as pictures.model_input has them. batch: declared, 0 for any.
    said: what was found and how, a line each."""

    name: str
    layout: str
    type: str
    shape: tuple[int, int, int]
    batch: int
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Gives:
    """value: of the graph, which is the answer. kind: one of export.adopt.model.GIVES. columns: of its rows."""

    value: str
    kind: str
    columns: int
    said: list[str] = field(default_factory=list)


def takes(proto: onnx.ModelProto, size: tuple[int, int] | None, layout: str | None) -> Takes:
    """What the graph takes. size, layout: what its owner says of them, for what the graph leaves open. Raises
    ExportError."""
    given = _the_input(proto.graph)
    kind = given.type.tensor_type.elem_type
    if kind not in TYPES:
        raise ExportError(
            f"expected an input of {', '.join(TYPES.values())}, got {described(given)}; export it with one of these"
        )
    dims = shape(given)
    if not dims:
        raise ExportError(f"expected an input (N,C,H,W), (N,H,W,C), (N,H,W) or (N,D), got {described(given)}")
    said = [f"takes {described(given)}"]
    found, reason = _layout(proto.graph, given.name, dims, layout)
    said.append(f"layout {found}: {reason}")
    whole, reason = _shape(proto.graph, given.name, found, dims, size)
    said.append(f"images {' x '.join(map(str, whole))} (C x H x W): {reason}")
    return Takes(given.name, found, TYPES[kind], whole, dims[0] or 0, said)


def candidates(graph: onnx.GraphProto, wanted: str) -> list[onnx.ValueInfoProto]:
    """The outputs that may be an image's answer: numbers that are no labels. Raises ExportError."""
    outputs = {each.name: each for each in graph.output}
    if wanted:
        name = [*outputs][int(wanted)] if wanted.isdecimal() and int(wanted) < len(outputs) else wanted
        if name not in outputs:
            raise ExportError(f"--output: expected one of {', '.join(outputs)}, or its index, got {wanted!r}")
        return [_numbers(graph, outputs[name])]
    numbers = [_numbers(graph, each) for each in graph.output if _may_answer(graph, each)]
    if not numbers:
        raise ExportError(
            "expected an output of probabilities or logits, (N,K), got "
            f"{', '.join(map(described, graph.output)) or 'none'}"
        )
    return numbers


def gives(proto: onnx.ModelProto, value: str, raw: NDArray[np.float32]) -> Gives:
    """What the rows of a value are. raw: (M,...), its values for M images. Raises ExportError."""
    if raw.ndim < 2 or math.prod(raw.shape[2:]) != 1:
        hint = "; is it a detector or a segmentation?" if raw.ndim > 2 else ""
        raise ExportError(f"expected an output (N,K), a row an image, got {raw.shape} for {len(raw)} images{hint}")
    rows = raw.reshape(len(raw), -1).astype(np.float64)
    if not np.isfinite(rows).all():
        raise ExportError("expected finite outputs, got NaN or infinity for some images")
    if len(rows) > 1 and np.ptp(rows, axis=0).max() == 0:
        raise ExportError(f"it gives the same output for {len(rows)} different images, {rows[0][:4].tolist()}")
    node = producer(proto.graph, value)
    made_by = "" if node is None else node.op_type
    lowest, highest, sums = rows.min(), rows.max(), rows.sum(1)
    columns = rows.shape[1]
    if columns == 1:
        if made_by == "Sigmoid":
            assert node is not None
            why = "one column out of a Sigmoid, taken at its logit: a float32 Sigmoid is inexact where a softmax is not"
            return Gives(node.input[0], "logit", 1, [why])
        if lowest < 0 or highest > 1:
            return Gives(
                value, "logit", 1, [f"one column from {lowest:.3g} to {highest:.3g}: the logit of two classes"]
            )
        return Gives(
            value, "probability", 1, ["one column within 0 to 1: the probability of the second of two classes"]
        )
    if lowest >= 0 and np.abs(sums - 1).max() <= SUM_TOLERANCE:
        if made_by == "Softmax" and node is not None:
            return Gives(
                node.input[0], "logits", columns, [f"{columns} probabilities out of a Softmax, taken in float32"]
            )
        return Gives(value, "probabilities", columns, [f"{columns} probabilities: rows sum to 1"])
    if made_by == "Sigmoid" or (lowest >= 0 and highest <= 1 and made_by in ("Sigmoid", "HardSigmoid")):
        raise ExportError(
            f"{columns} independent probabilities whose rows sum to {sums.min():.3g} to {sums.max():.3g}: several "
            "labels an image, where one class of K is served; give --output with the logits if only one of them "
            "holds"
        )
    if highest <= 0 and np.abs(np.exp(rows).sum(1) - 1).max() <= SUM_TOLERANCE:
        return Gives(value, "logits", columns, [f"{columns} log-probabilities: their exponentials sum to 1"])
    return Gives(value, "logits", columns, [f"{columns} logits: rows sum to {sums.min():.3g} to {sums.max():.3g}"])


def described(value: onnx.ValueInfoProto) -> str:
    """A name, a type and a shape, as messages have them."""
    kind = value.type.WhichOneof("value") or "unknown"
    if kind != "tensor_type":
        return f"{value.name} ({kind.removesuffix('_type')})"
    named = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    sizes = ", ".join("any" if size is None else str(size) for size in shape(value))
    return f"{value.name} {'float32' if named == 'float' else named} ({sizes})"


def shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """Its dimensions, None where one is free."""
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims)


def inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are no weights; older files name these among the inputs too."""
    weights = {each.name for each in graph.initializer}
    return [each for each in graph.input if each.name not in weights]


def _the_input(graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    found = inputs(graph)
    if len(found) != 1:
        names = ", ".join(map(described, found)) or "none"
        raise ExportError(f"expected one input, the images, got {names}; export it with the others as constants")
    return found[0]


def _layout(graph: onnx.GraphProto, name: str, dims: Sequence[int | None], stated: str | None) -> tuple[str, str]:
    """The layout, and how it is known."""
    known = {2: ("flat",), 3: ("NHW",), 4: ("NCHW", "NHWC")}
    if len(dims) not in known:
        raise ExportError(f"expected an input of two to four dimensions, got {len(dims)}")
    if stated:
        if stated not in known[len(dims)]:
            raise ExportError(
                f"--layout: expected {' or '.join(known[len(dims)])} for its {len(dims)} dimensions, got {stated}"
            )
        return stated, "as stated"
    if len(dims) < 4:
        return known[len(dims)][0], f"{len(dims)} dimensions"
    first, last = dims[1] in CHANNELS, dims[3] in CHANNELS
    if first != last:
        axis, found = (1, "NCHW") if first else (3, "NHWC")
        return found, f"{dims[axis]} in the {'second' if first else 'last'} dimension"
    reader = next((node for node in graph.node if name in node.input), None)
    turned = [] if reader is None or reader.op_type != "Transpose" else [*reader.attribute[0].ints]
    if turned == [0, 3, 1, 2]:
        return "NHWC", "it is transposed to channels first at once"
    if _first_channels(graph, name) in CHANNELS:
        return "NCHW", "a convolution reads it"
    raise ExportError(
        f"expected 1 or 3 channels in one of its dimensions, got {tuple('any' if d is None else d for d in dims)}; say "
        "which with --layout NCHW or --layout NHWC"
    )


def _shape(
    graph: onnx.GraphProto, name: str, layout: str, dims: Sequence[int | None], size: tuple[int, int] | None
) -> tuple[tuple[int, int, int], str]:
    """(C,H,W), and how it is known."""
    if layout == "flat":
        return _flat(dims[1], size)
    place = {"NCHW": (1, 2, 3), "NHWC": (3, 1, 2), "NHW": (None, 1, 2)}[layout]
    channels = 1 if place[0] is None else dims[place[0]] or _first_channels(graph, name)
    if channels not in CHANNELS:
        raise ExportError(f"expected images of 1 or 3 channels, got {channels}")
    height, width = dims[place[1]], dims[place[2]]
    if size is not None:
        for got, wanted in zip((height, width), size, strict=True):
            if got not in (None, wanted):
                raise ExportError(f"--size: expected what it takes, {height} x {width}, got {size[0]} x {size[1]}")
        return (channels, *size), "as stated" if None in (height, width) else "declared, and as stated"
    if height is None or width is None:
        raise ExportError(
            f"its height and width are free ({'any' if height is None else height} x "
            f"{'any' if width is None else width}); say what it was trained on, as in --size 224 or --size 48x192"
        )
    return (channels, height, width), "declared"


def _flat(length: int | None, size: tuple[int, int] | None) -> tuple[tuple[int, int, int], str]:
    """Of rows of D numbers."""
    if size is not None:
        for channels in CHANNELS:
            if length in (None, channels * size[0] * size[1]):
                return (channels, *size), "as stated"
        raise ExportError(
            f"--size: expected sides whose product, or three times it, is {length}, got {size[0]} x {size[1]}"
        )
    for channels in CHANNELS:
        side = math.isqrt((length or 0) // channels)
        if length and channels * side * side == length:
            return (channels, side, side), f"{length} numbers are a square image of {channels} channel(s)"
    raise ExportError(
        f"rows of {'any number of' if length is None else length} numbers are no square images; give --size HxW"
    )


def _first_channels(graph: onnx.GraphProto, name: str) -> int | None:
    """How many channels the first convolution on the way from the input reads, as its weights say."""
    weights = {each.name: each for each in graph.initializer}
    reached = {name}
    for node in graph.node:
        if reached & set(node.input):
            if node.op_type == "Conv" and node.input[1] in weights:
                groups = next((each.i for each in node.attribute if each.name == "group"), 1)
                return int(weights[node.input[1]].dims[1] * groups)
            reached.update(node.output)
    return None


def _may_answer(graph: onnx.GraphProto, output: onnx.ValueInfoProto) -> bool:
    node = producer(graph, output.name)
    if node is not None and node.op_type == "ZipMap":
        return True
    return output.type.WhichOneof("value") == "tensor_type" and output.type.tensor_type.elem_type in FLOATS


def _numbers(graph: onnx.GraphProto, output: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    """The output, or what a ZipMap makes maps of by class."""
    node = producer(graph, output.name)
    if node is not None and node.op_type == "ZipMap":
        return onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, None)
    if output.type.WhichOneof("value") != "tensor_type" or output.type.tensor_type.elem_type not in FLOATS:
        raise ExportError(f"expected an output of numbers, got {described(output)}; labels alone are not enough")
    return output
