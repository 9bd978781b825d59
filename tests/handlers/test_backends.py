from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from handlers.backends import BACKENDS, OnnxGraph, TorchScriptGraph
from tests.conftest import Smoke
from tests.handlers.archives import Linear, Noisy, weights, write_noisy_onnx, write_onnx, write_torchscript
from training.checkpoint import load
from zoo.perturbation import Perturbation

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (1, 4, 5)


def graph_file(folder: Path, backend: str) -> Path:
    path = folder / f"net{BACKENDS[backend].suffix}"
    if backend == "onnxruntime":
        write_onnx(path, "net", SHAPE, 3)
    else:
        write_torchscript(path, Linear("net", SHAPE, 3), SHAPE)
    return path


def softmax(images: np.ndarray) -> np.ndarray:
    logits = (images.reshape(len(images), -1).astype(np.float64) - 0.5) @ weights("net", 20, 3)
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [1, 7, 32])
def test_each_backend_answers_by_name(tmp_path: Path, backend: str, rows: int) -> None:
    graph = BACKENDS[backend](graph_file(tmp_path, backend), threads=1, gpu=None)
    images = np.random.default_rng(rows).random((rows, *SHAPE), dtype=np.float32)
    outputs = graph(images)
    assert set(outputs) == {"probabilities"}
    assert outputs["probabilities"].dtype == np.float32
    np.testing.assert_allclose(outputs["probabilities"], softmax(images), atol=1e-6)  # float32 against float64


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [1, 7, 32])
def test_each_backend_takes_a_second_input_in_the_graph_s_order(tmp_path: Path, backend: str, rows: int) -> None:
    path = tmp_path / f"noisy{BACKENDS[backend].suffix}"
    if backend == "onnxruntime":
        write_noisy_onnx(path, SHAPE)
    else:
        write_torchscript(path, Noisy(), SHAPE, SHAPE)
    graph = BACKENDS[backend](path, threads=1, gpu=None)
    random = np.random.default_rng(rows)
    images, noise = random.random((rows, *SHAPE), np.float32), random.standard_normal((rows, *SHAPE), np.float32)
    outputs = graph(images, noise)
    assert set(outputs) == {"perturbed"}
    assert outputs["perturbed"].dtype == np.float32
    np.testing.assert_allclose(outputs["perturbed"], (images + noise / 4).reshape(rows, -1), atol=1e-6)
    for given in ((images,), (images, noise, noise)):
        with pytest.raises((ValueError, RuntimeError)):
            graph(*given)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_view_of_bytes_that_may_not_be_written_to_is_answered_without_a_warning(tmp_path: Path, backend: str) -> None:
    graph = BACKENDS[backend](graph_file(tmp_path, backend), threads=1, gpu=None)
    pixels = np.random.default_rng(0).random((2, *SHAPE), dtype=np.float32)
    view = np.frombuffer(pixels.tobytes(), np.float32).reshape(2, *SHAPE)
    assert not view.flags.writeable
    np.testing.assert_array_equal(graph(view)["probabilities"], graph(pixels)["probabilities"])


