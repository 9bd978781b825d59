"""results/faults.json and results/soak.json to docs/resilience.md and its figure: what a fault costs.

    python -m report.pages resilience

Every number on the page comes from the two files; its sentences hold whatever the numbers are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from report.analysis.finding import Finding, answer
from report.figures.soak import over_time
from report.format import number
from report.pages import page
from report.rows.bounds import Bound
from report.rows.faults import CUT, LOST, PAUSE_S, UNSENT, FaultRow
from report.rows.soak import BEHIND, SoakRow
from report.schema import Report, ResultError, read

SILENT = {LOST: "never answered", CUT: "connection cut", UNSENT: "no server"}


@dataclass(frozen=True)
class Case:
    """All runs of one form of a fault."""

    fault: str
    case: str
    rows: tuple[FaultRow, ...]

    @property
    def bounds(self) -> list[Bound]:
        """Each promise over all runs, the worst measured; None where a run had no value. The broken ones first, then
        those closest to their limits."""
        found = []
        for runs in zip(*(row.bounds for row in self.rows), strict=True):
            measured = [bound.measured for bound in runs]
            worst = None if None in measured else max(value for value in measured if value is not None)
            found.append(Bound(runs[0].what, worst, runs[0].limit))
        return sorted(found, key=lambda bound: (bound.met, -_used(bound)))

    @property
    def kept(self) -> int:
        """Promises that were kept in every run."""
        return sum(bound.met for bound in self.bounds)

    @property
    def others(self) -> str:
        """What became of the struck clients' requests that were not answered right, all runs together."""
        total: Counter[str] = Counter()
        for row in self.rows:
            if row.struck is not None:
                total.update(row.struck.others)
        return ", ".join(f"{count} {SILENT.get(what, what)}" for what, count in sorted(total.items())) or "none"

    def impact(self, name: str) -> list[float]:
        """A figure of the struck clients in each run that has it."""
        values = [getattr(row.struck, name) for row in self.rows if row.struck is not None]
        return [value for value in values if value is not None]


def pages(results: Path) -> dict[str, str]:
    """The page and its figure, by file name below docs/. Raises ResultError."""
    faults, endurance = _read(results, "faults"), _read(results, "soak")
    (soak,) = endurance.soak
    return {"resilience.md": render(faults, endurance), "resilience.svg": over_time(soak.windows, soak.samples)}


def _read(results: Path, section: str) -> Report:
    """A report with rows in this section. Raises ResultError."""
    report = read(results / f"{section}.json", measured_by=f"make {section}")
    if not getattr(report, section):
        raise ResultError(f"{results / section}.json: expected {section}, got none; run `make {section}`")
    return report


def cases(rows: Sequence[FaultRow]) -> list[Case]:
    """The rows by fault and case, those with broken promises first, then as they were measured."""
    found: dict[tuple[str, str], list[FaultRow]] = {}
    for row in rows:
        found.setdefault((row.fault, row.case), []).append(row)
    made = [Case(*key, rows=tuple(mine)) for key, mine in found.items()]
    return sorted(made, key=lambda case: case.kept == len(case.bounds))


def findings(found: Sequence[Case], soak: SoakRow) -> Iterator[Finding]:
    """The promises, who waits longest, and the soak's verdict."""
    broken = [f"{title(case.fault)} ({case.case}): {b.what}" for case in found for b in case.bounds if not b.met]
    promised = sum(len(case.bounds) for case in found)
    named = f"; broken: {'; '.join(broken[:4])}" if broken else ""
    text = f"{promised - len(broken)} of {promised} promises under fault injection were kept in every run{named}."
    yield Finding(not broken, text)
    lost = [case for case in found if any(row.struck and row.struck.count(LOST) for row in case.rows)]
    named = "; ".join(f"{title(case.fault)}, {case.case} ({case.others})" for case in lost)
    text = f"every request is answered{f', but for {named}: clients need a time-out and one retry' if named else ''}."
    yield Finding(not lost, text)
    gaps = [(max(case.impact("gap_s")), case) for case in found if case.impact("gap_s")]
    if gaps:
        gap, case = max(gaps, key=lambda each: each[0])
        middle = median(each for each, _ in gaps)
        worst = f"{gap:.2f} s ({title(case.fault)}, {case.case})"
        text = f"longest time without a right answer: {worst}; median over faults {middle:.2f} s."
        yield Finding(True, text)
    missed = [bound for bound in soak.verdict if not bound.met]
    broken_by = f", broken: {missed[0].what}" if missed else ""
    text = (
        f"{soak.effort['minutes']:g} minutes at {soak.rate:.1f} requests a second: "
        f"{len(soak.verdict) - len(missed)} of {len(soak.verdict)} promises kept{broken_by}."
    )
    yield Finding(not missed and soak.unfinished is None, text)
    for each in soak.growth[:1]:
        text = f"memory of {each.name} grew by {100 * each.share:.1f} % from the second fifth of the soak to the last."
        yield Finding(True, text)


def render(faults: Report, endurance: Report) -> str:
    """The page as Markdown, from a report of faults and one of a soak."""
    found = cases(faults.faults)
    (soak,) = endurance.soak
    return page.render(
        "resilience.md.j2",
        filters={"over_runs": over_runs, "limit": plain, "title": title},
        findings=answer(findings(found, soak)),
        run=faults.run,
        runs=max(len(case.rows) for case in found),
        cases=found,
        soak=soak,
        soak_run=endurance.run,
        behind=BEHIND,
        pause_ms=round(1000 * PAUSE_S),
    )


def over_runs(values: Sequence[float], digits: int = 2) -> str:
    """The median, and the lowest and the highest where they differ from it; a dash for none."""
    if not values:
        return "-"
    middle, low, high = (number(value, digits) for value in (median(values), min(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def title(fault: str) -> str:
    """A fault's name as words."""
    return fault.replace("_", " ").capitalize()


def plain(value: float | None) -> str:
    """A number as short as it is; a dash for None."""
    return "-" if value is None else f"{value:.4g}"


def _used(bound: Bound) -> float:
    """Of its limit."""
    return bound.measured / bound.limit if bound.measured is not None and bound.limit else 0.0
