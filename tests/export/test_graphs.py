"""Graphs: parity with torch, a free batch axis, metadata, and a check that fails when it should."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from export import graphs
from tests.conftest import Smoke
from training.checkpoint import Architecture, load
from zoo.models import ARCHITECTURES

GRAPHS = ("victim", "edm-0", "edm-1", "edm-2")
SHAPE = (1, 28, 28)


def images(rows: int) -> np.ndarray:
    return np.random.default_rng(1).random((rows, *SHAPE), dtype=np.float32)


def on_onnx(path: Path, batch: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["probabilities"], {"images": batch})[0])


def network_of(smoke: Smoke, graph: str) -> nn.Module:
    checkpoint, _, number = graph.partition("-")
    return load(smoke.runs / f"smoke/{checkpoint}.safetensors").networks[int(number or 0)]


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # deprecated, by one category or another, since torch 2.11
@pytest.mark.parametrize("name", GRAPHS)
def test_both_graphs_answer_as_the_network_does_at_any_batch(smoke_graphs: Smoke, name: str) -> None:
    network = network_of(smoke_graphs, name)
    scripted = torch.jit.load(smoke_graphs.build / f"smoke/{name}.ts.pt")
    for rows in (1, 5, 64):
        with torch.inference_mode():
            batch = torch.from_numpy(images(rows))
            expected = network(batch).softmax(-1).numpy()
            from_script = scripted(batch)["probabilities"].numpy()
        from_onnx = on_onnx(smoke_graphs.build / f"smoke/{name}.onnx", images(rows))
        assert from_onnx.dtype == np.float32
        np.testing.assert_allclose(from_onnx.sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(from_onnx, expected, atol=1e-5)
        np.testing.assert_allclose(from_script, expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_hash_is_the_same_bits_on_every_backend_at_any_batch_and_with_any_threads(
    smoke_graphs: Smoke, threads: int
) -> None:
    network = network_of(smoke_graphs, "hash")
    path = smoke_graphs.build / "smoke/hash.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = ["probabilities", "projections"]
    scripted = torch.jit.load(path.with_suffix(".ts.pt"))
    pixels = torch.from_numpy(images(256))
    with torch.inference_mode():
        expected = {name: torch.cat([network(row[None])[name] for row in pixels]).numpy() for name in names}
        torch.set_num_threads(threads)
        try:
            for rows in (1, 7, 32, 256):
                parts = pixels[: 4 * rows].split(rows)
                got = {
                    "torch": [network(part) for part in parts],
                    "TorchScript": [scripted(part) for part in parts],
                    "ONNX": [
                        dict(zip(names, session.run(names, {"images": part.numpy()}), strict=True)) for part in parts
                    ],
                }
                for backend, answers in got.items():
                    for name in names:
                        values = np.concatenate([np.asarray(answer[name]) for answer in answers])
                        assert np.array_equal(values, expected[name][: len(values)]), (backend, rows, name)
        finally:
            torch.set_num_threads(1)
    assert len(np.unique(expected["projections"] > 0, axis=0)) > 1, "one leaf only: the comparison says nothing"


def test_a_graph_says_where_it_comes_from_and_nothing_of_the_machine(smoke_graphs: Smoke) -> None:
    path = smoke_graphs.build / "smoke/victim.onnx"
    proto = onnx.load(path)
    metadata = {each.key: each.value for each in proto.metadata_props}
    assert metadata["checkpoint"] == load(smoke_graphs.runs / "smoke/victim.safetensors").digest
    assert metadata["architecture"] == "lenet5"
    assert json.loads(metadata["facts"])["settings"]["dataset"]["name"] == "digits"
    scripted = zipfile.ZipFile(path.with_name("victim.ts.pt"))
    assert "graph/data.pkl" in scripted.namelist()
    for data in (path.read_bytes(), *map(scripted.read, scripted.namelist())):
        assert str(Path(graphs.__file__).parent).encode() not in data
        assert str(Path(torch.__file__).parent).encode() not in data


def test_rebuilt_graphs_are_byte_identical(smoke_graphs: Smoke, tmp_path: Path) -> None:
    written = list(graphs.export(load(smoke_graphs.runs / "smoke/victim.safetensors"), tmp_path))
    assert [path.name for path in written] == ["victim.onnx", "victim.ts.pt"]
    for path in written:
        assert path.read_bytes() == (smoke_graphs.build / "smoke" / path.name).read_bytes()


class BatchDependent(nn.Module):
    """What parity must catch: a network that answers by the rows beside a row."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        flat = batch.flatten(1)[:, :3]
        return flat - (flat.mean(0, keepdim=True) if batch.shape[0] > 2 else 0)


@pytest.mark.filterwarnings("ignore:Converting a tensor:torch.jit.TracerWarning")
def test_a_graph_that_differs_is_not_written(tmp_path: Path) -> None:
    model = graphs.Classifier(BatchDependent()).eval()
    with pytest.raises(graphs.ExportError, match=r"bad\.ts\.pt: probabilities differs from torch's by .* at 7 rows"):
        graphs.to_torchscript(model, SHAPE, tmp_path / "bad.ts.pt", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_exports(name: str, tmp_path: Path) -> None:
    size, channels = (28, 1) if name.startswith(("conv3", "lenet5")) else (32, 3)
    plan = Architecture(
        name,
        {
            "classes": 10,
            "channels": channels,
            "size": size,
            "mean": [0.5] * channels,
            "std": [0.2] * channels,
        },
    )
    torch.manual_seed(0)
    model = graphs.Classifier(plan.network()).eval()
    shape = (channels, size, size)
    graphs.to_onnx(model, shape, tmp_path / "net.onnx", {"graph": "net"})
    graphs.to_torchscript(model, shape, tmp_path / "net.ts.pt", {"graph": "net"})
    assert {path.name for path in tmp_path.iterdir()} == {"net.onnx", "net.ts.pt"}
