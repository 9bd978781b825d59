"""One server around one file, once: started alone, held against the file in process, warmed, timed, weighed, ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from attest.examples.servers import PeerError
from bench import closedloop
from bench.peers.table import Entry, Floats, Model, Running
from loadtests.own_server import family

PICTURES = 32
# between probabilities of one picture; those of two have to differ by more, so that no answer will do for all
TOLERANCE = 1e-4
APART = 10 * TOLERANCE
MANY = 32
# answers of which one is judged
EVERY = 7
MB = 1_000_000


@dataclass(frozen=True)
class Effort:
    """Seconds: of warming; of one client; of many."""

    warm_s: float
    single_s: float
    many_s: float


@dataclass(frozen=True)
class Sample:
    """What a round saw of a server, as PeerRow has it."""

    p50_ms: float
    p99_ms: float
    single_per_s: float
    rows_per_s: float
    memory_mb: float
    checked: int
    apart: float


@dataclass(frozen=True, eq=False)
class Golden:
    """pictures (n,C,H,W) float32, multiples of 1/255, and the file's probabilities (n,K) for them."""

    pictures: Floats
    answers: Floats


def in_process(graph: Path, candidates: Floats) -> Golden:
    """The first PICTURES of the candidates whose answers all differ, one row at a time. Raises PeerError where there
    are fewer."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    pictures: list[Floats] = []
    answers: list[Floats] = []
    for picture in candidates:
        answer = session.run(["probabilities"], {"images": picture[np.newaxis]})[0][0]
        if all(np.abs(answer - other).max() > APART for other in answers):
            pictures.append(picture)
            answers.append(answer)
        if len(pictures) == PICTURES:
            return Golden(np.stack(pictures), np.stack(answers))
    raise PeerError(
        f"{graph}: expected {PICTURES} pictures with answers that differ by more than {APART:g}, of {len(candidates)} "
        f"found {len(pictures)}: a server that answers anything would pass"
    )


def measured(entry: Entry, model: Model, golden: Golden, effort: Effort) -> Sample:
    """Raises PeerError where an answer is wrong, and what the server's start and the client raise."""
    with entry.start(entry, model, golden.pictures) as running:
        first = [(place, closedloop.ask(running.target, each)) for place, each in enumerate(running.requests)]
        judged = [judge(running, golden, first)]
        drives = [
            closedloop.drive(running.target, running.requests, clients=clients, seconds=seconds, every=EVERY)
            for clients, seconds in ((MANY, effort.warm_s), (1, effort.single_s), (MANY, effort.many_s))
        ]
        memory = sum(each.memory_full_info().pss for each in family(running.root))
        judged += [judge(running, golden, drive.kept) for drive in drives]
    _, single, many = drives
    return Sample(
        p50_ms=round(float(np.median(single.latencies_ms)), 3),
        p99_ms=round(float(np.percentile(single.latencies_ms, 99)), 3),
        single_per_s=round(len(single.latencies_ms) / single.seconds, 2),
        rows_per_s=round(len(many.latencies_ms) / many.seconds, 2),
        memory_mb=round(memory / MB, 1),
        checked=sum(count for count, _ in judged),
        apart=max(apart for _, apart in judged),
    )


def judge(running: Running, golden: Golden, answers: Iterable[tuple[int, bytes]]) -> tuple[int, float]:
    """How many answers to pictures there are, and the largest difference of a probability. Raises PeerError where one
    is no answer, or another than the file's."""
    count, largest = 0, 0.0
    for place, body in answers:
        expected = golden.answers[place]
        try:
            got = running.read(body)
        except (ValueError, LookupError, TypeError) as error:
            raise PeerError(f"picture {place}: expected {expected.size} probabilities, got {body[:80]!a}") from error
        if got.shape != expected.shape or not (apart := float(np.abs(got - expected).max())) <= TOLERANCE:
            wanted = f"probabilities within {TOLERANCE:g} of {expected.round(4)}"
            raise PeerError(f"picture {place}: expected {wanted}, got {got.round(4)}")
        count, largest = count + 1, max(largest, apart)
    return count, round(largest, 9)
