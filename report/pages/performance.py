"""results/bench.json to docs/performance.md and its figures: where a row's time goes, and why served so.

    python -m report.pages.performance

Every number on the page comes from results files; its sentences hold whatever the numbers are. Beside bench.json lie
profile.json (bench/profile.py) and fusing.json (bench/fusing.py): a section whose file is not there is left
out, and so is a row that was not measured.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from report import atomic, bench_targets
from report.bench_targets import LARGE, fastest, select
from report.figures.flames import flame
from report.figures.row_time import row_time
from report.format import number, ratio, ratios
from report.pages import page
from report.rows.bench import PNG, RAW, BenchRow
from report.rows.fusing import FusingRow
from report.rows.profile import WHO
from report.schema import Report, ResultError, read

TEMPLATE = Path(__file__).with_name("performance.md.j2")
# of the handler, in their order; those that a policy lacks are left out
STAGES = ("decode", "limit", "admit", "route", "perturb", "predict", "gate", "respond", "encode")
# one graph takes so much less time than separate ones, or it has not won clearly
CLEAR = 0.95
# so many of our functions are listed
OWN = 12
BODIES = {RAW: "raw", PNG: "PNG", None: "-"}


@dataclass(frozen=True)
class Setting:
    """One way to serve an archive. rows: by number of clients. score: geometric mean of their rows/s."""

    workers: int
    threads: int
    batch_size: int
    max_batch_delay_ms: int
    rows: dict[int, BenchRow]
    chosen: bool

    @property
    def score(self) -> float:
        return math.exp(sum(math.log(row.rows_per_s) for row in self.rows.values()) / len(self.rows))

    def __str__(self) -> str:
        return f"{self.workers} x {self.threads}, batches of {self.batch_size}, {self.max_batch_delay_ms} ms"


@dataclass(frozen=True)
class Spinning:
    """ONNX Runtime's threads spinning while they wait, over not: ratios of rows/s and of CPU time a row."""

    architecture: str
    batch: int
    off: BenchRow
    on: BenchRow

    @property
    def speed(self) -> float:
        return ratio(self.on.rate_rounds, self.off.rate_rounds)

    @property
    def cpu(self) -> float:
        return self.on.cpu_ms["process"] / self.off.cpu_ms["process"]


def main() -> None:
    """Run the command line; a missing or malformed results file is a message and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m report.pages.performance", description="bench.json to a page")
    parser.add_argument("--results", type=Path, default=Path("results/bench.json"), help="(results/bench.json)")
    parser.add_argument("--output", type=Path, default=Path("docs/performance.md"), help="(docs/performance.md)")
    options = parser.parse_args()
    beside = options.results.parent
    try:
        report = read(options.results, measured_by="make bench")
        profiles, fusings = (_found(beside / name) for name in ("profile.json", "fusing.json"))
    except ResultError as error:
        sys.exit(f"report.pages.performance: {error}")
    figure = options.output.with_suffix(".svg")
    atomic.write_text(figure, row_time(served(report.bench)))
    flames = options.output.with_name(f"{options.output.stem}-flames.svg")
    if profiles is not None:
        atomic.write_text(flames, flame(profiles.profiles))
    text = render(report, figure=figure.name, profiles=profiles, flames=flames.name, fusings=fusings)
    atomic.write_text(options.output, text)
    print(f"{options.output}, {figure}" + ("" if profiles is None else f", {flames}"))


def _found(path: Path) -> Report | None:
    """A report that may not be there. Raises ResultError."""
    return read(path) if path.is_file() else None


def render(
    report: Report,
    *,
    figure: str,
    profiles: Report | None = None,
    flames: str = "",
    fusings: Report | None = None,
) -> str:
    """The page as Markdown. figure, flames: the plots' file names, beside the page."""
    rows = report.bench
    architectures = list(dict.fromkeys(row.architecture for row in rows))
    paths = select(rows, study="paths")
    http = select(paths, path="http")
    saturated = served(rows)
    stated = report.run.settings
    return page.render(
        TEMPLATE,
        filters={"body": BODIES.__getitem__, "rates": rates, "middle": middle, "between": between, "fused": fused},
        report=report,
        figure=figure,
        verdicts=bench_targets.verdicts(rows, stated.get("member_mb", {})),
        architectures=architectures,
        saturated=saturated,
        stages=[name for name in STAGES if any(name in row.stages_ms for row in saturated)],
        alone=select(http, clients=1, backend="onnxruntime", body=RAW),
        singles=select(rows, study="single", path="http"),
        clients=max(row.clients for row in http),
        client_shares=sorted(row.cpu_ms["client"] / sum(row.cpu_ms.values()) for row in saturated),
        tables={name: select(paths, architecture=name) for name in architectures},
        costs=_costs(paths, architectures),
        batches=sorted({row.batch for row in select(paths, path="pipeline")}),
        throughputs=_throughputs(rows, architectures),
        settings={name: settings(rows, name) for name in architectures},
        swept={row.architecture: row.policy for row in select(rows, study="settings")},
        clocked=_clocked(rows, architectures),
        spinning=list(spinning(rows)),
        members_met=_met(stated.get("members_met", {})),
        profiles=profiles,
        flames=flames,
        who=WHO,
        own=OWN,
        fusings=fusings,
    )


