"""results/serving-memory.json to docs/serving-memory.md: what a server holds in memory, and what of that was torch.

    python -m report.pages serving-memory

Every number on the page comes from the results file; its sentences hold whatever the numbers are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from report.pages import page
from report.rows.memory import MemoryRow
from report.schema import Report, ResultError, read

# The goal for Java and two workers of `undefended`.
SERVER_MB = 900.0
# A worker for `edm` may hold so much more than one for `undefended`, plus five times a member's weights.
BEYOND_MB = 50.0
MEMBERS = 5


@dataclass(frozen=True)
class Goal:
    """What was to be kept below, and what was measured; in megabytes."""

    what: str
    most: float
    measured: float

    @property
    def kept(self) -> bool:
        return self.measured <= self.most


def pages(results: Path) -> dict[str, str]:
    """The page, by file name below docs/. Raises ResultError."""
    report = read(results / "serving-memory.json", measured_by="make bench-memory")
    return {"serving-memory.md": render(report)}


def render(report: Report) -> str:
    """The page."""
    archives = {name: _servers(report.memory, name) for name in dict.fromkeys(row.archive for row in report.memory)}
    return page.render(
        "serving_memory.md.j2",
        run=report.run,
        archives=archives,
        goals=goals(report.memory),
        environments=report.environments,
    )


def goals(rows: Iterable[MemoryRow]) -> list[Goal]:
    """The goals that these rows tell something about: of each policy's archives, after traffic, without torch."""
    lean = {(row.archive, row.workers): row for row in rows if row.way == "absent" and row.moment == "traffic"}
    found = [
        Goal(f"Java and two workers of `{name}`", SERVER_MB, row.total_pss)
        for (name, workers), row in lean.items()
        if workers == 2 and name.endswith("-undefended")
    ]
    for (name, workers), row in lean.items():
        victim = lean.get((name.removesuffix("-edm") + "-undefended", workers))
        if name.endswith("-edm") and workers == 1 and victim is not None:
            most = victim.worker.pss + MEMBERS * victim.graphs_mb + BEYOND_MB
            what = f"a worker of `{name}`, by one of `{victim.archive}`, five members' weights and {BEYOND_MB:.0f} MB"
            found.append(Goal(what, most, row.worker.pss))
    return found


def _servers(rows: Iterable[MemoryRow], name: str) -> list[tuple[MemoryRow, MemoryRow]]:
    """Of one archive (at rest, after traffic), by server. Raises ResultError where one lacks a moment."""
    own = [row for row in rows if row.archive == name]
    at_rest = {(row.workers, row.way): row for row in own if row.moment == "rest"}
    after = [row for row in own if row.moment == "traffic"]
    if len(at_rest) != len(after):
        raise ResultError(f"memory: {name}: expected both moments of each server, got {len(at_rest)} and {len(after)}")
    return [(at_rest[row.workers, row.way], row) for row in after]
