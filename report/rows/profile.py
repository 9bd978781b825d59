"""Rows of profiling: samples of a worker's stack under load, and whose time each of them is.

graphs    inside a graph's run: ONNX Runtime
ours      the innermost frame of handlers/ or defenses/, with the numpy that it calls
server    TorchServe's worker: its protocol, its metrics
waiting   for the next batch: Java, the wire, the clients
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

GRAPHS, OURS, SERVER, WAITING = "graphs", "ours", "server", "waiting"
WHO = (GRAPHS, OURS, SERVER, WAITING)
RECEIVING = ("recv", "retrieve_msg", "retrieve_buffer", "retrieve_int", "_retrieve")


@dataclass(frozen=True)
class ProfileRow:
    """One worker under load. stacks: samples by stack, outermost frame first, each "function (file)", joined by ";".
    rows_per_s: what the clients got meanwhile."""

    SCOPE: ClassVar = ("recipe", "policy")

    recipe: str
    policy: str
    clients: int
    samples: int
    rows_per_s: float
    stacks: dict[str, int]

    def shares(self) -> dict[str, float]:
        """The share of wall time by WHO."""
        found: Counter[str] = Counter()
        for stack, count in self.stacks.items():
            found[who(stack.split(";"))] += count
        return {name: found[name] / self.samples for name in WHO}

    def own(self) -> list[tuple[str, float]]:
        """Our functions, as `function (file)`, with the milliseconds a row that they take themselves; dearest first."""
        found: Counter[str] = Counter()
        for stack, count in self.stacks.items():
            frames = stack.split(";")
            if who(frames) == OURS:
                found[next(frame for frame in reversed(frames) if _ours(frame))] += count
        return [(name, 1000 * count / self.samples / self.rows_per_s) for name, count in found.most_common()]


def who(frames: Sequence[str]) -> str:
    """To whom of WHO the sample with this stack belongs."""
    if any("onnxruntime/" in frame for frame in frames):
        return GRAPHS
    if any(map(_ours, frames)):
        return OURS
    return WAITING if any(frame.startswith(RECEIVING) for frame in frames) else SERVER


def _ours(frame: str) -> bool:
    # torch-model-archiver puts the handler at the archive's root
    return any(where in frame for where in ("(handlers/", "(defenses/", "(handler.py)"))
