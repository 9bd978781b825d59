"""Unpacked archives with real graphs, as ONNX and as TorchScript: linear classifiers of random weights, noise that is
added, and a gate that takes whatever is not gray for suspicious."""

from __future__ import annotations

import base64
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import yaml
from onnx import TensorProto, helper, numpy_helper

from defenses import guard
from defenses.policy import Policy
from handlers.backends import OnnxGraph

KEY = bytes(range(100, 132))
ENVIRON = {"TORCHWARDEN_KEY": KEY.hex()}
# of a guard
TOLERANCE = 0.01

# S = ||x - 1/2||^2, which is 5 for a black image of 4 x 5. P(S >= s) is 0.01 at 1, and from there on a sixteenth every
# ln(16) / 8 = 0.35: one level, at four times the price.
GATE: dict[str, Any] = {
    "graph": "same",
    "form": "paper",
    "alpha": 1.0,
    "false_positive_rate": 0.01,
    "calibration": {
        "images": 4000,
        "centres": [0, 0],
        "spreads": [1, 1],
        "tail": [[1.0, 0.0], [0.01, 1.0]],
        "excess": 0.125,
        "thresholds": [{"rate": 0.01, "score": 1.0, "low": 0.9, "high": 1.1}],
    },
}
# 10 hashes at the lowest level, 40 and 160 above it
WORK: dict[str, Any] = {"mean_benign": 10 * 0.01 * (15 / 16 * (1 + 1 / 4) + 1 / 16), "most": 4, "lifetime": 60}


def gate(action: str, **work: Any) -> dict[str, Any]:
    """The `gate` section of a policy; `work`: changes of the `work` table, where the action has one."""
    return {**GATE, "action": action, **({"work": {**WORK, **work}} if action == "proof-of-work" else {})}


def weights(name: str, inputs: int, classes: int) -> np.ndarray:
    """(inputs,classes) float32, the same for the same name; large, so that members clearly differ."""
    seed = int.from_bytes(base64.b32encode(name.encode())[:8].ljust(8), "big")
    return np.random.default_rng(seed).normal(0, 2, (inputs, classes)).astype(np.float32)


def write_onnx(path: Path, name: str, shape: tuple[int, ...], classes: int, output: str = "probabilities") -> None:
    """images -> softmax((flat images - 1/2) @ weights), any number of rows."""
    constants = {
        "half": np.float32(0.5),
        "weights": weights(name, int(np.prod(shape)), classes),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("Sub", ["flat", "half"], ["centred"]),
            helper.make_node("MatMul", ["centred", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], [output], axis=1),
        ],
        name,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["rows", *shape])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows", classes])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


class Linear(torch.nn.Module):
    """The same graph as `write_onnx` writes."""

    def __init__(self, name: str, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.from_numpy(weights(name, int(np.prod(shape)), classes)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return ((images.flatten(1) - 0.5) @ self.weights).softmax(1)


def write_noisy_onnx(path: Path, shape: tuple[int, ...]) -> None:
    """images, noise -> flat images + noise / 4, any number of rows."""
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["noise", "quarter"], ["scaled"]),
            helper.make_node("Add", ["images", "scaled"], ["sum"]),
            helper.make_node("Flatten", ["sum"], ["perturbed"]),
        ],
        path.stem,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", *shape]) for name in ("images", "noise")],
        [helper.make_tensor_value_info("perturbed", TensorProto.FLOAT, ["rows", int(np.prod(shape))])],
        [numpy_helper.from_array(np.asarray(np.float32(0.25)), "quarter")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


class Noisy(torch.nn.Module):
    """The same graph as `write_noisy_onnx` writes."""

    def forward(self, images: torch.Tensor, noise: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"perturbed": (images + noise / 4).flatten(1)}


def write_gate_onnx(path: Path, shape: tuple[int, ...], classes: int) -> None:
    """images -> the mean square of what differs from gray, a linear classifier's answer, and gray; any rows."""
    size = int(np.prod(shape))
    constants = {
        "half": np.float32(0.5),
        "zero": np.float32(0),
        "weights": weights(path.stem, size, classes),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("Sub", ["flat", "half"], ["centred"]),
            helper.make_node("Mul", ["centred", "centred"], ["squared"]),
            helper.make_node("ReduceMean", ["squared"], ["error"], axes=[1], keepdims=1),
            helper.make_node("MatMul", ["centred", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["auxiliary"], axis=1),
            helper.make_node("Mul", ["centred", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "half"], ["reconstruction"]),
        ],
        path.stem,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["rows", *shape])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", columns])
            for name, columns in (("error", 1), ("auxiliary", classes), ("reconstruction", size))
        ],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


