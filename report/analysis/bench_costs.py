"""What each defense costs over `undefended`, and what settings reach, from the rows of results/bench.json."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from report import bench_targets
from report.bench_targets import select
from report.format import ratios
from report.rows.bench import RAW, BenchRow


@dataclass(frozen=True)
class Cost:
    """One defense over `undefended`, round by round: latency in process by batch, rows/s over HTTP at saturation, and
    MiB of a worker; raw: rows/s over HTTP over its own in process. alone_ms, single_ms: median latency over HTTP of a
    client that is alone, as served and without batching."""

    architecture: str
    policy: str
    backend: str
    latency: dict[int, list[float]]
    http: list[float]
    more_mb: float | None
    raw: list[float]
    alone_ms: float | None
    single_ms: float | None


def served(rows: Iterable[BenchRow]) -> list[BenchRow]:
    """The rows over HTTP at saturation of the study "paths"."""
    http = select(rows, study="paths", path="http")
    return select(http, clients=max(row.clients for row in http))


def costs(rows: Sequence[BenchRow], architecture: str) -> list[Cost]:
    """Every policy and backend of one network, the slowest over HTTP first."""
    mine = select(rows, study="paths", architecture=architecture)
    batches = sorted({row.batch for row in select(mine, path="pipeline")})
    costs_of = []
    for policy, backend in dict.fromkeys((row.policy, row.backend) for row in select(mine, path="pipeline")):
        here = select(mine, backend=backend)
        http = {row.policy: row for row in select(served(here), body=RAW)} if select(here, path="http") else {}
        over, more = [], None
        if policy in http and "undefended" in http:
            over = ratios(http[policy].rate_rounds, http["undefended"].rate_rounds)
            more = (http[policy].rss_mb or math.nan) - (http["undefended"].rss_mb or math.nan)
        latency = {n: bench_targets.latencies(here, policy, architecture=architecture, batch=n) for n in batches}
        raw = bench_targets.throughputs(here, architecture, policy) if policy in http else []
        alone = select(here, path="http", policy=policy, clients=1, body=RAW)
        facts = {"study": "single", "path": "http", "architecture": architecture, "backend": backend}
        single = select(rows, policy=policy, **facts)
        waits = [found[0].p50_ms if found else None for found in (alone, single)]
        costs_of.append(Cost(architecture, policy, backend or "-", latency, over, more, raw, *waits))
    return sorted(costs_of, key=lambda cost: (cost.backend, median(cost.http) if cost.http else math.inf))


def settings(rows: Sequence[BenchRow], architecture: str) -> list[tuple[str, float, bool]]:
    """(what was tried, geometric mean over numbers of clients of its rows/s, whether it is served), the best first."""
    tried: dict[tuple[int | None, ...], list[float]] = {}
    for row in select(rows, study="settings", architecture=architecture):
        tried.setdefault(_key(row), []).append(math.log(row.rows_per_s))
    used = {_key(row) for row in select(rows, study="paths", architecture=architecture, path="http")}
    named = {key: f"{key[0]} x {key[1]}, batches of {key[2]}, {key[3]} ms" for key in tried}
    found = [(named[key], math.exp(sum(logs) / len(logs)), key in used) for key, logs in tried.items()]
    return sorted(found, key=lambda each: -each[1])


def _key(row: BenchRow) -> tuple[int | None, ...]:
    return row.workers, row.threads, row.batch_size, row.max_batch_delay_ms
