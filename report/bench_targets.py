"""What a response may cost, compared with results/bench.json: each target met or not.

    latency      p50 of a defense / p50 of undefended, one row in process       edm <= 1.10, misleader-routed <= 1.05,
                                                                                meco and meco-small <= 1.20
    python       a pipeline's time outside its graphs / the victim's graph, 8 rows a call            <= 0.05
    router       Python of edm - Python of undefended, of a row's time at 8 rows a call              <= 0.04
    throughput   rows/s over HTTP at saturation / rows/s of the same policy in process               >= 0.88
    single       rows/s of one client without batching / rows/s in process, a row at a time          >= 0.75
    int8         rows/s over HTTP at saturation / those of `undefended` in float32      undefended >= 3.0, edm >= 2.5,
                                                      meco >= 2.0, same-observe >= 2.2, misleader-routed >= 2.5
    int8 single  p50 of one client of edm in int8 / that of `undefended` in float32                  <= 0.50
    memory       resident memory of a worker of edm - undefended - 5 x a member's weights            <= 50 MiB

The int8 targets are for a CPU with VNNI; without it bytes are multiplied in two steps, and the page says which was
measured. In process means the batch that is fastest there, whatever the server's is. Ratios are medians over rounds
(report/format.py), and a target says how far apart its rounds were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from report.format import ratios
from report.rows.bench import RAW, BenchRow

LARGE = "resnet18-8x"
LATENCY = {"edm": 1.10, "meco": 1.20, "meco-small": 1.20, "misleader-routed": 1.05}
INT8 = {
    "undefended-int8": 3.0,
    "edm-int8": 2.5,
    "meco-int8": 2.0,
    "same-observe-int8": 2.2,
    "misleader-routed-int8": 2.5,
}
INT8_SINGLE = {"edm-int8": 0.5}
PYTHON = 0.05
ROUTER = 0.04
THROUGHPUT = 0.88
SINGLE = 0.75
MEMORY_MB = 50.0
EDM_MEMBERS = 5
# rows a call, where Python is held against graphs
CLOCKED = 8


@dataclass(frozen=True)
class Verdict:
    """One target: what is asked, of which network, what was measured (None: not in this file), and if it is met.

    rounds: what each round measured, where more than one did.
    """

    target: str
    architecture: str
    limit: str
    measured: float | None
    met: bool
    rounds: tuple[float, ...] = ()


def select(rows: Iterable[BenchRow], **facts: Any) -> list[BenchRow]:
    """The rows that have all these values."""
    return [row for row in rows if all(getattr(row, name) == value for name, value in facts.items())]


def fastest(rows: Sequence[BenchRow]) -> BenchRow:
    """The row with the highest throughput."""
    return max(rows, key=lambda row: row.rows_per_s)


def policies(rows: Iterable[BenchRow], **facts: Any) -> list[str]:
    """The policies of the rows that have all these values, in their order."""
    return list(dict.fromkeys(row.policy for row in select(rows, **facts)))


def full(rows: Iterable[BenchRow], **facts: Any) -> list[str]:
    """The same without those in 8 bits, which have targets of their own."""
    return [policy for policy in policies(rows, **facts) if policy not in INT8]


def verdicts(rows: Sequence[BenchRow], member_mb: Mapping[str, float]) -> list[Verdict]:
    """Every target in turn; the losing ones too. member_mb: weights of one of EDM's members, by architecture."""
    onnx = select(rows, backend="onnxruntime")
    out = [
        verdict(
            f"latency of `{policy}` against `undefended`, one row in process",
            "≤",
            most,
            latencies(onnx, policy, study="clocks"),
        )
        for policy, most in LATENCY.items()
    ]
    out += [
        verdict(
            f"Python of `{policy}` against the victim's graph, 8 rows a call", "≤", PYTHON, python_shares(onnx, policy)
        )
        for policy in full(onnx, study="clocks", architecture=LARGE) or ["undefended"]
    ]
    out += [
        verdict(
            "the router's own Python in a row's time, 8 rows a call",
            "≤",
            ROUTER,
            router_shares(onnx, architecture),
            architecture,
        )
        for architecture in dict.fromkeys(row.architecture for row in select(onnx, study="clocks", policy="edm"))
    ]
    out += [
        verdict(
            f"rows/s of `{policy}` at saturation, HTTP against in process",
            "≥",
            THROUGHPUT,
            throughputs(onnx, LARGE, policy),
        )
        for policy in full(onnx, study="paths", architecture=LARGE) or ["undefended"]
    ]
    out += [
        verdict(
            f"rows/s of `{policy}`, one client without batching, HTTP against in process",
            "≥",
            SINGLE,
            singles(onnx, policy),
        )
        for policy in full(onnx, study="single", architecture=LARGE) or ["undefended"]
    ]
    out += [
        verdict(
            f"rows/s of `{policy}` at saturation over HTTP against `undefended` in float32",
            "≥",
            least,
            gains(onnx, policy),
        )
        for policy, least in INT8.items()
    ]
    out += [
        verdict(
            f"latency of one client of `{policy}` over HTTP against `undefended` in float32",
            "≤",
            most,
            waits(onnx, policy),
        )
        for policy, most in INT8_SINGLE.items()
    ]
    held = extra_memory(onnx, member_mb.get(LARGE))
    what = f"MiB of a worker of `edm` beyond `undefended` and {EDM_MEMBERS} members' weights"
    return [*out, verdict(what, "≤", MEMORY_MB, () if held is None else (held,))]


