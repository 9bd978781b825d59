"""results/bench.json to docs/performance.md and its figure: where a row's time goes, and why served so.

    python -m report.pages performance

Every number on the page comes from results files; its sentences hold whatever the numbers are. Alongside bench.json lie
profile.json (bench/profile.py), fusing.json (bench/fusing.py), protocols.json (bench/protocols.py), adopted-bench.json
(its pictures: bench/adopted/picturing.py), builds.json (bench/builds.py), delays.json (bench/delays.py), peers.json
(bench/peers/) and growth.json (bench/growth/): a section whose file is not there is left out, and so is a row that was
not measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from report import bench_targets
from report.analysis import peers
from report.analysis.bench_costs import costs, served, settings
from report.analysis.finding import Finding, answer
from report.bench_targets import Verdict, select
from report.figures.row_time import row_time
from report.format import number, ratios
from report.pages import adopted, page
from report.rows.bench import PNG, PROTOCOLS, RAW, BenchRow
from report.rows.builds import BuildRow
from report.rows.growth import FLAT, MORE_MB, MemberGrowthRow
from report.schema import Report, ResultError, read

# of the handler, in their order; those that a policy lacks are left out
STAGES = ("decode", "limit", "admit", "route", "perturb", "predict", "gate", "respond", "encode")
BODIES = {RAW: "raw", PNG: "PNG", None: "-"}
BESIDE = ("profiles", "fusings", "protocols", "pictures", "builds", "delays", "peers", "growth")
FILES = (
    "profile.json",
    "fusing.json",
    "protocols.json",
    "adopted-bench.json",
    "builds.json",
    "delays.json",
    "peers.json",
    "growth.json",
)
# times an earlier build's cost of a raw row
BUILD = 1.02


def pages(results: Path) -> dict[str, str]:
    """The page and its figure, by file name below docs/. Raises ResultError."""
    report = read(results / "bench.json", measured_by="make bench")
    beside = {name: read(path) for name, file in zip(BESIDE, FILES, strict=True) if (path := results / file).is_file()}
    return {"performance.md": render(report, **beside), "performance.svg": row_time(served(report.bench))}


def render(report: Report, **beside: Report) -> str:
    """The page as Markdown. beside: the other files' reports, by the names of BESIDE."""
    rows, stated = report.bench, report.run.settings
    paths = select(rows, study="paths")
    saturated = served(rows)
    ours = bench_targets.verdicts(rows, stated.get("member_mb", {}))
    others = beside["peers"].peers if "peers" in beside else ()
    against = peers.verdicts(others)
    architectures = list(dict.fromkeys(row.architecture for row in rows))
    return page.render(
        "performance.md.j2",
        filters={"body": BODIES.__getitem__},
        report=report,
        findings=answer([*findings(ours), *peers.findings(against)]),
        verdicts=sorted([*ours, *against], key=lambda each: (each.met or each.measured is None, each.measured is None)),
        saturated=saturated,
        stages=[name for name in STAGES if any(name in row.stages_ms for row in saturated)],
        clients=max(row.clients for row in saturated),
        delay=" or ".join(str(each) for each in sorted({row.max_batch_delay_ms or 0 for row in saturated})),
        costs=[cost for name in architectures for cost in costs(rows, name)],
        batches=sorted({row.batch for row in select(paths, path="pipeline")}),
        settings={name: tried for name in architectures if (tried := settings(rows, name))},
        **{name: beside.get(name) for name in BESIDE},
        forms=forms(beside["protocols"].bench) if "protocols" in beside else [],
        photographs=list(adopted.pictures(beside["pictures"])) if "pictures" in beside else [],
        compared=compared(beside["builds"]) if "builds" in beside else [],
        most=BUILD,
        flat=FLAT,
        more_mb=MORE_MB,
        waits=waits(beside["delays"].bench) if "delays" in beside else [],
        ensembles=ensembles(beside["growth"].ensemble_growth) if "growth" in beside else [],
        standings=peers.standings(others),
        own=peers.own(others),
    )


