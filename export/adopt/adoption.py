"""From the owner's file to a victim: read, understood, wrapped, checked, and only then written.

Whatever is wrong with a file is said here, in seconds, and no exception of a runtime passes. The same steps make the
victim again from a recipe's [model] (`remade`), so that what a recipe says is always what is served.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from export.adopt import signature, sources
from export.adopt.model import ALONE, Model
from export.adopt.presets import preset
from export.adopt.rows import check_rows
from export.adopt.signature import Gives, Takes
from export.adopt.sources import Source
from export.adopt.trial import (
    AGREEMENT,
    TRIED,
    Pictures,
    Tried,
    check_chance,
    predictions,
    sampled,
    table,
    trial,
    tried,
)
from export.adopt.wrapping import raw_graph, with_head
from export.graphs import ExportError, write
from pictures.model_input import ModelInput
from recipes.policies import VICTIM
from training import checkpoint
from training.checkpoint import Architecture
from zoo import datasets
from zoo.folders import Listing, listed
from zoo.imagefolder import BROKEN, some

# images that outputs are looked at and rows compared with
PROBES = 12
UNPROVEN = "nothing was proven of its preprocessing: no labelled pictures and no predictions were given"


@dataclass(frozen=True)
class Asked:
    """What the owner says. file: the model. images: a folder or a CSV of pictures; None: none. size, layout, output,
    gives, preset, fit, classes, expect: what is not to be found out; architecture: whose weights the file holds."""

    file: Path
    images: Path | None = None
    architecture: str = ""
    size: tuple[int, int] | None = None
    layout: str | None = None
    output: str = ""
    gives: str = ""
    preset: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    expect: Path | None = None


@dataclass(frozen=True)
class Adopted:
    """model: [model] of a recipe. victim: what writes runs/RECIPE/victim.*, called with the folder. said: what was
    found and how, a line each. shown: the table of preprocessings, "" where none was tried."""

    model: Model
    victim: Callable[[Path], Path]
    said: list[str]
    shown: str = ""


def adopted(asked: Asked) -> Adopted:
    """Find out what the owner's file is. Raises ExportError, DatasetError."""
    source = sources.opened(asked.file, architecture=asked.architecture, size=asked.size)
    said = [f"{asked.file}: {source.kind}", *source.said]
    listing = None if asked.images is None else listed(asked.images, "test")
    with sources.naming(asked.file):
        opened = _network(source, asked) if source.network is not None else _graph(source, asked)
    said += opened.said
    classes = _classes(asked, source, opened.columns, listing)
    found, proven, shown = _preprocessing(asked, opened, listing, classes)
    try:
        model = Model(
            file=str(asked.file.resolve()),
            classes=classes,
            input=found,
            gives=opened.gives,
            output=opened.output,
            batch=opened.batch,
            architecture=asked.architecture,
            expect="" if asked.expect is None else str(asked.expect.resolve()),
            proven=proven,
        )
    except ValueError as error:
        raise ExportError(f"{asked.file}: {error}") from error
    victim, remarks = _victim(model, source)
    return Adopted(model, victim, [*said, *remarks, proven], shown)


def remade(model: Model, images: Path | None = None) -> Adopted:
    """The victim as a recipe's [model] has it, checked again. Raises ExportError."""
    size = (model.input.height, model.input.width)
    source = sources.opened(Path(model.file), architecture=model.architecture, size=size)
    if (source.network is None) == bool(model.architecture):
        raise ExportError(f"{model.file}: expected {'weights' if model.architecture else 'a graph'}, got {source.kind}")
    victim, remarks = _victim(model, source)
    if model.expect:
        _agrees(model, source, images)
    return Adopted(model, victim, remarks)


# --- what was opened


@dataclass(frozen=True)
class _Opened:
    """What can be asked of a file. input: what of the preprocessing it shows. labels: after the arithmetic."""

    input: ModelInput
    gives: str
    output: str
    batch: int
    columns: int
    labels: Callable[[NDArray[np.float32]], NDArray[np.int64]]
    said: list[str]


