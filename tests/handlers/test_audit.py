"""The audit log: whole lines from any writer, rotated, private, and none half written on a full disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handlers.audit import MINUTE, AuditLog, counted, digest
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
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(line.pop("count") == 1 for line in written)
    return written


class Clock:
    now = 6000.0

    def __call__(self) -> float:
        return self.now


def refusal(principal: str = "acme", decision: str = "rate_limited", *, rows: int | None = 3) -> dict[str, object]:
    return {
        "time": "2026-11-24T12:00:00.123Z",
        "request": "r",
        "principal": principal,
        "policy": "digits-edm",
        "row": None,
        "rows": rows,
        "decision": decision,
        "score": None,
        "tail": None,
        "digest": "d",
    }


def raw(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_repeated_refusals_of_a_minute_are_one_line_and_a_count(tmp_path: Path) -> None:
    path, limited, clock = tmp_path / "audit.jsonl", tmp_path / "audit.limited.jsonl", Clock()
    first, second = (AuditLog(path, clock=clock) for _ in range(2))
    for log in (first, second, first):
        assert log.write([refusal(), refusal("globex"), refusal(rows=None)])
    assert [(line["principal"], line["count"]) for line in raw(limited)] == [("acme", 1), ("globex", 1)]
    assert sum(int(str(record["count"])) for record in counted(path)) == 7, "and the others are no worker's to lose"
    clock.now += MINUTE
    third = AuditLog(path, clock=clock)  # the others were killed
    assert third.settle()
    assert counted(path) == []
    assert [(line["principal"], line["count"], line["rows"], line["digest"]) for line in raw(limited)[2:]] == [
        ("acme", 5, 6, None),
        ("globex", 2, 6, None),
    ]
    assert third.write([refusal()])
    assert second.settle()
    assert [(line["principal"], line["count"]) for line in raw(limited)[4:]] == [("acme", 1)]
    assert set(raw(limited)[2]) == set(raw(limited)[0])
    assert all(each.stat().st_mode & 0o777 == 0o600 for each in tmp_path.iterdir())


def test_a_flood_of_one_kind_pushes_out_nothing_of_another(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", largest=2000, kept=1, clock=Clock())
    assert log.write([{"decision": "reject", "row": 0}, refusal(decision="solution_spent")])
    for number in range(200):
        assert log.write([refusal(f"principal-{number}")])
    assert [line["decision"] for line in raw(tmp_path / "audit.jsonl")] == ["reject"]
    assert [line["decision"] for line in raw(tmp_path / "audit.solutions.jsonl")] == ["solution_spent"]
    assert (tmp_path / "audit.limited.jsonl.1").stat().st_size <= 2000


def test_where_repetitions_cannot_be_counted_each_has_its_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "audit.counts.sqlite3").mkdir()
    assert AuditLog(tmp_path / "audit.jsonl").write([refusal(), refusal()])
    assert len(raw(tmp_path / "audit.limited.jsonl")) == 2
    assert "audit: repeated refusals cannot be counted" in caplog.text


def test_what_cannot_be_written_yet_stays_counted(tmp_path: Path) -> None:
    path, limited, clock = tmp_path / "audit.jsonl", tmp_path / "audit.limited.jsonl", Clock()
    log = AuditLog(path, clock=clock)
    assert log.write([refusal(), refusal()])
    limited.unlink()
    limited.mkdir()
    clock.now += MINUTE
    assert not log.settle()
    limited.rmdir()
    assert log.settle()
    assert [line["count"] for line in raw(limited)] == [1]


def test_lines_are_appended_to_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    assert AuditLog(path).write([{"row": 1}, {"row": 2}])
    assert AuditLog(path).write([{"row": 3}])
    assert lines(path) == [{"row": 1}, {"row": 2}, {"row": 3}]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_full_file_makes_room_and_the_oldest_goes(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", largest=50, kept=2)
    for number in range(5):
        assert log.write([{"number": number, "padding": "xxxxx"}])
    kept = [lines(tmp_path / name) for name in ("audit.jsonl", "audit.jsonl.1", "audit.jsonl.2")]
    assert [each[0]["number"] for each in kept] == [4, 3, 2]
    assert len(list(tmp_path.glob("audit.jsonl*"))) == 3


def test_processes_that_write_and_rotate_together_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with contextlib.ExitStack() as stack:
        commands = [[sys.executable, "-c", WRITER, str(path), who] for who in "abc"]
        writers = [stack.enter_context(running(command, cwd=ROOT)) for command in commands]
        assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    found = [line for file in tmp_path.glob("audit.jsonl*") for line in lines(file)]
    written = {(line["who"], line["number"], line["line"]) for line in found}
    assert len(found) == 1200
    assert written == {(who, number, line) for who in "abc" for number in range(200) for line in (0, 1)}
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


def test_a_place_that_cannot_be_written_to_is_reported(tmp_path: Path) -> None:
    assert not AuditLog(tmp_path / "absent" / "audit.jsonl").write([{"row": 1}])


def test_a_digest_is_of_the_pixels_alone() -> None:
    image = np.linspace(0, 1, 20, dtype=np.float32).reshape(1, 4, 5)
    assert digest(image) == hashlib.sha256(image.tobytes()).hexdigest()
    assert digest(image.transpose(0, 2, 1)) != digest(image)