def middle(rounds: Sequence[float], digits: int = 2) -> str:
    """The median of what the rounds measured, a dash for none."""
    return number(median(rounds), digits) if rounds else "-"


def between(rounds: Sequence[float], digits: int = 2) -> str:
    """The lowest and the highest of what the rounds measured."""
    return f"{number(min(rounds), digits)} to {number(max(rounds), digits)}" if len(rounds) > 1 else "-"


def fused(report: Report) -> str:
    """What the rows of fusing say, as a paragraph."""
    rows = report.fusing
    policies = " and ".join(f"`{name}`" for name in dict.fromkeys(row.policy for row in rows))
    networks = list(dict.fromkeys(row.architecture for row in rows))
    difference = max(row.difference for row in rows)
    return (
        "A policy's graphs can be one ONNX file: the secret hash, the router, every member on the rows that are "
        "its own and the gate's graph, with the key's table as an input that no file holds (`python -m "
        f"bench.fusing`). For {policies} it answers as the separate graphs do, "
        f"{f'to {difference:.0e}' if difference else 'bit for bit'}, and picks the same members. Its time is held "
        "here against that of the archive's whole pipeline, though Python would still be needed around it, so it "
        f"is flattered: {'; '.join(_fused(rows, name) for name in networks)}. "
        f"{_worth(rows)} On a GPU, where it would save the way to the host and back, it was "
        f"{'run for this table' if report.run.gpu else 'not run'} (`--gpu`)."
    )


def _fused(rows: Sequence[FusingRow], architecture: str) -> str:
    shares = [median(row.ratios) for row in rows if row.architecture == architecture]
    clear = sum(share <= CLEAR for share in shares)
    return (
        f"on {architecture} it takes {min(shares):.2f} to {max(shares):.2f} of their time, at most {CLEAR:.2f} "
        f"of it in {clear} of {len(shares)} cells"
    )


def _worth(rows: Sequence[FusingRow]) -> str:
    """Whether one graph is worth a backend: where networks are as large as those that the targets are about."""
    saved = [(median(row.separate_ms) - median(row.fused_ms)) / row.batch for row in rows]
    large = [median(row.ratios) for row in rows if row.architecture == LARGE]
    most = f"The most that it saves is {max(saved):.2f} ms a row."
    if large and max(large) <= CLEAR:
        return (
            f"{most} It wins in every cell of {bench_targets.LARGE}: it is worth a backend, which no archive has yet."
        )
    return f"{most} It does not win clearly wherever networks are large, so archives keep their graphs apart."


def _met(stated: Mapping[str, Any]) -> dict[str, str]:
    """How many members the rows met, in words, by architecture."""
    return {name: ", ".join(f"{count} of `{policy}`" for policy, count in met.items()) for name, met in stated.items()}


def served(rows: Iterable[BenchRow]) -> list[BenchRow]:
    """The rows over HTTP at saturation of the study "paths"."""
    http = select(rows, study="paths", path="http")
    return select(http, clients=max(row.clients for row in http))


def rates(row: BenchRow) -> str:
    """rows/s: the median over rounds, and the lowest and the highest round."""
    return f"{number(row.rows_per_s, 0)} ({number(min(row.rate_rounds), 0)} to {number(max(row.rate_rounds), 0)})"


