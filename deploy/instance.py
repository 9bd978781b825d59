"""An instance: one running TorchServe with its own folder, run/<instance>/, and what is written there.

    config.properties   what Java was given, made from the top-level file
    expected.json       the archives being served and their golden predictions
    server.json         where it serves; what clients read (0600)
    key_file.json       TorchServe's tokens (0600); made by Java in its working directory
    classes/            what goes before TorchServe's own on Java's class path (deploy/batching.py)
    logs/               torchserve.log (rolling), console.log (what Java prints before it can log)
    state/              what the workers remember together, such as proofs of work that are spent
    tmp/                unpacked archives and the workers' sockets, unless the path is too long for a socket

Next to it, run/<instance>.lock lets one start at a time through. The folder is made fresh at each start; the audit log,
run/<instance>.audit.jsonl, and how accounts stand, run/<instance>.budgets.sqlite3, outlive it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from deploy.archive import NAME
from deploy.errors import RefusedError

MADE_BY = "Made by `python -m deploy.server` from the top-level config.properties; change that one."
CLASSES = "classes"
# A unix socket's path has at most 107 bytes, and TorchServe appends this to the temporary folder's.
LONGEST_TEMP = 107 - len("/.ts.sock.65535")


@dataclass(frozen=True)
class Record:
    """server.json. URLs are http://host:port, those of gRPC host:port; paths are absolute.

    `started` is the process's creation time, seconds since the epoch: with `pid` it names one process for
    good.
    """

    instance: str
    inference: str
    management: str
    metrics: str
    grpc_inference: str
    grpc_management: str
    key_file: str
    pid: int
    started: float
    models: list[str]
    temp: str
    log: str

    def process(self) -> psutil.Process | None:
        """The Java process, or None where it has ended."""
        return process(self.pid, self.started)


class Instance:
    """The paths of an instance, and the few things done to its folder."""

    def __init__(self, root: Path, name: str) -> None:
        if not NAME.fullmatch(name):
            raise RefusedError(f"--instance {name!r}: expected a name that matches {NAME.pattern}")
        self.name = name
        self.folder = (root / name).absolute()
        self.config = self.folder / "config.properties"
        self.expected = self.folder / "expected.json"
        self.server = self.folder / "server.json"
        self.key_file = self.folder / "key_file.json"
        self.classes = self.folder / CLASSES
        self.state = self.folder / "state"
        self.log = self.folder / "logs" / "torchserve.log"
        self.console = self.folder / "logs" / "console.log"
        self.audit = self.folder.with_name(f"{name}.audit.jsonl")
        self.budgets = self.folder.with_name(f"{name}.budgets.sqlite3")

    @contextlib.contextmanager
    def starting(self, what: str = "") -> Iterator[None]:
        """Hold the instance's lock, or that of its gateway (`what`). Raises `RefusedError` at once where another start
        holds it."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self.folder.with_name(f"{self.name}{what}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RefusedError(
                    f"another start of instance {self.name} is under way (it holds {lock.name}); "
                    "wait for it, or use another --instance"
                ) from error
            yield

    def make(self) -> Path:
        """Recreate the folder, for its owner alone; returns the temporary folder for Java and its workers.

        Raises `RefusedError` where a folder of that name is there and no instance made it.
        """
        if self.folder.exists() and any(self.folder.iterdir()) and not self._ours():
            raise RefusedError(
                f"{self.folder} holds something that is no instance's; move it, or use another --instance"
            )
        self.clear()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700)
        self.config.write_text(f"# {MADE_BY}\n")
        self.log.parent.mkdir()
        self.state.mkdir(mode=0o700)
        temp = self.folder / "tmp"
        if len(os.fsencode(temp)) <= LONGEST_TEMP:
            temp.mkdir()
            return temp
        short = Path(tempfile.mkdtemp(prefix="torchwarden-"))
        if len(os.fsencode(short)) > LONGEST_TEMP:
            short.rmdir()
            raise RefusedError(f"temporary folder {short} is too long for a unix socket; set TMPDIR to a shorter path")
        return short

    def record(self) -> Record | None:
        """The content of server.json, or None where there is none."""
        try:
            return Record(**json.loads(self.server.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def announce(self, record: Record) -> None:
        """Write server.json, whole or not at all."""
        temporary = self.server.with_suffix(".tmp")
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
        temporary.replace(self.server)

    def clear(self) -> None:
        """Remove what an ended server leaves (server.json, tokens, classes, state, temporary folder) but the logs."""
        record = self.record()
        if record is not None:
            shutil.rmtree(record.temp, ignore_errors=True)
        for left in (self.classes, self.state, self.folder / "tmp"):
            shutil.rmtree(left, ignore_errors=True)
        self.key_file.unlink(missing_ok=True)
        self.server.unlink(missing_ok=True)

    def _ours(self) -> bool:
        return self.config.is_file() and MADE_BY in self.config.read_text(encoding="latin-1")


def process(pid: int, started: float) -> psutil.Process | None:
    """The process that was created then, or None where it has ended, even if its pid now belongs to another."""
    try:
        found = psutil.Process(pid)
        # The clock may be corrected by a second between two readings; pids do not come round that fast.
        same = abs(found.create_time() - started) < 2
        return found if same and found.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None
