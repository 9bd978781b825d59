"""Graphs: parity with torch, a free batch axis, metadata, and a check that fails when it should."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from export import graphs
from tests.conftest import RECIPE, Smoke
from tests.reached import Reached
from training.checkpoint import Architecture, load, save
from zoo.models import ARCHITECTURES
from zoo.perturbation import PERTURBATIONS, Perturbation

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
    assert len(np.unique(expected["projections"] > 0, axis=0)) > 1, "one leaf only: the comparison is void"


@pytest.mark.parametrize("name", ["probabilities", "projections"])
def test_a_graph_with_fewer_outputs_computes_nothing_for_the_others(
    smoke_graphs: Smoke, tmp_path: Path, name: str
) -> None:
    whole = smoke_graphs.build / "smoke/hash.onnx"
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(graphs.only(whole, [name]))
    before, after = onnx.load(whole), onnx.load(cut)
    assert [output.name for output in after.graph.output] == [name]
    assert after.metadata_props == before.metadata_props
    used = {each for node in after.graph.node for each in node.input}
    assert all({name, *used}.intersection(node.output) for node in after.graph.node)
    assert {tensor.name for tensor in after.graph.initializer} <= used
    assert len(after.graph.node) < len(before.graph.node)
    for rows in (1, 7, 32):
        got = graphs.on_onnxruntime(cut)(images(rows))
        np.testing.assert_array_equal(got[name], graphs.on_onnxruntime(whole)(images(rows))[name])


def test_a_hash_s_graph_has_no_scales_of_its_own(smoke_graphs: Smoke) -> None:
    nodes = onnx.load(smoke_graphs.build / "smoke/hash.onnx").graph.node
    # the pixels' 255 alone: every other power of two is in the weights
    assert [node.op_type for node in nodes].count("Mul") == 1


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_perturbation_s_graphs_add_what_the_network_adds_at_any_batch(smoke_graphs: Smoke, reached: Reached) -> None:
    network = load(smoke_graphs.runs / "smoke/meco.safetensors").networks[1]
    path = smoke_graphs.build / "smoke/meco-perturbation.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [(each.name, each.type, each.shape[1:]) for each in session.get_inputs()] == [
        ("images", "tensor(float)", [1, 28, 28]),
        ("noise", "tensor(float)", [1, 28, 28]),
    ]
    scripted = torch.jit.load(path.with_suffix(".ts.pt"))
    sizes, changes = [], []
    for rows in (1, 7, 32, 64):
        pixels = images(rows)
        noise = np.random.default_rng(rows).standard_normal((rows, *SHAPE), dtype=np.float32)
        with torch.inference_mode():
            given = torch.from_numpy(pixels), torch.from_numpy(noise)
            expected = network(*given).flatten(1).numpy()
            from_script = scripted(*given)
        (from_onnx,) = session.run(["perturbed"], {"images": pixels, "noise": noise})
        assert from_onnx.shape == (rows, 784)
        assert from_onnx.dtype == np.float32
        assert list(from_script) == ["perturbed"]
        np.testing.assert_allclose(from_onnx, expected, atol=1e-5)
        np.testing.assert_allclose(from_script["perturbed"].numpy(), expected, atol=1e-5)
        added = from_onnx - pixels.reshape(rows, -1)
        sizes.append(np.sqrt(np.square(added).mean(1)).min())
        (other,) = session.run(["perturbed"], {"images": pixels, "noise": -noise})
        changes.append(np.abs(other - from_onnx).max(1).min())
    reached("least size", min(sizes), above=0.005)
    reached("least that other noise changes", min(changes), above=0.005)


def test_a_checkpoint_s_perturbation_has_the_checkpoint_s_name_and_one_of_its_own(smoke_graphs: Smoke) -> None:
    def names(checkpoint: str) -> tuple[list[str], int]:
        read = load(smoke_graphs.runs / f"smoke/{checkpoint}.safetensors")
        return graphs.graph_names(read), graphs.predictors(read)

    assert names("meco") == (["meco", "meco-perturbation"], 1)
    assert names("victim") == (["victim"], 1)
    assert names("edm") == (["edm-0", "edm-1", "edm-2"], 3)
    read = load(smoke_graphs.runs / "smoke/meco.safetensors")
    several = replace(read, networks=(*read.networks[:1] * 2, read.networks[1]))
    assert graphs.graph_names(several) == ["meco-0", "meco-1", "meco-perturbation"]
    assert graphs.predictors(several) == 2


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_gate_s_graphs_say_what_its_two_networks_do_at_any_batch(smoke_graphs: Smoke) -> None:
    autoencoder, auxiliary = load(smoke_graphs.runs / "smoke/same.safetensors").networks
    path = smoke_graphs.build / "smoke/same.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [(each.name, each.shape[1:]) for each in session.get_inputs()] == [("images", [1, 28, 28])]
    names = [each.name for each in session.get_outputs()]
    scripted = torch.jit.load(path.with_suffix(".ts.pt"))
    for rows in (1, 5, 33):
        pixels = images(rows)
        with torch.inference_mode():
            batch = torch.from_numpy(pixels)
            rebuilt = autoencoder(batch)
            expected = {
                "error": torch.stack([(x - y).square().mean() for x, y in zip(batch, rebuilt, strict=True)])[:, None],
                "auxiliary": auxiliary(rebuilt).softmax(1),
                "reconstruction": rebuilt.flatten(1),
            }
            from_script = scripted(batch)
        assert list(from_script) == names == list(expected)
        from_onnx = dict(zip(names, session.run(names, {"images": pixels}), strict=True))
        for name, values in expected.items():
            for got in (np.asarray(from_onnx[name]), from_script[name].numpy()):
                assert got.dtype == np.float32
                np.testing.assert_allclose(got, values.numpy(), atol=1e-5, err_msg=name)
    errors = from_onnx["error"]
    assert errors.shape == (33, 1)
    assert len(np.unique(errors)) == 33, "one error for all images"


def test_a_gate_s_two_networks_are_one_graph_of_their_checkpoint_s_name(smoke_graphs: Smoke, tmp_path: Path) -> None:
    read = load(smoke_graphs.runs / "smoke/same.safetensors")
    assert (graphs.graph_names(read), graphs.predictors(read)) == (["same"], 0)
    assert [path.name for path in graphs.export(read, tmp_path)] == ["same.onnx", "same.ts.pt"]
    metadata = {each.key: each.value for each in onnx.load(tmp_path / "same.onnx").metadata_props}
    assert (metadata["graph"], metadata["architecture"]) == ("same", "masked-autoencoder")
    assert metadata["checkpoint"] == read.digest
    for name in ("same.onnx", "same.ts.pt"):
        assert (tmp_path / name).read_bytes() == (smoke_graphs.build / "smoke" / name).read_bytes()


def test_both_networks_of_a_checkpoint_say_where_they_come_from(smoke_graphs: Smoke, tmp_path: Path) -> None:
    read = load(smoke_graphs.runs / "smoke/meco.safetensors")
    written = [path.name for path in graphs.export(read, tmp_path)]
    assert written == ["meco.onnx", "meco.ts.pt", "meco-perturbation.onnx", "meco-perturbation.ts.pt"]
    for name, architecture in (("meco", "lenet5"), ("meco-perturbation", "meco")):
        proto = onnx.load(tmp_path / f"{name}.onnx")
        metadata = {each.key: each.value for each in proto.metadata_props}
        assert (metadata["graph"], metadata["architecture"]) == (name, architecture)
        assert metadata["checkpoint"] == read.digest
        assert json.loads(metadata["facts"])["settings"]["meco"]["rms"] == 0.05
        scripted = zipfile.ZipFile(tmp_path / f"{name}.ts.pt")
        assert json.loads(scripted.read("graph/extra/metadata.json")) == metadata
        for file in (tmp_path / f"{name}.onnx", tmp_path / f"{name}.ts.pt"):
            assert file.read_bytes() == (smoke_graphs.build / "smoke" / file.name).read_bytes()


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
    """What parity must catch: a network whose answer to a row depends on the others."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        flat = batch.flatten(1)[:, :3]
        return flat - (flat.mean(0, keepdim=True) if batch.shape[0] > 2 else 0)


