"""Hold results files against the schema.

    python -m report check results/ [reports/digits/report.json ...]

Prints a line for each file, its sections and their rows, and a line for each fault; exit code 1 where there is one.
`python -m report.html RUN` makes the page of a run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from report.check import check


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m report", description="results files against the schema")
    commands = parser.add_subparsers(required=True, metavar="check")
    checking = commands.add_parser("check", help="read every file, report all faults")
    checking.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files, or folders of *.json")
    return check(parser.parse_args(arguments).paths)


if __name__ == "__main__":
    sys.exit(main())
