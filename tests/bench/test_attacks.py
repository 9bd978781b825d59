"""The attacks' own bench, at a size of seconds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import attacks
from report.schema import read
from tests.conftest import RECIPE, Smoke


def run(monkeypatch: pytest.MonkeyPatch, smoke: Smoke, folder: Path, *words: str) -> None:
    fixed = ["x", str(RECIPE), "--run", str(folder), "--store", str(smoke.store), "--surrogate", "flower"]
    monkeypatch.setattr(sys, "argv", [*fixed, "--threads", "1", *words])
    attacks.main()


def test_the_program(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, smoke, tmp_path, "--images", "100", "--warm-up", "1000", "--queries", "2000")
    report = read(tmp_path / "bench-attacks.json")
    assert report.run.settings == {"surrogate": "flower", "warm_up": 1000, "queries": 2000}
    rows = {row.attack: row for row in report.attack_speeds}
    assert list(rows) == ["knockoff", "dfme", "maze"]
    assert (rows["knockoff"].queries, rows["dfme"].queries, rows["maze"].queries) == (100, 2000, 2000)
    assert all(row.recipe == "smoke" and row.clone == "lenet5" and row.threads == 1 for row in rows.values())
    assert rows["knockoff"].epoch_seconds is not None
    assert rows["knockoff"].epoch_seconds > 0
    assert all(row.seconds > 0 and row.cpu_seconds > 0 for row in rows.values())
    said = capsys.readouterr().out
    assert "of an epoch of training" in said
    assert said.count("queries") == 3


def test_a_missing_archive_is_a_message(smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["x", str(RECIPE), "--run", str(tmp_path), "--store", str(tmp_path), "--surrogate", "flower"]
    )
    with pytest.raises(SystemExit, match=r"smoke-undefended\.mar: no such archive"):
        attacks.main()


def test_a_size_of_nothing_is_a_message(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, smoke, tmp_path, "--queries", "0")
    assert "--queries: expected at least 1, got 0" in capsys.readouterr().err
