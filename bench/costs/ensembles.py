"""What an ensemble's answer costs in time and memory: the "ensemble_costs" rows of report.json.

    python -m bench.costs ensembles RECIPE --policies misleader misleader-routed --run reports/RECIPE-misleader

An averaged answer (MISLEADER's own, 2025) runs every member, a routed one (EDM's) the hash and one member. In one
process, round after round (bench/rounds.py): every policy, each of its members' graphs alone, and the hash's.
Weights do not change what a row costs, so a recipe whose networks took one step will do.

A routed policy's rows go to its members in turn: a batch is split as evenly as it can be, the worst case for its
batching. One row goes to one member, and members differ in size: so what is timed is a turn of as many batches as there
are members that answer. Apart from that it is timed on batches that one member answers, each member's: compared with
that member alone, they show what the routing itself adds.

Memory: for each policy a fresh process answers its batches; from what it holds, and from its peak, is taken that of one
with the policy's dearest member alone (bench/memory.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import torch

from bench import inprocess
from bench.costs.defenses import metadata
from bench.costs.gates import alone
from bench.costs.timing import timing
from bench.inprocess import Call, Images, in_process
from bench.memory import Memory, of_a_fresh_process
from bench.rounds import Probe, interleaved
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.studies.study import Found, Study, Task
from evaluation.studies.utility import forward_passes
from handlers import loading
from handlers.backends import BACKENDS
from report.rows.members import EnsembleCostRow
from zoo import datasets

BATCHES = (1, 8, 32)
SECONDS = 0.3


@dataclass(frozen=True, eq=False)
class Subject:
    """A policy to be measured. rows: (n,C,H,W) float32, for its members in turn; met: how many members answer any.

    by_member: of a policy that routes, rows that one member answers, by that member's graph.
    """

    name: str
    oracle: InProcessOracle
    rows: Images
    met: int
    by_member: Mapping[str, Images] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, oracle: InProcessOracle, images: torch.Tensor) -> Subject:
        """With rows of `images` (N,C,H,W)."""
        policy = oracle.pipeline.policy
        if policy.route is None:
            some = np.ascontiguousarray(images[: inprocess.ROWS_A_MEMBER].numpy())
            return cls(name, oracle, some, len(policy.members))
        members = oracle.members(images)
        met = members.unique().tolist()
        own = {member: members == member for member in met}
        return cls(
            name,
            oracle,
            inprocess.spread(images, members),
            len(met),
            {policy.members[member]: inprocess.spread(images[one], members[one]) for member, one in own.items()},
        )

    @property
    def turn(self) -> int:
        """Batches in which every member that answers any does so equally often."""
        return 1 if self.oracle.pipeline.policy.route is None else self.met

    def graph(self, name: str) -> str:
        """One of its graphs by name and checkpoint: policies that share it are timed against the same."""
        return f"{name} of {metadata(self.oracle, name)['checkpoint']}"


@dataclass(frozen=True)
class Resident:
    """An unpacked archive in a process of its own: all of it, or one of its graphs."""

    folder: Path
    graph: str | None = None
    backend: str = ""
    threads: int = 1

    @contextmanager
    def answering(self) -> Iterator[Call]:
        """It at work, in this process."""
        if self.graph is None:
            pipeline = loading.load(self.folder)
            yield lambda images: pipeline(images).seconds
            return
        backend = BACKENDS[self.backend]
        graph = backend(self.folder / "graphs" / f"{self.graph}{backend.suffix}", threads=self.threads, gpu=None)

        def call(images: Images) -> Mapping[str, float]:
            graph(images)
            return {}

        yield call


def study(task: Task, *, batches: Sequence[int], rounds: int, seconds: float) -> Iterator[Found]:
    """A row for each policy and size of batch; all archives are open at once, to take turns."""
    yield Found(settings={"ensemble_costs.rounds": rounds, "ensemble_costs.seconds": seconds})
    images = inprocess.candidates(task.recipe.section("dataset", datasets.Data), task.data)
    with ExitStack() as opened:
        oracles = {name: opened.enter_context(InProcessOracle(task.archive(name))) for name in task.policies}
        subjects = [Subject.of(name, oracle, images) for name, oracle in oracles.items()]
        for batch in batches:
            for row in measure(subjects, batch=batch, rounds=rounds, seconds=seconds):
                yield Found([row], says=line(row))


def measure(subjects: Sequence[Subject], *, batch: int, rounds: int, seconds: float) -> Iterator[EnsembleCostRow]:
    """A row for each of `subjects` in batches of `batch`. Raises OracleError where their threads differ."""
    threads = {subject.name: subject.oracle.pipeline.policy.threads for subject in subjects}
    if len(set(threads.values())) > 1:
        raise OracleError(f"threads: expected as many of every policy, got {threads}; serve them alike")
    timed = _timed(subjects, batch=batch, rounds=rounds, seconds=seconds)
    for subject in subjects:
        policy = subject.oracle.pipeline.policy
        own = timed[subject.name]
        row = EnsembleCostRow(
            recipe=policy.recipe,
            policy=subject.name,
            batch=batch,
            architectures=tuple(metadata(subject.oracle, member)["architecture"] for member in policy.members),
            members_met=subject.met,
            threads=policy.threads,
            forward_passes=float(forward_passes(policy)),
            ms=round(median(own), 4),
            ms_rounds=own,
            members_ms_rounds={member: timed[subject.graph(member)] for member in policy.members},
            routed_ms_rounds={member: timed[f"{subject.name} by {member}"] for member in subject.by_member},
            hash_ms_rounds=() if policy.route is None else timed[subject.graph(policy.route.graph)],
            peak_mb=None,
        )
        growth = _growth(subject, row.dearest, batch)
        yield row if growth is None else dataclasses.replace(row, peak_mb=growth.peak, held_mb=growth.held)


def _timed(subjects: Sequence[Subject], *, batch: int, rounds: int, seconds: float) -> dict[str, tuple[float, ...]]:
    """Milliseconds a batch, each round's, of every policy, of it on each member's rows, and of every graph once."""
    probes: dict[str, tuple[Probe, int]] = {}

    def add(name: str, call: Call, images: Images, turn: int = 1) -> None:
        probes[name] = (_probe(call, images, batch, turn, seconds), turn)

    for subject in subjects:
        policy = subject.oracle.pipeline.policy
        answer = inprocess.pipeline(subject.oracle)
        add(subject.name, answer, subject.rows, subject.turn)
        for member, images in subject.by_member.items():
            add(f"{subject.name} by {member}", answer, images)
        for graph in (*policy.members, *([] if policy.route is None else [policy.route.graph])):
            add(subject.graph(graph), alone(subject.oracle, graph), subject.rows)
    rows = interleaved([probe for probe, _ in probes.values()], rounds=rounds, name=f"batches of {batch}")
    return {
        name: tuple(round(ms / turn, 4) for ms in row.p50_rounds)
        for (name, (_, turn)), row in zip(probes.items(), rows, strict=True)
    }


def _probe(call: Call, images: Images, batch: int, turn: int, seconds: float) -> Probe:
    """Of `turn` batches in one call, on at least one such of `images`, which are repeated where they are too few."""
    rows = batch * turn
    repeated = np.concatenate([images] * -(-rows // len(images)))

    def whole(part: Images) -> Mapping[str, float]:
        for first in range(0, rows, batch):
            call(part[first : first + batch])
        return {}

    return in_process(whole, repeated, batch=rows, seconds=seconds, policy="-", architecture="-", path="pipeline")


def _growth(subject: Subject, dearest: str, batch: int) -> Memory | None:
    """Memory of the whole archive over that of its dearest member alone."""
    policy, folder = subject.oracle.pipeline.policy, subject.oracle.folder
    one = Resident(folder, dearest, policy.backend, policy.threads)
    every, single = (of_a_fresh_process(resident, subject.rows, batch) for resident in (Resident(folder), one))
    if every is None or single is None:
        return None
    return Memory(peak=round(every.peak - single.peak, 1), held=round(every.held - single.held, 1))


def line(row: EnsembleCostRow) -> str:
    """A row's line on the terminal."""
    by_member = "" if row.dearest_times is None else f" ({row.dearest_times:.2f} on the rows that it answers)"
    measured = row.peak_mb is not None and row.held_mb is not None
    memory = f"memory {row.held_mb:+.1f} MB, its peak {row.peak_mb:+.1f} MB" if measured else "memory not measured"
    return (
        f"{row.policy}, batches of {row.batch}: {row.ms:.3f} ms, {row.times:.2f} times {row.dearest} alone{by_member}; "
        f"{row.members_met} of {len(row.architectures)} members met; {memory}"
    )


STUDY = Study(
    "ensembles",
    "what ensembles cost",
    study,
    policies="policies whose archives are in the store",
    sections=("ensemble_costs",),
    options=timing(batches=BATCHES, seconds=SECONDS),
)
