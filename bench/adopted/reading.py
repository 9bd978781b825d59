"""20,000 photographs of 224 x 224 in a training: what the process holds, and what reading costs beside computing.

What is held: `training.victim` as its user runs it, with a network of whole photographs for a few steps (`rows`; the
validation tenth of all is read too), and with one that looks at small copies for an epoch of all of them. Images are
bytes in a memory map of 3 GB, drawn at random.

What reading costs: steps of a training session (training/session.py) on batches that are read from the map, and right
after them the same steps on the same batches, ready in memory as floats; round after round. The first batches of all
are read after the file was dropped from the system's cache.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

import torch
from torch.nn import functional as F
from tqdm import tqdm

import recipes
from bench.adopted.epochs import epoch_seconds
from bench.adopted.workplace import READ, Workplace
from report.rows.adopted import ProgramRow, ReadingRow
from training.session import Session
from training.victim import Split, Victim, architecture, split
from zoo.datasets import Data
from zoo.maps import was_read
from zoo.stored import PIXELS, VARIABLE

ROUNDS = 5
# programs by their tier (bench/adopted/recipe.py); the second's network is small, since it is to read all
PROGRAMS = {"reading-whole": "read whole", "reading": "read small copies"}
# steps of each measurement, by tier: those on small copies, of the size that the recipe's own small tier has, are short
STEPS = {"reading-whole": 3, "reading-copies": 16}


def measure(place: Workplace) -> Iterator[ProgramRow | ReadingRow]:
    """A row for each program, and one for each network's steps."""
    for tier, about in PROGRAMS.items():
        spec = f"{place.large}@{tier}"
        ran = place.run("training.victim", spec, "--runs", place.runs / "trained")
        board = place.runs / "trained" / f"{place.large.stem}-{tier}" / "tensorboard" / "victim"
        yield ProgramRow(
            about, "training.victim", READ, (ran.seconds,), {"victim": epoch_seconds(board)}, dict(ran.peak_mb)
        )
    for tier, count in STEPS.items():
        yield steps(f"{place.large}@{tier}", count, rounds=ROUNDS)


def steps(spec: str, count: int, *, rounds: int) -> ReadingRow:
    """`count` steps a measurement, read and ready."""
    recipe = recipes.read(spec)
    victim = recipe.section("victim", Victim)
    data = recipe.section("dataset", Data).load("train")
    splits = split(data)
    name = f"{victim.architecture} at {splits.images.shape[-1]}"
    shrunk = victim.options.get("shrunk")
    with tempfile.TemporaryDirectory() as runs:
        session = Session(recipe.name, "steps", {"victim": victim}, runs=Path(runs), seed=0)
        training = Training(session, splits, victim)
        rows = victim.optimisation.batch_size
        order = torch.randperm(len(splits.images), generator=torch.Generator().manual_seed(0)).split(rows)
        dropped(splits.images)
        cold = training.reading(order[:count])
        read, ready = [], []
        for number in tqdm(range(1, 1 + rounds), desc=name, unit="round"):
            batches = order[number * count : (1 + number) * count]
            read.append(training.reading(batches))
            ready.append(training.computing(batches))
    return ReadingRow(
        member=f"{name}, copies of {shrunk}" if shrunk else name,
        photographs=len(data),
        batch=rows,
        steps=count,
        reading_ms_rounds=tuple(read),
        computing_ms_rounds=tuple(ready),
        cold_ms=cold,
    )


class Training:
    """A classifier's training, step by step: the loop of training/victim.py."""

    def __init__(self, session: Session, splits: Split, victim: Victim) -> None:
        plan = architecture(victim.architecture, victim.options, splits)
        self._session, self._labels = session, splits.labels.to(session.device)
        self._images = session.move(splits.images)
        self._network, self._optimiser, self._schedule = session.prepare(
            plan.network(), victim.optimisation, len(self._images)
        )
        self._network.train()
        self.computing([torch.arange(victim.optimisation.batch_size)])  # what a first step sets up is in no figure

    def reading(self, batches: Sequence[torch.Tensor]) -> float:
        """Milliseconds a step, of batches that are read."""
        started = perf_counter()
        for rows in batches:
            self._step(self._session.take(self._images, rows), rows)
        return self._each(started, batches)

    def computing(self, batches: Sequence[torch.Tensor]) -> float:
        """Milliseconds a step, of batches that lie ready."""
        ready = [self._session.take(self._images, rows) for rows in batches]
        started = perf_counter()
        for images, rows in zip(ready, batches, strict=True):
            self._step(images, rows)
        return self._each(started, batches)

    def _step(self, images: torch.Tensor, rows: torch.Tensor) -> None:
        with self._session.accelerator.autocast():
            loss = F.cross_entropy(self._network(images), self._labels[rows])
        self._session.step({"loss": loss}, self._optimiser, self._schedule)

    def _each(self, started: float, batches: Sequence[torch.Tensor]) -> float:
        if self._session.device.type == "cuda":
            torch.cuda.synchronize()
        return round(1000 * (perf_counter() - started) / len(batches), 2)


def dropped(images: torch.Tensor) -> None:
    """Let go of a map's file, in the process and in the system's cache, so that the next read is the disk's."""
    was_read(images, images.untyped_storage().nbytes())
    for file in Path(os.environ[VARIABLE]).glob(f"*/{PIXELS}"):
        if file.stat().st_size == images.untyped_storage().nbytes():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())  # what has yet to be written stays
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
