"""results/bench.json to docs/performance.md and docs/performance.svg: where a row's time goes, and why served so.

    python -m loadtests.documents.performance

Every number on the page comes from the results file; its sentences hold whatever the numbers are.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from handlers import wire
from loadtests.bench import targets
from loadtests.bench.rounds import ratio
from loadtests.bench.targets import fastest, select
from loadtests.documents import page
from loadtests.figures import row_time
from loadtests.report import number
from loadtests.results import BenchRow, Report, ResultError, read

TEMPLATE = Path(__file__).with_name("performance.md.j2")
BODIES = {wire.RAW: "raw", wire.PNG: "PNG", None: "-"}


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
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.documents.performance", description="bench.json to a page"
    )
    parser.add_argument("--results", type=Path, default=Path("results/bench.json"), help="(results/bench.json)")
    parser.add_argument("--output", type=Path, default=Path("docs/performance.md"), help="(docs/performance.md)")
    options = parser.parse_args()
    try:
        report = read(options.results)
    except ResultError as error:
        sys.exit(f"loadtests.documents.performance: {error}")
    figure = options.output.with_suffix(".svg")
    page.write(figure, row_time(served(report.bench)))
    page.write(options.output, render(report, figure=figure.name))
    print(f"{options.output}, {figure}")


def render(report: Report, *, figure: str) -> str:
    """The page as Markdown. figure: the plot's file name, beside the page."""
    rows = report.bench
    architectures = list(dict.fromkeys(row.architecture for row in rows))
    paths = select(rows, study="paths")
    http = select(paths, path="http")
    saturated = served(rows)
    return page.render(
        TEMPLATE,
        filters={"body": BODIES.__getitem__, "rates": rates},
        report=report,
        figure=figure,
        verdicts=targets.verdicts(rows),
        architectures=architectures,
        saturated=saturated,
        alone=select(http, clients=1, backend="onnxruntime"),
        clients=max(row.clients for row in http),
        client_shares=sorted(row.cpu_ms["client"] / sum(row.cpu_ms.values()) for row in saturated),
        tables={name: select(paths, architecture=name) for name in architectures},
        costs=[_cost(paths, name, backend) for name in architectures for backend in ("onnxruntime", "torchscript")],
        throughputs=_throughputs(rows, architectures),
        settings={name: settings(rows, name) for name in architectures},
        swept={row.architecture: row.policy for row in select(rows, study="settings")},
        routers={
            name: {row.policy: row for row in select(rows, study="router", architecture=name)} for name in architectures
        },
        spinning=list(spinning(rows)),
    )


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


def _cost(paths: Sequence[BenchRow], architecture: str, backend: str) -> dict[str, object]:
    """EDM over undefended: latency by batch in process, and throughput over HTTP at saturation."""
    mine = select(paths, architecture=architecture, backend=backend)
    batches = sorted({row.batch for row in select(mine, path="pipeline")})
    by_policy = {
        row.policy: row for row in select(served(paths), architecture=architecture, backend=backend, body=wire.RAW)
    }
    return {
        "architecture": architecture,
        "backend": backend,
        "latency": {batch: targets.latency(mine, architecture, batch=batch) for batch in batches},
        "http": ratio(by_policy["edm"].rate_rounds, by_policy["undefended"].rate_rounds),
    }


def _throughputs(rows: Sequence[BenchRow], architectures: Sequence[str]) -> list[dict[str, object]]:
    """HTTP at saturation over the fastest batch in process, for each body; and over the bare graph."""
    out: list[dict[str, object]] = []
    for architecture in architectures:
        for backend in ("onnxruntime", "torchscript"):
            mine = select(rows, architecture=architecture, backend=backend)
            for policy in targets.THROUGHPUT:
                process = fastest(select(mine, study="paths", path="pipeline", policy=policy))
                measured = {
                    name: targets.throughput(mine, architecture, policy, body=body)
                    for body, name in ((wire.RAW, "raw"), (wire.PNG, "png"))
                }
                bare = targets.throughput(mine, architecture, policy, against="onnxruntime")
                named = {"architecture": architecture, "backend": backend, "policy": policy, "process": process}
                out.append({**named, **measured, "bare": bare})
    return out


if __name__ == "__main__":
    main()
