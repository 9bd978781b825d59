"""The victim of an adopted model: a graph, or a checkpoint like any other; made from [model] alone, and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from export.adopt import signature, sources
from export.adopt.model import Model
from export.adopt.probing import natural, one_line, running
from export.adopt.rows import check_rows
from export.adopt.sources import Source
from export.adopt.wrapping import raw_graph, with_head
from export.graphs import ExportError, write
from pictures.model_input import ModelInput
from recipes.policies import VICTIM
from training import checkpoint
from training.checkpoint import Architecture


def victim_of(model: Model, source: Source, *, rows: bool = True) -> tuple[Callable[[Path], Path], list[str]]:
    """What writes it, checked before; and what was found out. rows: whether those of a graph may depend on each other
    is yet to be seen; the arithmetic before it makes no difference. Raises ExportError."""
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
            made = with_head(raw_of(model, proto, model.input), model)
            onnx.helper.set_model_props(made, {"facts": json.dumps(facts, sort_keys=True), "graph": VICTIM})
            written = made.SerializeToString(deterministic=True)
            answer = running(made)
            probes = natural(model.input)
            _check_answers(answer, probes, len(model.classes))
            worst = check_rows(answer, probes, proto, half=_is_half(proto)) if rows else 0.0
        except ExportError:
            raise
        except Exception as error:  # ONNX Runtime's, protobuf's
            raise ExportError(f"ONNX Runtime cannot run it: {one_line(error)}") from error

    def put(folder: Path) -> Path:
        path = folder / f"{VICTIM}.onnx"
        write(path, written)
        path.with_suffix(".safetensors").unlink(missing_ok=True)
        return path

    return put, [f"rows: answers change by {worst:.1e} at most beside others"]


def raw_of(model: Model, proto: onnx.ModelProto, taken: ModelInput) -> onnx.ModelProto:
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
