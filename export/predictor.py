"""The predictor of an archive: what the rest of a policy needs to know about it, whatever its source and precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from export.graphs import graph_names, predictors
from recipes import Recipe
from recipes.policies import VICTIM, suffixed, victim_file
from training.black_box import GRAPH, black_box, digest_of
from training.checkpoint import Checkpoint, load


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

    def served(self, precision: str, graphs: Path, *more: str) -> Predictor:
        """The same in another precision, its graphs among those in a folder. more: graphs that it is asked behind.

        Its digest is these files', since it is they that a gate is calibrated on.
        """
        named = [suffixed(graph, precision) for graph in (*self.members, *more)]
        digest = digest_of([graphs / f"{name}{GRAPH}" for name in named])
        return replace(self, members=tuple(named[: len(self.members)]), digest=digest)


def predictor_of(recipe: Recipe, name: str, runs: Path) -> Predictor:
    """The predictor that a policy names, in float32. Raises CheckpointError."""
    folder = runs / recipe.name
    if name == VICTIM and victim_file(recipe.tables).endswith(GRAPH):
        return Predictor.adopted(folder / victim_file(recipe.tables))
    return Predictor.of(load(folder / f"{name}.safetensors"))
