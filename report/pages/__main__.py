"""The pages of docs/ from the committed results files: all of them, or some by name.

    python -m report.pages
    python -m report.pages meco same

A page whose results are missing or malformed is a message and exit code 1; the others are written all the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from report import atomic
from report.pages import (
    adopted,
    budget,
    edm,
    fortress,
    gate_aware,
    gate_scores,
    int8,
    marks,
    meco,
    misleader,
    owners,
    performance,
    refusals,
    resilience,
    same,
    serving_memory,
    thieves,
    unmixing,
)
from report.schema import ResultError

# of each page, what makes its Markdown and its figure from a folder of results, by file name below docs/
PAGES: Mapping[str, Callable[[Path], dict[str, str]]] = {
    "unmixing": unmixing.pages,
    "gate-aware": gate_aware.pages,
    "marks": marks.pages,
    "fortress": fortress.pages,
    "thieves": thieves.pages,
    "budget": budget.pages,
    "gate-scores": gate_scores.pages,
    "edm": edm.METHOD.pages,
    "meco": meco.METHOD.pages,
    "same": same.METHOD.pages,
    "misleader": misleader.METHOD.pages,
    "int8": int8.pages,
    "performance": performance.pages,
    "serving-memory": serving_memory.pages,
    "refusals": refusals.pages,
    "resilience": resilience.pages,
    "your-model-costs": adopted.pages,
    "your-model-forms": owners.pages,
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m report.pages", description="results files to the pages of docs/")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"pages (all): {', '.join(PAGES)}")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="FOLDER", help="(results)")
    parser.add_argument("--output", type=Path, default=Path("docs"), metavar="FOLDER", help="(docs)")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in PAGES]
    if unknown:
        parser.error(f"no page {', '.join(unknown)}; there are {', '.join(PAGES)}")
    failures = []
    for name in options.names or PAGES:
        try:
            made = PAGES[name](options.results)
        except ResultError as error:
            failures.append(f"report.pages: {name}: {error}")
            continue
        for file, text in made.items():
            atomic.write_text(options.output / file, text)
            print(options.output / file)
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
