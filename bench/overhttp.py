"""The path through TorchServe: a server of our own with the archives to be measured, and what its processes spend.

The server is started and stopped by `python -m deploy.server`, always on free ports. Its Java machine is warmed before
anything is timed: seconds of descriptions, which run no graph and so give its compiler many requests, then of rows.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
import yaml
from numpy.typing import NDArray

from bench import closedloop
from bench.rounds import Probe, Sample
from evaluation.oracles import CHECKOUT, InProcessOracle
from handlers import wire
from loadtests import target
from loadtests.target import Target

INSTANCE = "bench"
WARM_CLIENTS = 16
# a dozen archives, one worker after the other on two cores
START_S = 300
# of a probability, between this process and the server's worker: batches differ, so sums are rounded differently
TOLERANCE = 1e-4
MIB = 2**20
CONFIG = "model-config.yaml"
STAGE = re.compile(r"torchwarden_stage_seconds_sum\{([^}]*)\} (\S+)")


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
    """How an archive asks to be served. Raises BenchError."""
    config = _config(archive)
    return Serving(config["minWorkers"], config["handler"]["threads"], config["batchSize"], config["maxBatchDelay"])


def reserve(archive: Path, as_served: Serving, folder: Path, name: str) -> Path:
    """The same archive to be served otherwise, at folder/name.mar. Raises BenchError."""
    config = _config(archive)
    config.update(minWorkers=as_served.workers, maxWorkers=as_served.workers)
    config.update(batchSize=as_served.batch_size, maxBatchDelay=as_served.max_batch_delay_ms)
    config["handler"]["threads"] = as_served.threads
    copy = folder / f"{name}.mar"
    copy.touch(mode=0o600)  # it holds the secret hash network, as the original does
    with zipfile.ZipFile(archive) as packed, zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as out:
        for entry in packed.namelist():
            out.writestr(entry, yaml.safe_dump(config, sort_keys=False) if entry == CONFIG else packed.read(entry))
    return copy


@dataclass(frozen=True)
class Server:
    """The running instance. workers: the processes of each model."""

    target: Target
    metrics: str
    java: psutil.Process
    workers: Mapping[str, tuple[psutil.Process, ...]]

    def cpu(self, model: str) -> dict[str, float]:
        """CPU seconds so far of Java and of a model's workers."""
        return {"java": _cpu(self.java), "worker": sum(map(_cpu, self.workers[model]))}

    def stages(self, model: str) -> dict[str, float]:
        """Seconds so far in each stage of a model's handler, all its workers together."""
        spent: dict[str, float] = defaultdict(float)
        for labels, value in STAGE.findall(requests.get(f"{self.metrics}/metrics", timeout=10).text):
            named = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            if named["ModelName"] == model:
                spent[named["stage"]] += float(value)
        return dict(spent)

    def memory(self, model: str) -> dict[str, float]:
        """MiB of one worker of a model, the mean of its workers: resident, and with shared pages divided (PSS)."""
        full = [worker.memory_full_info() for worker in self.workers[model]]
        means = {"rss_mb": np.mean([each.rss for each in full]), "pss_mb": np.mean([each.pss for each in full])}
        return {name: round(float(mean) / MIB, 1) for name, mean in means.items()}


@contextlib.contextmanager
def server(archives: Sequence[Path], *, run_folder: Path) -> Iterator[Server]:
    """An instance that serves `archives` (of one folder), stopped at the end whatever happens. Raises BenchError."""
    instance = ("--instance", INSTANCE, "--run-folder", str(run_folder))
    models = [archive.stem for archive in archives]
    where = ("--store", str(archives[0].parent), "--timeout", str(START_S))
    _deploy("start", *instance, "--free-ports", *where, "--models", *models)
    try:
        yield connect(run_folder, models)
    finally:
        _deploy("stop", *instance)


def check(running: Server, model: str, oracle: InProcessOracle, rows: NDArray[np.float32]) -> None:
    """Raise BenchError unless the served model answers each of `rows` as the archive does in this process.

    Where noise is drawn anew for each answer, no two are equal: then that it answers is all there is to see.
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
    model = archive.stem
    requests_ = messages(running, model, rows, body)

    def measure(duration: float) -> Sample:
        stages, cpu = running.stages(model), running.cpu(model)
        driven = closedloop.drive(running.target, requests_, clients=clients, seconds=duration)
        answered = len(driven.latencies_ms)
        spent = {name: after - cpu[name] for name, after in running.cpu(model).items()} | {"client": driven.cpu_seconds}
        staged = {name: after - stages.get(name, 0.0) for name, after in running.stages(model).items()}
        return Sample(
            driven.latencies_ms,
            rows_per_s=answered / driven.seconds,
            cpu_ms={name: 1000 * value / answered for name, value in spent.items()},
            stages_ms={name: 1000 * value / answered for name, value in staged.items()},
        )

    return Probe(
        {"path": "http", "batch": 1, "clients": clients, "body": body, **asdict(serving(archive)), **facts},
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


def connect(run_folder: Path, models: Sequence[str]) -> Server:
    """The instance as it runs."""
    facts = json.loads((run_folder / INSTANCE / "server.json").read_text("utf-8"))
    token = json.loads(Path(facts["key_file"]).read_text("utf-8"))["management"]["key"]
    workers = {}
    for model in models:
        answer = requests.get(
            f"{facts['management']}/models/{model}", headers={"Authorization": f"Bearer {token}"}, timeout=10
        )
        workers[model] = tuple(psutil.Process(worker["pid"]) for worker in answer.json()[0]["workers"])
    return Server(target.read(INSTANCE, run_folder=run_folder), facts["metrics"], psutil.Process(facts["pid"]), workers)


def _deploy(*words: str) -> None:
    """`python -m deploy.server`, as the Makefile calls it. Raises BenchError."""
    command = [sys.executable, "-m", "deploy.server", *words]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"`python -m deploy.server {words[0]}` ended with {done.returncode}: {done.stderr.strip()}")


def _config(archive: Path) -> Any:
    try:
        with zipfile.ZipFile(archive) as packed:
            return yaml.safe_load(packed.read(CONFIG))
    except FileNotFoundError:
        raise BenchError(f"{archive}: no such archive; build it first (make bench builds all it needs)") from None


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
