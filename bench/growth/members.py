"""What an answer of EDM costs as its ensemble grows: one row's time, a batch's, and what a process holds.

Weights do not change what a row costs. So the ensembles are made of one archive, `edm`: member n of N is a copy of its
graph n modulo its own number, opened as a graph of its own, with its own weights in memory. The hash and the key's
table are the archive's, for N members.

All ensembles are open in this process and take turns, round after round (bench/rounds.py). Rows go to the members in
turn: one row meets a member that N - 1 others have answered since, and a batch is split over as many members as it can.
What is held is a fresh process's, once every member has answered, over that of one with `undefended`; the weights of
`undefended` are put back, for no member has them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

import recipes
from bench import inprocess
from bench.growth.resident import Resident
from bench.inprocess import Call, Images, in_process
from bench.memory import of_a_fresh_process
from bench.overhttp import MIB, BenchError
from bench.rounds import interleaved
from evaluation.oracles import InProcessOracle
from handlers import loading
from report.headline import UNDEFENDED
from report.rows.growth import MemberGrowthRow

EDM = "edm"
MEMBERS = (2, 5, 10, 20)
BATCH = 8
# answered before memory is read, by every member alike
HELD_ROWS = 2 * MEMBERS[-1]


@dataclass(frozen=True, eq=False)
class Ensemble:
    """An ensemble that is open. weights_mb: MiB of its members' graphs, as files. rows: (n,C,H,W) float32, for its
    members in turn."""

    folder: Path
    call: Call
    threads: int
    weights_mb: float
    rows: Images


def resized(archive: Path, members: int, folder: Path) -> Path:
    """The unpacked archive of a policy that routes, with so many members, laid out in `folder`, which is returned."""
    config = yaml.safe_load((archive / "model-config.yaml").read_text("utf-8"))
    policy = config["handler"]
    own = policy["members"]
    policy["members"] = [f"member-{number}" for number in range(members)]
    (folder / "graphs").mkdir(parents=True)
    hashed = f"{policy['route']['graph']}.onnx"
    shutil.copyfile(archive / "graphs" / hashed, folder / "graphs" / hashed)
    for number, name in enumerate(policy["members"]):
        # no copy on the disk: each session reads the file into memory of its own
        os.link(archive / "graphs" / f"{own[number % len(own)]}.onnx", folder / "graphs" / f"{name}.onnx")
    (folder / "model-config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
    return folder


def weights_mb(folder: Path, members: Sequence[str]) -> float:
    """MiB of the members' graphs, as files."""
    return sum((folder / "graphs" / f"{name}.onnx").stat().st_size for name in members) / MIB


def opened(folder: Path, images: torch.Tensor) -> Ensemble:
    """The ensemble in a folder, and rows of `images` (N,C,H,W) for all of its members. Raises BenchError, LoadError."""
    pipeline = loading.load(folder)
    parts = images.split(pipeline.policy.max_rows)
    members = torch.cat([torch.from_numpy(pipeline(part.numpy()).members) for part in parts])
    met, count = len(members.unique()), len(pipeline.policy.members)
    if met < count:
        raise BenchError(f"{pipeline.policy.recipe}-{EDM}: expected rows for each of {count} members, got {met}")
    return Ensemble(
        folder,
        lambda rows: pipeline(rows).seconds,
        pipeline.policy.threads,
        weights_mb(folder, pipeline.policy.members),
        inprocess.spread(images, members),
    )


def measure(
    recipe: recipes.Recipe, *, store: Path, data: Path | None, rounds: int, seconds: float
) -> Iterator[MemberGrowthRow]:
    """A row for each of MEMBERS. seconds: of a cell. Raises BenchError, OracleError, LoadError."""
    plain = torch.from_numpy(inprocess.shuffled(recipe, data))
    # of 20 members some may get none of the data set's images, but some of the noise that the hash is balanced on too
    images = torch.cat([plain, torch.rand(plain.shape, generator=torch.Generator().manual_seed(inprocess.SEED))])
    with ExitStack() as stack:
        private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="torchwarden-growth-")))
        original, alone = (
            stack.enter_context(InProcessOracle(store / f"{recipe.name}-{policy}.mar")) for policy in (EDM, UNDEFENDED)
        )
        ensembles = [opened(resized(original.folder, count, private / f"{EDM}-{count}"), images) for count in MEMBERS]
        timed = {batch: _timed(recipe, ensembles, batch, rounds=rounds, seconds=seconds) for batch in (1, BATCH)}
        least = of_a_fresh_process(Resident(alone.folder), ensembles[0].rows[:HELD_ROWS], BATCH)
        victim = weights_mb(alone.folder, alone.pipeline.policy.members)
        for place, ensemble in enumerate(ensembles):
            held = of_a_fresh_process(Resident(ensemble.folder), ensemble.rows[:HELD_ROWS], BATCH)
            yield MemberGrowthRow(
                architecture=recipe.architecture,
                members=MEMBERS[place],
                threads=ensemble.threads,
                batch=BATCH,
                row_ms_rounds=timed[1][place],
                batch_ms_rounds=timed[BATCH][place],
                weights_mb=round(ensemble.weights_mb, 1),
                held_mb=None if held is None or least is None else round(held.held - least.held + victim, 1),
            )


def _timed(
    recipe: recipes.Recipe, ensembles: Sequence[Ensemble], batch: int, *, rounds: int, seconds: float
) -> list[tuple[float, ...]]:
    """Milliseconds of a call with so many rows, each round's, of every ensemble."""

    facts = {"policy": EDM, "architecture": recipe.architecture, "path": "pipeline"}
    probes = [in_process(each.call, each.rows, batch=batch, seconds=seconds, **facts) for each in ensembles]
    name = f"{recipe.architecture}, {batch} rows a call"
    return [row.p50_rounds for row in interleaved(probes, rounds=rounds, name=name)]
