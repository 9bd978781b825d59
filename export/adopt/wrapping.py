"""One graph round the owner's: images (N,C,H,W) float32 in [0,1] to probabilities (N,K) float32, N free.

Before it: colour order, (pixel * scale - mean) / std, layout, type. Behind it: the output in float32 as rows, and the
softmax that it lacks. A graph that takes a fixed number of images is looped over (Scan), an image at a time.

Only operators are used that have been the same since opset 9, so that the owner's graph keeps its opset; a graph is
never rewritten but for the names of its values, and for nodes that nothing asked for is made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.adopt.model import Model
from export.graphs import ExportError
from pictures.model_input import ModelInput

OWNER = "owner/"
IMAGES, RAW, PROBABILITIES = "images", "raw", "probabilities"
TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
    "uint8": TensorProto.UINT8,
}
# the first opset of ONNX that has Scan as it is used here
LEAST_OPSET = 9


def raw_graph(proto: onnx.ModelProto, given: str, output: str, model: ModelInput, batch: int) -> onnx.ModelProto:
    """The owner's graph from `images` to `raw`, (N,...) float32: what its output `output` holds, no softmax added.

    given: the name of its input. batch: images that it takes at a time, 0 for any number. Raises ExportError.
    """
    owner = onnx.ModelProto()
    owner.CopyFrom(proto)
    _prefix(owner.graph)
    nodes = pruned(owner.graph, OWNER + output)
    before, constants = _before(model)
    taken = OWNER + given
    if batch:
        nodes = _scanned(owner, nodes, taken, OWNER + output, model, batch)
    else:
        before[-1].output[0] = taken
        nodes += [helper.make_node("Cast", [OWNER + output], [RAW], to=TensorProto.FLOAT)]
    used = set(_used([*before, *nodes]))
    graph = helper.make_graph(
        [*before, *nodes],
        "adopted",
        [helper.make_tensor_value_info(IMAGES, TensorProto.FLOAT, ["rows", *model.shape])],
        [helper.make_tensor_value_info(RAW, TensorProto.FLOAT, None)],
        [*(each for each in owner.graph.initializer if each.name in used), *constants],
    )
    graph.sparse_initializer.extend(each for each in owner.graph.sparse_initializer if each.values.name in used)
    made = helper.make_model(graph, opset_imports=owner.opset_import, ir_version=owner.ir_version)
    made.functions.extend(owner.functions)
    return made


def with_head(raw: onnx.ModelProto, model: Model) -> onnx.ModelProto:
    """A raw graph with `probabilities` (N,K) for its output."""
    made = onnx.ModelProto()
    made.CopyFrom(raw)
    graph = made.graph
    rows = np.array([-1, model.columns], np.int64)
    graph.initializer.append(numpy_helper.from_array(rows, "as_rows"))
    graph.node.append(helper.make_node("Reshape", [RAW, "as_rows"], ["rows_of_raw"]))
    graph.node.extend(_head(model.gives))
    if model.gives in ("probability", "logit"):
        graph.initializer.append(numpy_helper.from_array(np.float32(1 if model.gives == "probability" else 0), "other"))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ["rows", len(model.classes)]))
    del graph.value_info[:]
    return made


def pruned(graph: onnx.GraphProto, output: str) -> list[onnx.NodeProto]:
    """The nodes, in their order, that `output` is made of."""
    wanted, kept = {output}, []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted.update(_used([node]))
    return kept[::-1]


def producer(graph: onnx.GraphProto, value: str) -> onnx.NodeProto | None:
    """The node that a value comes out of, None for an input or a weight."""
    return next((node for node in graph.node if value in node.output), None)


def _head(gives: str) -> Iterator[onnx.NodeProto]:
    if gives == "probabilities":
        yield helper.make_node("Identity", ["rows_of_raw"], [PROBABILITIES])
    elif gives == "logits":
        yield helper.make_node("Softmax", ["rows_of_raw"], [PROBABILITIES], axis=1)
    elif gives == "probability":
        yield helper.make_node("Sub", ["other", "rows_of_raw"], ["first"])
        yield helper.make_node("Concat", ["first", "rows_of_raw"], [PROBABILITIES], axis=1)
    else:  # the logit of the first of two classes is 0
        yield helper.make_node("Mul", ["rows_of_raw", "other"], ["first"])
        yield helper.make_node("Concat", ["first", "rows_of_raw"], ["both"], axis=1)
        yield helper.make_node("Softmax", ["both"], [PROBABILITIES], axis=1)


def _before(model: ModelInput) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """What is done to images in [0,1]; the last node's output is the prepared batch."""
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def add(operator: str, *more: np.ndarray, **attributes: object) -> None:
        names = [f"before_{len(constants) + number}" for number in range(len(more))]
        constants.extend(numpy_helper.from_array(value, name) for value, name in zip(more, names, strict=True))
        source = nodes[-1].output[0] if nodes else IMAGES
        nodes.append(helper.make_node(operator, [source, *names], [f"prepared_{len(nodes)}"], **attributes))

    if model.colour == "BGR":
        add("Gather", np.array([2, 1, 0], np.int64), axis=1)
    slopes, offsets = (np.array(each, np.float32).reshape(1, -1, 1, 1) for each in (model.slopes(), model.offsets()))
    if (slopes != 1).any():
        add("Mul", slopes)
    if offsets.any():
        add("Add", offsets)
    if model.layout in ("NHWC", "flat") and model.channels > 1:
        add("Transpose", perm=[0, 2, 3, 1])
    shape = {"NHWC": (model.height, model.width, model.channels), "NHW": (model.height, model.width)}
    if model.layout == "flat":
        add("Reshape", np.array([0, model.channels * model.height * model.width], np.int64))
    elif model.layout in shape and model.channels == 1:
        add("Reshape", np.array([0, *shape[model.layout]], np.int64))
    if model.type == "uint8":  # a byte's float is not always whole
        add("Add", np.array(0.5, np.float32))
        add("Floor")
    add("Cast", to=TYPES[model.type])
    return nodes, constants