@dataclass(frozen=True)
class Form:
    """A form of a row, asked by many clients and by one; ratios to raw float32, round by round."""

    name: str
    many: BenchRow
    one: BenchRow
    rates: list[float]
    latencies: list[float]


def forms(rows: Iterable[BenchRow]) -> list[Form]:
    """The forms of the study "protocols" in their order. Raises ResultError."""
    found = {(row.body, row.clients > 1): row for row in select(rows, study="protocols")}
    lacking = [name for name in PROTOCOLS for many in (True, False) if (name, many) not in found]
    if lacking:
        raise ResultError(f"protocols: expected one client and many for each form, lacking {', '.join(lacking)}")
    raw_many, raw_one = (found[PROTOCOLS[0], many] for many in (True, False))
    return [
        Form(
            name,
            many := found[name, True],
            one := found[name, False],
            ratios(many.rate_rounds, raw_many.rate_rounds),
            ratios(one.p50_rounds, raw_one.p50_rounds),
        )
        for name in PROTOCOLS
    ]


@dataclass(frozen=True)
class Wait:
    """One delay of a batch for so many clients; ratios to the longest delay, round by round."""

    row: BenchRow
    rates: list[float]
    latencies: list[float]


def waits(rows: Sequence[BenchRow]) -> list[Wait]:
    """By the number of clients, the longest delay first."""
    found = sorted(rows, key=lambda row: (row.clients, -(row.max_batch_delay_ms or 0)))
    longest = {row.clients: row for row in reversed(found)}
    return [
        Wait(
            row,
            ratios(row.rate_rounds, longest[row.clients].rate_rounds),
            ratios(row.p50_rounds, longest[row.clients].p50_rounds),
        )
        for row in found
    ]


def ensembles(rows: Iterable[MemberGrowthRow]) -> list[tuple[MemberGrowthRow, MemberGrowthRow]]:
    """Each ensemble with the smallest of its architecture, that one first."""
    found = sorted(rows, key=lambda row: (row.architecture, row.members))
    least = {row.architecture: row for row in reversed(found)}
    return [(row, least[row.architecture]) for row in found]


@dataclass(frozen=True)
class Compared:
    """Raw rows of two builds from so many clients: time of this build's over the earlier one's, round by round."""

    now: BuildRow
    before: BuildRow

    @property
    def times(self) -> list[float]:
        """Of a request of one client; of a row where many ask."""
        if self.now.clients == 1:
            return ratios(self.now.p50_rounds, self.before.p50_rounds)
        return ratios(self.before.rate_rounds, self.now.rate_rounds)

    @property
    def kept(self) -> bool:
        """Whether this build is as fast."""
        return median(self.times) <= BUILD


def compared(report: Report) -> list[Compared]:
    """This build against the earlier one, for each number of clients. Raises ResultError."""
    rows = {(row.commit, row.clients): row for row in report.builds}
    now, before = report.run.settings["commit"], report.run.settings["against"]
    try:
        return [Compared(rows[now, clients], rows[before, clients]) for clients in sorted({c for _, c in rows})]
    except KeyError as error:
        raise ResultError(f"builds: expected both commits for each number of clients, lacking {error}") from None


def findings(verdicts: Iterable[Verdict]) -> Iterator[Finding]:
    """Each kind of target: how many are met, and those that are missed."""
    kinds: dict[str, list[Verdict]] = {}
    for each in verdicts:
        kinds.setdefault(re.sub("`[^`]+`", "a policy", each.target, count=1), []).append(each)
    for kind, found in kinds.items():
        known = [each for each in found if each.measured is not None]
        lost = [each for each in known if not each.met]
        missed = ", ".join(f"{_policy(each)} {number(each.measured, 3)} ({each.limit})" for each in lost)
        text = f"{kind}: {len(known) - len(lost)} of {len(known)} met{f'; missed by {missed}' if missed else ''}."
        yield Finding(not lost if known else None, text)


def _policy(verdict: Verdict) -> str:
    named = re.search("`[^`]+`", verdict.target)
    return named[0] if named else verdict.architecture
