"""results/int8-*.json to docs/results/int8.md: what 8 bits cost a policy's users.

python -m report.pages int8
"""

from __future__ import annotations

from pathlib import Path

from report.pages import page
from report.schema import Report, ResultError, read

# of the rule of acceptance (export/quantise.py)
DROP, AGREEMENT = 0.002, 0.995


def pages(results: Path) -> dict[str, str]:
    """The page, by file name below docs/. Raises ResultError."""
    files = sorted(results.glob("int8-*.json"))
    if not files:
        raise ResultError(f"{results}: no int8-*.json; run `make reproduce-int8 RECIPE=mnist` first")
    return {"results/int8.md": render([read(path) for path in files])}


def render(reports: list[Report]) -> str:
    """The page; what lies outside the rule on the test split stands first."""
    rows = [row for report in reports for row in report.quantised]
    if not rows:
        raise ResultError("quantised: expected rows, got none")
    holds = {
        row: row.agreement >= AGREEMENT and row.accuracy >= row.float32_accuracy - DROP
        for row in sorted(rows, key=lambda row: (row.recipe, row.policy))
    }
    return page.render(
        "int8.md.j2",
        runs=[report.run for report in reports],
        rows=sorted(holds, key=lambda row: holds[row]),
        holds=holds,
        inside=sum(holds.values()),
        drop=DROP,
        least=AGREEMENT,
    )