def test_a_torchscript_graph_with_several_outputs_names_them(tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            flat = images.flatten(1)
            return {"probabilities": flat.softmax(1), "features": flat * 2}

    path = tmp_path / "two.ts.pt"
    write_torchscript(path, Two(), SHAPE)
    images = np.ones((2, *SHAPE), np.float32)
    outputs = TorchScriptGraph(path, threads=1, gpu=None)(images)
    assert set(outputs) == {"probabilities", "features"}
    assert outputs["features"].tolist() == [[2.0] * 20] * 2


def loaded(path: Path) -> Any:
    """A TorchScript file as torch runs it by itself."""
    jit: Any = torch.jit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated since torch 2.15
        return jit.load(path)


def convolutions(rounded: bool) -> torch.nn.Module:
    """Two convolutions, and between them what oneDNN has or something that it has not."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Conv2d(1, 16, 3), torch.nn.Conv2d(16, 16, 3)

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            features = self.first(images)
            features = self.second(features.mul(16).round() if rounded else features.relu())
            return {"probabilities": features.relu().mean((2, 3)).softmax(1)}

    torch.manual_seed(3)
    return Net().eval()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is no oneDNN on CUDA")
@pytest.mark.parametrize("rounded", [False, True])
def test_torchscript_stays_in_onednn_s_layout_where_that_pays(rounded: bool, tmp_path: Path) -> None:
    path, shape = tmp_path / "net.ts.pt", (1, 12, 10)
    write_torchscript(path, convolutions(rounded), shape)
    graph = TorchScriptGraph(path, threads=1, gpu=None)
    assert len(graph._module.graph.findAllNodes("aten::to_mkldnn")) == (not rounded)
    plain = loaded(path)
    for rows in (1, 7, 32, 7):
        images = np.random.default_rng(rows).random((rows, *shape), dtype=np.float32)
        with torch.inference_mode():
            expected = plain(torch.from_numpy(images))["probabilities"].numpy()
        np.testing.assert_allclose(graph(images)["probabilities"], expected, atol=0 if rounded else 2e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is no oneDNN on CUDA")
def test_exported_graphs_answer_as_torch_does_and_classifiers_stay_in_one_layout(smoke_graphs: Smoke) -> None:
    folder, converted = smoke_graphs.build / "smoke", {}
    (perturbation,) = (
        network
        for network in load(smoke_graphs.runs / "smoke/meco.safetensors").networks
        if isinstance(network, Perturbation)
    )
    for path in sorted(folder.glob("*.ts.pt")):
        name = path.name.removesuffix(".ts.pt")
        noise = [perturbation.noise_shape] if name == "meco-perturbation" else []
        graph, plain = TorchScriptGraph(path, threads=1, gpu=None), loaded(path)
        converted[name] = len(graph._module.graph.findAllNodes("aten::to_mkldnn"))
        for rows in (1, 8, 33):
            random = np.random.default_rng(rows)
            given = [random.random((rows, 1, 28, 28), np.float32)]
            given += [random.standard_normal((rows, *shape), np.float32) for shape in noise]
            with torch.inference_mode():
                expected = {key: values.numpy() for key, values in plain(*map(torch.from_numpy, given)).items()}
            for output, values in graph(*given).items():
                rounding = 5e-6 * max(1.0, float(np.abs(expected[output]).max())) if converted[name] else 0.0
                np.testing.assert_allclose(values, expected[output], rtol=0, atol=rounding)
    one = {name for name, count in converted.items() if count == 1}
    assert {"victim", "edm-0", "edm-1", "edm-2", "meco"} <= one
    assert {converted[name] for name in ("hash", "meco-perturbation", "surrogate")} == {0}, "these are slower for it"


def test_the_session_has_the_stated_threads_and_does_not_spin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    make = onnxruntime.InferenceSession

    def spy(path: Path, options: Any, providers: list[Any]) -> Any:
        seen.extend([options, providers])
        return make(path, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    graph = OnnxGraph(graph_file(tmp_path, "onnxruntime"), threads=2, gpu=None)
    options, providers = seen
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert providers[-1] == "CPUExecutionProvider"
    assert graph.device in onnxruntime.get_available_providers()


def test_cuda_is_asked_for_where_onnxruntime_offers_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    asked: list[Any] = []
    make = onnxruntime.InferenceSession

    def on_cpu(path: Path, options: Any, providers: list[Any]) -> Any:
        asked.extend(providers)
        return make(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    monkeypatch.setattr(onnxruntime, "InferenceSession", on_cpu)
    graph = OnnxGraph(graph_file(tmp_path, "onnxruntime"), threads=1, gpu=3)
    assert asked == [("CUDAExecutionProvider", {"device_id": 3}), "CPUExecutionProvider"]
    assert graph.device == "CPUExecutionProvider", "what it runs on, not what was asked for"


def test_torchscript_takes_the_stated_threads(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        graph = TorchScriptGraph(graph_file(tmp_path, "torchscript"), threads=before + 1, gpu=None)
        assert torch.get_num_threads() == before + 1
        assert graph.device == ("cuda:0" if torch.cuda.is_available() else "cpu")
    finally:
        torch.set_num_threads(before)


def test_onnx_graphs_are_served_without_torch_and_without_telemetry(tmp_path: Path) -> None:
    path = graph_file(tmp_path, "onnxruntime")
    program = (
        "import os, sys; from pathlib import Path\n"
        "from handlers.backends import OnnxGraph; import handlers.handler\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "OnnxGraph(Path(sys.argv[1]), threads=1, gpu=None)\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
        "print('torch' in sys.modules, 'onnxruntime' in sys.modules)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False True\n", "")


SHARED = """
import sys
from pathlib import Path
import numpy as np
from bench.memory import of_this_process
from contextlib import contextmanager
from handlers.backends import OnnxGraph
class Asked:
    @contextmanager
    def answering(self):
        graphs = [OnnxGraph(Path(sys.argv[1]), threads=1, gpu=None) for _ in range(int(sys.argv[2]))]
        yield lambda images: [graph(images) for graph in graphs] and {}
print(of_this_process(Asked(), np.ones((16, 1, 512, 512), np.float32), 16).held)
"""


def test_all_graphs_of_a_process_take_what_a_run_needs_from_one_arena(tmp_path: Path) -> None:
    """Of 16 rows of 1 MB each the graph makes eight times as much on its way."""
    nodes = [
        onnx.helper.make_node("Concat", ["images"] * 8, ["wide"], axis=1),
        onnx.helper.make_node("Exp", ["wide"], ["made"]),
        onnx.helper.make_node("ReduceMax", ["made", "axes"], ["probabilities"], keepdims=0),
    ]
    axes = onnx.numpy_helper.from_array(np.array([1, 2, 3], np.int64), "axes")
    pictures, answers = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("images", ["n", 1, 512, 512]), ("probabilities", ["n"]))
    )
    graph = onnx.helper.make_graph(nodes, "wide", [pictures], [answers], [axes])
    opsets = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "wide.onnx")
    one, four = (
        float(
            subprocess.run(
                [sys.executable, "-c", SHARED, str(tmp_path / "wide.onnx"), graphs],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for graphs in ("1", "4")
    )
    assert four - one < 64
