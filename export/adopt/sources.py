"""The owner's file, whatever kind it is: a graph, or weights of a network that can be built here.

    .onnx                  as it is, weights that lie beside it included
    TorchScript            exported to ONNX; with --architecture its weights are taken
    .pt2 (torch.export)    likewise
    .pth, .safetensors     a state dict, with --architecture timm:NAME or torchvision:NAME
    .mar                   what a TorchServe archive holds of these, and its index_to_name.json

Nothing of a file is run as code: no pickled module is opened, no handler of an archive imported. What is exported here
is compared with the module on 1, 2, 3 and 7 images: an exporter may write a fixed batch without a word, or keep one
branch of `if len(x) == 1`.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from export.graphs import OPSET, ExportError, on_onnxruntime
from zoo import pretrained
from zoo.models import ArchitectureError, named
from zoo.published import UnknownNetworkError, answers, is_published, pretrained_config, published

# batch sizes at which an export made here must give what the module gives
BATCHES = (1, 2, 3, 7)
# largest |difference| of an output, as a share of the largest
PARITY = 1e-4
# sides that are tried where a file says nothing of its input
USUAL = (224, 32, 28, 64, 96, 128, 160, 192, 240, 256, 299, 320, 384)
# wrappers under whose name training programs keep a state dict, and what they put before its names
HOLDERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
PREFIXES = ("module.", "model.", "_orig_mod.", "net.", "network.", "backbone.")
SCRIPT, STATE = "TorchScript", "a state dict"


@dataclass(frozen=True)
class Source:
    """The file as a graph, or as a network with its weights.

    proto: a whole ONNX model. network: on normalised images; channels, size and classes are its own. names: of classes,
    where the file has them. said: what was found and how, a line each.
    """

    kind: str
    proto: onnx.ModelProto | None = None
    network: nn.Module | None = None
    channels: int = 3
    size: tuple[int, int] = (0, 0)
    classes: int = 0
    names: tuple[str, ...] = ()
    said: list[str] = field(default_factory=list)


def opened(path: Path, *, architecture: str, size: tuple[int, int] | None) -> Source:
    """The owner's file. Raises ExportError that says what is wrong with it and what can be done."""
    if not path.is_file():
        raise ExportError(f"{path}: no such file")
    if architecture and not is_published(architecture):
        raise ExportError(f"--architecture: expected timm:NAME or torchvision:NAME, got {architecture!r}")
    with naming(path):
        return _opened(path, architecture, size)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let what is wrong with a file be an ExportError that begins with its path."""
    try:
        yield
    except (ExportError, ArchitectureError, UnknownNetworkError, pretrained.PretrainedError) as error:
        if isinstance(error, ExportError) and str(error).startswith(str(path)):
            raise
        raise ExportError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error


def _opened(path: Path, architecture: str, size: tuple[int, int] | None) -> Source:
    ending = path.suffix.lower()
    if ending == ".mar":
        return _archive(path, architecture, size)
    if ending == ".onnx":
        return Source("ONNX", proto=_onnx(path))
    if ending == ".safetensors":
        return _weights(pretrained.tensors(path), "a .safetensors file", architecture, size)
    if ending in (".pt2", ".ep"):
        return _exported(path, architecture)
    if ending in (".pt", ".pth", ".ts", ".bin", ".jit", ".torchscript", ".ckpt"):
        return _torch(path, architecture, size)
    raise ExportError(
        "expected an .onnx, a TorchScript (.pt), a .pt2, a state dict (.pth, .safetensors) or a .mar file, got one "
        f"that ends in {ending or 'nothing'}; Keras: model.export(FILE, format='onnx'); scikit-learn: skl2onnx"
    )


def _onnx(path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load(path)
    except Exception as error:  # protobuf, onnx and the file system raise different ones
        raise ExportError(f"not an ONNX file that can be read ({type(error).__name__}: {_one_line(error)})") from error
    if not proto.graph.node:
        raise ExportError("not an ONNX file that can be read: it holds no graph")
    return proto


def _torch(path: Path, architecture: str, size: tuple[int, int] | None) -> Source:
    """TorchScript, or what torch.save wrote."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            names = packed.namelist()
        if any(name.endswith("constants.pkl") for name in names):
            return _script(path, architecture, size)
        if any(name.endswith(("serialized_exported_program.json", "models/model.json")) for name in names):
            return _exported(path, architecture)
    return _weights(_state_dict(path), STATE, architecture, size)