def row_shape(model: ModelInput) -> tuple[int, ...]:
    """Of one image as the owner's graph takes it."""
    return {
        "NCHW": model.shape,
        "NHWC": (model.height, model.width, model.channels),
        "NHW": (model.height, model.width),
        "flat": (model.channels * model.height * model.width,),
    }[model.layout]


def _scanned(
    owner: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    taken: str,
    output: str,
    model: ModelInput,
    batch: int,
) -> list[onnx.NodeProto]:
    """A node that runs the owner's nodes once an image: as the one of its batch, or as all of them."""
    opset = next((each.version for each in owner.opset_import if each.domain in ("", "ai.onnx")), 0)
    if opset < LEAST_OPSET:
        raise ExportError(
            f"its graph takes {batch} image(s) at a time in opset {opset}, in which nothing can be looped over; export "
            f"it with a free batch, or in opset {LEAST_OPSET} or later"
        )
    one = np.array([1, *row_shape(model)], np.int64)
    inner = [helper.make_node("Reshape", ["row", "one_row"], ["one_image" if batch > 1 else taken])]
    constants = [numpy_helper.from_array(one, "one_row")]
    if batch > 1:
        inner.append(helper.make_node("Concat", ["one_image"] * batch, [taken], axis=0))
    inner += [*nodes, helper.make_node("Cast", [output], ["answers"], to=TensorProto.FLOAT)]
    if batch > 1:
        constants += [
            numpy_helper.from_array(np.array([batch, -1], np.int64), "one_each"),
            numpy_helper.from_array(np.array(0, np.int64), "the_first"),
        ]
        inner.append(helper.make_node("Reshape", ["answers", "one_each"], ["all_answers"]))
        inner.append(helper.make_node("Gather", ["all_answers", "the_first"], ["answer"], axis=0))
    else:
        constants.append(numpy_helper.from_array(np.array([-1], np.int64), "as_row"))
        inner.append(helper.make_node("Reshape", ["answers", "as_row"], ["answer"]))
    body = helper.make_graph(
        inner,
        "one_image_at_a_time",
        [helper.make_tensor_value_info("row", TYPES[model.type], row_shape(model))],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, None)],
        constants,
    )
    prepared = _before(model)[0][-1].output[0]
    return [helper.make_node("Scan", [prepared], [RAW], body=body, num_scan_inputs=1)]


def _prefix(graph: onnx.GraphProto) -> None:
    """Put OWNER before the name of every value, within the graph's graphs too: onnx.compose.add_prefix leaves what
    those read from outside as it was."""
    for node in graph.node:
        node.input[:] = [name and OWNER + name for name in node.input]
        node.output[:] = [name and OWNER + name for name in node.output]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _prefix(inner)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = OWNER + value.name
    for sparse in graph.sparse_initializer:
        sparse.values.name = OWNER + sparse.values.name


def _used(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """The values that nodes read, those that their graphs read from outside among them."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _used(inner.node)
                yield from (each.name for each in inner.output)