def _network(source: Source, asked: Asked) -> _Opened:
    network = source.network
    assert network is not None

    @torch.inference_mode()
    def labels(images: NDArray[np.float32]) -> NDArray[np.int64]:
        assert network is not None
        found: NDArray[np.int64] = network(torch.from_numpy(images)).argmax(1).numpy()
        return found

    taken = ModelInput(source.size, source.channels)
    return _Opened(taken, "logits", "", 0, source.classes, labels, [])


def _graph(source: Source, asked: Asked) -> _Opened:
    proto = source.proto
    assert proto is not None
    takes = signature.takes(proto, asked.size, asked.layout)
    scale = 255.0 if takes.type == "uint8" else 1.0
    channels, height, width = takes.shape
    taken = ModelInput((height, width), channels, layout=takes.layout, type=takes.type, scale=scale)
    outputs = signature.candidates(proto.graph, asked.output)
    probes = natural(taken)
    found, said = [], list(takes.said)
    for output in outputs:
        batch, raw, remark = _runs(proto, takes, output.name, taken, probes)
        try:
            gives = signature.gives(proto, output.name, raw)
        except ExportError:
            if len(outputs) == 1:
                raise
            continue
        found.append((output.name, gives, batch, raw, remark))
    if not found:
        raise ExportError(
            f"expected an output (N,K), a row an image, got {', '.join(map(signature.described, proto.graph.output))}"
        )
    name, gives, batch, _, remark = _one(found)
    if len(proto.graph.output) > 1:
        said.append(f"answers with {name!r} of the outputs {', '.join(each.name for each in proto.graph.output)}")
    kind = asked.gives or gives.kind
    value = name if asked.gives or gives.kind in ("probabilities", "probability") else gives.value
    said += [remark, *(["as stated: " + kind] if asked.gives else gives.said)]
    if value != name:  # what a Softmax or Sigmoid makes of a value must be what the graph says
        _same_labels(proto, takes, taken, name, value, kind, batch, probes)
    answer = running(raw_graph(proto, takes.name, value, _plain(taken), batch))

    def labels(images: NDArray[np.float32]) -> NDArray[np.int64]:
        return labels_of(answer(images), kind)

    return _Opened(taken, kind, value, batch, gives.columns, labels, said)


def _plain(taken: ModelInput) -> ModelInput:
    """The input without arithmetic: a trial does it itself. Bytes are given as bytes."""
    return taken if taken.type == "uint8" else replace(taken, scale=1.0, mean=(0.0,), std=(1.0,), colour="RGB")


def labels_of(raw: NDArray[np.float32], kind: str) -> NDArray[np.int64]:
    """Labels (N,) of raw rows."""
    rows = raw.reshape(len(raw), -1)
    if kind in ALONE:
        return (rows[:, 0] > (0.5 if kind == "probability" else 0.0)).astype(np.int64)
    labels: NDArray[np.int64] = rows.argmax(1)
    return labels


def _runs(
    proto: onnx.ModelProto, takes: Takes, output: str, taken: ModelInput, probes: NDArray[np.float32]
) -> tuple[int, NDArray[np.float32], str]:
    """How many images it takes at a time (0: any number), its raw output for the probes, and how that is known.

    An exporter that writes a batch of 1 has often made a graph that takes any: it is tried, and compared with itself an
    image at a time. Raises ExportError.
    """
    at_once = takes.batch or 1

    def looped() -> NDArray[np.float32]:
        try:
            return running(raw_graph(proto, takes.name, output, taken, at_once))(probes)
        except ExportError:
            raise
        except Exception as error:
            raise ExportError(f"ONNX Runtime cannot run it: {_one_line(error)}") from error

    try:
        answer = running(raw_graph(proto, takes.name, output, taken, 0))
        together = answer(probes)
        if len(together) != len(probes) or len(answer(probes[:1])) != 1 or len(answer(probes[:7])) != 7:
            raise ValueError(f"{len(together)} rows for {len(probes)} images")
    except Exception:
        what = f"of {takes.batch}" if takes.batch else "of one within"
        cost = "; each image costs a whole batch" if at_once > 1 else ""
        return at_once, looped(), f"batch {what}: looped over, an image at a time{cost}"
    if not takes.batch:
        return 0, together, "takes any number of images"
    one_by_one = looped()
    largest = max(1.0, float(np.abs(one_by_one).max()))
    if together.shape != one_by_one.shape or np.abs(together - one_by_one).max() > 1e-3 * largest:
        return at_once, one_by_one, f"batch of {takes.batch}: looped over, an image at a time"
    return 0, together, f"batch of {takes.batch} declared, and it takes any number with the same answers"