def _state_dict(path: Path) -> dict[str, torch.Tensor]:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what the unpickler refuses, and what is no file of torch's
        raise ExportError(
            "not a state dict that can be read: a pickled module or optimiser would run code when it is opened; save "
            f"model.state_dict(), or export the model ({type(error).__name__}: {_one_line(error)[:160]})"
        ) from error
    for _ in range(2):
        holder = next((name for name in HOLDERS if isinstance(held, dict) and isinstance(held.get(name), dict)), None)
        held = held[holder] if holder else held
    if not isinstance(held, dict) or not any(isinstance(value, torch.Tensor) for value in held.values()):
        raise ExportError(f"expected a state dict, tensors by name, got {type(held).__name__}")
    return {name: value for name, value in held.items() if isinstance(value, torch.Tensor)}


def _weights(state: dict[str, torch.Tensor], kind: str, architecture: str, size: tuple[int, int] | None) -> Source:
    """A network of the architecture that holds exactly these weights."""
    if not architecture:
        raise ExportError(
            f"{kind} says nothing of its network; give --architecture timm:NAME or torchvision:NAME, or export the "
            "model to ONNX"
        )
    named(architecture)
    state = _unprefixed(state)
    whole, why = (size, "as stated") if size else _usual_size(architecture)
    channels = _channels(state, architecture, whole)
    found = []
    for classes in _heads(state, architecture, channels, whole):
        network = published(architecture, classes=classes, channels=channels, size=whole)
        missing, unexpected = _misfits(network, state)
        if not missing and not unexpected:
            network.load_state_dict(state)
            if answers(network, channels, whole) != classes:
                continue
            said = [
                f"{kind} of {architecture}: all of its {len(state)} tensors fit",
                f"images {channels} x {whole[0]} x {whole[1]} (C x H x W): channels of the first convolution, "
                f"size {why}",
                f"{classes} logits: rows of the last linear layer",
            ]
            return Source(kind, None, network.eval(), channels, whole, classes, (), said)
        found.append((len(missing) + len(unexpected), missing, unexpected))
    _, missing, unexpected = min(found, default=(0, [], []))
    raise ExportError(
        f"its tensors are not those of {architecture}: missing {_few(missing)}; not of it {_few(unexpected)}; give the "
        "architecture that it was trained as"
    )


def _channels(state: dict[str, torch.Tensor], architecture: str, size: tuple[int, int]) -> int:
    """Of the images that the weights are for; 3 where neither the file nor the architecture says."""
    try:
        gray = published(architecture, classes=2, channels=1, size=size)
    except UnknownNetworkError:  # torchvision's networks take colour alone
        return 3
    colour = published(architecture, classes=2, channels=3, size=size)
    return next(iter(_decided(state, 1, gray, colour)), 3)


def _heads(state: dict[str, torch.Tensor], architecture: str, channels: int, size: tuple[int, int]) -> list[int]:
    """Numbers of classes that the weights may be for; where the file has no head, any shows what is missing."""
    fewer, more = (published(architecture, classes=classes, channels=channels, size=size) for classes in (2, 3))
    return _decided(state, 0, fewer, more) or [2]


def _decided(state: dict[str, torch.Tensor], dimension: int, one: nn.Module, other: nn.Module) -> list[int]:
    """Sizes of the tensors in which two networks differ, as the file has them. Names decide, not the file's order:
    safetensors sorts by type and name."""
    others = other.state_dict()
    names = [name for name, value in one.state_dict().items() if value.shape != others[name].shape]
    return sorted({state[name].shape[dimension] for name in names if name in state and state[name].ndim > dimension})


