"""Whom a gate hits as it is served, and what it makes them pay: the "false_positives" and "work" rows of a report.

    python -m evaluation.studies false-positives RECIPE --policies same-reject same-pow --run reports/RECIPE

Every gated policy receives, at its own threshold: the test split, the same images after each benign shift
(evaluation/traffic.py), the recipe's other benign images ([benign.NAME]: the same task by other hands), and what
its attackers send ([detection.NAME], evaluation/recordings.py, at the largest budget). Flagged is every row that is not
simply answered. Where a policy asks for work, each row's price is read too, and the reference client's speed is
measured once in this process, on one core: real clients may have many, or hardware that hashes a thousand times faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from time import perf_counter

import altcha
import numpy as np
import torch
from numpy.typing import NDArray

from evaluation import recordings
from evaluation.detectors import ANSWER, answered
from evaluation.matrix import Job
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.roc import wilson
from evaluation.studies.detection import gate, thieves
from evaluation.studies.study import Found, Study, Task
from evaluation.traffic import SHIFTS
from report.rows.gates import FalsePositiveRow, WorkRow
from zoo import datasets
from zoo.images import size_of

# of the reference client's speed
MEASURED_S = 1.0


@dataclass(frozen=True)
class Benign:
    """[benign.NAME]: other images of the task, which a gate should answer. dataset: as zoo.datasets.load spells it, its
    test split unless the name pins another."""

    dataset: str


@dataclass(frozen=True, eq=False)
class Traffic:
    """What a policy receives, and whether an attacker sends it. images: makes float32 (N,C,S,S), when they are needed:
    all shifts at once would fill the memory."""

    name: str
    images: Callable[[], torch.Tensor]
    malicious: bool


def study(task: Task) -> Iterator[Found]:
    """The rows of each policy."""
    streams = [*benign(task.job), *malicious(task.job)]
    yield Found(settings=thieves(task.recipe))
    for _, oracle in task.oracles():
        flagged, paid = measure(oracle, streams)
        yield Found([*flagged, *paid], says=lines(flagged, paid), settings=gate(oracle))


def benign(job: Job) -> Iterator[Traffic]:
    """The test split, as it is and shifted, and the recipe's other benign images. Raises RecipeError, DatasetError."""
    test = job.test
    yield Traffic(f"benign ({test.name})", partial(_as_they_are, test.pixels), False)
    for name, shift in SHIFTS.items():
        yield Traffic(name, partial(shift, test.pixels), False)
    channels, size = test.stored.shape[1], size_of(test.stored)
    for name, other in job.recipe.family("benign", Benign).items():
        pixels = datasets.load(other.dataset, "test", root=job.data, size=size, channels=channels).pixels
        yield Traffic(f"{name} ({other.dataset})", partial(_as_they_are, pixels), False)


def malicious(job: Job) -> Iterator[Traffic]:
    """What the recipe's attackers send."""
    for stream in recordings.recorded(job):
        for part in stream.whole:
            yield Traffic(part.traffic, partial(_as_they_are, stream.images[part.rows]), True)


def _as_they_are(images: torch.Tensor) -> torch.Tensor:
    return images


def measure(oracle: InProcessOracle, streams: Sequence[Traffic]) -> tuple[list[FalsePositiveRow], list[WorkRow]]:
    """A row of each section for each traffic; of the second only where the policy asks for work. Raises OracleError."""
    policy = oracle.pipeline.policy
    if policy.gate is None:
        raise OracleError(f"{policy.recipe}-{policy.policy}: expected a policy with a gate, got none")
    flagged, paid = [], []
    for traffic in streams:
        decisions, work = decided(oracle, traffic.images())
        rows, hits = len(decisions), sum(decision != ANSWER for decision in decisions)
        low, high = wilson(hits, rows)
        place = {"recipe": policy.recipe, "policy": policy.policy, "traffic": traffic.name}
        stated = policy.gate.false_positive_rate
        flagged.append(
            FalsePositiveRow(
                **place,
                malicious=traffic.malicious,
                stated=stated,
                images=rows,
                flagged=hits / rows,
                low=low,
                high=high,
            )
        )
        if policy.gate.work is not None:
            rule = policy.gate.work
            speed = hashes_per_s(rule.algorithm, rule.cost, rule.memory)
            paid.append(priced(work, speed, malicious=traffic.malicious, **place))
    return flagged, paid


def decided(oracle: InProcessOracle, images: torch.Tensor) -> tuple[list[str], NDArray[np.float64]]:
    """What a policy decides of each image (N), and the expected hashes that it wants of it, (N,)."""
    found = list(answered(oracle, images))
    decisions = [decision for answers in found for decision in answers.decisions]
    return decisions, np.concatenate([answers.work for answers in found])


def priced(
    work: NDArray[np.float64], speed: float, *, recipe: str, policy: str, traffic: str, malicious: bool
) -> WorkRow:
    """The row of expected hashes (N,), for a client that makes `speed` hashes a second."""
    return WorkRow(
        recipe=recipe,
        policy=policy,
        traffic=traffic,
        malicious=malicious,
        images=len(work),
        charged=float((work > 0).mean()),
        mean=float(work.mean()),
        median=float(np.median(work)),
        p99=float(np.percentile(work, 99)),
        largest=float(work.max()),
        hashes_per_s=speed,
    )


@cache
def hashes_per_s(algorithm: str, cost: int, memory: int) -> float:
    """Of altcha's own solver, on one core, over at least MEASURED_S seconds: challenges twice as long until one is."""
    attempts, spent = 32, 0.0
    while True:
        challenge = altcha.create_challenge(
            algorithm, cost, counter=attempts - 1, memory_cost=memory if algorithm == "SCRYPT" else None
        )
        started = perf_counter()
        altcha.solve_challenge(challenge, timeout=0)
        spent = perf_counter() - started
        if spent >= MEASURED_S:
            return round(attempts / spent, 1)
        attempts *= 2


def lines(flagged: Sequence[FalsePositiveRow], paid: Sequence[WorkRow]) -> str:
    """A line a traffic."""
    prices = {row.traffic: f", {row.mean:.0f} hashes a row" for row in paid}
    return "\n".join(
        f"{row.policy:<20}{row.traffic}: {row.flagged:.4f} flagged ({row.low:.4f} to {row.high:.4f})"
        + prices.get(row.traffic, "")
        for row in flagged
    )


STUDY = Study(
    "false-positives",
    "whom a gate hits, and what it makes them pay",
    study,
    policies="policies with a gate",
    sections=("false_positives", "work"),
    one_thread=True,
)
