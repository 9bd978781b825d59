"""Archives of a synthetic recipe, without any training: linear victims of random weights, and a gate that sees whatever
has much contrast from one pixel to the next."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

import handlers
from tests.defenses.policies import ROUTE, UNSCALED, section
from tests.handlers.archives import weights, write_onnx

CHECKOUT = Path(handlers.__file__).resolve().parent.parent
SHAPE = (1, 28, 28)
PIXELS = 28 * 28
CLASSES = [str(digit) for digit in range(10)]
# scores are ||x - x^||^2, the paper's form at alpha 1: above those of nearly all digits, below those of most flowers
THRESHOLD = 11.0
GATE = {
    "graph": "same",
    "action": "observe",
    "form": "paper",
    "alpha": 1.0,
    "false_positive_rate": 0.01,
    "calibration": {
        **UNSCALED,
        "tail": [[1.0, 0.0], [0.01, THRESHOLD]],
        "excess": 5.0,
        "thresholds": [{"rate": 0.01, "score": THRESHOLD, "low": None, "high": None}],
    },
}
REJECTING = {**GATE, "action": "reject"}
CHARGING = {**GATE, "action": "proof-of-work", "work": {"mean_benign": 10.0}}

RECIPE = """
[dataset]
name = "digits"

[networks.edm]
auxiliary = "china"

[policies.undefended]
predictor = "victim"

[policies.outlier-exposure]
predictor = "victim"

[policies.edm]
predictor = "edm"
average = true

[attacks.knockoff]
surrogate = "flower"
budget = 5000

[attacks.jbda]
dataset = "digits"
budget = 5000
epochs = 1
rounds = 0

[clone]
architecture = "lenet5"
epochs = 1

[detection.flowers]
attack = "knockoff"
budgets = [200, 400]
called = "knockoff (flower)"

[detection.steps]
attack = "jbda"
budgets = [60, 100]
overrides = { seeds = 40, step = 0.3 }
without_seeds = true

[benign.other-hands]
dataset = "digits:train"
"""


def recipe(folder: Path, text: str = RECIPE) -> Path:
    """The recipe's file."""
    path = folder / "made-up.toml"
    path.write_text(text)
    return path


def archive(store: Path, policy: str, **changes: Any) -> Path:
    """store/made-up-POLICY.mar: a policy of digits, of the keys in `changes`; the whole code of this checkout."""
    handler = section(
        recipe="made-up",
        policy=policy,
        input={"channels": 1, "height": 28, "width": 28},
        class_names=CLASSES,
        max_rows=64,
        **changes,
    )
    graphs = store / f"graphs-{policy}"
    graphs.mkdir(parents=True)
    for member in handler["members"]:
        write_onnx(graphs / f"{member}.onnx", member, SHAPE, 10)
    if handler.get("route"):
        write_onnx(graphs / "hash.onnx", "hash", SHAPE, 10)
    if handler.get("gate"):
        write_gate(graphs / "same.onnx")
    path = store / f"made-up-{policy}.mar"
    with zipfile.ZipFile(path, "w") as packed:
        for room in ("handlers", "defenses", "pictures"):
            for file in sorted((CHECKOUT / room).rglob("*.py")):
                packed.write(file, file.relative_to(CHECKOUT))
        for file in graphs.iterdir():
            packed.write(file, f"graphs/{file.name}")
        packed.writestr("model-config.yaml", yaml.safe_dump({"minWorkers": 1, "handler": handler}))
    return path


def ensemble(store: Path) -> Path:
    """The archive `edm` of three members; needs the deployment's key in the environment."""
    members = [f"edm-{number}" for number in range(3)]
    return archive(store, "edm", members=members, route=ROUTE, key_env="TORCHWARDEN_KEY")


def write_gate(path: Path) -> None:
    """x^ = each pixel's left neighbour: (error, auxiliary, reconstruction); auxiliary is a linear classifier of x^."""
    mean = numpy_helper.from_array(np.array([1, 2, 3], np.int64), "axes")
    constants = {
        "kernel": np.array([[[[1.0, 0.0, 0.0]]]], np.float32),
        "weights": weights("auxiliary", PIXELS, 10),
    }
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["made"], pads=[0, 1, 0, 1]),
        helper.make_node("Sub", ["images", "made"], ["difference"]),
        helper.make_node("Mul", ["difference", "difference"], ["square"]),
        helper.make_node("ReduceMean", ["square", "axes"], ["mean"], keepdims=1),
        helper.make_node("Flatten", ["mean"], ["error"]),
        helper.make_node("Flatten", ["made"], ["reconstruction"]),
        helper.make_node("MatMul", ["reconstruction", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["auxiliary"], axis=1),
    ]
    outputs = {"error": 1, "auxiliary": 10, "reconstruction": PIXELS}
    graph = helper.make_graph(
        nodes,
        "same",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["rows", *SHAPE])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", columns])
            for name, columns in outputs.items()
        ],
        [mean, *(numpy_helper.from_array(value, name) for name, value in constants.items())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def reconstructed(images: np.ndarray) -> np.ndarray:
    """x^ of images (N,1,28,28), by hand."""
    made = np.zeros_like(images)
    made[..., 1:] = images[..., :-1]
    return made
