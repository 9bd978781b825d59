"""The search for the strength of a loss's term: up in short trainings, then down in full ones.

A term that defends costs accuracy. Where a paper gives a rule of what may be lost but no value, a recipe lists several
strengths in rising order. They are the rungs, counted from 1; rung 0 trains without the term. What is searched has one
part or several, such as the members of an ensemble, each on a separate rung.

Up: every rung is one short training, with all parts on that rung. A short training costs accuracy by itself, so the
reference is one at rung 0, not the checkpoint that all of them start from. A part reaches the last rung before the
first that breaks its rule. The climb ends when every part has broken its rule, or when a rung was not worth while.

Down: everything is trained in full at the rungs that were reached, and held against the reference for full trainings.
Parts that break the rule then go a rung down and everything is trained again, until all parts keep it or one is at
rung 0.

Resume: the search keeps no state. Every training has its checkpoint, and `step` and `train` return at once if it exists
with the same settings (training/session.py). A search that was interrupted goes the same way again and continues where
it stopped.

The method defines what a training is, what the rule is, and what a report shows of a training.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from training import checkpoint

# each part's rung
Rungs: TypeAlias = tuple[int, ...]
# what a checkpoint states about its networks
Metrics: TypeAlias = dict[str, Any]
# one entry a training, in order, for the checkpoint that the search ends with
Trail: TypeAlias = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Search:
    """One search: how far it may go, and what the method does at each rung.

    rungs: strengths to try. parts: what has a separate rung; together: the parts share one, the lowest that any
    of them reached.
    step(path, rungs): make a short training and give its checkpoint. `path` is the checkpoint of the rung below; on
    rungs 0 and 1 it is the start.
    train(rungs, trail): make a full training, with the trail among its facts, and give its checkpoint.
    kept(reference, seen): whether each part keeps the rule, from the metrics of two checkpoints.
    entry(kind, rungs, reference, seen, kept): the trail's entry of one training, `kind` being "short" or "full".
    worthwhile(before, after): whether a short training gained enough over the one before it for a higher rung to be
    tried; always where left out.
    """

    rungs: int
    step: Callable[[Path, Rungs], Path]
    train: Callable[[Rungs, Trail], Path]
    kept: Callable[[Metrics, Metrics], Sequence[bool]]
    entry: Callable[[str, Rungs, Metrics, Metrics, Sequence[bool]], dict[str, Any]]
    worthwhile: Callable[[Metrics, Metrics], bool] = lambda before, after: True
    parts: int = 1
    together: bool = False

    def run(self, start: Path, full: Metrics) -> Path | None:
        """The checkpoint of the full training that kept the rule; None where no strength does.

        start: the checkpoint that short trainings start from. full: the reference for full trainings, such as the
        metrics of an undefended network.
        """
        reached, trail = self._up(start)
        return self._down(reached, trail, full)

    def _up(self, start: Path) -> tuple[Rungs, Trail]:
        """The rung that each part reached, and the trail."""
        none = (0,) * self.parts
        reference = before = metrics(self.step(start, none))
        trail = [self.entry("short", none, reference, reference, [True] * self.parts)]
        path, reached, climbing = start, none, [True] * self.parts
        for rung in range(1, self.rungs + 1):
            tried = (rung,) * self.parts
            path = self.step(path, tried)
            after = metrics(path)
            kept = self.kept(reference, after)
            trail.append(self.entry("short", tried, reference, after, kept))
            climbing = [still and now for still, now in zip(climbing, kept, strict=True)]
            reached = tuple(rung if still else last for still, last in zip(climbing, reached, strict=True))
            if not any(climbing) or not self.worthwhile(before, after):
                break
            before = after
        return ((min(reached),) * self.parts if self.together else reached), trail

    def _down(self, reached: Rungs, trail: Trail, full: Metrics) -> Path | None:
        while min(reached) > 0:
            path = self.train(reached, trail)
            seen = metrics(path)
            kept = self.kept(full, seen)
            if all(kept):
                return path
            trail = [*trail, self.entry("full", reached, full, seen, kept)]
            reached = lowered(reached, kept, together=self.together)
        return None


def lowered(reached: Rungs, kept: Sequence[bool], *, together: bool) -> Rungs:
    """A rung down for each part that broke the rule; for all of them where they share one."""
    if together:
        return (min(reached) - 1,) * len(reached)
    return tuple(rung if fine else rung - 1 for rung, fine in zip(reached, kept, strict=True))


def rising(name: str, given: float | tuple[float, ...]) -> None:
    """Raise ValueError unless `given` is >= 0, and rises where it is several."""
    values = given if isinstance(given, tuple) else (given,)
    if min(values, default=-1) < 0 or list(values) != sorted(set(values)):
        raise ValueError(f"{name}: expected >= 0, several in rising order, got {given}")


def metrics(path: Path, trained_by: str = "") -> Metrics:
    """The metrics of a checkpoint. Raises ValueError saying how to make one that must be there before."""
    if trained_by and not path.is_file():
        raise ValueError(f"{path}: the search starts from it; train it first ({trained_by} RECIPE)")
    found: Metrics = checkpoint.facts(path)["metrics"]
    return found


def publish(source: Path, target: Path) -> None:
    """Copy a search's checkpoint, and what its training took, to where they are looked for, whole or not at all."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, temporary)
    temporary.replace(target)
    took = checkpoint.seconds(source)
    if took is not None:
        checkpoint.write_seconds(target, took)
