"""A float32 graph in fp16, for CUDA: weights and activations in 16 bits, inputs and outputs as they were.

Softmax stays float32: its exponentials are sums of many small numbers. bf16 is not made: ONNX Runtime's convolutions on
CUDA do not take it in the opset that graphs here have.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
from onnxruntime.transformers.float16 import convert_float_to_float16

from export.graphs import ExportError

CUDA = "CUDAExecutionProvider"


def half(path: Path) -> bytes:
    """The graph at `path` in fp16, its metadata as they were. Raises ExportError where no CUDA could judge it."""
    if CUDA not in onnxruntime.get_available_providers():
        raise ExportError(
            f"{path}: precision 'fp16' is judged on the CUDA device that serves it, and there is none here; build it "
            'where there is one (make setup GPU=1), or use precision = "int8" on CPUs'
        )
    model = convert_float_to_float16(onnx.load(path), keep_io_types=True, op_block_list=["Softmax"])
    data: bytes = model.SerializeToString(deterministic=True)
    return data
