"""What an answer may cost, held against results/bench.json: each target met or not.

    latency      p50 of edm / p50 of undefended, one row in process                       <= 1.10
    throughput   rows/s over HTTP at saturation / rows/s of the same policy in process    >= 0.88, edm 0.85
    router       Python of edm - Python of undefended, of a row's time at 8 rows a call   <  3 %

In process means the batch that is fastest there. Ratios are medians over rounds (loadtests/bench/rounds.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from handlers import wire
from loadtests.bench.rounds import ratio
from loadtests.results import BenchRow

LARGE = "resnet18-8x"
LATENCY = 1.10
THROUGHPUT = {"undefended": 0.88, "edm": 0.85}
ROUTER = 0.03


@dataclass(frozen=True)
class Verdict:
    """One target: what is asked, of which network, what was measured (None: not in this file), and if it is met."""

    target: str
    architecture: str
    limit: str
    measured: float | None
    met: bool


def select(rows: Iterable[BenchRow], **facts: Any) -> list[BenchRow]:
    """The rows that have all these values."""
    return [row for row in rows if all(getattr(row, name) == value for name, value in facts.items())]


def fastest(rows: Sequence[BenchRow]) -> BenchRow:
    """The row with the highest throughput."""
    return max(rows, key=lambda row: row.rows_per_s)


def verdicts(rows: Sequence[BenchRow]) -> list[Verdict]:
    """Every target in turn; the losing ones too."""
    onnx = select(rows, backend="onnxruntime")
    out = [
        _verdict(
            "EDM's median latency against undefended, one row in process", LARGE, "≤", LATENCY, latency(onnx, LARGE)
        )
    ]
    for policy, least in THROUGHPUT.items():
        what = f"rows/s of `{policy}` at saturation, HTTP against in process"
        out.append(_verdict(what, LARGE, "≥", least, throughput(onnx, LARGE, policy)))
    for architecture in dict.fromkeys(row.architecture for row in select(onnx, study="router")):
        what = "the router's own Python in a row's time, 8 rows a call"
        out.append(_verdict(what, architecture, "<", ROUTER, router_share(onnx, architecture)))
    return out


def latency(rows: Sequence[BenchRow], architecture: str, *, batch: int = 1) -> float | None:
    """p50 of `edm` over p50 of `undefended`, in process, of calls with `batch` rows."""
    found = select(rows, study="paths", path="pipeline", architecture=architecture, batch=batch)
    edm, plain = select(found, policy="edm"), select(found, policy="undefended")
    return ratio(edm[0].p50_rounds, plain[0].p50_rounds) if edm and plain else None


def throughput(
    rows: Sequence[BenchRow], architecture: str, policy: str, *, body: str = wire.RAW, against: str = "pipeline"
) -> float | None:
    """rows/s over HTTP from the most clients, over the fastest batch of the path `against` in process."""
    paths = select(rows, study="paths", architecture=architecture)
    served = select(paths, path="http", policy=policy, body=body)
    process = select(paths, path=against, **({"policy": policy} if against == "pipeline" else {}))
    if not served or not process:
        return None
    return ratio(max(served, key=lambda row: row.clients).rate_rounds, fastest(process).rate_rounds)


def router_share(rows: Sequence[BenchRow], architecture: str) -> float | None:
    """The router's own Python as a fraction of a row's time in the pipeline."""
    found = {row.policy: row for row in select(rows, study="router", architecture=architecture)}
    if "edm" not in found or "undefended" not in found:
        return None
    edm, plain = found["edm"].stages_ms, found["undefended"].stages_ms
    return (edm["python"] - plain["python"]) / sum(edm.values())


HOLDS: dict[str, Callable[[float, float], bool]] = {
    "≤": lambda measured, limit: measured <= limit,
    "≥": lambda measured, limit: measured >= limit,
    "<": lambda measured, limit: measured < limit,
}


def _verdict(target: str, architecture: str, relation: str, limit: float, measured: float | None) -> Verdict:
    met = measured is not None and HOLDS[relation](measured, limit)
    return Verdict(target, architecture, f"{relation} {limit:.2f}", measured, met)
