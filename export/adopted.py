"""A classifier that was not trained here: the user's ONNX file becomes a graph of the recipe.

It has one input, images (N,C,S,S) float32 in [0,1] with N free, and one output, probabilities (N,K) float32 whose rows
sum to 1, of any names. The graph in build/RECIPE is the same file with the names that archives know, `images` and
`probabilities`, in one piece even if its weights lay next to it, and with the file's digest among its metadata, by
which a gate's calibration knows it. An invalid file is never written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from export.graphs import BATCHES, ExportError, on_onnxruntime, write
from export.predictor import Predictor
from training.black_box import SUM_TOLERANCE
from zoo.datasets import Images

# how a batch axis is left free
FREE = 'torch.onnx.export(..., dynamic_shapes=({0: torch.export.Dim("rows")},))'


def adopt(path: Path, data: Images, graphs: Path, checkpoints: Path) -> Predictor:
    """Write graphs/NAME.onnx for the user's NAME.onnx, and say who answers. Raises ExportError.

    data: of the recipe; its class names are the classifier's. checkpoints: of the recipe; no graph of theirs is
    replaced.
    """
    target = graphs / path.name
    _check_name(path, target, checkpoints)
    proto, row = _read(path), tuple(data.pixels.shape[1:])
    (given,), (output,) = _inputs(proto.graph), proto.graph.output
    _check_shape(path, given, row)
    _swap(proto.graph, {given.name: "images", "images": given.name})
    _swap(proto.graph, {output.name: "probabilities", "probabilities": output.name})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    onnx.helper.set_model_props(proto, {"checkpoint": digest, "graph": path.stem})
    written = proto.SerializeToString(deterministic=True)
    _check_answers(path, written, row, len(data.classes))
    write(target, written)
    return Predictor((path.stem,), row[0], row[1], data.classes, digest)


def _check_name(path: Path, target: Path, checkpoints: Path) -> None:
    if not path.is_file():
        raise ExportError(f"{path}: expected an ONNX file, found none")
    if target.exists() and target.samefile(path):
        raise ExportError(f"{path}: expected a file elsewhere, a copy with other names goes to this place; move it")
    # `edm-0` is a graph of the checkpoint `edm`, `meco-perturbation` one of `meco`
    for name in (path.stem, re.sub(r"-(\d+|perturbation)$", "", path.stem)):
        taken = checkpoints / f"{name}.safetensors"
        if taken.exists():
            raise ExportError(f"{path}: {path.stem!r} is a graph of {taken}; give the ONNX file another name")


def _read(path: Path) -> onnx.ModelProto:
    """The file, with the weights stored next to it, with one input and one output. Raises ExportError."""
    try:
        proto = onnx.load(path)
    except Exception as error:  # protobuf, onnx and the file system raise different ones
        raise ExportError(f"{path}: not an ONNX file that can be read ({type(error).__name__}: {error})") from error
    inputs, outputs = _inputs(proto.graph), [*proto.graph.output]
    if len(inputs) != 1 or len(outputs) != 1 or not all(_is_float(each) for each in (*inputs, *outputs)):
        raise ExportError(
            f"{path}: expected one input and one output, both float32, got the inputs "
            f"{', '.join(map(_described, inputs)) or 'none'} and the outputs "
            f"{', '.join(map(_described, outputs)) or 'none'}"
        )
    return proto


def _check_shape(path: Path, given: onnx.ValueInfoProto, row: tuple[int, ...]) -> None:
    """Raise ExportError unless the input takes any number of images of the data set's shape."""
    if _shape(given)[1:] != row:
        raise ExportError(
            f"{path}: expected an input of the data set's images, (N, {', '.join(map(str, row))}), got "
            f"{_described(given)}; set `size` and `channels` in [dataset], or export it for that size"
        )
    if _shape(given)[0] is not None:
        raise ExportError(
            f"{path}: expected an input of any number of images, got {_described(given)}; export it with {FREE}"
        )


def _inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are no weights; older files name these among the inputs too."""
    weights = {each.name for each in graph.initializer}
    return [each for each in graph.input if each.name not in weights]


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return int(value.type.tensor_type.elem_type) == int(onnx.TensorProto.FLOAT)


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """Its dimensions, None where one is free."""
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim)


def _described(value: onnx.ValueInfoProto) -> str:
    kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return f"{value.name} {kind} ({', '.join('any' if size is None else str(size) for size in _shape(value))})"


def _swap(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give values other names, in graphs within the graph as well. names: one to one, so that none of them collide."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _swap(inner, names)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)


def _check_answers(path: Path, graph: bytes, row: tuple[int, ...], classes: int) -> None:
    """Raise ExportError unless the graph gives as many images as it is shown probabilities of so many classes."""
    random = np.random.default_rng(0)
    try:
        answer = on_onnxruntime(graph)
        outputs = [answer(random.random((rows, *row), dtype=np.float32))["probabilities"] for rows in BATCHES]
    except Exception as error:  # the runtime's
        raise ExportError(f"{path}: ONNX Runtime cannot run it on {BATCHES} images: {error}") from error
    for rows, values in zip(BATCHES, outputs, strict=True):
        if values.ndim != 2 or len(values) != rows:
            raise ExportError(f"{path}: expected an output ({rows},K) for {rows} images, got {values.shape}")
        sums = values.sum(1)
        if not (np.abs(sums - 1) <= SUM_TOLERANCE).all() or values.min() < 0:
            raise ExportError(
                f"{path}: expected probabilities, whose rows sum to 1, got rows with sums from {sums.min():.4g} to "
                f"{sums.max():.4g}; end the graph with a Softmax"
            )
        if values.shape[1] != classes:
            raise ExportError(f"{path}: expected the data set's {classes} classes, got {values.shape[1]}")