@pytest.mark.filterwarnings("ignore:Converting a tensor:torch.jit.TracerWarning")
def test_a_graph_that_differs_is_not_written(tmp_path: Path) -> None:
    model = graphs.Classifier(BatchDependent()).eval()
    with pytest.raises(graphs.ExportError, match=r"bad\.ts\.pt: probabilities differs from torch's by .* at 7 rows"):
        graphs.to_torchscript(model, SHAPE, tmp_path / "bad.ts.pt", {})
    assert list(tmp_path.iterdir()) == []


class Unheeding(Perturbation):
    """What parity must catch: a perturbation that adds another image's noise."""

    noise_shape = SHAPE

    def h(self, given: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return self.rms * (noise if given.shape[0] <= 2 else noise.flip(0))


@pytest.mark.filterwarnings("ignore:Converting a tensor:torch.jit.TracerWarning")
def test_a_perturbation_that_differs_is_not_written(tmp_path: Path) -> None:
    model = graphs.Perturbed(Unheeding(0.1)).eval()
    with pytest.raises(graphs.ExportError, match=r"bad\.ts\.pt: perturbed differs from torch's by .* at 7 rows"):
        graphs.to_torchscript(model, SHAPE, tmp_path / "bad.ts.pt", {})
    assert list(tmp_path.iterdir()) == []

    def other(images: np.ndarray, noise: np.ndarray) -> dict[str, np.ndarray]:
        return {"images": images.reshape(len(images), -1)}

    with pytest.raises(graphs.ExportError, match="bad: expected the outputs perturbed, got images"):
        graphs.check_parity(model, other, SHAPE, what="bad")


@pytest.mark.parametrize("name", sorted(PERTURBATIONS))
def test_every_perturbation_exports(name: str, tmp_path: Path) -> None:
    learned = {"filters": 4} if name == "meco" else {}
    for channels, size in ((1, 28), (3, 32)):
        torch.manual_seed(0)
        network = Architecture(name, {"channels": channels, "size": size, "rms": 0.1, **learned}).network()
        assert isinstance(network, Perturbation)
        model, shape = graphs.Perturbed(network).eval(), (channels, size, size)
        graphs.to_onnx(model, shape, tmp_path / f"net-{size}.onnx", {"graph": "net"})
        graphs.to_torchscript(model, shape, tmp_path / f"net-{size}.ts.pt", {"graph": "net"})
    assert len(list(tmp_path.iterdir())) == 4


# a quarter of a minute each on an idle machine
DEEP = ("densenet121", "mobilenetv2", "resnet34-8x")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.drill) if name in DEEP else name for name in sorted(ARCHITECTURES)]
)
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


