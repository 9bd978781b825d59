"""The command's words, and what an owner publishes before there is a suspect."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import numpy as np
import pytest

from assurance.ownership import commitment
from assurance.ownership.__main__ import Try, verdict
from assurance.ownership.suspects import SuspectError, _rows, opened
from defenses.mark import Mark
from evaluation.marks.evidence import Evidence
from tests.conftest import RECIPE
from tests.e2e.conftest import run


def tried(account: str, p: float, tries: int) -> Try:
    return Try(account, "00", False, Evidence(z=0.0, p=p, e=1.0, cells=20, images=100), min(1.0, p * tries))


def test_an_account_is_named_only_below_the_stated_bound() -> None:
    assert verdict([tried("a", 0.004, 2), tried("b", 0.5, 2)], 0.01).startswith(
        "learnt from answers to a (p times 2 tries 0.008)"
    )
    assert verdict([tried("a", 0.006, 2), tried("b", 0.5, 2)], 0.01) == (
        "not enough evidence: 2 tries, least p times tries 0.012, stated bound 0.01"
    )


def test_two_accounts_are_both_named() -> None:
    said = verdict([tried("a", 1e-6, 3), tried("b", 1e-4, 3), tried("c", 0.9, 3)], 0.01)
    assert "a (p times 3 tries 3e-06), b (p times 3 tries 0.0003);" in said


def test_a_commitment_binds_the_key_and_tells_nothing_of_it(tmp_path: Path) -> None:
    key = bytes(range(32))
    (tmp_path / "key").write_text(key.hex())
    (tmp_path / "key").chmod(0o600)
    out = tmp_path / "commitment.json"
    words = (RECIPE, "marked", "--keys", tmp_path / "key", "--accounts", "alice", "--output", out)
    done = run("assurance.ownership.commitment", *words)
    assert done.returncode == 0, done.stderr
    assert (
        f'commitments = ["{hashlib.sha256(hmac.digest(key, b"torchwarden/mark/1", "sha256")).hexdigest()}"]'
        in done.stdout
    )
    stated = json.loads(out.read_text())
    secret = hmac.digest(key, b"torchwarden/mark/1", "sha256")
    account = hmac.digest(secret, b"account/alice", "sha256")
    assert stated["keys"] == [
        {
            "commitment": hashlib.sha256(secret).hexdigest(),
            "accounts": {"alice": hashlib.sha256(account).hexdigest()},
        }
    ]
    assert stated["mark"] == {"strength": 0.1, "parts": 1, "grid": 4, "width": 64}
    assert "l(y) = log(min(y, 0.02) + 0.0001)" in stated["statistic"]
    text = out.read_text()
    assert not any(each.hex() in text for each in (key, secret, account))
    refused = run("assurance.ownership.commitment", RECIPE, "undefended", *words[2:])
    assert refused.returncode == 1
    assert "expected [policies.undefended] with a mark, found none" in refused.stderr


def test_accounts_are_names_or_a_file_of_them(tmp_path: Path) -> None:
    (tmp_path / "accounts").write_text("alice\nbob\nalice\n")
    assert commitment.names([str(tmp_path / "accounts")]) == ["alice", "bob"]
    assert commitment.names(["alice", "bob"]) == ["alice", "bob"]
    with pytest.raises(ValueError, match="accounts: expected one or more, got none"):
        commitment.names([])


def test_what_is_published_names_the_table() -> None:
    assert commitment.stated(Mark(0.02), [bytes(32)], ["a"])["mark"] == {
        "strength": 0.02,
        "parts": 2,
        "grid": 4,
        "width": 64,
    }


@pytest.mark.parametrize(
    ("name", "error"),
    [("clone.pt", "expected a file that ends in .onnx, or a URL"), ("/nowhere/clone.onnx", "no such file")],
)
def test_a_suspect_that_cannot_be_opened_is_an_error(name: str, error: str) -> None:
    with pytest.raises(SuspectError, match=error):
        opened(name, classes=10)


def test_a_suspect_s_rows_are_read_as_probabilities_logits_or_labels() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1]], np.float32)
    assert _rows(probabilities, 3, "s") == pytest.approx(probabilities)
    assert _rows(np.log(probabilities), 3, "s") == pytest.approx(probabilities)
    assert _rows(np.array([2]), 3, "s").tolist() == [[0, 0, 1]]
    with pytest.raises(SuspectError, match=r"s: expected finite rows of 4 classes, got shape \(1, 3\)"):
        _rows(probabilities, 4, "s")
