"""Checkpoints: networks in one safetensors file, with everything needed to rebuild and verify them.

A checkpoint holds n >= 1 networks (a victim is one, an ensemble several, of any architectures). Tensor names start
with the network's number; the metadata states how to build each, and holds the resolved settings, seed, commit,
versions and metrics. Files are written under a temporary name and renamed, so that a reader never sees half a
checkpoint. Secrets never enter: a network trained on a keyed task stores neither the key nor its seed.

The same training gives the same bytes, since graphs, archives and calibrations name a checkpoint by its digest. So the
metadata is one entry, JSON with sorted keys: safetensors writes several in an order that it draws anew at each save.
What a training took is no function of what went in, and lies next to the checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from zoo.images import sides
from zoo.masked_autoencoder import NAME as MASKED_AUTOENCODER
from zoo.masked_autoencoder import MaskedAutoencoder
from zoo.models import build
from zoo.perturbation import PERTURBATIONS, perturbation

FORMAT = "torchwarden-checkpoint-2"
ENTRY = "torchwarden"  # the one entry of the metadata
# had an entry for the format and for each part, and wall time among the facts
OLDER = "torchwarden-checkpoint-1"


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or not one of ours."""


@dataclass(frozen=True)
class Architecture:
    """How to build one network: its name as `zoo.models.build` spells it and the keyword arguments of `build`, its name
    in `zoo.perturbation.PERTURBATIONS` and those of `perturbation`, or "masked-autoencoder" and those of its class."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C,H,W) of the images that the network takes."""
        return self.arguments["channels"], *sides(self.arguments["size"])

    def network(self) -> nn.Module:
        """A fresh network; its weights come from torch's global generator."""
        if self.name in PERTURBATIONS:
            return perturbation(self.name, **self.arguments)
        if self.name == MASKED_AUTOENCODER:
            return MaskedAutoencoder(**self.arguments)
        return build(self.name, **self.arguments)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: its networks in evaluation mode on the CPU, and its metadata."""

    path: Path
    digest: str
    networks: tuple[nn.Module, ...]
    architectures: tuple[Architecture, ...]
    facts: Mapping[str, Any]


def save(
    path: Path,
    networks: Sequence[nn.Module],
    architectures: Sequence[Architecture],
    facts: Mapping[str, Any],
) -> None:
    """Write networks and `facts` (JSON values) to `path`, whole or not at all."""
    tensors = {
        f"{number}.{name}": value.detach().cpu().contiguous()
        for number, network in enumerate(networks)
        for name, value in network.state_dict().items()
    }
    described = [{"name": each.name, "arguments": dict(each.arguments)} for each in architectures]
    metadata = {
        "format": FORMAT,
        "architectures": described,
        "facts": {"commit": commit(), "torch": torch.__version__, **facts},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, temporary, {ENTRY: json.dumps(metadata, sort_keys=True)})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises CheckpointError."""
    metadata, tensors = _read(path, with_tensors=True)
    architectures = tuple(Architecture(**each) for each in metadata["architectures"])
    networks = []
    for number, architecture in enumerate(architectures):
        network = architecture.network()
        prefix = f"{number}."
        network.load_state_dict(
            {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
        )
        networks.append(network.eval())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Checkpoint(path, digest, tuple(networks), architectures, metadata["facts"])


def facts(path: Path) -> dict[str, Any]:
    """The facts of a checkpoint, without building its networks. Raises CheckpointError."""
    facts: dict[str, Any] = _read(path, with_tensors=False)[0]["facts"]
    return facts


def timing_of(path: Path) -> Path:
    """Where what the training of a checkpoint took is written down."""
    return path.with_suffix(".timing.json")


def write_seconds(path: Path, seconds: float) -> None:
    """Write down how long the training of the checkpoint at `path` took."""
    target = timing_of(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"seconds": round(seconds, 3)}) + "\n", "utf-8")
    temporary.replace(target)


def seconds(path: Path) -> float | None:
    """How long the training of the checkpoint at `path` took, where it was written down."""
    try:
        return float(json.loads(timing_of(path).read_text("utf-8"))["seconds"])
    except FileNotFoundError:
        return None


def _read(path: Path, *, with_tensors: bool) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: train it first (make train)")
    try:
        with safe_open(path, framework="pt") as file:
            entries = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in (file.keys() if with_tensors else ())}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); delete it and train again") from error
    if entries.get("format") == OLDER:
        return {name: json.loads(entries[name]) for name in ("architectures", "facts")}, tensors
    metadata = json.loads(entries.get(ENTRY, "{}"))
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: expected format {FORMAT!r} or {OLDER!r}, "
            f"got {metadata.get('format') or entries.get('format')!r}; train again with this version"
        )
    return metadata, tensors


def commit() -> str | None:
    """The checkout's commit, with "+changes" where files differ from it, as results files have it (report/schema.py);
    None outside a checkout."""

    def git(*words: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
