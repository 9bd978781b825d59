#!/usr/bin/env bash
# ONNX Runtime 1.31.1, CPU: convolutions whose number of channels is no multiple of 4, or of a vector's floats.
#
# Guess:     a 3x3 convolution's time grows with its multiplications: 31 channels cost a little less than 32.
# Behaviour: blocked kernels take channels by the vector (8 floats with AVX2, 16 with AVX-512), so 28 cost what 32 cost. They
#            take only multiples of 4; any other number leaves them, and 31 cost far more than 32, 15 more than 16.
# Seen:      31 channels took 1.6 times the time of 32, and 28 as long as 32 (AVX2, one thread, three convolutions of
#            16 x 16).
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cat > "$folder/channels.py" <<'PY'
import sys
from statistics import median
from time import process_time

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def session(channels):
    rng, nodes, weights = np.random.default_rng(0), [], []
    for layer in range(3):
        weight = rng.standard_normal((channels, channels, 3, 3)).astype(np.float32) / channels
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [f"x{layer}", f"w{layer}"], [f"c{layer}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"x{layer + 1}"]))
    shape = [1, channels, 16, 16]
    inputs, outputs = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x0", "x3"))
    graph = helper.make_graph(nodes, "channels", [inputs], [outputs], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


CHANNELS = (28, 31, 32)
sessions = {each: session(each) for each in CHANNELS}
images = {each: np.random.default_rng(1).random((1, each, 16, 16), np.float32) for each in CHANNELS}
times = {each: [] for each in CHANNELS}
for _ in range(60):
    for each in CHANNELS:
        begun = process_time()
        for _ in range(20):
            sessions[each].run(None, {"x0": images[each]})
        times[each].append(process_time() - begun)
ratio = {each: median(a / b for a, b in zip(times[each], times[32])) for each in CHANNELS}
print(f"28 channels took {ratio[28]:.2f} times the time of 32, 31 channels {ratio[31]:.2f} times")
if ratio[31] < 1.15 or ratio[28] < 0.9:
    sys.exit("changed: time follows the multiplications")
PY
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/channels.py"
