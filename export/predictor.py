"""The predictor of an archive: what the rest of a policy needs to know about it, whatever its source."""

from __future__ import annotations

from dataclasses import dataclass

from export.graphs import graph_names, predictors
from training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Predictor:
    """members: its graphs. channels, size: of the images that they take. classes: names, in the order of their columns.
    digest: SHA-256 of the file that it comes from."""

    members: tuple[str, ...]
    channels: int
    size: int
    classes: tuple[str, ...]
    digest: str

    @classmethod
    def of(cls, read: Checkpoint) -> Predictor:
        """The networks of a checkpoint that answer."""
        arguments = read.architectures[0].arguments
        return cls(
            members=tuple(graph_names(read)[: predictors(read)]),
            channels=arguments["channels"],
            size=arguments["size"],
            classes=tuple(read.facts["classes"]),
            digest=read.digest,
        )