def _one(
    found: Sequence[tuple[str, Gives, int, NDArray[np.float32], str]],
) -> tuple[str, Gives, int, NDArray[np.float32], str]:
    """The output that answers: the only one, or of several that say the same the probabilities. Raises ExportError."""
    if len(found) == 1:
        return found[0]
    labels = [labels_of(raw, gives.kind) for _, gives, _, raw, _ in found]
    same = all(np.array_equal(each, labels[0]) for each in labels)
    shapes = {gives.columns for _, gives, *_ in found}
    if not same or len(shapes) > 1:
        names = ", ".join(f"{name} ({gives.columns} {gives.kind})" for name, gives, *_ in found)
        raise ExportError(f"several outputs may answer: {names}; say which with --output NAME")
    return min(found, key=lambda each: each[1].kind != "probabilities" and "Softmax" not in each[1].said[0])


def _same_labels(
    proto: onnx.ModelProto,
    takes: Takes,
    taken: ModelInput,
    name: str,
    value: str,
    kind: str,
    batch: int,
    probes: NDArray[np.float32],
) -> None:
    outside = running(raw_graph(proto, takes.name, name, taken, batch))(probes)
    inside = running(raw_graph(proto, takes.name, value, taken, batch))(probes)
    said = "probability" if kind == "logit" else "probabilities"
    if not np.array_equal(labels_of(outside, said), labels_of(inside, kind)):
        raise ExportError(f"its output {name!r} does not follow from {value!r} as a softmax does; give --gives")