def latencies(
    rows: Sequence[BenchRow], policy: str, *, architecture: str = LARGE, batch: int = 1, study: str = "paths"
) -> list[float]:
    """p50 of a policy over p50 of `undefended`, round by round, in process, of calls with `batch` rows."""
    found = select(rows, study=study, path="pipeline", architecture=architecture, batch=batch)
    mine, plain = select(found, policy=policy), select(found, policy="undefended")
    return ratios(mine[0].p50_rounds, plain[0].p50_rounds) if mine and plain else []


def throughputs(
    rows: Sequence[BenchRow],
    architecture: str,
    policy: str,
    *,
    body: str = RAW,
    against: str = "pipeline",
    batch: int | None = None,
) -> list[float]:
    """rows/s over HTTP from the most clients, over the path `against` in process, at `batch` or its fastest batch."""
    paths = select(rows, study="paths", architecture=architecture)
    served = select(paths, path="http", policy=policy, body=body)
    process = select(paths, path=against, **({"policy": policy} if against == "pipeline" else {}))
    if batch is not None:
        process = select(process, batch=batch)
    if not served or not process:
        return []
    return ratios(max(served, key=lambda row: row.clients).rate_rounds, fastest(process).rate_rounds)


def singles(rows: Sequence[BenchRow], policy: str, *, architecture: str = LARGE) -> list[float]:
    """rows/s of one client without batching, over rows/s in process, round by round."""
    found = select(rows, study="single", architecture=architecture, policy=policy)
    served, process = select(found, path="http"), select(found, path="pipeline")
    return ratios(served[0].rate_rounds, process[0].rate_rounds) if served and process else []


def gains(rows: Sequence[BenchRow], policy: str, *, architecture: str = LARGE) -> list[float]:
    """rows/s over HTTP from the most clients over those of `undefended`, round by round."""
    served = select(rows, study="paths", path="http", architecture=architecture, body=RAW)
    most = max((row.clients for row in served), default=0)
    mine, plain = (select(served, policy=name, clients=most) for name in (policy, "undefended"))
    return ratios(mine[0].rate_rounds, plain[0].rate_rounds) if mine and plain else []


def waits(rows: Sequence[BenchRow], policy: str, *, architecture: str = LARGE) -> list[float]:
    """p50 of one client over HTTP over that of `undefended`, round by round."""
    served = select(rows, study="paths", path="http", architecture=architecture, body=RAW, clients=1)
    mine, plain = (select(served, policy=name) for name in (policy, "undefended"))
    return ratios(mine[0].p50_rounds, plain[0].p50_rounds) if mine and plain else []


def python_shares(
    rows: Sequence[BenchRow], policy: str, *, architecture: str = LARGE, batch: int = CLOCKED
) -> list[float]:
    """What no graph accounts for, over the victim's graph, round by round."""
    found = _clocked(rows, architecture, batch)
    if not found.get(policy) or not found.get("undefended"):
        return []
    return ratios(found[policy]["python"], found["undefended"]["members"])


def router_shares(rows: Sequence[BenchRow], architecture: str) -> list[float]:
    """The router's own Python as a fraction of a row's time in the pipeline, round by round."""
    found = _clocked(rows, architecture, CLOCKED)
    edm, plain = found.get("edm"), found.get("undefended")
    if not edm or not plain:
        return []
    wholes = [sum(stages) for stages in zip(*edm.values(), strict=True)]
    own = [mine - bare for mine, bare in zip(edm["python"], plain["python"], strict=True)]
    return ratios(own, wholes)


def _clocked(rows: Sequence[BenchRow], architecture: str, batch: int) -> dict[str, Mapping[str, tuple[float, ...]]]:
    """Milliseconds a row in graphs and Python, round by round, of each policy."""
    found = select(rows, study="clocks", architecture=architecture, batch=batch)
    return {row.policy: row.stages_rounds for row in found}


def extra_memory(rows: Sequence[BenchRow], member_mb: float | None, *, architecture: str = LARGE) -> float | None:
    """MiB that a worker of `edm` holds beyond one of `undefended` and its members' weights."""
    served = {row.policy: row.rss_mb for row in select(rows, study="paths", path="http", architecture=architecture)}
    edm, plain = served.get("edm"), served.get("undefended")
    if edm is None or plain is None or member_mb is None:
        return None
    return edm - plain - EDM_MEMBERS * member_mb


HOLDS: dict[str, Callable[[float, float], bool]] = {
    "≤": lambda measured, limit: measured <= limit,
    "≥": lambda measured, limit: measured >= limit,
}


def verdict(target: str, relation: str, limit: float, rounds: Sequence[float], architecture: str = LARGE) -> Verdict:
    """A target judged by the median of its rounds; without any it is not met. relation: a key of HOLDS."""
    measured = median(rounds) if rounds else None
    met = measured is not None and HOLDS[relation](measured, limit)
    return Verdict(target, architecture, f"{relation} {limit:.2f}", measured, met, tuple(rounds))
