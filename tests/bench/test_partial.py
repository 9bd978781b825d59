"""A run that is interrupted goes on behind the studies that it finished, if these rest on the same things."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

import pytest

from bench.partial import Partial
from report.rows.bench import BenchRow
from report.schema import read
from tests.report.synthetic import bench_row

STARTED = datetime(2026, 11, 24, 12, 0, tzinfo=timezone.utc)
LATER = datetime(2026, 11, 24, 13, 0, tzinfo=timezone.utc)
EFFORT = {"effort": {"rounds": 3, "batches": (1, 8)}}


class Study:
    """A study that counts how often it is measured."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> list[BenchRow]:
        self.calls += 1
        return [bench_row(study="paths", rows_per_s=float(self.calls), p50_rounds=(1.0, 2.0))]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a.mar"
    path.write_bytes(b"archive")
    return path


def test_a_finished_study_is_not_measured_again(archive: Path, tmp_path: Path) -> None:
    study = Study()
    first = Partial(tmp_path / "kept", STARTED, EFFORT).of("a-paths", [archive], study)
    again = Partial(tmp_path / "kept", LATER, EFFORT)
    assert again.of("a-paths", [archive], study) == first
    assert study.calls == 1
    kept = read(tmp_path / "kept" / "a-paths.json").run
    assert (again.started, again.saved) == (min(kept.started, LATER.isoformat()), kept.seconds)
    again.remove()
    assert not list((tmp_path / "kept").iterdir())
    Partial(tmp_path / "kept", LATER, EFFORT).of("a-paths", [archive], study)
    assert study.calls == 2


def test_a_study_of_another_effort_or_archive_is_measured_again(archive: Path, tmp_path: Path) -> None:
    study = Study()
    Partial(tmp_path, STARTED, EFFORT).of("a-paths", [archive], study)
    Partial(tmp_path, STARTED, {"effort": {"rounds": 5, "batches": (1, 8)}}).of("a-paths", [archive], study)
    assert study.calls == 2
    Partial(tmp_path, STARTED, EFFORT).of("a-paths", [archive], study)
    os.utime(archive, (1, 1))
    Partial(tmp_path, STARTED, EFFORT).of("a-paths", [archive], study)
    assert study.calls == 4


def test_a_study_that_fails_leaves_nothing(archive: Path, tmp_path: Path) -> None:
    def fail() -> list[BenchRow]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Partial(tmp_path / "kept", STARTED, EFFORT).of("a-paths", [archive], fail)
    assert not (tmp_path / "kept").exists()
