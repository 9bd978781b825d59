"""results/bench.json to docs/performance.md and its figure: where a row's time goes, and why served so.

    python -m report.pages performance

Every number on the page comes from results files; its sentences hold whatever the numbers are. Alongside bench.json lie
profile.json (bench/profile.py) and fusing.json (bench/fusing.py): a section whose file is not there is left out, and so
is a row that was not measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from report import bench_targets
from report.analysis.bench_costs import costs, served, settings
from report.analysis.finding import Finding, answer
from report.bench_targets import Verdict, select
from report.figures.row_time import row_time
from report.format import number
from report.pages import page
from report.rows.bench import PNG, RAW
from report.schema import Report, read

# of the handler, in their order; those that a policy lacks are left out
STAGES = ("decode", "limit", "admit", "route", "perturb", "predict", "gate", "respond", "encode")
BODIES = {RAW: "raw", PNG: "PNG", None: "-"}


def pages(results: Path) -> dict[str, str]:
    """The page and its figure, by file name below docs/. Raises ResultError."""
    report = read(results / "bench.json", measured_by="make bench")
    found = [read(path) if (path := results / name).is_file() else None for name in ("profile.json", "fusing.json")]
    return {"performance.md": render(report, *found), "performance.svg": row_time(served(report.bench))}


def render(report: Report, profiles: Report | None = None, fusings: Report | None = None) -> str:
    """The page as Markdown."""
    rows, stated = report.bench, report.run.settings
    paths = select(rows, study="paths")
    saturated = served(rows)
    verdicts = bench_targets.verdicts(rows, stated.get("member_mb", {}))
    architectures = list(dict.fromkeys(row.architecture for row in rows))
    return page.render(
        "performance.md.j2",
        filters={"body": BODIES.__getitem__},
        report=report,
        findings=answer(findings(verdicts)),
        verdicts=sorted(verdicts, key=lambda each: (each.met or each.measured is None, each.measured is None)),
        saturated=saturated,
        stages=[name for name in STAGES if any(name in row.stages_ms for row in saturated)],
        clients=max(row.clients for row in saturated),
        costs=[cost for name in architectures for cost in costs(rows, name)],
        batches=sorted({row.batch for row in select(paths, path="pipeline")}),
        settings={name: tried for name in architectures if (tried := settings(rows, name))},
        profiles=profiles,
        fusings=fusings,
    )


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
