"""Attacks: the files they write, whole or not at all, and what decides their names."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from attacks import registry
from attacks.clone import Clone, Cloning
from attacks.knockoff import Knockoff, KnockoffThief
from attacks.oracle import Answers, Ledger
from attacks.script import Script, ScriptedThief
from attacks.service import Service
from attacks.transfer import Collector, TransferSet
from evaluation import clones, thefts
from evaluation.thefts import Snapshot, Theft, carry_out
from tests.attacks import victims
from tests.conftest import Smoke
from zoo import datasets

CLONING = Cloning("lenet5", epochs=1)
QUESTIONS = victims.images(12, seed=7)


def growing(folder: Path, *budgets: int, refuse: bool = False) -> list[int]:
    """An attack whose own clone answers everything with the number of queries it has learnt from, in steps of 10."""
    learnt = 0

    def script() -> Script:
        nonlocal learnt
        while True:
            yield victims.images(10, seed=learnt)
            learnt += 10

    class Constant(torch.nn.Module):
        def __init__(self, label: int) -> None:
            super().__init__()
            self.label = torch.nn.Parameter(torch.tensor(float(label)))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(self.label.long().expand(len(images)), 100)

    def clone() -> Clone:
        return Clone(Constant(learnt), held_out=learnt / 100)

    own = Collector()
    own.add(victims.images(4, seed=99), victims.label_oracle(victims.images(4, seed=99)))

    def oracle(images: torch.Tensor) -> Answers:
        if refuse:
            raise RuntimeError("the service went away")
        return victims.oracle(images)

    seen: list[int] = []
    thief = ScriptedThief(script(), clone=clone, own=own.transfer_set(), keep=20)
    ledger = Ledger(oracle, max(budgets))
    carry_out(thief, ledger, rows=4, budgets=budgets, questions=QUESTIONS, folder=folder, progress=seen.append)
    return seen


def test_a_clone_that_grows_is_judged_at_each_budget(tmp_path: Path) -> None:
    seen = growing(tmp_path / "theft", 50, 20)
    assert seen[-1] == 50
    assert 20 in seen
    for budget in (20, 50):
        snapshot = Snapshot.load(tmp_path / "theft" / f"clone-{budget}.npz")
        assert snapshot.labels.tolist() == [budget] * 12
        assert (snapshot.held_out, snapshot.queries, snapshot.rejected) == (budget / 100, budget, 0)
    assert TransferSet.load(tmp_path / "theft" / "transfer.npz").charged == 50
    assert len(TransferSet.load(tmp_path / "theft" / "own.npz")) == 4


def test_an_attack_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the service went away"):
        growing(tmp_path / "theft", 20, refuse=True)
    assert not list(tmp_path.iterdir())


def test_an_attacker_that_ends_before_its_budget_has_what_it_had(tmp_path: Path) -> None:
    thief = KnockoffThief(victims.images(30, seed=0), seed=1)
    folder = tmp_path / "theft"
    carry_out(thief, Ledger(victims.oracle, 90), rows=8, budgets=(20, 90), questions=QUESTIONS, folder=folder)
    transfer = TransferSet.load(folder / "transfer.npz")
    assert (len(transfer), transfer.charged) == (30, 30)
    assert not list(folder.glob("clone-*"))


@pytest.fixture
def theft(smoke: Smoke, tmp_path: Path) -> Theft:
    test = datasets.load("digits", "test")
    assert test.labels is not None
    clones.Exam(test.pixels, test.labels, test.labels).save(tmp_path / "exam.npz")
    return Theft(
        archive=smoke.archive("undefended"),
        identity="undefended",
        service=Service(1, 28, 10),
        attack="knockoff",
        form=None,
        labels="both",
        seed=0,
        how=Knockoff("flower", budget=70, rows=32),
        cloning=CLONING,
        budgets=(30, 70),
        exam=tmp_path / "exam.npz",
        root=None,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": "edm"},
        {"form": "averaging"},
        {"labels": "hard"},
        {"seed": 1},
        {"how": Knockoff("china", budget=70)},
        {"service": Service(1, 32, 10)},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_whatever_decides_the_attack_decides_its_name(theft: Theft, changes: dict[str, Any]) -> None:
    assert dataclasses.replace(theft, **changes).name != theft.name


def test_what_an_attack_does_not_use_does_not_decide_its_name(theft: Theft, tmp_path: Path) -> None:
    assert not theft.learns
    for changes in (
        {"cloning": dataclasses.replace(CLONING, epochs=2)},
        {"budgets": (70,)},
        {"archive": tmp_path},
        {"exam": tmp_path},
    ):
        assert dataclasses.replace(theft, **changes).name == theft.name  # type: ignore[arg-type]


def test_attacks_of_one_name_are_carried_out_once(theft: Theft, tmp_path: Path) -> None:
    said: list[str] = []
    hard = dataclasses.replace(theft, labels="hard")
    folders = thefts.finish([theft, hard, theft], tmp_path / "thefts", say=said.append, workers=1)
    assert len(folders) == 2
    assert sorted(said) == [
        "[1/2] smoke-undefended: knockoff, seed 0: 70 queries",
        "[2/2] smoke-undefended: knockoff, hard labels, seed 0: 70 queries",
    ]
    both, label_only = (TransferSet.load(folders[each.name] / "transfer.npz") for each in (theft, hard))
    assert both.probabilities is not None
    assert label_only.probabilities is None
    assert torch.equal(both.labels, label_only.labels)

    said.clear()
    thefts.finish([theft, hard], tmp_path / "thefts", say=said.append, workers=1)
    assert said == ["2 of 2 attacks were carried out by an earlier run"]


def test_a_form_wraps_the_attacker(theft: Theft) -> None:
    wrapped = dataclasses.replace(theft, form="averaging").thief()
    assert type(wrapped) is registry.FORMS["averaging"].wrap
    images = wrapped.propose(20)
    assert images is not None
    assert len(images) == 20