def rowwise(path: Path, operator: str) -> Path:
    """A graph of one operator that works on every value for itself."""
    put = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["rows", 10]) for name in ("images", "out")]
    graph = onnx.helper.make_graph([onnx.helper.make_node(operator, ["images"], ["out"])], "g", put[:1], put[1:])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", graphs.OPSET)], ir_version=10)
    onnx.save(proto, path)
    return path


def test_graphs_whose_rows_depend_on_their_neighbours_are_named(tmp_path: Path) -> None:
    for operator in graphs.BY_SIXTEENS:
        assert graphs.batch_dependent(rowwise(tmp_path / "g.onnx", operator)) == operator
    assert graphs.batch_dependent(rowwise(tmp_path / "g.onnx", "Relu")) == ""


def test_export_names_them(smoke_runs: Smoke, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A redirection's last bits depend on its batch by no operator of the list, on some processors: it shows."""
    (tmp_path / "runs/smoke").mkdir(parents=True)
    plan = load(smoke_runs.runs / "smoke/victim.safetensors").architectures[0]
    torch.manual_seed(7)
    path = tmp_path / "runs/smoke/surrogate.safetensors"
    save(path, [plan.network()], [plan], {"classes": 10, "graph": "redirection"})
    victim = tmp_path / "runs/smoke/victim.safetensors"
    victim.write_bytes((smoke_runs.runs / "smoke/victim.safetensors").read_bytes())
    graphs.main([str(RECIPE), "--runs", str(tmp_path / "runs"), "--build", str(tmp_path / "build")])
    said = capsys.readouterr().out
    named = {name: graphs.batch_dependent(tmp_path / f"build/smoke/{name}.onnx") for name in ("surrogate", "victim")}
    for name, by in named.items():
        line = f"{name}.onnx: the last bits of a row depend on the rows next to it ({by})"
        assert (line in said) == bool(by)
