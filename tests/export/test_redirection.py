"""A surrogate's slopes: forward mode by hand against torch's own, and a clear error where a layer has no rule."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.func import functional_call, jvp

from export import graphs
from export.redirection import Redirection
from tests.conftest import Smoke
from training import checkpoint
from training.checkpoint import Architecture, load
from zoo.models import ARCHITECTURES

# deprecated, by one category or another, since torch 2.11; torch's own forward mode uses it too
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit")


def network_of(name: str) -> tuple[nn.Module, Architecture]:
    channels, size = (1, 28) if name.startswith(("conv3", "lenet5")) else (3, 16)
    arguments = {"channels": channels, "size": size, "mean": [0.5] * channels, "std": [0.2] * channels, "classes": 10}
    plan = Architecture(name, arguments)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = plan.network().eval()
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):  # as after training: other than mean 0 and variance 1
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
    return network, plan


def pixels(rows: int, channels: int, size: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((rows, channels, size, size)))


def slopes(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """J v by torch's forward mode, v all ones over every parameter."""
    weights = dict(network.named_parameters())
    ones = {name: torch.ones_like(each) for name, each in weights.items()}
    return jvp(lambda w: functional_call(network, w, (images,)).log_softmax(-1), (weights,), (ones,))[1].detach()


@pytest.mark.parametrize("name", sorted(ARCHITECTURES.keys() - {"resnet34-8x"}))  # the layers of resnet18-8x
def test_slopes_are_those_of_automatic_differentiation(name: str) -> None:
    network, plan = network_of(name)
    network.double()
    size = plan.arguments["size"]
    images = pixels(2, plan.arguments["channels"], size)
    with torch.no_grad():
        served = Redirection(network)(images)
    expected = slopes(network, images)
    assert torch.allclose(served["redirection"], expected, rtol=0, atol=1e-10 * float(expected.abs().max()))
    assert torch.allclose(served["probabilities"], network(images).softmax(-1))


def test_slopes_are_what_a_step_along_v_changes() -> None:
    network, _ = network_of("lenet5")
    network.double()
    images = pixels(3, 1, 28)
    step = 1e-7
    with torch.no_grad():
        served = Redirection(network)(images)["redirection"]
        before = network(images).log_softmax(-1)
        for each in network.parameters():
            each.add_(step)
        after = network(images).log_softmax(-1)
    assert torch.allclose((after - before) / step, served, rtol=1e-3, atol=1e-3)


def test_a_surrogate_s_checkpoint_becomes_graphs_with_its_slopes(smoke_graphs: Smoke) -> None:
    network = load(smoke_graphs.runs / "smoke/surrogate.safetensors").networks[0]
    images = np.random.default_rng(1).random((64, 1, 28, 28), dtype=np.float32)
    expected = slopes(network, torch.from_numpy(images)).numpy()
    session = onnxruntime.InferenceSession(
        smoke_graphs.build / "smoke/surrogate.onnx", providers=["CPUExecutionProvider"]
    )
    assert [output.name for output in session.get_outputs()] == ["probabilities", "redirection"]
    from_onnx = session.run(["redirection"], {"images": images})[0]
    scripted = torch.jit.load(smoke_graphs.build / "smoke/surrogate.ts.pt")
    from_script = scripted(torch.from_numpy(images))["redirection"].detach().numpy()
    for got in (from_onnx, from_script):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_rebuilt_graphs_are_byte_identical(smoke_graphs: Smoke, tmp_path: Path) -> None:
    for path in graphs.export(load(smoke_graphs.runs / "smoke/surrogate.safetensors"), tmp_path):
        assert path.read_bytes() == (smoke_graphs.build / "smoke" / path.name).read_bytes()


def test_a_graph_with_other_slopes_is_not_written() -> None:
    network, _ = network_of("lenet5")
    model = Redirection(network)

    def answer(images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.no_grad():
            served = {name: values.numpy() for name, values in model(torch.from_numpy(images)).items()}
        served["redirection"] = served["redirection"] * 1.002
        return served

    with pytest.raises(graphs.ExportError, match=r"x: redirection differs from torch's by .* at 1 rows"):
        graphs.check_parity(model, answer, (1, 28, 28), what="x")


def test_a_layer_without_a_rule_and_an_unknown_kind_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, plan = network_of("lenet5")
    path = tmp_path / "surrogate.safetensors"
    checkpoint.save(path, [network], [plan], {"graph": "redirected"})
    with pytest.raises(graphs.ExportError, match="graph: expected 'redirection' or nothing, got 'redirected'"):
        list(graphs.export(load(path), tmp_path))
    odd = nn.Sequential(OrderedDict(first=nn.Flatten(), bend=nn.Softplus(), last=nn.Linear(784, 10)))
    monkeypatch.setattr(Architecture, "network", lambda self: odd)
    checkpoint.save(path, [odd], [plan], {"graph": "redirection"})
    with pytest.raises(graphs.ExportError, match=r"no derivative for the layer Softplus \(bend\)"):
        list(graphs.export(load(path), tmp_path))
