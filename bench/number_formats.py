"""An ONNX graph in fewer bits: ways to convert one file to another, by name of the format.

Whether a runtime has kernels for the result shows when it is opened, whether they are faster when it is timed: on most
CPUs float16 and bfloat16 are storage formats, and int8 pays for its conversions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from onnxruntime import quantization
from onnxruntime.transformers import float16

Images = NDArray[np.float32]
Convert = Callable[[Path, Path, Images], None]
"""(from, to, benign images (N,C,H,W) to calibrate on)"""

# what holds nearly all of the arithmetic; sums of squares and softmax would lose what a score is made of
OPERATORS = ["Conv", "ConvTranspose", "MatMul", "Gemm"]
BATCH = 32


def int8_dynamic(source: Path, target: Path, images: Images) -> None:
    """Weights in 8 bits, activations in 8 bits whose range is measured anew in every call. `images` are not needed."""
    with tempfile.TemporaryDirectory() as folder:
        quantization.quantize_dynamic(
            _prepared(source, folder), target, weight_type=quantization.QuantType.QUInt8, op_types_to_quantize=OPERATORS
        )


def int8_static(source: Path, target: Path, images: Images) -> None:
    """Weights in 8 bits a channel, activations in 8 bits whose range is taken from `images`, as QuantizeLinear and
    DequantizeLinear around each operator (QDQ)."""
    with tempfile.TemporaryDirectory() as folder:
        quantization.quantize_static(
            _prepared(source, folder),
            target,
            _Reader(images, onnx.load(source).graph.input[0].name),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=OPERATORS,
        )


def half(source: Path, target: Path, images: Images) -> None:
    """float16 inside, float32 at the graph's inputs and outputs. `images` are not needed."""
    onnx.save(float16.convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


def brain(source: Path, target: Path, images: Images) -> None:
    """The same in bfloat16: float32's range in 8 bits of fraction."""
    model = float16.convert_float_to_float16(onnx.load(source), keep_io_types=True)
    weights = {each.name: each for each in onnx.load(source).graph.initializer}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            exact = weights.get(tensor.name, tensor)
            _as_bfloat16(tensor, onnx.numpy_helper.to_array(exact).astype(np.float32))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16
            if attribute.t.data_type == TensorProto.FLOAT16:
                _as_bfloat16(attribute.t, onnx.numpy_helper.to_array(attribute.t).astype(np.float32))
    for value in model.graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    onnx.save(model, target)


CONVERT: Mapping[str, Convert] = {
    "int8-dynamic": int8_dynamic,
    "int8-static": int8_static,
    "float16": half,
    "bfloat16": brain,
}


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Batches of images by the name of the graph's input, one for each call, then None."""

    def __init__(self, images: Images, name: str) -> None:
        self._batches: Iterator[dict[str, Images]] = (
            {name: images[first : first + BATCH]} for first in range(0, len(images), BATCH)
        )

    def get_next(self) -> dict[str, Images] | None:
        return next(self._batches, None)


def _prepared(source: Path, folder: str) -> Path:
    """The graph optimised and its shapes inferred, as the quantisers ask for, in `folder`."""
    path = Path(folder) / "prepared.onnx"
    quantization.quant_pre_process(source, path, skip_symbolic_shape=True)
    model = onnx.load(path)
    del model.graph.value_info[:]  # the quantisers turn weights around, and then trip over the shapes told before
    onnx.save(model, path)
    return path


def _as_bfloat16(tensor: TensorProto, values: NDArray[np.float32]) -> None:
    """Rounds to the nearest; the tensor's name and shape stay."""
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    tensor.ClearField("int32_data")
    tensor.raw_data = rounded.tobytes()
    tensor.data_type = TensorProto.BFLOAT16
