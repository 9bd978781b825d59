#!/usr/bin/env bash
# ONNX Runtime 1.31.1, CPU without VNNI: a QDQ layer of unsigned activations and signed weights, of the quantiser's ranges.
#
# Guess:     int8 sums are whole numbers, so one graph gives one answer on every CPU.
# Behaviour: without VNNI the kernels multiply pairs of bytes into sums of 16 bits (VPMADDUBSW), which stop at 32,767:
#            2 * 255 * 127 does not fit. Nothing is said, and the same file answers right on a CPU with VNNI. Weights of
#            7 bits (the quantiser's reduce_range) fit.
# Seen:      64 products of 255 and 127 summed to half of what they are, in MatMul and in Conv (AVX2).
set -euo pipefail
if grep -q -m1 -E 'avx512_vnni|avx_vnni' /proc/cpuinfo; then echo "not seen: this CPU has VNNI"; exit; fi
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cat > "$folder/sums.py" <<'PY'
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

MANY = 64


def summed(op, weight):
    shape = [MANY] if op == "MatMul" else [MANY, 1, 1]
    weights = np.full((MANY, 1) if op == "MatMul" else (1, MANY, 1, 1), weight, np.int8)
    node, array = helper.make_node, numpy_helper.from_array
    graph = helper.make_graph(
        [
            node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
            node("DequantizeLinear", ["q", "one", "zero"], ["d"]),
            node("DequantizeLinear", ["w", "one", "signed"], ["v"]),
            node(op, ["d", "v"], ["sum"]),
            node("QuantizeLinear", ["sum", "step", "zero"], ["r"]),
            node("DequantizeLinear", ["r", "step", "zero"], ["y"]),
        ],
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            array(np.float32(1), "one"), array(np.float32(16384), "step"), array(np.uint8(0), "zero"),
            array(np.int8(0), "signed"), array(weights, "w"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.full((2, *shape), 255, np.float32)})
    return float(y.flat[0]) / (255 * weight * MANY)


shares = {(op, weight): summed(op, weight) for op in ("MatMul", "Conv") for weight in (127, 64)}
for (op, weight), share in shares.items():
    print(f"{op}, weights of {weight}: {share:.2f} of the sum")
if any(share > 0.9 for (_, weight), share in shares.items() if weight == 127):
    sys.exit("changed: 8-bit weights no longer saturate")
PY
"$folder/venv/bin/python" "$folder/sums.py"
