"""The predictor of an archive: what the rest of a policy needs to know about it, whatever its source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export.graphs import graph_names, predictors
from training.black_box import black_box
from training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Predictor:
    """members: its graphs. shape: (C,H,W) of the images that they take. classes: names, in the order of their columns.
    digest: SHA-256 of the file that it comes from."""

    members: tuple[str, ...]
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    digest: str

    @classmethod
    def of(cls, read: Checkpoint) -> Predictor:
        """The networks of a checkpoint that answer."""
        return cls(
            members=tuple(graph_names(read)[: predictors(read)]),
            shape=read.architectures[0].shape,
            classes=tuple(read.facts["classes"]),
            digest=read.digest,
        )

    @classmethod
    def adopted(cls, path: Path) -> Predictor:
        """The graph of an adopted model (export/adopt/). Raises CheckpointError."""
        box = black_box(path.stem, path.parent)
        return cls((path.stem,), box.shape, box.classes, box.digest)
