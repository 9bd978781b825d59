from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from attest.ledger import LOST, Ledger, LedgerError

DIGEST = hashlib.sha256(b"picture").hexdigest()
OTHER = hashlib.sha256(b"another").hexdigest()


def record(ledger: Ledger, place: int, body: bytes, *, kind: str = "answered", final: bool = True) -> None:
    ledger.asking("utility", [place], [DIGEST])
    ledger.record("utility", [place], [DIGEST], body, status=200, kind=kind, final=final, ms=1.5)


def killed(ledger: Ledger) -> None:
    """What a kill leaves: nothing is flushed, nothing forgotten."""
    for file in (ledger._out, ledger._answers, ledger._asked):
        file.close()


def test_what_was_answered_is_there_when_it_is_taken_up(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        record(ledger, 0, b"first")
        record(ledger, 1, b"second")
    with Ledger(tmp_path) as ledger:
        entry = ledger.final("utility", 1, DIGEST)
        assert entry is not None
        assert (entry.index, entry.answer_sha256) == (1, hashlib.sha256(b"second").hexdigest())
        assert ledger.answer(entry) == b"second"
        assert ledger.final("utility", 2, DIGEST) is None
        assert (ledger.lines, ledger.count("utility"), ledger.lost) == (2, 2, 0)
        record(ledger, 2, b"third")
    assert [json.loads(line)["index"] for line in (tmp_path / "ledger.jsonl").read_text().splitlines()] == [0, 1, 2]
    assert (tmp_path / "answers.bin").read_bytes() == b"firstsecondthird"


def test_what_was_sent_and_not_answered_is_lost_and_not_asked_again(tmp_path: Path) -> None:
    dead = Ledger(tmp_path)
    record(dead, 0, b"first")
    dead.asking("utility", [1, 2], [DIGEST, DIGEST])
    killed(dead)
    with Ledger(tmp_path) as ledger:
        entries = [ledger.final("utility", place, DIGEST) for place in (1, 2)]
        assert [(entry and entry.status, entry and entry.kind) for entry in entries] == [(LOST, "lost")] * 2
        assert ledger.lost == 2
    with Ledger(tmp_path) as ledger:
        assert (ledger.lines, ledger.lost) == (3, 2)


def test_a_throttled_picture_is_asked_again_and_is_not_lost(tmp_path: Path) -> None:
    dead = Ledger(tmp_path)
    record(dead, 0, b"slow down", kind="throttled", final=False)
    killed(dead)
    dead = Ledger(tmp_path)
    assert dead.final("utility", 0, DIGEST) is None
    assert dead.lost == 0
    dead.asking("utility", [0], [DIGEST])  # the second try
    killed(dead)
    with Ledger(tmp_path) as ledger:
        assert ledger.lost == 1


def test_a_line_and_an_answer_that_were_cut_off_are_dropped(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        record(ledger, 0, b"first")
    with (tmp_path / "ledger.jsonl").open("ab") as file:
        file.write(b'{"index": 1, "pha')
    with (tmp_path / "answers.bin").open("ab") as file:
        file.write(b"half an ans")
    with Ledger(tmp_path) as ledger:
        record(ledger, 1, b"second")
        assert [ledger.answer(entry) for entry in ledger.entries()] == [b"first", b"second"]


def test_another_campaign_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        record(ledger, 0, b"first")
        with pytest.raises(LedgerError, match=r"line 1: expected the picture .* it is the ledger of another campaign"):
            ledger.final("utility", 0, OTHER)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("answers.bin", b"first", b"fir", "answers are missing"),
        ("ledger.jsonl", b'"index":0', b'"index":7', "line 1: expected index 0, got 7"),
        ("ledger.jsonl", b'"phase"', b'"fase"', "line 1: not a line of a ledger"),
    ],
)
def test_damage_is_said(tmp_path: Path, file: str, old: bytes, new: bytes, said: str) -> None:
    with Ledger(tmp_path) as ledger:
        record(ledger, 0, b"first")
    path = tmp_path / file
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(LedgerError, match=said):
        Ledger(tmp_path)


def test_a_changed_answer_is_not_read(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        record(ledger, 0, b"first")
    (tmp_path / "answers.bin").write_bytes(b"firsT")
    with Ledger(tmp_path) as ledger:
        entry = ledger.final("utility", 0, DIGEST)
        assert entry is not None
        with pytest.raises(LedgerError, match="is not the one it was"):
            ledger.answer(entry)
