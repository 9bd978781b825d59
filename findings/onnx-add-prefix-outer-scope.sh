#!/usr/bin/env bash
# onnx 1.23.2: `onnx.compose.add_prefix` on a model with an If, Loop or Scan whose branch reads a value from outside.
#
# Guess:     every name gets the prefix, within branches too: the result is the same model under other names.
# Behaviour: names that a branch reads from the graph around it keep their old spelling, so they name nothing any more.
#            add_prefix says nothing; the checker does, and ONNX Runtime cannot load the file. Initializers and values
#            are concerned alike.
# Seen:      the branch still reads `weights`, which is now called `p/weights`; the checker refuses the model.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check onnx==1.23.2
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

branches = {
    name: helper.make_graph(
        [helper.make_node("MatMul", ["flat", "weights"], [name])],
        name,
        [],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
    )
    for name in ("then_branch", "else_branch")
}
graph = helper.make_graph(
    [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("If", ["always"], ["y"], **branches)],
    "classifier",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
    [
        numpy_helper.from_array(np.ones((4, 2), np.float32), "weights"),
        numpy_helper.from_array(np.array(True), "always"),
    ],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
prefixed = compose.add_prefix(model, "p/")
inner = next(each.g for node in prefixed.graph.node for each in node.attribute if each.name == "then_branch")
print("the branch reads", list(inner.node[0].input), "of", [each.name for each in prefixed.graph.initializer])
try:
    onnx.checker.check_model(prefixed, full_check=True)
except Exception as error:  # of the checker, or of its shape inference
    print("the checker:", str(error).splitlines()[0][:120])
else:
    sys.exit("changed: the prefixed model is sound")
if "weights" not in inner.node[0].input:
    sys.exit("changed: what a branch reads from outside has the prefix")
PY