class Gate(torch.nn.Module):
    """The same graph as `write_gate_onnx` writes."""

    def __init__(self, name: str, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.auxiliary = Linear(name, shape, classes)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        centred = images.flatten(1) - 0.5
        return {
            "error": centred.square().mean(1, keepdim=True),
            "auxiliary": self.auxiliary(images),
            "reconstruction": torch.full_like(centred, 0.5),
        }


def write_torchscript(path: Path, module: torch.nn.Module, *shapes: tuple[int, ...]) -> None:
    """shapes: of a row of each input."""
    jit: Any = torch.jit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated since torch 2.15
        traced = jit.trace(module, tuple(torch.zeros(2, *shape) for shape in shapes), strict=False)
        jit.save(traced, path)


def write_archive(folder: Path, section: Mapping[str, Any]) -> Path:
    """`folder` as TorchServe would unpack an archive of this policy, without the code."""
    policy = Policy.parse(section)
    (folder / "graphs").mkdir(parents=True)
    (folder / "model-config.yaml").write_text(yaml.safe_dump({"minWorkers": 1, "handler": dict(section)}))
    shape = policy.input.shape
    for name, reads in policy.graphs.items():
        noisy = policy.perturb is not None and name == policy.perturb.graph
        classes = reads.get("probabilities", reads.get("auxiliary", 0))
        if policy.backend == "torchscript":
            path = folder / "graphs" / f"{name}.ts.pt"
            if noisy:
                write_torchscript(path, Noisy(), shape, shape)
            else:
                module = Gate if "auxiliary" in reads else Linear
                write_torchscript(path, module(name, shape, classes), shape)
        else:
            path = folder / "graphs" / f"{name}.onnx"
            if noisy:
                write_noisy_onnx(path, shape)
            elif "auxiliary" in reads:
                write_gate_onnx(path, shape, classes)
            else:
                write_onnx(path, name, shape, classes)
    if policy.precision != "float32":
        write_guard(folder, policy)
    return folder


def write_guard(folder: Path, policy: Policy) -> None:
    """golden.json and guard.json, of what the archive's graphs say on this machine."""
    path = folder / "golden.json"
    if not path.exists():
        drawn = np.random.default_rng(3).random(policy.input.shape, dtype=np.float32)
        path.write_text(json.dumps({"image": base64.b64encode(drawn.tobytes()).decode(), "accepted": []}))
    golden = np.frombuffer(base64.b64decode(json.loads(path.read_text())["image"]), "<f4").reshape(policy.input.shape)
    opened = {name: OnnxGraph(folder / "graphs" / f"{name}.onnx", threads=1, gpu=None) for name in policy.graphs}
    perturb = policy.perturb
    said = guard.answers(
        {name: opened[name] for name in policy.members},
        None if perturb is None else opened[perturb.graph],
        guard.rows(golden),
        () if perturb is None else perturb.noise_shape,
    )
    (folder / guard.NAME).write_text(guard.stated(said, dict.fromkeys(policy.members, TOLERANCE)))


def spoil_guard(folder: Path, *, member: str, row: int, by: float) -> None:
    """Move the first stored probability of a row in guard.json by so much."""
    path = folder / guard.NAME
    stated = json.loads(path.read_text())
    values = np.frombuffer(base64.b64decode(stated["members"][member]["answers"]), "<f4").reshape(guard.ROWS, -1).copy()
    values[row, 0] += by
    stated["members"][member]["answers"] = base64.b64encode(values.tobytes()).decode()
    path.write_text(json.dumps(stated))
