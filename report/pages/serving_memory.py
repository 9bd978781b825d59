"""results/serving-memory.json to docs/serving-memory.md: what a server holds in memory, and what of that was torch.

    python -m report.pages.serving_memory

Every number on the page comes from the results file; its sentences hold whatever the numbers are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from report import atomic
from report.pages import page
from report.rows.memory import MemoryRow
from report.schema import Report, ResultError, read

TEMPLATE = Path(__file__).with_name("serving_memory.md.j2")
# The goal for Java and two workers of `undefended`.
SERVER_MB = 900.0
# A worker for `edm` may hold so much more than one for `undefended`, beside five times a member's weights.
BEYOND_MB = 50.0
MEMBERS = 5


@dataclass(frozen=True)
class Served:
    """One archive served in one way by some workers, at both moments."""

    rest: MemoryRow
    after: MemoryRow


@dataclass(frozen=True)
class ArchiveMemory:
    """All of one archive's."""

    name: str
    graphs_mb: float
    rows: list[Served]


@dataclass(frozen=True)
class Goal:
    """What was to be kept below, and what was measured; in megabytes."""

    what: str
    most: float
    measured: float

    @property
    def kept(self) -> bool:
        return self.measured <= self.most


def main() -> None:
    """Run the command line; a missing or malformed results file is a message and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="python -m report.pages.serving_memory", description="serving-memory.json to a page"
    )
    parser.add_argument("--results", type=Path, default=Path("results/serving-memory.json"), metavar="FILE")
    parser.add_argument("--output", type=Path, default=Path("docs/serving-memory.md"), metavar="FILE")
    options = parser.parse_args()
    try:
        text = render(read(options.results, measured_by="make bench-memory"))
    except ResultError as error:
        sys.exit(f"report.pages.serving_memory: {error}")
    atomic.write_text(options.output, text)
    print(options.output)


def render(report: Report) -> str:
    """The page."""
    archives = [_archive(report.memory, name) for name in dict.fromkeys(row.archive for row in report.memory)]
    return page.render(
        TEMPLATE, run=report.run, archives=archives, goals=goals(report.memory), environments=report.environments
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


def _archive(rows: Iterable[MemoryRow], name: str) -> ArchiveMemory:
    own = [row for row in rows if row.archive == name]
    at_rest = {(row.workers, row.way): row for row in own if row.moment == "rest"}
    after = [row for row in own if row.moment == "traffic"]
    if len(at_rest) != len(after):
        raise ResultError(f"memory: {name}: expected both moments of each server, got {len(at_rest)} and {len(after)}")
    return ArchiveMemory(name, own[0].graphs_mb, [Served(at_rest[row.workers, row.way], row) for row in after])


if __name__ == "__main__":
    main()
