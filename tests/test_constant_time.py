"""Secrets are compared in a time that does not show how much of them was right: by hmac.compare_digest, never by ==."""

from __future__ import annotations

import ast
import base64
import hmac
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from defenses.work import SolutionInvalid
from tests.defenses.test_work import DIGEST, admit, changed, solved, toll

CHECKOUT = Path(__file__).resolve().parent.parent
ROOMS = ("handlers", "defenses", "deploy")
SECRET = re.compile(r"digest|signature|token|secret|password|hmac|(?<![a-z])mac(?![a-z])|\bkey\b", re.IGNORECASE)
# what looks like it and is none: why a client may learn how long the comparison took
HARMLESS = {
    "stated.data['request'] != digest.hex()": "the digest is the client's own, and the challenge contains it",
    "kind == NO_TOKEN": "the kind of an error that TorchServe answered, in place of a token",
    "digest != change.sha256": "of a class of TorchServe, which anybody can download",
    "Path(record.secrets) == options.secrets.absolute()": "folders, of an operator's",
}


def comparisons(text: str) -> list[str]:
    """Every == and != of a Python file one side of which is called a secret, or a thing that depends on one."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Compare):
            continue
        for operator, (left, right) in zip(node.ops, pairwise([node.left, *node.comparators]), strict=True):
            if not isinstance(operator, (ast.Eq, ast.NotEq)):
                continue
            named = [ast.unparse(side) for side in (left, right) if not isinstance(side, ast.Constant)]
            if any(SECRET.search(name) for name in named):
                sign = "==" if isinstance(operator, ast.Eq) else "!="
                found.append(f"{ast.unparse(left)} {sign} {ast.unparse(right)}")
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_no_secret_is_compared_by_its_first_difference(room: str) -> None:
    files = sorted((CHECKOUT / room).rglob("*.py"))
    assert len(files) > 5
    found = {f"{path.relative_to(CHECKOUT)}: {each}" for path in files for each in comparisons(path.read_text("utf-8"))}
    wrong = {each for each in found if each.partition(": ")[2] not in HARMLESS}
    assert not wrong, f"use hmac.compare_digest, or say in HARMLESS why it may leak: {wrong}"


def test_what_is_said_to_be_harmless_is_there() -> None:
    files = [path for room in ROOMS for path in (CHECKOUT / room).rglob("*.py")]
    found = {each for path in files for each in comparisons(path.read_text("utf-8"))}
    assert set(HARMLESS) <= found


def test_the_scan_can_fail() -> None:
    assert comparisons("right = given.signature == signed(key) and 0 < size") == ["given.signature == signed(key)"]
    assert comparisons("if token != self._token:\n    raise Wrong\n") == ["token != self._token"]
    assert comparisons("hmac.compare_digest(a, b)\nkind == 'token'\n") == []


def test_signature_and_solution_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which the library does, for us: a version that did not would fail here."""
    gate, compare = toll(), hmac.compare_digest
    compared: list[str] = []

    def noted(left: Any, right: Any) -> bool:
        compared.append(left if isinstance(left, str) else bytes(left).decode())
        return compare(left, right)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    payload = solved(gate.challenge(DIGEST, 2))
    compared.clear()
    admit(gate, payload, DIGEST)
    challenge = json.loads(base64.b64decode(payload))["challenge"]
    assert compared == [challenge["signature"], challenge["parameters"]["keySignature"]]
    with pytest.raises(SolutionInvalid):
        admit(gate, changed(payload, lambda sent: sent["challenge"].update(signature="00" * 32)), DIGEST)
    assert compared[2:] == ["00" * 32]
