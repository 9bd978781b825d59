"""Checkpoints to graphs: each network to ONNX and to TorchScript, equal to torch within a stated bound.

A graph takes `images` (N,C,H,W) float32 in [0,1] with N free and gives `probabilities` (N,K) float32 whose rows sum to
1: normalisation is the network's first layer and softmax its last, so nothing is rescaled downstream. A hash network's
graph gives `projections` (N,P) too; a surrogate's, where its checkpoint's facts state `graph: redirection`, gives
`redirection` (N,K) (export/redirection.py). An input perturbation's takes `noise` (N,...) float32 next to `images`,
which the server draws, and gives `perturbed` (N,C*H*W). A masked autoencoder and the auxiliary model behind it are one
graph, which gives `error` (N,1), the mean over pixels of (x - x^)^2, `auxiliary` (N,K), the second's answer to the
reconstruction x^, and `reconstruction` (N,C*S*S), x being the image or its small copy. An ensemble's networks become
`NAME-0`, `NAME-1`, ...; a single network, and such a pair, keeps its checkpoint's name, and a perturbation stored with
one becomes `NAME-perturbation`.

    python -m export.graphs RECIPE

writes build/RECIPE/<graph>.onnx and <graph>.ts.pt for every checkpoint of the recipe whose graphs are not there yet
(export/made.py), and copies the graph of an adopted model. A graph whose TorchScript or ONNX Runtime answers differ
from torch's by more than `BOUND` at N = 1, 7 or 32 (`redirection`: by more than `SLOPE_BOUND` of its largest value), or
at all where it is a hash network's, is not written. An ONNX graph of which the last bits of a row depend on the rows
next to it is named.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from tqdm import tqdm

import recipes
from export.made import Made
from export.redirection import Redirection, UnknownLayerError
from training.checkpoint import Checkpoint, CheckpointError, load
from zoo.hash_net import HashNet
from zoo.masked_autoencoder import MaskedAutoencoder
from zoo.perturbation import Perturbation
from zoo.shrink import copier

OPSET = 20
# of a graph's two files
SUFFIXES = (".onnx", ".ts.pt")
BATCHES = (1, 7, 32)
# largest |difference| of a float network's probability from torch's answer: rounding alone, which differs from one
# make of CPU to the next, brings an untrained ResNet34 to 1.1e-5
BOUND = 5e-5
# a network that was fitted to other images may have activations in the thousands for the noise that is shown here; then
# two runtimes differ by what rounding does to either, of which this is the multiple that is allowed
ROUNDING = 8
# the same of a surrogate's `redirection`, as a share of the largest |value| of a batch: slopes run into the thousands,
# and one of a unit that is 0 up to rounding may be handed on or not
SLOPE_BOUND = 1e-3
REDIRECTION = "redirection"
MANGLED = re.compile(rb"___torch_mangle_\d+")
WRITTEN_BY_TORCH = ("version", ".data/serialization_id")

# operators whose kernels take 16 values at a time and the rest in another way, so that a value's last bit depends on
# where in the batch it stands, unless rows are multiples of 16 wide
BY_SIXTEENS = {"Acos", "Asin", "Atan", "Cos", "Log", "Mish", "Sin", "Softplus"}

# a graph's inputs, images (N,C,H,W) float32 in [0,1] the first, -> outputs by name, (N,columns) float32
Answer = Callable[..., Mapping[str, np.ndarray]]


class ExportError(ValueError):
    """A network whose graph cannot be made, or does not answer as the network does."""


class Classifier(nn.Module):
    """A network and its softmax: images to probabilities, by name."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"probabilities": torch.softmax(self.network(images), -1)}


class Perturbed(nn.Module):
    """A perturbation whose images come out as rows: every output of every graph is a matrix."""

    def __init__(self, perturbation: Perturbation) -> None:
        super().__init__()
        self.perturbation = perturbation

    def forward(self, images: torch.Tensor, noise: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"perturbed": self.perturbation(images, noise).flatten(1)}


