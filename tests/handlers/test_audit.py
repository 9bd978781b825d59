"""The audit log: whole lines whoever writes, rotated, private, and none half written on a full disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from handlers.audit import AuditLog, digest
from tests.processes import running

ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import sys
from pathlib import Path
from handlers.audit import AuditLog
log = AuditLog(Path(sys.argv[1]), largest=20_000, kept=50)
for number in range(200):
    assert log.write([{"who": sys.argv[2], "number": number, "line": line, "padding": "x" * 200} for line in (0, 1)])
"""


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_appended_to_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    assert AuditLog(path).write([{"row": 1}, {"row": 2}])
    assert AuditLog(path).write([{"row": 3}])
    assert lines(path) == [{"row": 1}, {"row": 2}, {"row": 3}]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_full_file_makes_room_and_the_oldest_goes(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", largest=40, kept=2)
    for number in range(5):
        assert log.write([{"number": number, "padding": "xxxxx"}])
    kept = [lines(tmp_path / name) for name in ("audit.jsonl", "audit.jsonl.1", "audit.jsonl.2")]
    assert [each[0]["number"] for each in kept] == [4, 3, 2]
    assert len(list(tmp_path.iterdir())) == 3


def test_processes_that_write_and_rotate_together_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with contextlib.ExitStack() as stack:
        commands = [[sys.executable, "-c", WRITER, str(path), who] for who in "abc"]
        writers = [stack.enter_context(running(command, cwd=ROOT)) for command in commands]
        assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    found = [line for file in tmp_path.iterdir() for line in lines(file)]
    told = {(line["who"], line["number"], line["line"]) for line in found}
    assert len(found) == 1200
    assert told == {(who, number, line) for who in "abc" for number in range(200) for line in (0, 1)}
    assert len(list(tmp_path.iterdir())) > 5, "or nothing was rotated"


def test_a_renamed_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    assert log.write([{"row": 1}])
    path.rename(tmp_path / "elsewhere")
    assert log.write([{"row": 2}])
    assert lines(path) == [{"row": 2}]


def test_a_full_disk_loses_lines_and_no_half_of_one_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    assert log.write([{"row": 1}])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, hard))
    try:
        assert not log.write([{"row": 2, "padding": "x" * 100}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "audit: lines lost: 1: File too large" in caplog.text
    assert log.write([{"row": 3}])
    assert lines(path) == [{"row": 1}, {"row": 3}]


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    assert not AuditLog(tmp_path / "absent" / "audit.jsonl").write([{"row": 1}])


def test_a_digest_is_of_the_pixels_alone() -> None:
    image = np.linspace(0, 1, 20, dtype=np.float32).reshape(1, 4, 5)
    assert digest(image) == hashlib.sha256(image.tobytes()).hexdigest()
    assert digest(image.transpose(0, 2, 1)) != digest(image)
