"""A server of the measurement's own, which can be killed and started again: `python -m deploy.server` on free ports."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml

from deploy import direct
from evaluation.oracles import CHECKOUT
from loadtests import target
from loadtests.target import Target

CONFIG = "model-config.yaml"
# a port that was free when it was chosen may be another's when Java has started
TAKEN, ATTEMPTS = "Address already in use", 3
SERIES = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)


class ServerError(RuntimeError):
    """A server of the measurement's own, or what it would serve, is not there; the message says what happened."""


@dataclass(frozen=True)
class Series:
    """One value of a metric, with its labels."""

    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Instance:
    """Where an instance runs, running or not. archives: of one folder.

    java: the executable to start, or None for deploy.server's choice. environ: of deploy.server, or None for ours.
    python: the environment that it is started in. checkout: whose deploy.server it is.
    """

    name: str
    run_folder: Path
    archives: tuple[Path, ...]
    java: Path | None = None
    environ: Mapping[str, str] | None = None
    python: Path = Path(sys.executable)
    checkout: Path = CHECKOUT

    @property
    def folder(self) -> Path:
        return self.run_folder / self.name

    def archive(self, model: str) -> Path:
        """The archive of a model."""
        (found,) = (archive for archive in self.archives if archive.stem == model)
        return found

    def start(self, *, seconds: float = 120) -> float:
        """Start it; returns the seconds until it was ready. Raises ServerError."""
        for _ in range(ATTEMPTS):
            begun = time.perf_counter()
            done = self.try_start(seconds=seconds)
            if TAKEN not in done.stderr:
                break
        if done.returncode:
            raise ServerError(f"`python -m deploy.server start` ended with {done.returncode}: {done.stderr.strip()}")
        return time.perf_counter() - begun

    def try_start(self, *, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Start it, whatever comes of that."""
        models = [archive.stem for archive in self.archives]
        java = () if self.java is None else ("--java", str(self.java))
        words = ("--free-ports", "--timeout", f"{seconds:g}", *java, "--store", str(self.archives[0].parent.absolute()))
        return self._deploy("start", *words, "--models", *models)

    def stop(self) -> None:
        """Stop it; one that does not run is left as it is. Raises ServerError."""
        done = self._deploy("stop")
        if done.returncode:
            raise ServerError(f"`python -m deploy.server stop` ended with {done.returncode}: {done.stderr.strip()}")

    @property
    def facts(self) -> dict[str, Any]:
        """Its server.json."""
        facts: dict[str, Any] = json.loads((self.folder / "server.json").read_text("utf-8"))
        return facts

    @property
    def target(self) -> Target:
        """What clients ask, with their token. Raises TargetError."""
        return target.read(self.name, run_folder=self.run_folder)

    @property
    def process(self) -> psutil.Process:
        """Java."""
        return psutil.Process(self.facts["pid"])

    def workers(self, model: str) -> list[psutil.Process]:
        """A model's workers that are ready; fewer while one is being started."""
        ready = [worker["pid"] for worker in self.described(model)["workers"] if worker["status"] == "READY"]
        return [psutil.Process(pid) for pid in ready if psutil.pid_exists(pid)]

    def described(self, model: str) -> dict[str, Any]:
        """What the management API says of a model."""
        url, headers = self._management(model)
        with direct.session() as session:
            answer = session.get(url, headers=headers, timeout=10)
        answer.raise_for_status()
        described: dict[str, Any] = answer.json()[0]
        return described

    def scale(self, model: str, workers: int, *, seconds: float) -> float:
        """Have so many workers of a model; returns the seconds until all were ready. Raises ServerError."""
        url, headers = self._management(model)
        begun = time.perf_counter()
        wanted = f"min_worker={workers}&max_worker={workers}"
        with direct.session() as session:
            session.put(f"{url}?{wanted}", headers=headers, timeout=10).raise_for_status()
        while [worker["status"] for worker in self.described(model)["workers"]] != ["READY"] * workers:
            if time.perf_counter() - begun > seconds:
                raise ServerError(f"{model}: expected {workers} workers to be ready within {seconds:g} s")
            time.sleep(0.01)
        return time.perf_counter() - begun

    def metrics(self) -> list[Series]:
        """All that it says of itself to Prometheus."""
        with direct.session() as session:
            return series(session.get(f"{self.facts['metrics']}/metrics", timeout=10).text)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's series that carry these labels."""
        found = (each for each in self.metrics() if each.name == name)
        return sum((each.value for each in found if labels.items() <= each.labels.items()), start=0.0)

    def logs(self) -> str:
        """Its log, as far as it is not yet compressed."""
        return "".join(path.read_text("utf-8", "replace") for path in sorted((self.folder / "logs").glob("*.log")))

    def _management(self, model: str) -> tuple[str, dict[str, str]]:
        """A model's URL of the management API, and the header that it asks for."""
        facts = self.facts
        token = json.loads(Path(facts["key_file"]).read_text("utf-8"))["management"]["key"]
        return f"{facts['management']}/models/{model}", {"Authorization": f"Bearer {token}"}

    def _deploy(self, action: str, *words: str) -> subprocess.CompletedProcess[str]:
        where = ("--instance", self.name, "--run-folder", str(self.run_folder.absolute()))
        return subprocess.run(
            [str(self.python), "-m", "deploy.server", action, *where, *words],
            cwd=self.checkout,
            env=dict(os.environ if self.environ is None else self.environ),
            capture_output=True,
            text=True,
            check=False,
        )


@contextlib.contextmanager
def running(instance: Instance, *, seconds: float = 120) -> Iterator[Instance]:
    """The instance, started within `seconds`, and stopped at the end whatever happens. Raises ServerError."""
    instance.start(seconds=seconds)
    try:
        yield instance
    finally:
        instance.stop()


def java(python: Path | None = None) -> Path:
    """The Java that deploy.server would start, in the environment of `python` or ours. Raises ServerError."""
    words = [str(python or sys.executable), "-c", "from deploy import java; print(java.find())"]
    found = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if found.returncode:
        raise ServerError(found.stderr.strip().splitlines()[-1])
    return Path(found.stdout.strip())


def series(text: str) -> list[Series]:
    """The series of Prometheus' text format that have labels."""
    return [
        Series(name, dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value))
        for name, labels, value in SERIES.findall(text)
    ]


