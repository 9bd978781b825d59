"""What MeCo's training holds at 224 x 224 with 32 rows a step: victim, generator, and worst-case images."""

from __future__ import annotations

from collections.abc import Iterator

from bench.adopted.epochs import epoch_seconds
from bench.adopted.workplace import PHOTOGRAPHS, Workplace
from report.rows.adopted import ProgramRow


def measure(place: Workplace) -> Iterator[ProgramRow]:
    """One row: the program with a few steps, which hold what any number of them does."""
    spec = place.victim(place.small, "meco")
    ran = place.run("training.meco", spec, "--runs", place.runs)
    board = place.runs / f"{place.small.stem}-meco" / "tensorboard" / "meco"
    epochs = {"meco": epoch_seconds(board)}
    yield ProgramRow("meco", "training.meco", PHOTOGRAPHS, (ran.seconds,), epochs, dict(ran.peak_mb))