def _misfits(network: nn.Module, state: dict[str, torch.Tensor]) -> tuple[list[str], list[str]]:
    own = network.state_dict()
    missing = [name for name, value in own.items() if name not in state or state[name].shape != value.shape]
    return missing, [name for name in state if name not in own]


def _unprefixed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without what wrappers put before every name."""
    for _ in range(2):
        prefix = next((each for each in PREFIXES if all(name.startswith(each) for name in state)), "")
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _usual_size(architecture: str) -> tuple[tuple[int, int], str]:
    if architecture.startswith("timm:"):
        height, width = pretrained_config(architecture)["input_size"][1:]
        return (height, width), "as timm's pretrained_cfg has it"
    return (224, 224), "torchvision's usual one"


def _script(path: Path, architecture: str, size: tuple[int, int] | None) -> Source:
    with _quiet():
        try:
            module = torch.jit.load(path, map_location="cpu").eval()
        except Exception as error:
            raise ExportError(f"not a TorchScript file that can be read ({_one_line(error)[:200]})") from error
    state = dict(module.state_dict())
    if architecture:
        return replace(_weights(state, f"the weights of a {SCRIPT} file", architecture, size), kind=SCRIPT)
    channels = next((value.shape[1] for value in state.values() if value.ndim == 4 and value.shape[1] in (1, 3)), 3)
    whole, why = _tried(module, channels, size)
    said = [f"images {channels} x {whole[0]} x {whole[1]} (C x H x W): {why}"]
    proto = exported(module, (channels, *whole), scripted=True)
    return Source(SCRIPT, proto, said=said)


def _tried(
    module: Callable[[torch.Tensor], Any], channels: int, size: tuple[int, int] | None
) -> tuple[tuple[int, int], str]:
    """The size of a module's images: as stated, or the one of the usual ones that it takes."""
    taken = []
    for each in [size] if size else [(side, side) for side in USUAL]:
        with torch.inference_mode():
            try:
                module(torch.zeros(1, channels, *each))
                taken.append(each)
            except Exception as error:
                if size:
                    raise ExportError(
                        f"--size: it does not take {size[0]} x {size[1]}: {_one_line(error)[:160]}"
                    ) from error
    if size:
        return size, "as stated"
    if len(taken) != 1:
        some = ", ".join(f"{height} x {width}" for height, width in taken)
        raise ExportError(
            f"a {SCRIPT} file says nothing of its images, and it takes {some or 'none of the usual sizes'}; say what "
            "it was trained on, as in --size 224 or --size 48x192"
        )
    return taken[0], "the only one of the usual sizes that it takes"


def _exported(path: Path, architecture: str) -> Source:
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise ExportError(
            f"not a .pt2 file that can be read ({type(error).__name__}: {_one_line(error)[:200]})"
        ) from error
    inputs = [
        node.meta["val"].shape for node in program.graph.nodes if node.name in program.graph_signature.user_inputs
    ]
    if len(inputs) != 1 or len(inputs[0]) != 4:
        raise ExportError(f"expected one input (N,C,H,W), got {[tuple(map(str, each)) for each in inputs]}")
    rows, *rest = inputs[0]
    if not all(isinstance(side, int) for side in rest):
        raise ExportError(f"expected a fixed size of images, got {tuple(map(str, rest))}; export it for one")
    channels, height, width = rest
    if architecture:
        state = {name: value.detach() for name, value in program.state_dict.items()}
        return _weights(state, "the weights of a .pt2 file", architecture, (height, width))
    fixed = rows if isinstance(rows, int) else 0
    said = [f"images {channels} x {height} x {width} (C x H x W): declared"]
    proto = exported(program.module(), (channels, height, width), batch=fixed)
    return Source(".pt2", proto, said=said)


