"""Which answers to the golden image are right, and what is said of those that are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.archive import Archive
from deploy.readiness import judge

SOFT = Archive(
    path=Path("/store/a.mar"),
    name="a",
    workers=1,
    threads=1,
    key_env=None,
    exact=True,
    image=b"",
    accepted=((0.1, 0.7, 0.2), (0.1, 0.3, 0.6)),
)
INEXACT = replace(SOFT, exact=False)


def answer(label: object, probabilities: object = None) -> bytes:
    prediction = {"label": label} | ({} if probabilities is None else {"probabilities": probabilities})
    return json.dumps({"predictions": [prediction]}).encode()


@pytest.mark.parametrize(
    ("archive", "body"),
    [
        (SOFT, answer(1, [0.1, 0.7, 0.2])),
        (SOFT, answer(2, [0.1009, 0.2992, 0.6])),
        (INEXACT, answer(2)),
        (INEXACT, answer(1, [0.1, 0.7, 0.2])),
        (INEXACT, answer(1, [0.0, 0.7, 0.0])),
    ],
)
def test_right_answers(archive: Archive, body: bytes) -> None:
    assert judge(archive, 200, body) is None


def test_a_refusal_for_a_limit_is_not_wrong() -> None:
    assert judge(SOFT, 429, b'{"error": {"code": "rate_limited", "message": "...", "row": null}}') is None


@pytest.mark.parametrize(
    ("archive", "status", "body", "reason"),
    [
        (INEXACT, 200, answer(0), "expected label 1 or 2, got 0"),
        (INEXACT, 200, answer("1"), "expected label 1 or 2, got '1'"),
        # Each row belongs to one member: its label with another's probabilities is wrong.
        (SOFT, 200, answer(2, [0.1, 0.7, 0.2]), "expected probabilities within 0.001"),
        (SOFT, 200, answer(1, [0.102, 0.698, 0.2]), "expected probabilities within 0.001"),
        (SOFT, 200, answer(1, [0.1, 0.7]), "expected probabilities within 0.001"),
        (SOFT, 200, answer(1, [0.1, None, 0.2]), "expected probabilities within 0.001"),
        (SOFT, 200, answer(1, [0.1, float("nan"), 0.2]), "expected probabilities within 0.001"),
        (SOFT, 200, answer(1), "expected probabilities within 0.001"),
        (SOFT, 503, b'{"code": 503}', "expected status 200, got 503"),
        (SOFT, 200, b'{"predictions": []}', "expected a prediction with a label"),
        (SOFT, 200, b'{"predictions": [{"error": {"code": "nan"}}]}', "expected a prediction with a label"),
        (SOFT, 200, b"[1]", "expected a prediction with a label"),
        (SOFT, 200, b"\xff", "expected a prediction with a label"),
    ],
)
def test_wrong_answers_say_why(archive: Archive, status: int, body: bytes, reason: str) -> None:
    verdict = judge(archive, status, body)
    assert verdict is not None
    assert reason in verdict
