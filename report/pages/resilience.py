"""results/faults.json and results/soak.json to docs/resilience.md and docs/resilience.svg: what a fault costs.

    python -m report.pages.resilience

Every number on the page comes from the two files; its sentences hold whatever the numbers are.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from assurance.faults.clients import PAUSE_S
from assurance.faults.figures import CUT, LOST, UNSENT, Bound, FaultRow, row_from
from loadtests.soak.sampler import Process, Sample
from loadtests.soak.statistics import BEHIND, FIFTHS, Growth, Reached, Tried, Window, fifth, slope_of
from report.figures.soak import over_time
from report.html import number
from report.pages import page
from report.schema import ResultError, RunInfo

TEMPLATE = Path(__file__).with_name("resilience.md.j2")
SILENT = {LOST: "never answered", CUT: "connection cut", UNSENT: "no server"}

Item = TypeVar("Item")


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


@dataclass(frozen=True)
class Soak:
    """results/soak.json."""

    run: RunInfo
    recipe: str
    policies: tuple[str, ...]
    effort: dict[str, Any]
    ramp: tuple[Reached, ...]
    tries: tuple[Tried, ...]
    rate: float
    unfinished: str | None
    verdict: tuple[Bound, ...]
    generator: tuple[Bound, ...]
    growth: tuple[Growth, ...]
    windows: tuple[Window, ...]
    samples: tuple[Sample, ...]

    @property
    def outcomes(self) -> Counter[str]:
        """What became of all requests."""
        total: Counter[str] = Counter()
        for window in self.windows:
            total.update(window.outcomes)
        return total

    def p99_of(self, number: int) -> float | None:
        """The median of the windows' 99th percentiles in a fifth of the run, counted from 0; None of none."""
        times, values = self._p99s()
        mine = values[fifth(times, number, self._seconds)]
        return float(np.median(mine)) if len(mine) else None

    @property
    def p99_slope(self) -> tuple[float, float, float] | None:
        """Theil and Sen's slope of the windows' 99th percentiles after warm-up, in ms an hour, and its interval."""
        times, values = self._p99s()
        after = times >= self._seconds / FIFTHS
        return slope_of(times[after] / 3600, values[after])

    @property
    def _seconds(self) -> float:
        return 60 * float(self.effort["minutes"])

    def _p99s(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        told = [(window.at, window.p99_ms) for window in self.windows if window.p99_ms is not None]
        times, values = np.array(told, np.float64).reshape(-1, 2).T
        return times, values

    def ends(self, of: Callable[[Sample], float]) -> tuple[float, float]:
        """A figure of the first sample and of the last."""
        return of(self.samples[0]), of(self.samples[-1])


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
        run, rows = read_faults(options.faults)
        soak = read_soak(options.soak)
    except ResultError as error:
        sys.exit(f"report.pages.resilience: {error}")
    figure = options.output.with_suffix(".svg")
    page.write(figure, over_time(soak.windows, soak.samples))
    page.write(options.output, render(run, rows, soak, figure=figure.name))
    print(f"{options.output}, {figure}")


def read_faults(path: Path) -> tuple[RunInfo, list[FaultRow]]:
    """The run and the rows of a faults.json. Raises ResultError."""
    content = _content(path, "run", "faults")
    rows = [_built(path, f"faults[{n}]", row_from, fields) for n, fields in enumerate(content["faults"])]
    if not rows:
        raise ResultError(f"{path}: expected faults, got none; run `make faults`")
    return _built(path, "run", lambda fields: RunInfo(**fields), content["run"]), rows


def read_soak(path: Path) -> Soak:
    """A soak.json. Raises ResultError."""
    content = _content(path, *Soak.__dataclass_fields__)

    def made(name: str, kind: Callable[..., Item]) -> tuple[Item, ...]:
        return tuple(
            _built(path, f"{name}[{n}]", lambda each: kind(**each), each) for n, each in enumerate(content[name])
        )

    def sample(**fields: Any) -> Sample:
        return Sample(**{**fields, "processes": tuple(Process(**each) for each in fields["processes"])})

    return Soak(
        run=_built(path, "run", lambda fields: RunInfo(**fields), content["run"]),
        recipe=content["recipe"],
        policies=tuple(content["policies"]),
        effort=content["effort"],
        ramp=made("ramp", Reached),
        tries=made("tries", Tried),
        rate=content["rate"],
        unfinished=content["unfinished"],
        verdict=made("verdict", Bound),
        generator=made("generator", Bound),
        growth=made("growth", Growth),
        windows=made("windows", Window),
        samples=made("samples", sample),
    )


def cases(rows: Sequence[FaultRow]) -> list[Case]:
    """The rows by fault and case, in the order in which they were measured."""
    found: dict[tuple[str, str], list[FaultRow]] = {}
    for row in rows:
        found.setdefault((row.fault, row.case), []).append(row)
    return [Case(*key, rows=tuple(mine)) for key, mine in found.items()]


def render(run: RunInfo, rows: Sequence[FaultRow], soak: Soak, *, figure: str) -> str:
    """The page as Markdown. figure: the plot's file name, beside the page."""
    found = cases(rows)
    return page.render(
        TEMPLATE,
        filters={"over_runs": over_runs, "limit": _plain, "title": title},
        run=run,
        runs=max(len(case.rows) for case in found),
        cases=found,
        faults={name: [case for case in found if case.fault == name] for name in dict.fromkeys(c.fault for c in found)},
        about=about,
        broken=sum(promise.kept != promise.runs for case in found for promise in case.promises),
        promised=sum(len(case.promises) for case in found),
        soak=soak,
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


def about(fault: str) -> str:
    """What a fault's module says of it, but for its first line's name: the page and the code tell one story."""
    told = importlib.import_module(f"assurance.faults.{fault}").__doc__
    assert told is not None, f"{fault} has a docstring"
    return told.strip()


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


def _content(path: Path, *keys: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ResultError(f"{path}: no such file; run `make faults` and `make soak`") from None
    except json.JSONDecodeError as error:
        raise ResultError(f"{path}: not JSON: {error}") from error
    if set(content) != set(keys):
        raise ResultError(f"{path}: expected the keys {', '.join(keys)}; got {', '.join(content)}")
    return content


def _built(path: Path, where: str, make: Callable[[Any], Item], fields: Any) -> Item:
    try:
        return make(fields)
    except (ResultError, TypeError, KeyError) as error:
        raise ResultError(f"{path}: {where}: {error}") from error


if __name__ == "__main__":
    main()
