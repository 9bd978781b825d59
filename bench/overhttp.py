"""The path through TorchServe: a server of our own with the archives to be measured, and what its processes spend.

The server is one of our own (loadtests/own_server.py), always on free ports. Its Java machine is warmed before
anything is timed: seconds of descriptions, which run no graph and so give its compiler many requests, then of rows.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from bench import closedloop
from bench.closedloop import Driven
from bench.rounds import Probe, Sample
from evaluation.oracles import CHECKOUT, InProcessOracle
from handlers import wire
from loadtests import own_server
from loadtests.own_server import Instance
from loadtests.target import Target

INSTANCE = "bench"
WARM_CLIENTS = 16
# a dozen archives, one worker after the other on two cores
START_S = 300
# of a probability, between this process and the server's worker: batches differ, so sums are rounded differently
TOLERANCE = 1e-4
MIB = 2**20
STAGE = "torchwarden_stage_seconds_sum"


class BenchError(RuntimeError):
    """The measurement cannot be made, or what would be measured is wrong."""


@dataclass(frozen=True)
class Serving:
    """How an archive is served: the part of its model-config.yaml that is tuned. Names as in the recipe's [serving]."""

    workers: int
    threads: int
    batch_size: int
    max_batch_delay_ms: int


def serving(archive: Path) -> Serving:
    """How an archive asks to be served. Raises ServerError."""
    config = own_server.config(archive)
    return Serving(config["minWorkers"], config["handler"]["threads"], config["batchSize"], config["maxBatchDelay"])


def reserve(archive: Path, as_served: Serving, folder: Path, name: str) -> Path:
    """The same archive to be served otherwise, at folder/name.mar. Raises ServerError."""

    def change(config: dict[str, Any]) -> None:
        config.update(minWorkers=as_served.workers, maxWorkers=as_served.workers)
        config.update(batchSize=as_served.batch_size, maxBatchDelay=as_served.max_batch_delay_ms)
        config["handler"]["threads"] = as_served.threads

    return own_server.repack(archive, folder / f"{name}.mar", change)


@dataclass(frozen=True)
class Server:
    """The running instance. workers: the processes of each model."""

    instance: Instance
    target: Target
    java: psutil.Process
    workers: Mapping[str, tuple[psutil.Process, ...]]

    def cpu(self, model: str) -> dict[str, float]:
        """CPU seconds so far of Java and of a model's workers."""
        return {"java": spent(self.java), "worker": sum(map(spent, self.workers[model]))}

    def stages(self, model: str) -> dict[str, float]:
        """Seconds so far in each stage of a model's handler, all its workers together."""
        seconds: dict[str, float] = defaultdict(float)
        for each in self.instance.metrics():
            if each.name == STAGE and each.labels["ModelName"] == model:
                seconds[each.labels["stage"]] += each.value
        return dict(seconds)

    def memory(self, model: str) -> dict[str, float]:
        """MiB of one worker of a model, the mean of its workers: resident, and with shared pages divided (PSS)."""
        full = [worker.memory_full_info() for worker in self.workers[model]]
        means = {"rss_mb": np.mean([each.rss for each in full]), "pss_mb": np.mean([each.pss for each in full])}
        return {name: round(float(mean) / MIB, 1) for name, mean in means.items()}


@contextlib.contextmanager
def server(archives: Sequence[Path], *, run_folder: Path, checkout: Path = CHECKOUT) -> Iterator[Server]:
    """An instance that serves `archives` (of one folder), stopped at the end whatever happens. checkout: whose
    deploy.server starts it. Raises ServerError."""
    instance = Instance(INSTANCE, run_folder, tuple(archives), checkout=checkout)
    with own_server.running(instance, seconds=START_S):
        workers = {archive.stem: tuple(instance.workers(archive.stem)) for archive in archives}
        yield Server(instance, instance.target, instance.process, workers)


def check(running: Server, model: str, oracle: InProcessOracle, rows: NDArray[np.float32]) -> None:
    """Raise BenchError unless the served model answers each of `rows` as the archive does in this process.

    Where noise is drawn again for each answer, no two are equal: then that it answers is all there is to see.
    """
    perturb = oracle.pipeline.policy.perturb
    fresh = perturb is not None and perturb.noise == "fresh"
    for content_type in (wire.RAW, wire.PNG):
        for row in rows:
            body = wire.encode_rows(row[np.newaxis], content_type)
            got = wire.decode_answers(closedloop.ask(running.target, message(running, model, body, content_type)))
            expected = wire.decode_answers(oracle.post(body, content_type)[1])
            same = fresh or np.array_equal(got.labels, expected.labels)
            if not fresh and got.probabilities is not None and expected.probabilities is not None:
                same = same and bool(np.abs(got.probabilities - expected.probabilities).max() <= TOLERANCE)
            if not same:
                raise BenchError(f"{model}: over HTTP {got}, in process {expected}: expected equal answers")


def warm(running: Server, rows: NDArray[np.float32], *, seconds: float) -> None:
    """Requests to every model until the Java machine has compiled what they use: `seconds` in all."""
    share = seconds / 2 / len(running.workers)
    for model in running.workers:
        describe = closedloop.request(running.target, model, b"", wire.RAW, describe="True")
        closedloop.drive(running.target, [describe], clients=WARM_CLIENTS, seconds=share)
        bodies = messages(running, model, rows, wire.RAW)
        closedloop.drive(running.target, bodies, clients=WARM_CLIENTS, seconds=share)


def over_http(
    running: Server,
    archive: Path,
    rows: NDArray[np.float32],
    *,
    clients: int,
    body: str,
    seconds: float,
    **facts: Any,
) -> Probe:
    """A probe of `clients` that each ask for one row at a time, in `body`'s content type."""
    requests_ = messages(running, archive.stem, rows, body)

    def drive(duration: float) -> Driven:
        return closedloop.drive(running.target, requests_, clients=clients, seconds=duration)

    return driving(running, archive, drive, clients=clients, body=body, seconds=seconds, path="http", **facts)


def driving(
    running: Server,
    archive: Path,
    drive: Callable[[float], Driven],
    *,
    clients: int,
    body: str,
    seconds: float,
    **facts: Any,
) -> Probe:
    """A probe of whatever asks the server for an archive's rows, one a request, for some seconds."""
    model = archive.stem

    def measure(duration: float) -> Sample:
        stages, cpu = running.stages(model), running.cpu(model)
        driven = drive(duration)
        answered = len(driven.latencies_ms)
        busy = {name: after - cpu[name] for name, after in running.cpu(model).items()} | {"client": driven.cpu_seconds}
        staged = {name: after - stages.get(name, 0.0) for name, after in running.stages(model).items()}
        return Sample(
            driven.latencies_ms,
            rows_per_s=answered / driven.seconds,
            cpu_ms={name: 1000 * value / answered for name, value in busy.items()},
            stages_ms={name: 1000 * value / answered for name, value in staged.items()},
        )

    return Probe(
        {"batch": 1, "clients": clients, "body": body, **asdict(serving(archive)), **facts},
        measure,
        seconds,
        memory=lambda: running.memory(model),
    )


def message(running: Server, model: str, body: bytes, content_type: str) -> bytes:
    """One request for a model of the instance."""
    return closedloop.request(running.target, model, body, content_type)


def messages(running: Server, model: str, rows: NDArray[np.float32], content_type: str) -> list[bytes]:
    """A request for each of `rows`."""
    return [message(running, model, wire.encode_rows(row[np.newaxis], content_type), content_type) for row in rows]


def spent(process: psutil.Process) -> float:
    """CPU seconds of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)
