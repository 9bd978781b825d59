"""Studies that are finished, kept while a run goes on: an interrupted run starts behind them.

A study is a file of its own with what it rests on: the effort, the commit, and the archives by name, size and time. A
file that rests on something else is measured again. Ratios are taken inside a study, so none of them mixes two runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench.inprocess import SEED
from report.rows.bench import BenchRow
from report.schema import Report, read, run_info, write


class Partial:
    """The finished studies of one run. started: of the run, or of the earliest study that it goes on from. saved:
    seconds that those took. settings: the run's."""

    def __init__(self, folder: Path, started: datetime, settings: Mapping[str, Any]) -> None:
        self._folder = folder
        self._files: list[Path] = []
        self.started = started.isoformat(timespec="seconds")
        self.saved = 0.0
        self.settings = dict(settings)

    def of(self, name: str, archives: Iterable[Path], study: Callable[[], list[BenchRow]]) -> tuple[BenchRow, ...]:
        """The rows of a study: those that are kept, or else measured now and kept. Raises ResultError."""
        path = self._folder / f"{name}.json"
        self._files.append(path)
        started = datetime.now(timezone.utc)
        settings = {**self.settings, "archives": {each.name: _print(each) for each in archives}}
        if path.is_file():
            kept = read(path)
            facts = run_info(seed=SEED, started=started, settings=settings)
            if (kept.run.commit, kept.run.settings) == (facts.commit, json.loads(json.dumps(settings))):
                print(f"{path}: measured already")
                self.started = min(self.started, kept.run.started)
                self.saved += kept.run.seconds
                return kept.bench
        rows = tuple(study())
        facts = run_info(seed=SEED, started=started, settings=settings)
        write(path, Report(facts, bench=rows))
        return rows

    def remove(self) -> None:
        """Forget the studies: the run is complete."""
        for path in self._files:
            path.unlink(missing_ok=True)


def _print(archive: Path) -> list[int]:
    stat = archive.stat()
    return [stat.st_size, stat.st_mtime_ns]