def running(proto: onnx.ModelProto) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """A graph of one input as a function of images; its threads are all cores', for a model that is only looked at."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it also prints what it raises
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(None, {"images": images})[0]
        return found

    return run


def natural(taken: ModelInput) -> NDArray[np.float32]:
    """PROBES images (N,C,H,W) in [0,1]: crops of a photograph, noise, and what is all of one value."""
    crops = datasets.load("china", "test", size=(taken.height, taken.width), channels=taken.channels).pixels
    random = np.random.default_rng(0)
    photographs = crops[:: len(crops) // (PROBES - 4)][: PROBES - 4].numpy()
    noise = random.random((2, *taken.shape), dtype=np.float32)
    flat = np.stack([np.full(taken.shape, level, np.float32) for level in (0.2, 0.8)])
    probes = np.concatenate([photographs, noise, flat])
    levels: NDArray[np.float32] = np.rint(probes * 255) / np.float32(255)
    return levels


# --- classes and preprocessing


def _classes(asked: Asked, source: Source, columns: int, listing: Listing | None) -> tuple[str, ...]:
    """Names in the order of the columns. Raises ExportError where their number is another."""
    count = 2 if columns == 1 else columns
    for names, where in ((asked.classes, "--classes"), (source.names, "index_to_name.json")):
        if names:
            if len(names) != count:
                raise ExportError(f"{where}: expected {count} names, one a column, got {len(names)}: {_few(names)}")
            return names
    folders = () if listing is None else listing.classes
    if folders and len(folders) != count:
        raise ExportError(
            f"{asked.file}: {count} classes, but {asked.images} has {len(folders)}: {_few(folders)}; give --classes "
            "FILE, a name a line in the order of the model's columns, where the folders are some of them"
        )
    return folders or tuple(map(str, range(count)))


def _preprocessing(
    asked: Asked, opened: _Opened, listing: Listing | None, classes: tuple[str, ...]
) -> tuple[ModelInput, str, str]:
    """What the owner does to pictures, how that is known, and the table of what was tried."""
    name = asked.preset or (asked.architecture if asked.architecture.startswith("timm:") else "")
    stated = preset(name, opened.input) if name else opened.input
    try:
        stated = replace(stated, **asked.fields)
    except ValueError as error:
        raise ExportError(f"preprocessing: {error}") from error
    given = bool(asked.preset or asked.fields)
    pictures = _pictures(asked, listing, classes)
    if pictures is None:
        return stated, UNPROVEN + (f"; it is taken for {name or 'unit'}" if not given else ""), ""
    count = len(pictures.images)
    if given or (name and pictures.labels.max() < 0 > pictures.expected.max()):
        chosen = tried(asked.preset or "as stated", stated, pictures, opened.labels)
        _check(chosen, pictures, len(classes))
        return stated, _proof(chosen, count, "as stated"), table([chosen])
    if pictures.labels.max() < 0 and pictures.expected.max() < 0:
        return stated, UNPROVEN, ""
    usual = {name: stated} if name else {}
    verdict = trial(opened.input, pictures, opened.labels, classes=len(classes), usual=usual)
    return verdict.chosen.input, _proof(verdict.chosen, count, verdict.chosen.name), verdict.table()


def _check(chosen: Tried, pictures: Pictures, classes: int) -> None:
    if chosen.agreement is not None and chosen.agreement < AGREEMENT:
        raise ExportError(
            f"it agrees with the owner's own predictions on {chosen.agreement:.1%} of pictures, expected "
            f"{AGREEMENT:.0%}; the preprocessing that was stated is another:\n{table([chosen])}"
        )
    if chosen.agreement is None and chosen.accuracy is not None:
        check_chance(chosen, pictures, classes=classes, shown=table([chosen]))


def _proof(chosen: Tried, count: int, name: str) -> str:
    parts = []
    if chosen.agreement is not None:
        parts.append(f"{chosen.agreement:.1%} of labels are the owner's own")
    if chosen.accuracy is not None:
        parts.append(f"accuracy {chosen.accuracy:.1%}")
    return f"preprocessing ({name}): {', '.join(parts)} on {count} pictures" if parts else UNPROVEN


def _pictures(asked: Asked, listing: Listing | None, classes: tuple[str, ...]) -> Pictures | None:
    """Some of the owner's pictures, those with predictions first."""
    folder = asked.images if asked.images is None or asked.images.is_dir() else asked.images.parent
    expected = {} if asked.expect is None else predictions(asked.expect, classes, folder)
    if listing is None and not expected:
        return None
    files: list[Path] = []
    labels: list[int] | None = None
    if expected:
        files = list(expected)[:: max(1, len(expected) // TRIED)][:TRIED]
        known = (
            {} if listing is None or listing.labels is None else dict(zip(listing.files, listing.labels, strict=True))
        )
        by_path = {file.resolve(): label for file, label in known.items()}
        if by_path and listing is not None:
            labels = [_column(by_path.get(file, -1), listing.classes, classes) for file in files]
    elif listing is not None:
        chosen = some(listing, TRIED)
        files = [file.resolve() for file in chosen.files]
        if chosen.labels is not None:
            labels = [_column(label, listing.classes, classes) for label in chosen.labels]
    return sampled(files, labels, expected, broken=BROKEN)


def _column(label: int, folders: Sequence[str], classes: Sequence[str]) -> int:
    """The model's column of a folder. Raises ExportError for a folder that is none of its classes."""
    if label < 0:
        return -1
    if folders[label] not in classes:
        raise ExportError(
            f"--classes: no class {folders[label]!r}, which is a folder of images; known: {_few(classes)}"
        )
    return classes.index(folders[label])


# --- the victim


def _victim(model: Model, source: Source) -> tuple[Callable[[Path], Path], list[str]]:
    """What writes it, checked before; and what was found out. Raises ExportError."""
    digest = hashlib.sha256(Path(model.file).read_bytes()).hexdigest()
    facts = {
        "classes": list(model.classes),
        "adopted": {"file": Path(model.file).name, "sha256": digest, "proven": model.proven},
        "input": {**vars(model.input), "size": [model.input.height, model.input.width]},
    }
    if source.network is not None:
        return _as_checkpoint(model, source, facts), []
    proto = source.proto
    assert proto is not None
    with sources.naming(Path(model.file)):
        try:
            made = with_head(_raw(model, proto, model.input), model)
            onnx.helper.set_model_props(made, {"facts": json.dumps(facts, sort_keys=True), "graph": VICTIM})
            written = made.SerializeToString(deterministic=True)
            answer = running(made)
            probes = natural(model.input)
            _check_answers(answer, probes, len(model.classes))
            worst = check_rows(answer, probes, proto, half=_is_half(proto))
        except ExportError:
            raise
        except Exception as error:  # ONNX Runtime's, protobuf's
            raise ExportError(f"ONNX Runtime cannot run it: {_one_line(error)}") from error

    def put(folder: Path) -> Path:
        path = folder / f"{VICTIM}.onnx"
        write(path, written)
        path.with_suffix(".safetensors").unlink(missing_ok=True)
        return path

    return put, [f"rows: answers change by {worst:.1e} at most beside others"]


def _raw(model: Model, proto: onnx.ModelProto, taken: ModelInput) -> onnx.ModelProto:
    """The raw graph of [model], with the arithmetic of `taken`."""
    takes = signature.takes(proto, (model.input.height, model.input.width), model.input.layout)
    value = model.output or signature.candidates(proto.graph, "")[0].name
    return raw_graph(proto, takes.name, value, taken, model.batch)


def _is_half(proto: onnx.ModelProto) -> bool:
    return any(each.data_type == onnx.TensorProto.FLOAT16 for each in proto.graph.initializer)


def _check_answers(
    answer: Callable[[NDArray[np.float32]], NDArray[np.float32]], probes: NDArray[np.float32], classes: int
) -> None:
    found = answer(probes)
    if found.shape != (len(probes), classes):
        raise ExportError(f"expected probabilities ({len(probes)}, {classes}), got {found.shape}")
    sums = found.sum(1)
    if not np.isfinite(found).all() or found.min() < 0 or np.abs(sums - 1).max() > signature.SUM_TOLERANCE:
        raise ExportError(
            f"expected probabilities, whose rows sum to 1, got rows with sums from {sums.min():.4g} to "
            f"{sums.max():.4g}; give --gives"
        )


def _as_checkpoint(model: Model, source: Source, facts: dict[str, Any]) -> Callable[[Path], Path]:
    """Weights become a checkpoint like that of any victim: normalisation is its first layer."""
    taken, network = model.input, source.network
    assert network is not None
    if taken.colour != "RGB":
        raise ExportError(
            f"{model.file}: colour: expected RGB for weights, got {taken.colour}; export the model to ONNX"
        )
    mean = [-offset / slope for offset, slope in zip(taken.offsets(), taken.slopes(), strict=True)]
    std = [1 / slope for slope in taken.slopes()]
    size = taken.height if taken.height == taken.width else [taken.height, taken.width]
    arguments = {"classes": len(model.classes), "channels": taken.channels, "size": size, "mean": mean, "std": std}
    plan = Architecture(model.architecture, arguments)

    def put(folder: Path) -> Path:
        path = folder / f"{VICTIM}.safetensors"
        whole: nn.Module = plan.network()
        whole.get_submodule("network").load_state_dict(network.state_dict())
        checkpoint.save(path, [whole.eval()], [plan], facts)
        path.with_suffix(".onnx").unlink(missing_ok=True)
        return path

    return put


def _agrees(model: Model, source: Source, images: Path | None) -> None:
    """Raise ExportError unless the adopted model gives the owner's own predictions."""
    asked = Asked(
        Path(model.file),
        images,
        architecture=model.architecture,
        size=(model.input.height, model.input.width),
        layout=model.input.layout,
        output="",
        gives=model.gives,
        classes=model.classes,
        expect=Path(model.expect),
    )
    pictures = _pictures(asked, None, model.classes)
    assert pictures is not None
    if source.network is not None:
        labels = _network(source, asked).labels
    else:
        assert source.proto is not None
        answer = running(_raw(model, source.proto, _plain(model.input)))

        def labels(given: NDArray[np.float32]) -> NDArray[np.int64]:
            return labels_of(answer(given), model.gives)

    _check(tried("the recipe's", model.input, pictures, labels), pictures, len(model.classes))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__


def say(lines: Sequence[str]) -> None:
    """What was found, to stderr."""
    for line in lines:
        print(f"  {line}", file=sys.stderr)
