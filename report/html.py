"""A results file to one self-contained HTML page, and the short table on the terminal.

    python -m report.html reports/digits
    python -m report.html results/same-mnist.json --output /tmp/same-mnist.html

A folder is read as its report.json, and its page is report.html there. The page needs no network and no script. It
shows every row of the file with every field, the losing ones too.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2

from attacks.names import in_form
from report import atomic
from report.figures import clones, gates, impact, routing
from report.format import number, percent, points, spread
from report.headline import UNDEFENDED, Line, cells, headline
from report.rows.clones import HTTP, IN_PROCESS, spent
from report.schema import Report, ResultError, read

TEMPLATE = Path(__file__).with_name("report.html.j2")
# what evaluation.studies.reconstructions leaves next to report.json
PICTURE = "reconstructions.png"


def main() -> None:
    """Run the command line; a missing or malformed results file is a message and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m report.html", description="a results file to an HTML page")
    parser.add_argument("run", type=Path, help="results file, or folder of a report.json, such as reports/digits")
    parser.add_argument("--output", type=Path, help="the page (report.html next to the results)")
    options = parser.parse_args()
    source = options.run if options.run.is_file() else options.run / "report.json"
    try:
        report = read(source)
    except ResultError as error:
        sys.exit(f"report.html: {error}")
    page = options.output or source.with_suffix(".html")
    picture = source.with_name(PICTURE)
    shown = picture.read_bytes() if picture.exists() else None
    title = subject(report) or (source.stem if options.run.is_file() else options.run.resolve().name)
    atomic.write_text(page, render(report, title=title, reconstructions=shown))
    print(table(headline(report)))
    for cell in unspent(report):
        print(f"budget not reached: {cell}")
    print(f"report: {page}")


def subject(report: Report) -> str:
    """The recipes that the report's rows are about."""
    attacked = {row.recipe for row in report.attacks} | {row.recipe for row in report.detection}
    return ", ".join(sorted(attacked | {row.recipe for row in report.policies}))


def render(report: Report, *, title: str, reconstructions: bytes | None = None) -> str:
    """The page as HTML. What stands in the report is escaped; only the figures are taken as they are.

    reconstructions: a PNG of evaluation.studies.reconstructions, which then stands in the page itself.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, points=points, number=number, spread=spread)
    lines = headline(report)
    by_policy = {line.policy: cells(row for row in report.attacks if row.policy == line.policy) for line in lines}
    routed = {line.policy: [row for row in report.routing if row.policy == line.policy] for line in lines}
    victim = next((row.accuracy for row in report.policies if row.policy == UNDEFENDED), None)
    judged = any(row.malicious for row in report.score_curves)
    classes = report.run.settings.get("classes")
    chance = 1 / classes if classes else None
    return environment.get_template(TEMPLATE.name).render(
        title=title,
        report=report,
        sections=sections(report),
        lines=lines,
        asked_by=asked_by(report),
        unspent=unspent(report),
        curves=clones.curves(by_policy, chance=chance, victim=victim) if report.attacks else None,
        routing={policy: routing.routing(rows) for policy, rows in routed.items() if rows},
        felt=impact.latencies(report.felt) if report.felt else None,
        rocs=gates.rocs(report.score_curves) if judged else None,
        histograms=scores(report),
        reconstructions=f"data:image/png;base64,{base64.b64encode(reconstructions).decode()}"
        if reconstructions
        else None,
    )


def asked_by(report: Report) -> str:
    """By which path the policies were queried, as far as the report says."""
    paths = {row.path for row in report.attacks}
    if paths == {HTTP}:
        return "Each policy was queried over HTTP"
    if paths == {IN_PROCESS}:
        return "Each policy's own code was queried in process, without a server"
    if paths == {HTTP, IN_PROCESS}:
        return "Policies were queried over HTTP or, their own code, in process (`path` in the rows of clones below)"
    return "Each policy was queried"


def unspent(report: Report) -> list[str]:
    """The attacks that ended before their budget was spent, each with the queries that it made."""
    short = [row for row in report.attacks if row.queries < row.budget]
    return list(
        dict.fromkeys(
            f"{row.policy}, {in_form(row.attack, row.adaptive)}: {spent(row.queries, row.budget)}" for row in short
        )
    )


def sections(report: Report) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Every row of the file with every field, by section: names of the fields, and a line a row."""
    found = {}
    for section in dataclasses.fields(report):
        rows = getattr(report, section.name)
        if section.name != "run" and rows:
            names = [field.name for field in dataclasses.fields(rows[0])]
            lines = [[_text(value) for value in dataclasses.asdict(row).values()] for row in rows]
            found[section.name] = (names, lines)
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def scores(report: Report) -> dict[str, str]:
    """A figure of scores for each gate that was judged, by its policy."""
    names = dict.fromkeys(row.detector for row in report.detection if row.kind == "gate")
    curves = {name: [row for row in report.score_curves if row.detector == name] for name in names}
    thresholds = {name: report.run.settings.get(f"gate.{name}", {}).get("threshold") for name in names}
    return {
        name: gates.histograms(rows, threshold=thresholds[name])
        for name, rows in curves.items()
        if {row.malicious for row in rows} == {False, True}
    }


def table(lines: Sequence[Line]) -> str:
    """The headline as plain text, a line a policy."""
    head = (
        f"{'policy':<16}{'accuracy':>10}{'drop':>8}{'best soft clone':>18}{'best hard clone':>18}{'gap vs top-1':>14}"
    )
    rows = [
        f"{line.policy:<16}{percent(line.accuracy):>10}{points(line.accuracy_drop):>8}"
        f"{spread(line.soft):>18}{spread(line.hard):>18}{points(line.gap_vs_top1):>14}"
        for line in lines
    ]
    return "\n".join([head, *rows])


if __name__ == "__main__":
    main()
