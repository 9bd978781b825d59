"""A ledger's lines, and the proof of one of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attest.evidence import proofs
from attest.evidence.errors import EvidenceError
from attest.measured import LEDGER
from tests.attest import synthetic


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    synthetic.ledger(tmp_path, 9)
    return tmp_path / LEDGER


def test_the_facts_of_a_ledger(ledger: Path) -> None:
    found = proofs.root_of(proofs.lines(ledger))
    assert (found.lines, found.sha256) == (9, hashlib.sha256(ledger.read_bytes()).hexdigest())


def test_an_empty_ledger_has_the_empty_root(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_bytes(b"")
    assert proofs.root_of(proofs.lines(tmp_path / LEDGER)).root == hashlib.sha256().hexdigest()


def test_every_query_is_shown_alone(ledger: Path) -> None:
    found = proofs.lines(ledger)
    stated = proofs.root_of(found)
    for index in range(9):
        proof = json.loads(json.dumps(proofs.prove(found, index)))
        shown = proofs.proven(proof, stated)
        assert shown == json.loads(found[index])
        assert all(other.decode() not in json.dumps(proof["path"]) for other in found)
        assert len(proof["path"]) == (1 if index == 8 else 4)
    with pytest.raises(EvidenceError, match="line 9: expected one of 0 to 8"):
        proofs.prove(found, 9)


CHANGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "one is missing": (lambda lines: lines[:3] + lines[4:], r"line 4: expected index 3, got 4: one is missing"),
    "the first is missing": (lambda lines: lines[1:], r"line 1: expected index 0, got 1"),
    "one is doubled": (lambda lines: lines[:3] + lines[2:], r"line 4: expected index 3, got 2"),
    "two are exchanged": (lambda lines: [lines[1], lines[0], *lines[2:]], r"line 1: expected index 0, got 1"),
    "one is no object": (lambda lines: [b"[]", *lines[1:]], r"line 1: expected a JSON object with `index`"),
    "true is no index": (
        lambda lines: [lines[0], b'{"index": true}', *lines[2:]],
        r"line 2: expected index 1, got True",
    ),
    "an empty line": (lambda lines: [*lines, b""], r"line 10: not JSON"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_ledger_with_a_hole_is_refused(ledger: Path, name: str) -> None:
    change, message = CHANGES[name]
    changed = change(ledger.read_bytes().splitlines())
    ledger.write_bytes(b"".join(line + b"\n" for line in changed))
    with pytest.raises(EvidenceError, match=message):
        proofs.lines(ledger)


def test_a_line_that_is_cut_off_is_refused(ledger: Path) -> None:
    ledger.write_bytes(ledger.read_bytes()[:-1])
    with pytest.raises(EvidenceError, match="the last line is cut off"):
        proofs.lines(ledger)
    with pytest.raises(EvidenceError, match="No such file"):
        proofs.lines(ledger.with_name("none"))


def changed(proof: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**proof, **fields}


def test_a_changed_proof_is_refused(ledger: Path, tmp_path: Path) -> None:
    found = proofs.lines(ledger)
    stated, proof = proofs.root_of(found), proofs.prove(found, 3)
    other = json.loads(found[3]) | {"status": 403}
    wrong = [
        changed(proof, line=json.dumps(other)),
        changed(proof, line=found[4].decode()),
        changed(proof, index=4),
        changed(proof, index=-1),
        changed(proof, index=True),
        changed(proof, index="3"),
        changed(proof, lines=8),
        changed(proof, format=2),
        changed(proof, path=proof["path"][:-1]),
        changed(proof, path=[*proof["path"], "00" * 32]),
        changed(proof, path=[each.upper() for each in proof["path"]]),
        changed(proof, path=None),
        changed(proof, more=1),
        {},
    ]
    for each in wrong:
        with pytest.raises(EvidenceError, match="proof: "):
            proofs.proven(each, stated)
    (tmp_path / "other").mkdir()
    synthetic.ledger(tmp_path / "other", 10)
    longer = proofs.root_of(proofs.lines(tmp_path / "other" / LEDGER))
    with pytest.raises(EvidenceError, match="of a ledger of 9 lines, the evidence is of 10"):
        proofs.proven(proof, longer)
