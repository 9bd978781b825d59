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

from assurance.faults.clients import Door, FaultError
from evaluation.oracles import CHECKOUT
from loadtests import target

CONFIG = "model-config.yaml"
# a port that was free when it was chosen may be another's when Java has started
TAKEN, ATTEMPTS = "Address already in use", 3


@dataclass(frozen=True)
class Instance:
    """Where an instance runs, running or not. java: the executable to start, or None for deploy.server's choice."""

    name: str
    run_folder: Path
    archives: tuple[Path, ...]
    java: Path | None = None
    environ: Mapping[str, str] | None = None

    @property
    def folder(self) -> Path:
        return self.run_folder / self.name

    def archive(self, model: str) -> Path:
        """The archive of a model."""
        (found,) = (archive for archive in self.archives if archive.stem == model)
        return found

    def start(self, *, seconds: float = 120) -> float:
        """Start it; returns the seconds until it was ready. Raises FaultError."""
        for _ in range(ATTEMPTS):
            begun = time.perf_counter()
            done = self.try_start(seconds=seconds)
            if TAKEN not in done.stderr:
                break
        if done.returncode:
            raise FaultError(f"`python -m deploy.server start` ended with {done.returncode}: {done.stderr.strip()}")
        return time.perf_counter() - begun

    def try_start(self, *, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Start it, whatever comes of that."""
        models = [archive.stem for archive in self.archives]
        java = () if self.java is None else ("--java", str(self.java))
        words = ("--free-ports", "--timeout", f"{seconds:g}", *java, "--store", str(self.archives[0].parent))
        return self._deploy("start", *words, "--models", *models)

    def stop(self) -> None:
        """Stop it; one that does not run is left as it is. Raises FaultError."""
        done = self._deploy("stop")
        if done.returncode:
            raise FaultError(f"`python -m deploy.server stop` ended with {done.returncode}: {done.stderr.strip()}")

    @property
    def facts(self) -> dict[str, Any]:
        """Its server.json."""
        told: dict[str, Any] = json.loads((self.folder / "server.json").read_text("utf-8"))
        return told

    @property
    def door(self) -> Door:
        """For a client with TorchServe's token."""
        found = target.read(self.name, run_folder=self.run_folder)
        return Door(found.inference, found.authorization)

    @property
    def process(self) -> psutil.Process:
        """Java."""
        return psutil.Process(self.facts["pid"])

    def workers(self, model: str) -> list[psutil.Process]:
        """A model's workers that are ready; fewer while one is being started."""
        facts = self.facts
        token = json.loads(Path(facts["key_file"]).read_text("utf-8"))["management"]["key"]
        url = f"{facts['management']}/models/{model}"
        answer = requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=10)
        ready = [worker["pid"] for worker in answer.json()[0]["workers"] if worker["status"] == "READY"]
        return [psutil.Process(pid) for pid in ready if psutil.pid_exists(pid)]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's series that carry these labels."""
        text = requests.get(f"{self.facts['metrics']}/metrics", timeout=10).text
        total = 0.0
        for found in re.finditer(rf"^{re.escape(name)}\{{(.*)\}} (\S+)$", text, re.MULTILINE):
            told = dict(re.findall(r'(\w+)="([^"]*)"', found[1]))
            if labels.items() <= told.items():
                total += float(found[2])
        return total

    def logs(self) -> str:
        """Its log, as far as it is not yet compressed."""
        return "".join(path.read_text("utf-8", "replace") for path in sorted((self.folder / "logs").glob("*.log")))

    def _deploy(self, action: str, *words: str) -> subprocess.CompletedProcess[str]:
        where = ("--instance", self.name, "--run-folder", str(self.run_folder))
        return subprocess.run(
            [sys.executable, "-m", "deploy.server", action, *where, *words],
            cwd=CHECKOUT,
            env=dict(os.environ if self.environ is None else self.environ),
            capture_output=True,
            text=True,
            check=False,
        )


@contextlib.contextmanager
def running(instance: Instance) -> Iterator[Instance]:
    """The instance, started, and stopped at the end whatever happens."""
    instance.start()
    try:
        yield instance
    finally:
        instance.stop()


def repack(archive: Path, copy: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of an archive whose model-config.yaml is as `change` leaves it. Raises FaultError."""
    changed = config(archive)
    change(changed)
    copy.touch(mode=0o600)  # it may hold a secret hash network, as the original does
    with zipfile.ZipFile(archive) as packed, zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as out:
        for entry in packed.namelist():
            out.writestr(entry, yaml.safe_dump(changed, sort_keys=False) if entry == CONFIG else packed.read(entry))
    return copy


def config(archive: Path) -> dict[str, Any]:
    """An archive's model-config.yaml. Raises FaultError."""
    try:
        with zipfile.ZipFile(archive) as packed:
            told: dict[str, Any] = yaml.safe_load(packed.read(CONFIG))
    except FileNotFoundError:
        raise FaultError(f"{archive}: no such archive; build it first (make archive)") from None
    return told


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
