"""Rounds: everything that is to be compared is measured in turn, again and again (A, B, A, B, ...).

A round before them, a quarter as long, is not counted: caches, and the compilers of TorchScript and Java, are cold in
it. A machine's speed drifts: within a round neighbours share its mood, so ratios are taken inside a round and the
median is over rounds. A row reports each round's value next to the medians, which is its spread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from report.rows.bench import BenchRow

# of a cell's time, for the round that is not counted
COLD_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class Sample:
    """One measurement. latencies_ms: (n,) float64 of each request; cpu_ms, stages_ms: a row's, as in BenchRow."""

    latencies_ms: NDArray[np.float64]
    rows_per_s: float
    cpu_ms: Mapping[str, float]
    stages_ms: Mapping[str, float]


@dataclass(frozen=True)
class Probe:
    """What can be measured for some seconds. facts: the fields of its BenchRow that say what is measured.

    memory: read once, after the last round: the BenchRow's rss_mb and pss_mb.
    """

    facts: Mapping[str, Any]
    measure: Callable[[float], Sample]
    seconds: float
    memory: Callable[[], Mapping[str, float]] | None = None


def interleaved(probes: Sequence[Probe], *, rounds: int, name: str) -> list[BenchRow]:
    """Every probe once a round; a row for each. name: of the progress bar."""
    samples: list[list[Sample]] = [[] for _ in probes]
    with tqdm(total=(1 + rounds) * len(probes), desc=name, unit="cell") as bar:
        for number in range(1 + rounds):
            for mine, probe in zip(samples, probes, strict=True):
                sample = probe.measure(probe.seconds if number else probe.seconds * COLD_SHARE)
                if number:
                    mine.append(sample)
                bar.update()
    return [_row(probe, mine) for probe, mine in zip(probes, samples, strict=True)]


def _row(probe: Probe, samples: Sequence[Sample]) -> BenchRow:
    p50s = [round(float(np.median(sample.latencies_ms)), 4) for sample in samples]
    rates = [round(sample.rows_per_s, 2) for sample in samples]
    return BenchRow(
        **probe.facts,
        p50_ms=median(p50s),
        p99_ms=round(float(np.percentile(np.concatenate([sample.latencies_ms for sample in samples]), 99)), 4),
        rows_per_s=median(rates),
        p50_rounds=tuple(p50s),
        rate_rounds=tuple(rates),
        cpu_ms=_medians([sample.cpu_ms for sample in samples]),
        stages_ms=_medians([sample.stages_ms for sample in samples]),
        stages_rounds=_rounds([sample.stages_ms for sample in samples]),
        **(probe.memory() if probe.memory else {"rss_mb": None}),
    )


def _rounds(tables: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(round(table[name], 5) for table in tables) for name in tables[0]}


def _medians(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(median(table[name] for table in tables), 5) for name in tables[0]}
