"""What can be asked of a file: which of its outputs answers, with what, and how many images at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from export.adopt import signature
from export.adopt.asked import Asked
from export.adopt.model import ALONE
from export.adopt.probing import natural, one_line, running
from export.adopt.signature import Gives, Takes
from export.adopt.sources import Source
from export.adopt.wrapping import raw_graph
from export.graphs import ExportError
from pictures.model_input import ModelInput


@dataclass(frozen=True)
class Opened:
    """What can be asked of a file. input: what of the preprocessing it shows. labels: after the arithmetic."""

    input: ModelInput
    gives: str
    output: str
    batch: int
    columns: int
    labels: Callable[[NDArray[np.float32]], NDArray[np.int64]]
    said: list[str]


def of_network(source: Source) -> Opened:
    """Of weights in their architecture."""
    network = source.network
    assert network is not None
    # channels last: convolutions of many images take a third of the time on a CPU
    last = all(parameter.dim() <= 4 for parameter in network.parameters())
    layout = torch.channels_last if last else torch.contiguous_format
    network.to(memory_format=layout)

    @torch.inference_mode()
    def labels(images: NDArray[np.float32]) -> NDArray[np.int64]:
        given = torch.from_numpy(images).contiguous(memory_format=layout)
        found: NDArray[np.int64] = network(given).argmax(1).numpy()
        return found

    taken = ModelInput(source.size, source.channels)
    return Opened(taken, "logits", "", 0, source.classes, labels, [])


def of_graph(source: Source, asked: Asked) -> Opened:
    """Of an ONNX graph. Raises ExportError."""
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
    answer = running(raw_graph(proto, takes.name, value, plain(taken), batch))

    def labels(images: NDArray[np.float32]) -> NDArray[np.int64]:
        return labels_of(answer(images), kind)

    return Opened(taken, kind, value, batch, gives.columns, labels, said)


def plain(taken: ModelInput) -> ModelInput:
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
            raise ExportError(f"ONNX Runtime cannot run it: {one_line(error)}") from error

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
