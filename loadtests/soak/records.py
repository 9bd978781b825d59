"""A soak's records of every request: one line of JSON for each second or so, appended as it comes.

The file has what was measured so far, however the run ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path

ANSWERED, REFUSED, FAILED, LOST = "answered", "refused", "failed", "lost"
"""REFUSED: in order, by a gate or a limit. FAILED: any other status, or an answer that is none. LOST: no answer."""


@dataclass(frozen=True)
class Record:
    """One request. at: when it was due, seconds from the start; where it was due at once, when it was sent.

    ms: from `at` to its answer. late_ms: from `at` until it was sent. waited: whether a user was there in time, so that
    being late is the load generator's own doing. status: HTTP's, 0 for none. code: of a refusal, or "". hashes:
    done to pay for it.
    """

    at: float
    role: str
    model: int
    ms: float
    late_ms: float
    waited: bool
    status: int
    code: str
    what: str
    hashes: int


@dataclass(frozen=True)
class Machine:
    """The load generator itself: its processor seconds so far, at `at`. start: of the run, on the machine's monotonic
    clock, which all of its processes share."""

    at: float
    cpu_s: float
    start: float


class Notebook:
    """Appends to the file at `path`; see the module's docstring."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: list[Record] = []

    def note(self, record: Record) -> None:
        """Keep one record for the next line."""
        self._kept.append(record)

    def write(self, machine: Machine) -> None:
        """Append a line with what was kept."""
        kept, self._kept = self._kept, []
        line = json.dumps({"machine": astuple(machine), "records": [astuple(each) for each in kept]})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def read(path: Path, *, skip: int = 0) -> tuple[list[Record], list[Machine]]:
    """The records and the generator's seconds of a file, without its first `skip` lines; a last line that is not yet
    whole is left out."""
    records, machines = list[Record](), list[Machine]()
    if not path.exists():
        return records, machines
    for line in _whole(path.read_text("utf-8").splitlines(keepends=True)[skip:]):
        content = json.loads(line)
        machines.append(Machine(*content["machine"]))
        records += [Record(*fields) for fields in content["records"]]
    return records, machines


def _whole(lines: Iterable[str]) -> Iterable[str]:
    return (line for line in lines if line.endswith("\n"))