def exported(
    module: Callable[..., Any], shape: tuple[int, int, int], *, scripted: bool = False, batch: int = 0
) -> onnx.ModelProto:
    """A module as ONNX, compared with it. batch: images that it takes at a time; 0: any number. Raises ExportError."""
    example = (torch.zeros(batch or 2, *shape),)
    rows = torch.export.Dim("rows", min=1)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), _quiet():
        path = Path(folder) / "exported.onnx"
        free: dict[str, Any] = {} if batch else {"dynamic_shapes": ({0: rows},)}
        if scripted:
            free = {"dynamic_axes": {"images": {0: "rows"}}}
        try:
            torch.onnx.export(
                module,  # type: ignore[arg-type]
                example,
                str(path),
                input_names=["images"],
                opset_version=17 if scripted else OPSET,
                dynamo=not scripted,
                external_data=False,
                **free,
            )
        except Exception as error:
            raise ExportError(f"cannot be exported to ONNX: {_one_line(error)[:300]}") from error
        proto = onnx.load(path)
    _compare(module, proto, shape, batch)
    return proto


def _compare(module: Callable[..., Any], proto: onnx.ModelProto, shape: tuple[int, int, int], batch: int) -> None:
    random = np.random.default_rng(0)
    try:
        answer = on_onnxruntime(proto.SerializeToString())
        for rows in (batch,) if batch else BATCHES:
            images = random.random((rows, *shape), dtype=np.float32)
            with torch.inference_mode():
                right = module(torch.from_numpy(images))
            first = right if isinstance(right, torch.Tensor) else next(iter(_values(right)))
            got = next(iter(answer(images).values()))
            expected = first.float().numpy()
            if got.shape != expected.shape:
                raise ExportError(
                    f"its export gives {got.shape} where it gives {expected.shape} for {rows} images: the exporter "
                    "kept one batch size, or one branch of the code; export it to ONNX with the code at hand"
                )
            difference = float(np.abs(got - expected).max())
            if not difference <= PARITY * max(1.0, float(np.abs(expected).max())):
                raise ExportError(
                    f"its export differs by {difference:.2g} for {rows} images: the exporter kept one branch of the "
                    "code; export it to ONNX with the code at hand"
                )
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"its export does not run on {BATCHES} images: {_one_line(error)[:200]}") from error


def _values(answer: Any) -> Sequence[torch.Tensor]:
    return list(answer.values()) if isinstance(answer, dict) else list(answer)


def _archive(path: Path, architecture: str, size: tuple[int, int] | None) -> Source:
    """The model that a TorchServe archive serves."""
    try:
        with zipfile.ZipFile(path) as packed, tempfile.TemporaryDirectory() as folder:
            manifest = json.loads(packed.read("MAR-INF/MANIFEST.json"))
            serialized = manifest["model"].get("serializedFile")
            if not serialized:
                raise ExportError("its manifest names no serializedFile: its handler brings the model; give that file")
            held = Path(folder) / Path(serialized).name
            held.write_bytes(packed.read(serialized))
            for name in packed.namelist():  # weights beside an ONNX file
                if Path(name).suffix in (".data", ".weights") and "/" not in name:
                    (Path(folder) / name).write_bytes(packed.read(name))
            names: tuple[str, ...] = ()
            if "index_to_name.json" in packed.namelist():
                names = class_names(packed.read("index_to_name.json").decode())
            source = opened(held, architecture=architecture, size=size)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        if isinstance(error, ExportError):
            raise ExportError(str(error).replace(str(held), f"{path.name}:{held.name}")) from error
        raise ExportError(f"not a TorchServe archive that can be read ({_one_line(error)})") from error
    said = [f"{Path(serialized).name} of the archive, {source.kind}", *source.said]
    return replace(source, kind=f"a .mar of {source.kind}", names=names, said=said)


def class_names(text: str) -> tuple[str, ...]:
    """Of a JSON list, TorchServe's index_to_name.json ({"0": "cat"} or {"0": ["n021", "cat"]}), or a name a line.
    Raises ExportError."""
    try:
        read = json.loads(text)
    except json.JSONDecodeError:
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    if isinstance(read, dict):
        try:
            read = [read[str(number)] for number in range(len(read))]
        except KeyError as error:
            raise ExportError(f"class names: expected the keys 0 to {len(read) - 1}, got no {error}") from error
    return tuple(str(each[-1]) if isinstance(each, list) else str(each) for each in read)


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(names[:3]) or "nothing") + more


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """TorchScript and its exporter are deprecated, and complete."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
