"""The audit log: a line of JSON for every row that was suspected, refused or charged, and for every refused request.

    {"time": "2026-11-24T12:00:00.123Z", "request": "...", "principal": "acme", "policy": "digits-same-pow", "row": 3,
     "rows": 1, "decision": "proof-of-work", "score": 4.25, "tail": 0.0041, "digest": "..."}

A row's digest is the SHA-256 of its pixels, never the pixels; row is null where the request as a whole was refused, for
its rate or its solution, and the digest then is the request's. The file, $TORCHWARDEN_AUDIT, outlives the server's run.
All workers of a machine append to it under a lock, so lines are whole, and whoever finds it full renames it to .1 and
older ones on. A line that cannot be written is counted (torchwarden_audit_total) and costs no client the answer.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

AUDIT = "TORCHWARDEN_AUDIT"
LARGEST = 64 * 2**20
KEPT = 5

_log = logging.getLogger(__name__)


class AuditLog:
    """The file at `path`, made with mode 0600; rotated, with `kept` older ones, where another line would make it larger
    than `largest` bytes."""

    def __init__(self, path: Path, *, largest: int = LARGEST, kept: int = KEPT) -> None:
        self._path = path
        self._largest = largest
        self._kept = kept

    def write(self, records: Sequence[Mapping[str, object]]) -> bool:
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
        """Whether nobody has renamed the file since it was opened."""
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
