"""How long the gate's training takes for photographs of 224 x 224: an epoch of each of its two networks.

Both look at small copies (`size = 64`), made of every photograph once before the first epoch; so are the victim's
answers, which the auxiliary model learns. The whole program's time holds these, the epochs hold neither.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.adopted.epochs import epoch_seconds
from bench.adopted.workplace import GATE, Workplace
from report.rows.adopted import ProgramRow

NETWORKS = {"autoencoder": "stages/same", "auxiliary": "same"}


def measure(place: Workplace) -> Iterator[ProgramRow]:
    """One row: the program with EPOCHS epochs of both networks."""
    spec = place.victim(place.middle, "gate")
    ran = place.run("training.same", spec, "--runs", place.runs)
    boards = place.runs / f"{place.middle.stem}-gate" / "tensorboard"
    epochs = {name: epoch_seconds(boards / network) for name, network in NETWORKS.items()}
    yield ProgramRow("gate", "training.same", GATE, (ran.seconds,), epochs, dict(ran.peak_mb))