def settings(rows: Sequence[BenchRow], architecture: str) -> list[Setting]:
    """What was tried, in the order in which it was measured."""
    tried: dict[tuple[int, int, int, int], dict[int, BenchRow]] = {}
    for row in select(rows, study="settings", architecture=architecture):
        tried.setdefault(_key(row), {})[row.clients] = row
    used = {_key(row) for row in select(rows, study="paths", architecture=architecture, path="http")}
    return [Setting(*key, rows=by_clients, chosen=key in used) for key, by_clients in tried.items()]


def spinning(rows: Sequence[BenchRow]) -> Iterable[Spinning]:
    """A pair for each network and batch."""
    found = select(rows, study="spinning")
    for off in select(found, spinning=False):
        (on,) = select(found, spinning=True, architecture=off.architecture, batch=off.batch)
        yield Spinning(off.architecture, off.batch, off, on)


def _key(row: BenchRow) -> tuple[int, int, int, int]:
    return row.workers or 0, row.threads or 0, row.batch_size or 0, row.max_batch_delay_ms or 0


def _pairs(paths: Sequence[BenchRow], architecture: str) -> list[tuple[str, str]]:
    """Policies and backends of a network, those of the first backend first."""
    found = select(paths, architecture=architecture, path="pipeline")
    pairs = list(dict.fromkeys((row.backend or "", row.policy) for row in found))
    return [(policy, backend) for backend, policy in sorted(pairs, key=lambda pair: pair[0])]


def _costs(paths: Sequence[BenchRow], architectures: Sequence[str]) -> list[dict[str, object]]:
    """Each defense over undefended: latency by batch in process, throughput over HTTP at saturation, and memory."""
    out: list[dict[str, object]] = []
    batches = sorted({row.batch for row in select(paths, path="pipeline")})
    for architecture in architectures:
        for policy, backend in _pairs(paths, architecture):
            if policy == "undefended":
                continue
            mine = select(paths, architecture=architecture, backend=backend)
            http = {row.policy: row for row in select(served(mine), body=RAW)}
            over = ratios(http[policy].rate_rounds, http["undefended"].rate_rounds) if policy in http else []
            more = [(http[name].rss_mb or math.nan) for name in (policy, "undefended")] if policy in http else []
            named = {"architecture": architecture, "policy": policy, "backend": backend}
            latency = [
                bench_targets.latencies(mine, policy, architecture=architecture, batch=batch) for batch in batches
            ]
            out.append({**named, "latency": latency, "http": over, "more_mb": more[0] - more[1] if more else None})
    return out


def _throughputs(rows: Sequence[BenchRow], architectures: Sequence[str]) -> list[dict[str, object]]:
    """HTTP at saturation over in process: at the batch that is fastest there and at the server's own; PNG too."""
    out: list[dict[str, object]] = []
    for architecture in architectures:
        for policy, backend in _pairs(select(rows, study="paths"), architecture):
            mine = select(rows, architecture=architecture, backend=backend)
            (http, *_) = select(served(mine), policy=policy, body=RAW)
            process = select(mine, study="paths", path="pipeline", policy=policy)
            out.append(
                {
                    "architecture": architecture,
                    "backend": backend,
                    "policy": policy,
                    "process": fastest(process),
                    "batch_size": http.batch_size,
                    "raw": bench_targets.throughputs(mine, architecture, policy),
                    "alike": bench_targets.throughputs(mine, architecture, policy, batch=http.batch_size),
                    "png": bench_targets.throughputs(mine, architecture, policy, body=PNG),
                    "bare": bench_targets.throughputs(mine, architecture, policy, against="onnxruntime"),
                    "cpu": sum(http.cpu_ms.values()) / fastest(process).cpu_ms["process"],
                }
            )
    return out


def _clocked(rows: Sequence[BenchRow], architectures: Sequence[str]) -> list[dict[str, object]]:
    """What graphs and Python take of a row, and Python over the victim's graph."""
    return [
        {
            "row": row,
            "share": bench_targets.python_shares(rows, row.policy, architecture=architecture, batch=row.batch),
            "latency": bench_targets.latencies(
                rows, row.policy, architecture=architecture, batch=row.batch, study="clocks"
            ),
        }
        for architecture in architectures
        for row in select(rows, study="clocks", architecture=architecture)
    ]


if __name__ == "__main__":
    main()