class Inspected(nn.Module):
    """An image or its small copy, the reconstruction of that, and an auxiliary classifier's answer to it."""

    def __init__(self, autoencoder: nn.Module, auxiliary: nn.Module, look: nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.auxiliary = auxiliary
        self.look = look

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = self.look(images)
        rebuilt = self.autoencoder(seen)
        return {
            "error": (seen - rebuilt).square().mean((1, 2, 3))[:, None],
            "auxiliary": torch.softmax(self.auxiliary(rebuilt), -1),
            "reconstruction": rebuilt.flatten(1),
        }


def graph_names(read: Checkpoint) -> list[str]:
    """What the graphs of a checkpoint's networks are called, in their order."""
    name, classifiers = read.path.stem, predictors(read)
    if inspects(read):
        return [name]
    return [
        f"{name}-perturbation"
        if isinstance(network, Perturbation)
        else name
        if classifiers == 1
        else f"{name}-{number}"
        for number, network in enumerate(read.networks)
    ]


def inspects(read: Checkpoint) -> bool:
    """Whether a checkpoint is a gate's: a masked autoencoder and its auxiliary classifier."""
    return isinstance(read.networks[0], MaskedAutoencoder)


def predictors(read: Checkpoint) -> int:
    """How many networks of a checkpoint answer; they come before a perturbation."""
    if inspects(read):
        return 0
    return sum(not isinstance(network, Perturbation) for network in read.networks)


def files(read: Checkpoint, folder: Path) -> list[Path]:
    """Where the graphs of a checkpoint's networks lie."""
    return [folder / f"{name}{suffix}" for name in graph_names(read) for suffix in SUFFIXES]


def export(read: Checkpoint, folder: Path) -> Iterator[Path]:
    """Write both graphs of every network of the checkpoint to `folder`, yielding each path. Raises ExportError."""
    # of a gate's two networks, which are one graph, the first stands for both
    for name, network, plan in zip(graph_names(read), read.networks, read.architectures, strict=not inspects(read)):
        shape = tuple(read.facts.get("images", plan.shape))
        metadata = {
            "graph": name,
            "checkpoint": read.digest,
            "architecture": plan.name,
            "facts": json.dumps(dict(read.facts), sort_keys=True),
        }
        model = _served(network, read)
        onnx_path, script_path = (folder / f"{name}{suffix}" for suffix in SUFFIXES)
        to_onnx(model, shape, onnx_path, metadata)
        to_torchscript(model, shape, script_path, metadata)
        yield onnx_path
        yield script_path


def _served(network: nn.Module, read: Checkpoint) -> nn.Module:
    """The network with its outputs by name: what kind of graph it becomes is a fact of its checkpoint."""
    kind = read.facts.get("graph")
    if kind not in (None, REDIRECTION):
        raise ExportError(f"{read.path}: graph: expected {REDIRECTION!r} or nothing, got {kind!r}; retrain it")
    if isinstance(network, HashNet):
        return network.folded()
    if isinstance(network, Perturbation):
        return Perturbed(network).eval()
    if isinstance(network, MaskedAutoencoder):
        plan = read.architectures[0]
        _, height, width = read.facts.get("images", plan.shape)
        autoencoder, auxiliary = read.networks
        return Inspected(autoencoder, auxiliary, copier((height, width), plan.shape[1])).eval()
    if kind is None:
        return Classifier(network).eval()
    try:
        model = Redirection(network).eval()
        model(torch.zeros(1, *read.architectures[0].shape))
    except UnknownLayerError as error:
        raise ExportError(f"{read.path}: {error}; write it in export/redirection.py or take another network") from error
    return model


def inputs(model: nn.Module, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The inputs of a served network, by name, each with the shape of a row; `shape`: (C,H,W)."""
    noise = {"noise": model.perturbation.noise_shape} if isinstance(model, Perturbed) else {}
    return {"images": shape, **noise}


def _zeros(model: nn.Module, shape: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.zeros(2, *row) for row in inputs(model, shape).values())


def to_onnx(model: nn.Module, shape: tuple[int, ...], path: Path, metadata: Mapping[str, str]) -> None:
    """Write `model` as one ONNX file, checked against torch, or raise ExportError and write nothing."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports on operators of packages not installed
    rows = torch.export.Dim("rows", min=1)
    with torch.no_grad(), warnings.catch_warnings():
        # where images and noise have the same number of rows, one name for it is enough
        warnings.filterwarnings("ignore", "# The axis name: rows will not be used", UserWarning)
        program = torch.onnx.export(
            model,
            _zeros(model, shape),
            input_names=list(inputs(model, shape)),
            output_names=list(model(*_zeros(model, shape))),
            dynamic_shapes=tuple({0: rows} for _ in inputs(model, shape)),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    _strip(proto)
    onnx.helper.set_model_props(proto, dict(sorted(metadata.items())))
    onnx.checker.check_model(proto)
    data = proto.SerializeToString(deterministic=True)
    check_parity(model, on_onnxruntime(data), shape, what=path.name)
    write(path, data)


def on_onnxruntime(graph: Path | bytes, *, cuda: bool = False) -> Answer:
    """An ONNX graph as a function of its inputs, on one thread of the CPU, or on CUDA."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    providers = [*(["CUDAExecutionProvider"] if cuda else []), "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(graph, options, providers=providers)
    takes = [each.name for each in session.get_inputs()]
    names = [output.name for output in session.get_outputs()]
    return lambda *given: dict(zip(names, session.run(names, dict(zip(takes, given, strict=True))), strict=True))


def batch_dependent(path: Path) -> str:
    """By what the last bits of a row's answer depend on the rows next to it, on ONNX Runtime's CPU kernels.

    Operators of BY_SIXTEENS that the graph holds, else "rounding" where it shows in answers to random inputs, else "".
    """
    held = sorted({node.op_type for node in onnx.load(path).graph.node} & BY_SIXTEENS)
    if held:
        return ", ".join(held)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    given = {
        each.name: random.random((max(BATCHES), *each.shape[1:]), dtype=np.float32) for each in session.get_inputs()
    }
    together = session.run(None, given)
    for row in range(max(BATCHES)):
        alone = session.run(None, {name: values[row : row + 1] for name, values in given.items()})
        if not all(np.array_equal(one[0], all_[row]) for one, all_ in zip(alone, together, strict=True)):
            return "rounding"
    return ""


def to_torchscript(model: nn.Module, shape: tuple[int, ...], path: Path, metadata: Mapping[str, str]) -> None:
    """Write `model` as a traced TorchScript file, checked against torch, or raise ExportError and write nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as private, torch.no_grad(), warnings.catch_warnings():
        # deprecated since torch 2.15, still complete; the serving contract asks for TorchScript next to ONNX
        warnings.filterwarnings("ignore", r".*`torch\.jit\.", FutureWarning)
        warnings.filterwarnings("ignore", r".*torch\.jit\.", DeprecationWarning)
        # torch numbers a class's name only where the process has met it before; after this it has met all of them
        torch.jit.trace(model, _zeros(model, shape), check_trace=False, strict=False)
        traced = torch.jit.trace(model, _zeros(model, shape), check_trace=False, strict=False)
        # a file's name becomes its archive's: one fixed name keeps rebuilds byte-identical
        saved, canonical = Path(private) / "saved.pt", Path(private) / "graph.pt"
        torch.jit.save(traced, saved, _extra_files={"metadata.json": json.dumps(dict(metadata))})
        _canonical(saved, canonical)
        loaded = torch.jit.load(canonical)

        def answer(*given: np.ndarray) -> Mapping[str, np.ndarray]:
            return {name: values.numpy() for name, values in loaded(*map(torch.from_numpy, given)).items()}

        check_parity(model, answer, shape, what=path.name)
        canonical.replace(path)


def _canonical(saved: Path, canonical: Path) -> None:
    """Copy a TorchScript file without what differs between two savings of one network.

    Left out: debugging records, which name files of the exporting machine. Renumbered: the classes of the traced
    modules, which torch counts through the life of a process.
    """
    reader = torch._C.PyTorchFileReader(str(saved))
    records = {
        name: reader.get_record(name)
        for name in reader.get_all_records()
        if not name.endswith(".debug_pkl") and name not in WRITTEN_BY_TORCH
    }
    numbers: dict[bytes, bytes] = {}
    for data in records.values():
        for found in MANGLED.findall(data):
            numbers.setdefault(found, b"___torch_mangle_%d" % len(numbers))

    def renumber(text: bytes) -> bytes:
        return MANGLED.sub(lambda match: numbers.get(match[0], match[0]), text)

    writer = torch._C.PyTorchFileWriter(str(canonical))
    for name, data in records.items():
        changed = renumber(data) if name.endswith((".py", ".pkl")) else data
        writer.write_record(renumber(name.encode()).decode(), changed, len(changed))
    writer.write_end_of_file()


def check_parity(model: nn.Module, answer: Answer, shape: tuple[int, ...], *, what: str) -> None:
    """Raise ExportError unless `answer` gives torch's outputs for every batch size, a hash network's bit for bit."""
    random = np.random.default_rng(0)
    bound = 0.0 if isinstance(model, HashNet) else BOUND
    for rows in BATCHES:
        given = [
            (random.random if name == "images" else random.standard_normal)((rows, *row), dtype=np.float32)
            for name, row in inputs(model, shape).items()
        ]
        with torch.inference_mode():
            expected = {name: values.numpy() for name, values in model(*map(torch.from_numpy, given)).items()}
        got = answer(*given)
        if list(got) != list(expected):
            raise ExportError(f"{what}: expected the outputs {', '.join(expected)}, got {', '.join(got)}")
        for name, right in expected.items():
            values = got[name]
            if values.shape != right.shape or values.dtype != right.dtype:
                raise ExportError(
                    f"{what}: {name}: expected {right.dtype} {right.shape} for {rows} rows, "
                    f"got {values.dtype} {values.shape}"
                )
            difference = float(np.abs(values - right).max())
            allowed = SLOPE_BOUND * float(np.abs(right).max()) if name == REDIRECTION else bound
            if bound and not difference <= allowed:
                allowed = max(allowed, ROUNDING * rounding(model, given, name, right))
            if not difference <= allowed:
                raise ExportError(
                    f"{what}: {name} differs from torch's by {difference:.1e} at {rows} rows; bound {allowed:.0e}"
                )


@torch.inference_mode()
def rounding(model: nn.Module, given: Sequence[np.ndarray], name: str, single: np.ndarray) -> float:
    """The largest |difference| of a float32 output from the same in float64: what rounding does to a network, where
    large activations make much of it."""
    exact = copy.deepcopy(model).double()(*(torch.from_numpy(each).double() for each in given))[name]
    return float(np.abs(single - exact.numpy()).max())


def _strip(proto: onnx.ModelProto) -> None:
    """Drop the exporter's notes on nodes and values: they name files of the exporting machine."""
    graph = proto.graph
    proto.producer_name, proto.doc_string, graph.doc_string = "torchwarden", "", ""
    for item in [*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph]:
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def only(graph: Path, outputs: Collection[str]) -> bytes:
    """An ONNX file without what only other outputs than these need: ONNX Runtime computes what nobody reads."""
    proto = onnx.load(graph)
    inner = proto.graph
    wanted = {each.name for each in inner.output if each.name in outputs}
    nodes = []
    for node in reversed(inner.node):  # what a node reads comes before it
        if wanted.intersection(node.output):
            wanted.update(node.input)
            nodes.append(node)
    for field, kept in (
        (inner.node, nodes[::-1]),
        (inner.output, [each for each in inner.output if each.name in outputs]),
        (inner.initializer, [each for each in inner.initializer if each.name in wanted]),
        (inner.value_info, [each for each in inner.value_info if each.name in wanted]),
    ):
        copies = [type(each).FromString(each.SerializeToString()) for each in kept]
        del field[:]
        field.extend(copies)
    onnx.checker.check_model(proto)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def write(path: Path, data: bytes) -> None:
    """Write a graph to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def _say(written: Path) -> None:
    """Name a graph that was written, and what is peculiar about it."""
    tqdm.write(str(written))
    by = batch_dependent(written) if written.suffix == ".onnx" else ""
    if by:
        tqdm.write(f"{written}: the last bits of a row depend on the rows next to it ({by})")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m export.graphs", description="checkpoints to graphs")
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the checkpoints (runs)")
    parser.add_argument("--build", type=Path, default=Path("build"), help="folder of the graphs (build)")
    options = parser.parse_args(arguments)
    try:
        recipe = recipes.read(options.recipe)
        folder = options.runs / recipe.name
        checkpoints, adopted = sorted(folder.glob("*.safetensors")), sorted(folder.glob("*.onnx"))
        if not checkpoints and not adopted:
            raise CheckpointError(f"no checkpoints in {folder}: train first (make train)")
        graphs = options.build / recipe.name
        for path in adopted:  # checked when it was adopted (export/adopt/)
            write(graphs / path.name, path.read_bytes())
            _say(graphs / path.name)
        made = Made(graphs)
        for path in tqdm(checkpoints, desc="export", unit="checkpoint"):
            read = load(path)
            if made.has(files(read, graphs), read.digest):
                tqdm.write(f"{path.name}: its graphs are there, made of it already")
                continue
            for written in export(read, graphs):
                _say(written)
            made.add(files(read, graphs), read.digest)
    except ValueError as error:
        sys.exit(f"export.graphs: {error}")


if __name__ == "__main__":
    main()
