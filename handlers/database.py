"""An SQLite file that the workers of a machine write: nobody starves, and what was written outlives who wrote it.

Waiting. SQLite's own busy handler sleeps longer after each miss, up to a tenth of a second. Who has waited longest then
looks most rarely, and is starved by a process that writes in a loop. Here every waiter looks again after a short time,
drawn anew, so that all are equally likely to be next; how long somebody waits falls off exponentially.

Write-ahead log. With one, a transaction is one write that nobody who reads waits for. It needs memory that processes
share through a file, which some file systems lack. `PRAGMA journal_mode=WAL` answers "wal" there too; then every
statement fails, in every process, from then on. So it is tried on another file first. The log is used again from its
beginning and by itself never gets smaller: one change of all entries, such as forgetting them after a rush, would leave
it as long as the file. It is cut to LOG_BYTES when it is next begun.

Durability. A transaction that was committed is the kernel's: it survives a worker that is killed. It is not synced to
the disk (synchronous=OFF), where waiting for the disk would be most of its time. Who cares for what a machine that
lost power has forgotten asks for `boot`; a file that must come back whole, though not with its last transactions, is
opened `safe`.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

# Seconds between two looks at a file that another process writes, which takes it some 40 us. Shorter ones cost more of
# the processors than they gain.
LOOK_AGAIN_S = (0.0005, 0.003)
# of a log that is used again: about as long as SQLite lets it grow before it copies it into the file
LOG_BYTES = 2**22
BOOT = Path("/proc/sys/kernel/random/boot_id")

Result = TypeVar("Result")


class Database:
    """The file at `path`, made with mode 0600 where there is none, and its `tables`.

    patience: seconds to wait for other processes; then sqlite3.OperationalError says that it is locked. log: whether
    to keep a write-ahead log, which must not be of a file that is moved or removed while it is open. safe: whether the
    file is still whole after the machine lost power, though its last transactions may be missing (synchronous=NORMAL).
    Threads of a process take turns. Raises OSError, sqlite3.Error.
    """

    def __init__(self, path: Path, *tables: str, patience: float, log: bool, safe: bool = False) -> None:
        self._patience = patience
        self._turn = threading.Lock()  # sqlite3 knows one transaction a connection
        path.touch(mode=0o600)
        self._connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        log = log and carries_log(path.parent)
        self.asked(lambda: self.rows(f"PRAGMA journal_mode={'WAL' if log else 'DELETE'}"))
        self.asked(lambda: self.rows(f"PRAGMA journal_size_limit={LOG_BYTES}"))
        self.asked(lambda: self.rows(f"PRAGMA synchronous={'NORMAL' if safe else 'OFF'}"))
        self.changed(lambda: [self.rows(table) for table in tables])

    def rows(self, statement: str, *values: object) -> list[Any]:
        """The rows that a statement gives. For what `asked` and `changed` do."""
        return self._connection.execute(statement, values).fetchall()

    def change(self, statement: str, *values: object) -> int:
        """How many rows a statement changed. For what `changed` does."""
        return self._connection.execute(statement, values).rowcount

    def asked(self, work: Callable[[], Result]) -> Result:
        """What `work`, which reads, gives. It may be done more than once."""
        with self._turn:
            return self._patiently(work)

    def changed(self, work: Callable[[], Result]) -> Result:
        """What `work` gives, done once, whole or not at all, while no other process writes."""
        with self._turn:
            self._patiently(self._begin)
            try:
                result = work()
                self._patiently(self._connection.commit)
            except BaseException:
                self._connection.rollback()
                raise
            return result

    def _begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def _patiently(self, work: Callable[[], Result]) -> Result:
        """What `work` gives, tried again while other processes have the file."""
        end = None
        while True:
            try:
                return work()
            except sqlite3.OperationalError as error:
                end = end or time.monotonic() + self._patience
                # Python 3.10 knows no error codes
                if "locked" not in str(error) or time.monotonic() > end:
                    raise
            time.sleep(random.uniform(*LOOK_AGAIN_S))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def carries_log(folder: Path) -> bool:
    """Whether a write-ahead log works on the folder's file system."""
    with tempfile.TemporaryDirectory(dir=folder) as private:
        connection = sqlite3.connect(Path(private) / "tried")
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE tried (x)")
        except sqlite3.OperationalError:
            return False
        finally:
            connection.close()
        return True


def boot() -> str:
    """Names the time since the machine started; nothing where the system has no name for it."""
    try:
        return hashlib.sha256(BOOT.read_bytes()).hexdigest()[:16]
    except OSError:
        return ""
