"""results/refusals.json to docs/refusals.md: what a refused request costs behind the gateway.

    python -m report.pages refusals

Every number on the page comes from the results file; its sentences hold whatever the numbers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from report.format import ratios
from report.pages import page
from report.rows.refusals import PROCESSES, RefusalRow
from report.schema import Report, ResultError, read

# connections that a request may open, on average; nginx opens one anew after a thousand requests
CONNECTIONS = 0.02


def pages(results: Path) -> dict[str, str]:
    """The page, by file name below docs/. Raises ResultError."""
    return {"refusals.md": render(read(results / "refusals.json", measured_by="make bench-refusals"))}


def render(report: Report) -> str:
    """The page. Raises ResultError where a way was not measured."""
    rows = {row.way: row for row in report.refusals}
    try:
        answered, kept, closed = rows["answered"], rows["kept"], rows["closed"]
    except KeyError as error:
        raise ResultError(f"refusals: expected the ways answered, kept and closed, lacking {error}") from None
    opened = median(kept.connections_rounds)
    return page.render(
        "refusals.md.j2",
        run=report.run,
        rows=report.refusals,
        answered=answered,
        kept=kept,
        closed=closed,
        opened=opened,
        most=CONNECTIONS,
        holds=opened <= CONNECTIONS,
        rate=ratios(kept.rate_rounds, closed.rate_rounds),
        refused_rate=ratios(kept.rate_rounds, answered.rate_rounds),
        carrying=ratios(work(closed, ("nginx", "java")), work(kept, ("nginx", "java"))),
        work=ratios(work(closed, PROCESSES), work(kept, PROCESSES)),
        processes={name: ratios(closed.cpu_ms_rounds[name], kept.cpu_ms_rounds[name]) for name in PROCESSES},
    )


def work(row: RefusalRow, processes: Sequence[str]) -> tuple[float, ...]:
    """CPU milliseconds a request, of these processes together, round by round."""
    return tuple(sum(each) for each in zip(*(row.cpu_ms_rounds[name] for name in processes), strict=True))