def repack(archive: Path, copy: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of an archive whose model-config.yaml is as `change` leaves it. Raises ServerError."""
    changed = config(archive)
    change(changed)
    copy.touch(mode=0o600)  # it may hold a secret hash network, as the original does
    with zipfile.ZipFile(archive) as packed, zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as out:
        for entry in packed.namelist():
            out.writestr(entry, yaml.safe_dump(changed, sort_keys=False) if entry == CONFIG else packed.read(entry))
    return copy


def config(archive: Path) -> dict[str, Any]:
    """An archive's model-config.yaml. Raises ServerError."""
    try:
        with zipfile.ZipFile(archive) as packed:
            found: dict[str, Any] = yaml.safe_load(packed.read(CONFIG))
    except FileNotFoundError:
        raise ServerError(f"{archive}: no such archive; build it first (make archive)") from None
    return found


def batch_size(archive: Path) -> int:
    """How many requests a worker of this archive takes at once."""
    return int(config(archive)["batchSize"])


def wait_for(what: Callable[[], bool], *, seconds: float) -> float | None:
    """Seconds until `what` was true, or None where it was not in time."""
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        with contextlib.suppress(requests.RequestException, OSError, ValueError, LookupError, psutil.NoSuchProcess):
            if what():
                return time.perf_counter() - begun
        time.sleep(0.05)
    return None


def family(process: psutil.Process) -> Sequence[psutil.Process]:
    """A process and all that it has started."""
    return [process, *process.children(recursive=True)]
