"""nginx as a separate process: its settings checked, started, reloaded, drained and ended."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import requests

from deploy import direct, shutdown
from deploy.errors import DeployError, NotReadyError, RefusedError
from deploy.gateway.configuration import FRONT_ASKS, FRONT_LISTENS
from deploy.gateway.folder import GatewayFolder, GatewayRecord
from deploy.instance import process

ROOT = Path(__file__).absolute().parents[2]
# Debian keeps it where users' PATH does not look.
PLACES = "/usr/sbin:/usr/local/sbin"
START_SECONDS = 15.0
END_SECONDS = 5.0
POLL_SECONDS = 0.05
KEPT_LOGS = 5
# an image that serves without it has none of these
FRONT_NEEDS = ("grpc", "google.protobuf", "aiohttp")


def program() -> str:
    """Where nginx is. Raises `RefusedError`."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:{PLACES}")
    if found is None:
        raise RefusedError("no nginx on PATH: install it (Debian: apt-get install nginx-light)")
    return found


def check(folder: GatewayFolder, settings: Path) -> None:
    """Have nginx read settings without obeying them. Raises `RefusedError` with its output."""
    done = subprocess.run([*_command(folder, settings), "-t"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefusedError(f"nginx does not take {settings}: {done.stderr.strip()}")


def run(folder: GatewayFolder) -> subprocess.Popen[bytes]:
    """Start nginx's master."""
    with folder.error_log.open("ab") as log:
        return subprocess.Popen(
            _command(folder, folder.conf),
            cwd=folder.path,
            env={"PATH": os.environ.get("PATH", "")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def run_health(root: Path, name: str, address: str, folder: GatewayFolder) -> tuple[int, float]:
    """Start deploy.health for an instance: its pid and when it was created."""
    instance = ("--instance", name, "--run-folder", str(root.absolute()))
    return _helper("deploy.health", folder.logs / "health.log", *instance, "--listen", address)


def check_front() -> None:
    """Raises `RefusedError` where the front could not run."""
    missing = [name for name in FRONT_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise RefusedError(f"--grpc: not installed: {', '.join(missing)}; see the extra `grpc` in pyproject.toml")


def run_front(folder: GatewayFolder, health: Sequence[str]) -> tuple[int, float]:
    """Start deploy.grpc_front for nginx: its pid and when it was created. health: URLs."""
    listen, to = (f"unix:{folder.path / name}" for name in (FRONT_LISTENS, FRONT_ASKS))
    options = ("--listen", listen, "--to", to, "--health", *health)
    return _helper("deploy.grpc_front", folder.logs / "grpc.log", *options)


def admit(folder: GatewayFolder, front: tuple[int, float]) -> None:
    """Let nginx's workers call the front once it listens: before there is an nginx, which would say that it is ready.
    Raises `NotReadyError`."""
    socket = folder.path / FRONT_LISTENS
    deadline = time.monotonic() + START_SECONDS
    while not socket.exists():
        ended = process(*front) is None
        if ended or time.monotonic() > deadline:
            why = "has ended" if ended else f"did not listen in {START_SECONDS:g} s"
            raise NotReadyError(f"deploy.grpc_front {why}; see {folder.logs}")
        time.sleep(POLL_SECONDS)
    socket.chmod(0o660)
    folder.give(socket)


def _helper(module: str, log_file: Path, *options: str) -> tuple[int, float]:
    with log_file.open("ab") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", module, *options],
            cwd=ROOT,
            env={"PATH": os.environ.get("PATH", "")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return started.pid, psutil.Process(started.pid).create_time()


def wait(master: subprocess.Popen[bytes], record: GatewayRecord, folder: GatewayFolder) -> None:
    """Return when nginx and the health endpoints answer. Raises `NotReadyError`."""
    deadline = time.monotonic() + START_SECONDS
    wanted = [record.status, *(f"{each}/" for each in record.health)]
    while wanted:
        ended = master.poll() is not None or any(process(*each) is None for each in record.helpers)
        if ended or time.monotonic() > deadline:
            raise NotReadyError(
                f"no answer from {', '.join(wanted)} "
                f"{'because a process has ended' if ended else f'in {START_SECONDS:g} s'}; see {folder.logs}"
            )
        time.sleep(POLL_SECONDS)
        wanted = [url for url in wanted if not answers(url)]


def answers(url: str) -> bool:
    """Whether something answers there, whatever the answer."""
    with direct.session() as session:
        try:
            session.get(url, timeout=2)
        except requests.RequestException:
            return False
    return True


def reload(master: psutil.Process) -> None:
    """Let nginx read its settings again; returns when new workers are there. Raises `DeployError`."""
    before = {worker.pid for worker in master.children()}
    master.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + START_SECONDS
    while len({worker.pid for worker in master.children()} - before) < len(before):
        if not shutdown.runs(master) or time.monotonic() > deadline:
            raise DeployError(f"nginx (pid {master.pid}) has no new workers; see its error.log")
        time.sleep(POLL_SECONDS)


def drain(folder: GatewayFolder, *, quiet: float) -> int | None:
    """Stop nginx so that no answer under way is lost; its pid, or None where none ran.

    quiet: seconds in which each answer still ends its connection and readiness answers no, before the door shuts.
    Answers under way then have as long as a request may take. Raises `DeployError` where a process outlives SIGKILL.
    """
    record = folder.record()
    if record is None:
        return None
    master = record.process()
    if master is not None:
        folder.closing.touch()
        time.sleep(quiet)
        family = [master, *master.children(recursive=True)]
        with contextlib.suppress(psutil.NoSuchProcess):
            master.send_signal(signal.SIGQUIT)
        _end(shutdown.outlasting(family, record.patience + END_SECONDS))
    end_helpers(folder)
    folder.clear()
    return record.pid if master is not None else None


def end_helpers(folder: GatewayFolder) -> None:
    """End the health endpoints, also those that nginx has left behind."""
    record = folder.record()
    _end([found for each in (record.helpers if record else ()) if (found := process(*each)) is not None])


def end(master: subprocess.Popen[bytes] | None, helpers: Sequence[tuple[int, float]]) -> None:
    """End what a start that failed has started."""
    found = [each for helper in helpers if (each := process(*helper)) is not None]
    if master is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(master.pid))
    _end(found)


def reopen(folder: GatewayFolder, master: psutil.Process) -> None:
    """Put the logs aside as NAME.1 to NAME.5, the oldest last, and let nginx begin others."""
    for log in (folder.access_log, folder.error_log):
        for number in range(KEPT_LOGS - 1, 0, -1):
            older = log.with_name(f"{log.name}.{number}")
            if older.exists():
                older.replace(log.with_name(f"{log.name}.{number + 1}"))
        if log.exists():
            log.replace(log.with_name(f"{log.name}.1"))
    master.send_signal(signal.SIGUSR1)
    deadline = time.monotonic() + START_SECONDS
    while not folder.access_log.exists():
        if time.monotonic() > deadline:
            raise DeployError(f"nginx (pid {master.pid}) has not opened {folder.access_log}; see {folder.error_log}.1")
        time.sleep(POLL_SECONDS)


def _command(folder: GatewayFolder, settings: Path) -> list[str]:
    return [program(), "-p", str(folder.path), "-e", str(folder.error_log), "-c", str(settings)]


def _end(processes: Sequence[psutil.Process]) -> None:
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.terminate()
    for each in shutdown.outlasting(processes, END_SECONDS):
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    left = [each.pid for each in shutdown.outlasting(processes, END_SECONDS)]
    if left:
        raise DeployError(f"these processes of the gateway outlived SIGKILL: {left}")
