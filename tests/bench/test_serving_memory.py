"""What a server holds: a real one is measured both ways, and the page says what the numbers do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import serving_memory
from report.rows.memory import MOMENTS, WAYS, EnvironmentRow
from report.schema import read
from tests.conftest import Smoke


def test_torchserves_own_way_to_start_workers_is_what_java_gets(tmp_path: Path) -> None:
    """The stand-in `java` changes the one argument and passes every other as it is."""
    script = serving_memory._importing(Path("/some where/python"), Path("/bin/echo"), tmp_path)
    words = ["-Dx=a b", "--python", "/deploy/lean/python", "-f", "c's"]
    said = subprocess.run([script, *words], capture_output=True, text=True, check=True)
    assert said.stdout == "-Dx=a b --python /some where/python -f c's\n"


@pytest.mark.drill
def test_a_real_server_is_measured_both_ways(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "memory.json"
    command = ["serving_memory", "smoke-undefended", "--store", str(smoke.store), "--rows", "20", "--clients", "2"]
    command += ["--lean", sys.executable, "--torch", sys.executable, "--workers", "1", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", command)
    # the sizes of this environment take long to add up, and say nothing here
    monkeypatch.setattr(serving_memory, "_environment", lambda name, python: EnvironmentRow(name, 1.0, 1, {}))
    serving_memory.main()
    found = {(each.way, each.moment): each for each in read(output).memory}
    assert set(found) == {(way, moment) for way in WAYS for moment in MOMENTS}
    imported, deferred = (found[way, "traffic"] for way in ("imported", "deferred"))
    # torch and what it brings
    assert imported.worker.uss - deferred.worker.uss > 100
    assert deferred.total_pss < 900
    assert imported.rows >= 20
    assert "workers 1 traffic" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command, "--resume"])
    serving_memory.main()
    assert "traffic" not in capsys.readouterr().out
