"""Every results file held against the schema: what each of them holds, and all that is wrong, in one go."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from report.schema import ResultError, read


def check(paths: Iterable[Path]) -> int:
    """Print a line for each file, to stderr one for each fault; the exit code: 1 where there is a fault.

    paths: files, and folders whose *.json are meant. A folder without any is a fault: nothing was checked.
    """
    files, faults = _files(paths)
    rows = 0
    for path in files:
        try:
            counts = read(path).counts()
        except ResultError as error:
            found = str(error).splitlines()
            faults += found
            print(f"{path}: {len(found)} {'fault' if len(found) == 1 else 'faults'}")
            continue
        rows += sum(counts.values())
        print(f"{path}: {', '.join(f'{name} {count}' for name, count in counts.items()) or 'no rows'}")
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{len(files)} files, {rows} rows, {len(faults)} faults")
    return 1 if faults else 0


def _files(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    files: list[Path] = []
    faults: list[str] = []
    for path in paths:
        found = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not found:
            faults.append(f"{path}: expected results, *.json, found none")
        files += found
    return files, faults
