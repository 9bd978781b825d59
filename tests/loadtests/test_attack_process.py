"""The attack in its own process: its channel, and a whole conversation with it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import recipes
from attacks import registry
from attacks.clone import Cloning
from attacks.oracle import Answers, Ledger
from attacks.script import ScriptedThief
from attacks.service import Service
from attacks.thief import steal
from attacks.transfer import TransferSet
from evaluation.tables import parameters
from loadtests import attack_process
from loadtests.attack import ADAPTIVE
from loadtests.attack_process import Channel, Gone
from tests.attacks import victims
from tests.attacks.test_script import asking
from tests.conftest import RECIPE

ROOT = Path(__file__).resolve().parent.parent.parent
PAUSE_S = 180.0


def answers(images: torch.Tensor) -> Answers:
    """Ten classes, by the brightness of two spots."""
    seen = images[:, 0, ::9, ::9].flatten(1)[:, :10]
    answer = (5 * seen).softmax(dim=1)
    return Answers(answer.argmax(dim=1), answer)


class Conversation:
    """An attack process on the smoke recipe's Knockoff, and what it asks."""

    def __init__(
        self, outcome: Path, *, labels: str = "both", attack: str = "knockoff", rows: int = 70, adaptive: str = ""
    ) -> None:
        ours, its = socket.socketpair()
        ours.settimeout(PAUSE_S)
        words = attack_process.command(
            recipe=str(RECIPE),
            attack=attack,
            labels=labels,
            seed=3,
            budgets=[100, 150],
            rows=rows,
            outcome=outcome,
            data=None,
            socket_number=its.fileno(),
            adaptive=adaptive,
        )
        self.process = subprocess.Popen(
            words, pass_fds=[its.fileno()], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE
        )
        its.close()
        self.channel = Channel(ours)
        self.asked: list[torch.Tensor] = []

    def hold(self) -> dict[str, object]:
        """Answer until the process says something else."""
        message, _ = self.channel.receive()
        if message["say"] == "ready":
            self.channel.send({"say": "go"})
        while True:
            message, arrays = (message, []) if message["say"] == "failed" else self.channel.receive()
            if message["say"] != "ask":
                return message
            self.asked.append(torch.from_numpy(arrays[0].copy()))
            answer = answers(self.asked[-1])
            assert answer.probabilities is not None
            arrays = answer.labels.numpy(), answer.probabilities.numpy()
            self.channel.send({"say": "answers", "what": ["labels", "probabilities"]}, *arrays)

    def end(self) -> int:
        self.channel.close()
        self.process.communicate(timeout=PAUSE_S)
        return self.process.returncode


@pytest.fixture
def ends() -> Iterator[list[Channel]]:
    pair = [Channel(end) for end in socket.socketpair()]
    yield pair
    for end in pair:
        end.close()


def test_arrays_go_through_the_channel_as_they_are(ends: list[Channel]) -> None:
    ours, its = ends
    sent = [np.arange(6, dtype=np.int64).reshape(2, 3), np.float32([[np.nan, 0.1]]), np.zeros((0, 4), np.float32)]
    ours.send({"say": "answers", "note": "ü"}, *sent)
    ours.send({"say": "done"})
    message, arrays = its.receive()
    assert message == {"say": "answers", "note": "ü"}
    for before, after in zip(sent, arrays, strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)
    assert its.receive() == ({"say": "done"}, [])


def test_a_closed_channel_is_an_end_and_not_an_answer(ends: list[Channel]) -> None:
    ours, its = ends
    its.close()
    with pytest.raises(Gone, match="the socket is closed"):
        ours.receive()
    with pytest.raises(Gone, match="the socket is closed"):
        ours.send({"say": "ask"}, np.zeros(1_000_000, np.float32))


@pytest.mark.parametrize("adaptive", ["", *ADAPTIVE])
def test_the_process_asks_what_the_attack_asks_in_process(tmp_path: Path, adaptive: str) -> None:
    talk = Conversation(tmp_path / "theft", adaptive=adaptive)
    try:
        assert talk.hold() == {"say": "done"}
    finally:
        code = talk.end()
    assert code == 0
    # 100 and 150 are where it stops for a look
    assert [len(images) for images in talk.asked] == [70, 30, 50]
    recipe = recipes.read(RECIPE)
    service, cloning = Service(1, 28, 10), recipe.section("clone", Cloning)
    thief = registry.attack("knockoff").prepare(parameters(recipe, "knockoff"), service, cloning=cloning, seed=3)
    if adaptive:
        thief = registry.form(adaptive).wrap(thief, service=service, cloning=cloning, seed=3)
    for _ in steal(thief, Ledger(answers, 150), rows=32):
        pass
    expected, got = thief.transfer_set(), TransferSet.load(tmp_path / "theft" / "transfer.npz")
    assert torch.equal(torch.cat(talk.asked), expected.images)
    assert torch.equal(got.images, expected.images)
    assert got.probabilities is not None
    assert expected.probabilities is not None
    assert torch.equal(got.probabilities, expected.probabilities)
    assert got.charged == 150


def test_an_attack_that_reads_labels_keeps_no_probabilities(tmp_path: Path) -> None:
    talk = Conversation(tmp_path / "theft", labels="hard")
    try:
        assert talk.hold() == {"say": "done"}
    finally:
        talk.end()
    assert TransferSet.load(tmp_path / "theft" / "transfer.npz").probabilities is None


def test_the_process_says_why_it_failed(tmp_path: Path) -> None:
    talk = Conversation(tmp_path / "theft", attack="crayon")
    try:
        answer = talk.hold()
    finally:
        code = talk.end()
    assert answer["say"] == "failed"
    assert "unknown attack 'crayon'" in json.dumps(answer)
    assert code == 1


def test_a_process_that_was_left_alone_ends_and_leaves_nothing(tmp_path: Path) -> None:
    talk = Conversation(tmp_path / "theft")
    message, _ = talk.channel.receive()
    assert message["say"] == "ready"
    talk.channel.send({"say": "go"})
    talk.channel.receive()
    assert talk.end() == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_what_a_script_asks_and_hears_does_not_depend_on_the_size_of_an_exchange(rows: int) -> None:
    def asked(rows: int) -> tuple[TransferSet, list[Answers]]:
        heard: list[Answers] = []
        thief = ScriptedThief(asking(10, 3, 8, heard=heard))
        # two stops, as an attack with a look in between has
        ledger = Ledger(victims.oracle, 12)
        list(steal(thief, ledger, rows=rows))
        ledger.budget = 19
        list(steal(thief, ledger, rows=rows))
        return thief.transfer_set(), heard

    (expected, loud), (got, heard) = asked(4), asked(rows)
    assert torch.equal(got.images, expected.images)
    assert got.charged == expected.charged == 19
    assert len(heard) == len(loud) == 2
    for one, other in zip(heard, loud, strict=True):
        assert torch.equal(one.labels, other.labels)
