"""results/faults.json and results/soak.json to docs/resilience.md and docs/resilience.svg: what a fault costs.

    python -m report.pages.resilience

Every number on the page comes from the two files; its sentences hold whatever the numbers are.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from report import atomic
from report.figures.soak import over_time
from report.format import number
from report.pages import page
from report.pages.fault_captions import CAPTIONS
from report.rows.bounds import Bound
from report.rows.faults import CUT, LOST, PAUSE_S, UNSENT, FaultRow
from report.rows.soak import BEHIND
from report.schema import Report, ResultError, read

TEMPLATE = Path(__file__).with_name("resilience.md.j2")
SILENT = {LOST: "never answered", CUT: "connection cut", UNSENT: "no server"}


@dataclass(frozen=True)
class Promise:
    """One bound over all runs of a case. worst: None where a run had no value."""

    what: str
    limit: float
    worst: float | None
    kept: int
    runs: int


@dataclass(frozen=True)
class Case:
    """All runs of one form of a fault."""

    fault: str
    case: str
    rows: tuple[FaultRow, ...]

    @property
    def promises(self) -> list[Promise]:
        """Its bounds, in the order in which they were checked."""
        columns = zip(*(row.bounds for row in self.rows), strict=True)
        return [_promise(bounds) for bounds in columns]

    @property
    def kept(self) -> bool:
        """Whether every promise was kept in every run."""
        return not any(row.broken for row in self.rows)

    @property
    def others(self) -> str:
        """What became of the struck clients' requests that were not answered right, all runs together."""
        total: Counter[str] = Counter()
        for row in self.rows:
            if row.struck is not None:
                total.update(row.struck.others)
        return ", ".join(f"{count} {SILENT.get(what, what)}" for what, count in sorted(total.items())) or "none"

    def felt(self, name: str) -> list[float]:
        """A figure of the struck clients in each run that has it."""
        values = [getattr(row.struck, name) for row in self.rows if row.struck is not None]
        return [value for value in values if value is not None]

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What else was seen: each fact's values over the runs."""
        return [(name, _values([row.facts.get(name) for row in self.rows])) for name in self.rows[0].facts]


def main() -> None:
    """Run the command line; a missing or malformed results file is a message and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="python -m report.pages.resilience", description="faults.json and soak.json to a page"
    )
    parser.add_argument("--faults", type=Path, default=Path("results/faults.json"), help="(results/faults.json)")
    parser.add_argument("--soak", type=Path, default=Path("results/soak.json"), help="(results/soak.json)")
    parser.add_argument("--output", type=Path, default=Path("docs/resilience.md"), help="(docs/resilience.md)")
    options = parser.parse_args()
    try:
        faults = _read(options.faults, "faults")
        endurance = _read(options.soak, "soak")
    except ResultError as error:
        sys.exit(f"report.pages.resilience: {error}")
    figure = options.output.with_suffix(".svg")
    (soak,) = endurance.soak
    atomic.write_text(figure, over_time(soak.windows, soak.samples))
    atomic.write_text(options.output, render(faults, endurance, figure=figure.name))
    print(f"{options.output}, {figure}")


def _read(path: Path, section: str) -> Report:
    """A report with rows in this section. Raises ResultError."""
    report = read(path, measured_by=f"make {section}")
    if not getattr(report, section):
        raise ResultError(f"{path}: expected {section}, got none; run `make {section}`")
    return report


def cases(rows: Sequence[FaultRow]) -> list[Case]:
    """The rows by fault and case, in the order in which they were measured."""
    found: dict[tuple[str, str], list[FaultRow]] = {}
    for row in rows:
        found.setdefault((row.fault, row.case), []).append(row)
    return [Case(*key, rows=tuple(mine)) for key, mine in found.items()]


def render(faults: Report, endurance: Report, *, figure: str) -> str:
    """The page as Markdown, from a report of faults and one of a soak. figure: the plot's file name."""
    found = cases(faults.faults)
    (soak,) = endurance.soak
    return page.render(
        TEMPLATE,
        filters={"over_runs": over_runs, "limit": _plain, "title": title},
        run=faults.run,
        runs=max(len(case.rows) for case in found),
        cases=found,
        faults={name: [case for case in found if case.fault == name] for name in dict.fromkeys(c.fault for c in found)},
        about=CAPTIONS.__getitem__,
        broken=sum(promise.kept != promise.runs for case in found for promise in case.promises),
        promised=sum(len(case.promises) for case in found),
        soak=soak,
        soak_run=endurance.run,
        figure=figure,
        behind=BEHIND,
        state=lambda sample: sample.state_mb,
        logs=lambda sample: sample.logs_mb,
        audit=lambda sample: sample.audit_mb,
        open_files=lambda sample: sum(process.files for process in sample.processes),
        threads=lambda sample: sum(process.threads for process in sample.processes),
        pause_ms=round(1000 * PAUSE_S),
    )


def over_runs(values: Sequence[float], digits: int = 2) -> str:
    """The median, and the lowest and the highest where they differ from it; a dash for none."""
    if not values:
        return "-"
    middle, low, high = (number(value, digits) for value in (median(values), min(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def title(fault: str) -> str:
    """A fault's name as a heading."""
    return fault.replace("_", " ").capitalize()


def _promise(bounds: Sequence[Bound]) -> Promise:
    measured = [bound.measured for bound in bounds]
    worst = None if None in measured else max(value for value in measured if value is not None)
    return Promise(bounds[0].what, bounds[0].limit, worst, sum(bound.met for bound in bounds), len(bounds))


def _values(values: Sequence[float | str | None]) -> str:
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) == len(values):
        return over_runs(numbers, 0 if all(value == int(value) for value in numbers) else 2)
    return "; ".join(dict.fromkeys("-" if value is None else str(value) for value in values))


def _plain(value: float | None) -> str:
    """A number as short as it is; a dash for None."""
    return "-" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    main()
