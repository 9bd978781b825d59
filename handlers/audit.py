"""The audit log: a line of JSON for every row that was suspected, refused or charged, and for every refused request.

    {"time": "2026-11-24T12:00:00.123Z", "request": "...", "principal": "acme", "policy": "digits-same-pow", "row": 3,
     "rows": 1, "decision": "proof-of-work", "score": 4.25, "tail": 0.0041, "digest": "...", "count": 1}

A row's digest is the SHA-256 of its pixels, never the pixels; row is null where the request as a whole was refused,
for its rate, its account's budget or its solution, and the digest then is the request's (null where it was not
decoded). A line of an account whose budget is spent, decision "budget", has its queries so far in rows, the base-10
logarithm of its capital as score, and 1 / capital as tail (defenses/budget.py).

Floods must not displace other lines. Each kind of line has a separate file and bound (KINDS): the file that
$TORCHWARDEN_AUDIT names, X.audit.jsonl, for suspected rows, X.audit.limited.jsonl and X.audit.solutions.jsonl for
refused requests. Of refused requests that are alike in principal, policy, decision and minute, the first has its line
and the others are counted; their one line follows with the first batch after that minute, with their number in `count`.
The counts stand in an SQLite file that all workers share, so none is lost with a worker; one that dies while it writes
them may leave them there, to be written twice.

The files outlive the server's run.
All workers of a machine append to it under a lock, so lines are whole. The worker that finds it full renames it to .1
and shifts older ones. A line that cannot be written is counted (torchwarden_audit_total) and costs no client the
answer.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from handlers.database import Database
from handlers.errors import BudgetSpent, ExpiredSolution, InvalidSolution, RateLimited, SpentSolution

Record = Mapping[str, object]
Clock = Callable[[], float]

AUDIT = "TORCHWARDEN_AUDIT"
LARGEST = 64 * 2**20
KEPT = 5
MINUTE = 60.0
# of refused requests, by their decision: what the name of their file has more, and how large it gets
SMALL = 8 * 2**20
KINDS = {
    RateLimited.code: "limited",
    BudgetSpent.code: "limited",
    **{error.code: "solutions" for error in (InvalidSolution, ExpiredSolution, SpentSolution)},
}
COUNTS = "counts.sqlite3"

# seconds for other workers to leave the counts
PATIENCE_S = 1.0

_log = logging.getLogger(__name__)


class AuditLog:
    """The files next to `path`, and the counts of repeated refusals. clock: seconds since the epoch."""

    def __init__(self, path: Path, *, largest: int = LARGEST, kept: int = KEPT, clock: Clock = time.time) -> None:
        self._files: dict[str | None, File] = {None: File(path, largest=largest, kept=kept)}
        for kind in sorted(set(KINDS.values())):
            self._files[kind] = File(beside(path, kind), largest=min(largest, SMALL), kept=kept)
        self._path = path
        self._counts: Database | None = None
        self._inode = -1
        self._clock = clock
        self._minute = -1

    def write(self, records: Sequence[Record]) -> bool:
        """Append a line for each record that is no repetition, count the others, and write what was counted in minutes
        gone by; whether all that was done."""
        minute = int(self._clock() // MINUTE)
        done = self._settle(minute)
        lines: dict[str | None, list[Record]] = {} if records else {None: []}
        for record in records:
            kind = KINDS.get(str(record.get("decision")))
            if kind is None or self._is_first(record, minute):
                lines.setdefault(kind, []).append({**record, "count": 1})
        for kind, each in lines.items():
            done = self._files[kind].write(each) and done
        return done

    def settle(self) -> bool:
        """Write what was counted in minutes gone by, once in each minute."""
        return self._settle(int(self._clock() // MINUTE))

    def _settle(self, minute: int) -> bool:
        if minute == self._minute:
            return True
        self._minute = minute
        gone = "WHERE minute < ? OR minute > ? + 1"  # or of a clock that was set back

        def written(counts: Database) -> bool:
            repeats = _repeats(counts.rows(f"{_SELECT} {gone}", minute, minute))
            for kind in set(KINDS.values()):
                mine = [record for record in repeats if KINDS[str(record["decision"])] == kind]
                if mine and not self._files[kind].write(mine):
                    self._minute = -1
                    return False
            counts.change(f"DELETE FROM repeats {gone}", minute, minute)
            return True

        try:
            counts = self._connected()
            return counts.changed(lambda: written(counts))
        except (OSError, sqlite3.Error) as error:
            _log.error("audit: repeated refusals cannot be counted: %s", type(error).__name__)
        return True

    def _connected(self) -> Database:
        """The file of the counts that is there now: somebody may have moved an earlier one away."""
        path = beside(self._path, COUNTS)
        if self._counts is None or not path.exists() or path.stat().st_ino != self._inode:
            if self._counts is not None:
                self._counts.close()
            self._counts = _connected(path)
            self._inode = path.stat().st_ino
        return self._counts

    def _is_first(self, record: Record, minute: int) -> bool:
        """Whether none like this one was written in the minute; otherwise it is counted. Where that cannot be done,
        each has its line."""
        alike = record["policy"], record["principal"], record["decision"], minute
        rows = record["rows"] or 0

        def is_first(counts: Database) -> bool:
            found = counts.change(
                "UPDATE repeats SET count = count + 1, rows = rows + ?, time = ? "
                "WHERE policy = ? AND principal = ? AND decision = ? AND minute = ?",
                *(rows, record["time"], *alike),
            )
            if not found:
                counts.change("INSERT INTO repeats VALUES (?, ?, ?, ?, 0, 0, ?)", *alike, record["time"])
            return not found

        try:
            counts = self._connected()
            return counts.changed(lambda: is_first(counts))
        except (OSError, sqlite3.Error) as error:
            _log.error("audit: repeated refusals cannot be counted: %s", type(error).__name__)
        return True


_TABLE = (
    "CREATE TABLE IF NOT EXISTS repeats (policy TEXT, principal TEXT, decision TEXT, minute INTEGER, "
    "count INTEGER, rows INTEGER, time TEXT, PRIMARY KEY (policy, principal, decision, minute)) WITHOUT ROWID"
)
_SELECT = "SELECT policy, principal, decision, count, rows, time FROM repeats"


def beside(path: Path, kind: str) -> Path:
    """The file of a kind, or of the counts, next to the log at `path`."""
    return path.with_name(f"{path.stem}.{kind}" if kind == COUNTS else f"{path.stem}.{kind}{path.suffix}")


def counted(path: Path) -> list[Record]:
    """The repetitions counted for the log at `path` that have no line yet."""
    with closing(_connected(beside(path, COUNTS))) as counts:
        return _repeats(counts.asked(lambda: counts.rows(_SELECT)))


def _connected(path: Path) -> Database:
    # no write-ahead log, which is left behind where somebody moves the file
    return Database(path, _TABLE, patience=PATIENCE_S, log=False)


def _repeats(found: Sequence[Sequence[Any]]) -> list[Record]:
    """Lines of those that repeated others; the first of their kind has its own. rows: of all, as far as decoded."""
    return [
        {
            "time": time,
            "request": None,
            "principal": principal,
            "policy": policy,
            "row": None,
            "rows": rows,
            "decision": decision,
            "score": None,
            "tail": None,
            "digest": None,
            "count": count,
        }
        for policy, principal, decision, count, rows, time in found
        if count
    ]


class File:
    """The file at `path`, made with mode 0600; rotated, with `kept` older ones, where another line would make it larger
    than `largest` bytes."""

    def __init__(self, path: Path, *, largest: int = LARGEST, kept: int = KEPT) -> None:
        self._path = path
        self._largest = largest
        self._kept = kept

    def write(self, records: Sequence[Record]) -> bool:
        """Append a line for each record, all or none; whether that was done."""
        lines = b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records)
        try:
            descriptor = self._opened(len(lines))
            try:
                _append(descriptor, lines)
            finally:
                os.close(descriptor)
        except OSError as error:
            _log.error("audit: lines lost: %d: %s", len(records), error.strerror)
            return False
        return True

    def _opened(self, more: int) -> int:
        """A locked descriptor of the file that `path` names now, with room for so many bytes."""
        while True:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                size = os.fstat(descriptor).st_size
                if self._is_current(descriptor):
                    if not size or size + more <= self._largest:
                        return descriptor
                    self._rotate()
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _is_current(self, descriptor: int) -> bool:
        """Whether the file has not been renamed since it was opened."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{age}") for age in range(1, self._kept + 1))]
        for younger, older in reversed(list(pairwise(names))):
            if younger.exists():
                younger.replace(older)


def _append(descriptor: int, lines: bytes) -> None:
    """Write all, or leave the file as it was: half a line would spoil the next one too."""
    size = os.fstat(descriptor).st_size
    try:
        left = memoryview(lines)
        while left:
            left = left[os.write(descriptor, left) :]
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def digest(image: NDArray[np.float32]) -> str:
    """SHA-256 of an image's float32 little-endian values, as hexadecimal text."""
    return hashlib.sha256(np.ascontiguousarray(image, "<f4").data).hexdigest()
