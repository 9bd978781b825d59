"""A mark through the whole handler, behind every defense that it may stand with: labels stay, l1 is at most twice the
strength, accounts differ, and every row that was answered is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handlers import wire
from tests.defenses.policies import KEYED, routed, section
from tests.handlers.archives import ENVIRON, gate, write_archive
from tests.handlers.worker import SHAPE, Worker, images, request

STRENGTH = 0.02
# of two classes that may be keyed, several accounts have the same one
ACCOUNTS = ("alice", "bob", "carol", "dave")
MARK = {"strength": STRENGTH, "parts": 4, "grid": 2}
KEY_ENV = {"key_env": "TORCHWARDEN_KEY"}
MEMBERS = [f"misleader-{number}" for number in range(3)]

# what serves, as docs/policies.md has it, without the mark
COMPOSED: dict[str, dict[str, Any]] = {
    "undefended": section(**KEY_ENV),
    "EDM": routed(),
    "MISLEADER": section(members=MEMBERS, average=True, **KEY_ENV),
    "MISLEADER, routed": routed(members=MEMBERS),
    "MeCo": section(perturb=KEYED, **KEY_ENV),
    "SAME, observes": section(gate=gate("observe"), **KEY_ENV),
    "SAME, rejects": section(gate=gate("reject"), **KEY_ENV),
    "EDM behind SAME": routed(gate=gate("reject")),
    "EDM in int8": routed(precision="int8"),
    "all of them": routed(perturb=KEYED, gate=gate("reject"), precision="int8"),
}


@pytest.fixture(params=COMPOSED)
def workers(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Worker, Worker]:
    """The policy without a mark, and with one."""
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    served = COMPOSED[request.param]
    plain, marked = (
        write_archive(tmp_path / name, {**served, "mark": mark}) for name, mark in (("plain", None), ("marked", MARK))
    )
    return Worker(plain), Worker(marked)


def asked(worker: Worker, *accounts: str) -> list[wire.Decoded]:
    """What each account is answered about the same rows, in one batch."""
    # the last are nearly gray, which the gate takes for ordinary; the first it does not
    gray = np.full((8, *SHAPE), 0.5, np.float32) + (images(8, 3) - 0.5) / 8
    headers, body = request(np.concatenate([images(8), gray]))
    replies = worker.ask(*(({**headers, wire.PRINCIPAL: account}, body) for account in accounts))
    assert [status for status, _ in replies] == [200] * len(accounts)
    return [wire.decode_answers(json.dumps(reply).encode()) for _, reply in replies]


def shown(answers: wire.Decoded) -> np.ndarray:
    """The probabilities of the rows that were answered."""
    assert answers.probabilities is not None
    return np.delete(answers.probabilities, list(answers.errors), axis=0)


def test_a_mark_composes(workers: tuple[Worker, Worker]) -> None:
    plain, marked = (asked(worker, *ACCOUNTS) for worker in workers)
    for before, after in zip(plain, marked, strict=True):
        assert after.errors == before.errors, "the gate sees no mark"
        assert after.labels.tolist() == before.labels.tolist()
        l1 = np.abs(shown(after) - shown(before)).sum(axis=1)
        assert len(l1) >= 8
        assert l1.max() <= 2 * STRENGTH + 1e-6
        assert l1.max() > STRENGTH
    alice, *others = map(shown, marked)
    assert max(np.abs(other - alice).max() for other in others) > STRENGTH / 2
    for first, again in zip(marked, asked(workers[1], *ACCOUNTS), strict=True):
        np.testing.assert_array_equal(shown(first), shown(again))


def test_rows_that_are_marked_are_counted(workers: tuple[Worker, Worker]) -> None:
    plain, marked = workers
    asked(plain, "alice")
    asked(marked, "alice", "bob")
    assert plain.context.counts["marked_rows_total"].counted == {}
    counted = marked.context.counts["marked_rows_total"].counted
    # those too that the gate keeps from the client
    assert sum(counted.values()) == 32
    assert counted["whole"] > 16


@pytest.mark.parametrize("name", [name for name, served in COMPOSED.items() if "gate" in served])
def test_the_gates_of_these_tests_see_suspects(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in ENVIRON.items():
        monkeypatch.setenv(variable, value)
    worker = Worker(write_archive(tmp_path / "gated", {**COMPOSED[name], "mark": MARK}))
    (answers,) = asked(worker, "alice")
    refuses = COMPOSED[name]["gate"]["action"] == "reject"
    assert list(answers.errors) == (list(range(8)) if refuses else [])
