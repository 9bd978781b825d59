"""`python -m report check`: a line for each file, every fault in one go, and an exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from report.__main__ import main
from report.schema import Report, write
from tests.report import synthetic

CHECKOUT = Path(__file__).resolve().parents[2]


def written(path: Path, **sections: Any) -> None:
    """The synthetic report with these sections replaced, which need not follow the schema."""
    write(path, synthetic.report())
    path.write_text(json.dumps({**json.loads(path.read_text()), **sections}))


def test_a_good_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "one.json", synthetic.report())
    write(tmp_path / "two.json", Report(synthetic.RUN))
    (tmp_path / "notes.txt").write_text("not a result")
    assert main(["check", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith(f"{tmp_path}/one.json: attacks {len(synthetic.report().attacks)}, policies ")
    assert lines[1] == f"{tmp_path}/two.json: no rows"
    assert lines[2].startswith("2 files, ")
    assert lines[2].endswith(" rows, 0 faults")
    assert not err


def test_all_faults_of_all_files_come_in_one_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "section.json", colours=[])
    written(tmp_path / "rows.json", attacks=[{"recipe": "x"}], policies={"recipe": "x"})
    written(tmp_path / "run.json", run={**vars(synthetic.RUN), "seed": "zero", "seconds": None})
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    write(tmp_path / "good.json", synthetic.report())
    assert main(["check", str(tmp_path), str(tmp_path / "absent.json")]) == 1
    out, err = capsys.readouterr()
    faults = err.splitlines()
    for name, message in (
        ("broken", "not JSON"),
        ("list", "expected an object with the section run, got list"),
        ("rows", "attacks[0]: missing key 'policy'"),
        ("rows", "policies: expected a list of rows, got dict"),
        ("run", "run: seed: expected an integer, got 'zero'"),
        ("run", "run: seconds: expected a number, got None"),
        ("section", "expected the sections run, attacks"),
        ("absent", "no such file"),
    ):
        assert any(fault.startswith(f"{tmp_path}/{name}.json: {message}") for fault in faults), (name, message)
    missing = [fault for fault in faults if "rows.json: attacks[0]: missing key" in fault]
    assert len(faults) == 7 + len(missing)  # every key of the row but the one that is there
    assert f"{tmp_path}/run.json: 2 faults" in out
    assert "colours" in err
    assert out.splitlines()[-1].endswith(f"{len(faults)} faults")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("clone_accuracy", "high", "expected a number, got 'high'"),
        ("clone_accuracy", 1.2, "expected a fraction in [0, 1], got 1.2"),
        ("budget", 10.5, "expected an integer, got 10.5"),
        ("adaptive", 3, "expected a string, got 3"),
        ("labels", "both", "expected 'soft' or 'hard', got 'both'"),
        ("seed", True, "expected an integer, got True"),
    ],
)
def test_a_fault_names_file_section_row_and_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, value: object, message: str
) -> None:
    path = tmp_path / "report.json"
    write(path, synthetic.report())
    content = json.loads(path.read_text())
    content["attacks"][3][field] = value
    path.write_text(json.dumps(content))
    assert main(["check", str(path)]) == 1
    assert capsys.readouterr().err == f"{path}: attacks[3]: {field}: {message}\n"


def test_a_folder_without_results_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path)]) == 1
    assert "expected results, *.json, found none" in capsys.readouterr().err


def test_the_command_checks_the_committed_results() -> None:
    command = [sys.executable, "-m", "report", "check", "results/"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith(", 0 faults")
