"""results/owners.json to docs/your-model-forms.md: which forms of a model are adopted and served right.

python -m report.pages your-model-forms
"""

from __future__ import annotations

from pathlib import Path

from report.pages import page
from report.schema import Report, read

# of labels that must be the owner's own
LEAST = 0.99


def pages(results: Path) -> dict[str, str]:
    """The page, by file name below docs/. Raises ResultError."""
    return {"your-model-forms.md": render(read(results / "owners.json", measured_by="make owners"))}


def render(report: Report) -> str:
    """The page; what does not agree stands first."""
    rows = sorted(report.owners, key=lambda row: (row.adopted and row.agreement >= LEAST, not row.adopted, row.form))
    served = [row for row in rows if row.adopted]
    right = [row for row in served if row.agreement >= LEAST]
    refused = [row for row in rows if not row.adopted]
    return page.render(
        "owners.md.j2", run=report.run, rows=rows, served=served, right=right, refused=refused, least=LEAST
    )
