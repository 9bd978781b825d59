"""Attacks: the files they write, whole or not at all, and what decides their names."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attacks import registry
from attacks.clone import Clone, Cloning
from attacks.in_distribution import InDistribution
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


def test_a_data_set_that_holds_fewer_images_than_the_budget_is_warned_of(theft: Theft) -> None:
    count = len(datasets.load("flower", "train", size=28, channels=1).stored)
    much = dataclasses.replace(theft, how=Knockoff("flower", budget=count + 1), budgets=(30, count + 1))
    warning = f"warning: knockoff: surrogate 'flower' has {count} images, the budget is {count + 1} queries"
    assert thefts.short_of_images(much) == warning
    assert thefts.short_of_images(dataclasses.replace(much, form="repeats-2")) is None, "asks each image twice"
    assert thefts.short_of_images(dataclasses.replace(much, budgets=(30, count))) is None
    whole = dataclasses.replace(much, attack="in-distribution", how=InDistribution("digits", budget=10**6))
    assert "in-distribution: dataset 'digits' has" in (thefts.short_of_images(whole) or "")


def test_what_was_asked_is_said_where_images_ran_out(theft: Theft, tmp_path: Path) -> None:
    """Sixty images and two budgets, from the archive to the terminal."""
    images = tmp_path / "images"
    for number in range(60):
        folder = images / "train" / f"class-{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (28, 28), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (images / "test").symlink_to(images / "train")
    name = f"imagefolder:{images}"
    short = dataclasses.replace(theft, how=Knockoff(name, budget=4000, rows=32), budgets=(30, 4000))
    said: list[str] = []
    folders = thefts.finish([short], tmp_path / "transfer", say=said.append, workers=1)
    assert said == [
        f"warning: knockoff: surrogate '{name}' has 60 images, the budget is 4000 queries",
        "[1/1] smoke-undefended: knockoff, seed 0: 60 of 4000 queries",
    ]
    plan = clones.plan(
        folders[short.name] / "transfer.npz",
        short.exam,
        dataclasses.replace(CLONING, recipes=("sgd",)),
        policy="undefended",
        attack="knockoff",
        adaptive=None,
        classes=10,
        budgets=(30, 4000),
        seeds=(0,),
        labels=("soft",),
    )
    said.clear()
    asked = [score.queries for _, score in clones.finish(list(plan), tmp_path / "cells", say=said.append, workers=1)]
    assert asked == [30, 60]
    assert [re.findall(r"budget (\d+), .*: (.* queries),", line) for line in said] == [
        [("4000", "60 of 4000 queries")],
        [("30", "30 queries")],
    ]


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
