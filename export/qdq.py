"""A float32 graph in 8 bits: QuantizeLinear and DequantizeLinear around what multiplies, as ONNX Runtime fuses them.

    q = clamp(round(x / s) + z, 0, 255)      an activation, one s and z a tensor, from what calibration images show
    q = clamp(round(w / s), -64, 64)         a weight, one s an output channel

Static: ranges are fixed at export, so a row's answer depends on no other row, as it would where a runtime takes ranges
from the batch (dynamic quantisation is never used). Weights have 7 bits: without VNNI a CPU adds two products of
unsigned and signed bytes in 16 bits, which saturate at 2^15 - 1, and 2 * 255 * 64 does not reach that (2 * 255 * 127
does: findings/onnxruntime-int8-saturates-without-vnni.sh). So whole sums are the same on every CPU. Before that,
channels are equalised (export/equalisation.py) and weights rounded with error compensation (export/compensation.py).

In 8 bits are convolutions, matrix products and what stands between them. What stands before the first and behind the
last stays float32: normalisation, softmax, the sum of an image and its perturbation.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from export.compensation import Rounded, compensated_layers
from export.equalisation import equalise
from export.layers import put

Feed = Mapping[str, NDArray[np.float32]]
"""A graph's inputs by name, some rows of each"""

MULTIPLY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
BETWEEN = (
    *("Add", "Relu", "Clip", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool"),
    *("Concat", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze"),
)
# the first opset whose QuantizeLinear has a scale a channel
LEAST_OPSET = 13
# how an activation's range is found, in the order in which they are tried
METHODS: Mapping[str, tuple[CalibrationMethod, dict[str, object]]] = {
    "minmax": (CalibrationMethod.MinMax, {}),
    "percentile": (CalibrationMethod.Percentile, {"symmetric": False, "percentile": 99.99}),
    "entropy": (CalibrationMethod.Entropy, {"symmetric": False}),
}


class QdqError(ValueError):
    """A graph that cannot be in 8 bits."""


class Qdq:
    """The graph at `path`, to be written in 8 bits; feeds: calibration inputs, in batches. Raises QdqError."""

    def __init__(self, path: Path, feeds: Sequence[Feed]) -> None:
        self._feeds = feeds
        self._source = onnx.load(path)
        self._model = _prepared(self._source, path)
        equalise(self._model, feeds)
        self._ranges: dict[str, TensorsData] = {}
        if not self.layers:
            held = ", ".join(sorted({node.op_type for node in self._model.graph.node}))
            raise QdqError(f"{path}: expected one of {', '.join(MULTIPLY)} to put in 8 bits, found {held}")

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The nodes that multiply by weights or by one another, in the graph's order."""
        return tuple(node.name for node in self._model.graph.node if node.op_type in MULTIPLY)

    @cached_property
    def _compensated(self) -> dict[str, Rounded]:
        return compensated_layers(self._model, self._feeds)

    def graph(self, method: str, kept: Collection[str]) -> bytes:
        """The graph in 8 bits but for the layers of `kept`, its metadata as they were. method: of METHODS."""
        ranges = self._ranges.get(method) or self._ranges.setdefault(method, self._calibrated(method))
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        rounded = [each for layer, each in self._compensated.items() if layer not in kept]
        put(model, {name: values for each in rounded for name, values in each.initializers.items()})
        quantizer = QDQQuantizer(
            model,
            True,  # a scale a channel
            True,  # 7 bits
            QuantType.QInt8,
            QuantType.QUInt8,
            ranges,
            [*(name for name in self.layers if name not in kept), *_between(self._model, kept)],
            [],
            [*MULTIPLY, *BETWEEN],
            {"WeightSymmetric": True, "TensorQuantOverrides": {each.name: _scales(each) for each in rounded}},
        )
        quantizer.quantize_model()
        made = quantizer.model.model
        _in_full(made, kept)
        quantizer.model.clean_initializers()
        quantizer.model.topological_sort()
        made.producer_name, made.producer_version = self._source.producer_name, self._source.producer_version
        onnx.helper.set_model_props(made, {each.key: each.value for each in self._source.metadata_props})
        onnx.checker.check_model(made)
        data: bytes = made.SerializeToString(deterministic=True)
        return data

    def _calibrated(self, method: str) -> TensorsData:
        """The range of every tensor, over all feeds."""
        kind, options = METHODS[method]
        with tempfile.TemporaryDirectory() as private:
            plain = Path(private) / "graph.onnx"
            onnx.save(self._model, plain)
            calibrator = create_calibrator(
                plain,
                [*MULTIPLY, *BETWEEN],
                augmented_model_path=str(Path(private) / "observed.onnx"),
                calibrate_method=kind,
                extra_options=options,
            )
            with contextlib.redirect_stdout(io.StringIO()):  # it tells of every step
                for feed in self._feeds:  # one at a time: it keeps every tensor of a whole reading in memory
                    calibrator.collect_data(_Once(feed))
                return calibrator.compute_data()


class _Once(CalibrationDataReader):  # type: ignore[misc]
    """One feed, as a calibrator reads it."""

    def __init__(self, feed: Feed) -> None:
        self._left: Iterator[Feed] = iter([feed])

    def get_next(self) -> Feed | None:
        return next(self._left, None)


def _scales(rounded: Rounded) -> list[dict[str, object]]:
    """The scales that a layer's weights are multiples of, as the quantiser is told them."""
    zero = {"axis": rounded.axis, "zero_point": np.int8(0), "quant_type": QuantType.QInt8}
    return [{**zero, "scale": scale} for scale in rounded.scales]


def _prepared(source: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The graph with batch norms in their convolutions, a name for every node and a shape for every tensor."""
    with tempfile.TemporaryDirectory() as private:
        folded = Path(private) / "folded.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        onnxruntime.InferenceSession(source.SerializeToString(), options, providers=["CPUExecutionProvider"])
        model = onnx.load(folded)
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if opset < LEAST_OPSET:
        try:
            model = onnx.version_converter.convert_version(model, LEAST_OPSET)
        except Exception as error:  # the converter's own
            raise QdqError(
                f"{path}: expected opset {LEAST_OPSET} or later, got {opset}, which cannot be converted: {error}; "
                f"export the model again in opset {LEAST_OPSET}"
            ) from error
    used = {node.domain for node in model.graph.node}
    for domain in [each for each in model.opset_import if each.domain not in used]:  # the runtime writes all it knows
        model.opset_import.remove(domain)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    _rectify_first(model.graph)
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model)


def _rectify_first(graph: onnx.GraphProto) -> None:
    """Put ReLU before the maximum pooling it stands behind, which changes nothing: so it melts into a convolution's
    range, and the pooling is one of bytes."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    shown = {output.name for output in graph.output}
    for number, pool in enumerate(graph.node):
        if pool.op_type != "MaxPool" or len(pool.output) > 1 or pool.output[0] in shown:
            continue
        after = readers.get(pool.output[0], [])
        if len(after) == 1 and after[0].op_type == "Relu":
            (relu,) = after
            pool.input[0], pool.output[0], relu.input[0], relu.output[0] = (
                *(pool.output[0], relu.output[0]),
                *(pool.input[0], pool.output[0]),
            )
            moved = onnx.NodeProto()
            moved.CopyFrom(relu)
            graph.node.remove(relu)
            graph.node.insert(number, moved)


def _between(model: onnx.ModelProto, kept: Collection[str]) -> tuple[str, ...]:
    """The nodes of BETWEEN that stand behind a layer in 8 bits and before one."""
    behind: set[str] = set()  # tensors that come of a layer
    for node in model.graph.node:
        if _narrow(node, kept) or behind & set(node.input):
            behind |= set(node.output)
    before = _before_layers(model, kept)
    return tuple(
        node.name
        for node in model.graph.node
        if node.op_type in BETWEEN and behind & set(node.input) and before & set(node.output)
    )


def _narrow(node: onnx.NodeProto, kept: Collection[str]) -> bool:
    return node.op_type in MULTIPLY and node.name not in kept


def _before_layers(model: onnx.ModelProto, kept: Collection[str]) -> set[str]:
    """The tensors that go into a layer in 8 bits, however far ahead."""
    before: set[str] = set()
    for node in reversed(model.graph.node):
        if _narrow(node, kept) or before & set(node.output):
            before |= set(node.input)
    return before


def _in_full(model: onnx.ModelProto, kept: Collection[str]) -> None:
    """Let what a linear layer hands to no layer in 8 bits stay float32: logits in 256 steps would be answers in few."""
    made_by = {output: node for node in model.graph.node for output in node.output}
    before = _before_layers(model, kept)
    for node in list(model.graph.node):
        if node.op_type != "DequantizeLinear" or node.output[0] in before:
            continue
        narrow = made_by.get(node.input[0])
        layer = narrow and made_by.get(narrow.input[0])
        if narrow and layer and narrow.op_type == "QuantizeLinear" and layer.op_type in ("Gemm", "MatMul"):
            model.graph.node.remove(node)
            model.graph.node.remove(narrow)
            for reader in model.graph.node:
                reader.input[:] = [node.output[0] if each == narrow.input[0] else each for each in reader.input]
            layer.output[0] = node.output[0]
