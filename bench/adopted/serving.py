"""What a gate on small copies, and EDM, add to the victim's answer at 224 x 224: in process, in paired rounds.

Networks are of the recipe's sizes and have seen few images, which no time depends on. Photographs of the test split are
answered in turn, so a router has the members' mix that its hash makes of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from statistics import median

import numpy as np

import recipes
from bench.adopted.epochs import epoch_seconds
from bench.adopted.owner import ARCHITECTURE, SIDE
from bench.adopted.workplace import PHOTOGRAPHS, Workplace
from bench.inprocess import Images, in_process, pipeline
from bench.rounds import interleaved
from evaluation.oracles import InProcessOracle
from report.headline import UNDEFENDED
from report.rows.adopted import ProgramRow
from report.rows.bench import DefenseCostRow
from zoo.datasets import Data
from zoo.images import unit

POLICIES = (UNDEFENDED, "same-observe", "edm")
BATCHES = (1, 8)
ROUNDS = 7
SECONDS = 0.5
IMAGES = 64


def measure(place: Workplace) -> Iterator[DefenseCostRow | ProgramRow]:
    """A row for each defense and size of batch, and one of EDM's training, which holds all members' steps at once."""
    spec = place.victim(place.small, "serving")
    folders = ("--runs", place.runs)
    place.run("training.perceptual_hash", spec, "--network", "hash", *folders)
    place.run("training.same", spec, *folders)
    ran = place.run("training.edm", spec, *folders)
    board = place.runs / f"{place.small.stem}-serving" / "tensorboard" / "edm"
    yield ProgramRow(
        "edm", "training.edm", PHOTOGRAPHS, (ran.seconds,), {"edm": epoch_seconds(board)}, dict(ran.peak_mb)
    )
    build, store = place.folder / "build", place.folder / "store"
    place.run("export.graphs", spec, *folders, "--build", build)
    place.run("training.calibration", spec, *folders, "--policies", "same-observe")
    place.run("export.archive", spec, *folders, "--build", build, "--store", store, "--policies", *POLICIES)
    recipe = recipes.read(spec)
    with ExitStack() as opened:
        images = np.ascontiguousarray(unit(recipe.section("dataset", Data).load("test").stored[:IMAGES]).numpy())
        oracles = {
            name: opened.enter_context(InProcessOracle(store / f"{recipe.name}-{name}.mar")) for name in POLICIES
        }
        for batch in BATCHES:
            yield from _rows(oracles, images, batch)


def _rows(oracles: Mapping[str, InProcessOracle], images: Images, batch: int) -> Iterator[DefenseCostRow]:
    facts = {"architecture": "-", "path": "pipeline"}
    probes = [
        in_process(pipeline(oracle), images, batch=batch, seconds=SECONDS, policy=name, **facts)
        for name, oracle in oracles.items()
    ]
    undefended, *defended = interleaved(probes, rounds=ROUNDS, name=f"{batch} rows")
    for timed in defended:
        yield DefenseCostRow(
            architecture=f"{ARCHITECTURE} at {SIDE}",
            batch=batch,
            defense=timed.policy,
            form="served",
            threads=oracles[timed.policy].pipeline.policy.threads,
            ms=median(timed.p50_rounds),
            ms_rounds=timed.p50_rounds,
            victim_ms_rounds=undefended.p50_rounds,
            peak_mb=None,
        )
