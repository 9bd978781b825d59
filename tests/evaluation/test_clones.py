"""Cells: what decides a cell's name, and that a finished one is not trained again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from attacks import metrics
from attacks.clone import RECIPES, Cloning
from attacks.oracle import REFUSED
from evaluation import clones
from evaluation.clones import Cell, Exam
from tests.attacks import victims
from zoo.writing import Writing

CLONING = Cloning("conv3", epochs=3, options={"width": 1}, batch_size=32)


def exam(seed: int = 9) -> Exam:
    images = victims.images(60, seed=seed)
    served = victims.oracle(images).labels
    served[:6] = REFUSED
    return Exam(images, victims.oracle(images).labels, served)


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    victims.transfer_set(80).save(tmp_path / "transfer.npz")
    exam().save(tmp_path / "exam.npz")
    return Cell(
        policy="edm",
        attack="knockoff",
        adaptive=None,
        transfer=tmp_path / "transfer.npz",
        exam=tmp_path / "exam.npz",
        classes=victims.CLASSES,
        labels="soft",
        budget=60,
        recipe="adamw",
        seed=0,
        cloning=CLONING,
    )


def test_a_cell_is_trained_on_its_prefix_and_judged_on_the_exam(cell: Cell) -> None:
    score = clones.train(cell)
    assert (score.queries, score.rejected) == (60, 0)
    assert score.clone_accuracy == clones.train(cell).clone_accuracy
    # six of sixty rows were refused: nobody can agree with them
    assert score.agreement <= 0.9
    assert clones.train(dataclasses.replace(cell, budget=1000)).queries == 80


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": "hard"},
        {"budget": 59},
        {"recipe": "sgd"},
        {"seed": 1},
        {"classes": 5},
        {"variation": Writing(0.5)},
        {"cloning": dataclasses.replace(CLONING, epochs=4)},
        {"cloning": dataclasses.replace(CLONING, options={"width": 2})},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_whatever_decides_the_result_decides_the_key(cell: Cell, changes: dict[str, Any]) -> None:
    assert dataclasses.replace(cell, **changes).key != cell.key


def test_other_answers_or_another_exam_make_another_cell(cell: Cell, tmp_path: Path) -> None:
    victims.transfer_set(80, seed=1).save(tmp_path / "other.npz")
    exam(seed=10).save(tmp_path / "other-exam.npz")
    other = dataclasses.replace(cell, transfer=tmp_path / "other.npz")
    other_exam = dataclasses.replace(cell, exam=tmp_path / "other-exam.npz")
    assert len({cell.key, other.key, other_exam.key}) == 3


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_has_a_key(cell: Cell, recipe: str) -> None:
    assert (dataclasses.replace(cell, recipe=recipe).key == cell.key) == (recipe == cell.recipe)


def test_names_and_neighbouring_cells_do_not_decide_the_key(cell: Cell, tmp_path: Path) -> None:
    victims.transfer_set(80).save(tmp_path / "same.npz")
    moved = dataclasses.replace(cell, transfer=tmp_path / "same.npz", policy="renamed")
    more = dataclasses.replace(cell, cloning=dataclasses.replace(CLONING, seeds=(0, 1, 2, 3)))
    assert moved.key == more.key == cell.key


@pytest.mark.parametrize(("form", "named"), [(None, "masked"), ("averaging", "averaging, masked")])
def test_a_recipe_that_stands_apart_is_an_attacker_of_its_own(cell: Cell, form: str | None, named: str) -> None:
    planned = clones.plan(
        cell.transfer,
        cell.exam,
        dataclasses.replace(CLONING, recipes=("adamw",), apart=("masked",)),
        policy="edm",
        attack="knockoff",
        adaptive=form,
        classes=victims.CLASSES,
        budgets=[60],
        seeds=[0],
    )
    found = [(each.labels, each.recipe, each.adaptive) for each in planned]
    assert found == [("soft", "adamw", form), ("soft", "masked", named), ("hard", "adamw", form)]


def test_a_finished_cell_is_not_trained_again(cell: Cell, tmp_path: Path) -> None:
    planned = [cell, dataclasses.replace(cell, labels="hard")]
    said: list[str] = []
    first = list(clones.finish(planned, tmp_path / "cells", say=said.append, workers=1))
    assert [each for each, _ in first] == planned
    assert len(said) == 2
    assert said[0].startswith("[1/2] edm knockoff, budget 60, soft labels, adamw, seed 0: 60 queries, ")
    assert first[0][1].clone_accuracy == clones.train(cell).clone_accuracy

    # a file that only a reader of files could know
    path = tmp_path / "cells" / f"{cell.key}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "clone_accuracy": 0.125}))
    said.clear()
    again = list(clones.finish(planned, tmp_path / "cells", say=said.append, workers=1))
    assert again[0][1].clone_accuracy == 0.125
    assert again[1] == first[1]
    assert said == ["2 of 2 clones were trained by an earlier run"]


def test_a_row_reports_what_its_own_attacker_has_paid(cell: Cell, tmp_path: Path) -> None:
    """Where another policy returns the same for nothing, both share a trained cell but not the price."""
    free = victims.transfer_set(80)
    dataclasses.replace(free, work=torch.full((80,), 2.5).double()).save(tmp_path / "paid.npz")
    paid = dataclasses.replace(cell, transfer=tmp_path / "paid.npz")
    assert paid.key == cell.key
    score = clones.Score(0.5, 0.5, 0.5, queries=60, rejected=0, seconds=1.0)
    rows = [clones.row("digits", each, score, exam(), no_query_accuracy=0.1) for each in (cell, paid)]
    assert [row.pow_hashes for row in rows] == [0, 150]
    assert dataclasses.replace(rows[1], pow_hashes=0) == rows[0]


def test_a_row_reports_how_often_its_own_attacker_was_refused(cell: Cell, tmp_path: Path) -> None:
    """Where one policy returns another's responses after more queries, both share a cell but not the refusals."""
    known = victims.transfer_set(60)
    dataclasses.replace(known, places=torch.arange(60) + 20, charged=80).save(tmp_path / "refused.npz")
    refused = dataclasses.replace(cell, transfer=tmp_path / "refused.npz", budget=80)
    known.save(cell.transfer)
    score = clones.train(cell)
    assert refused.key == cell.key
    rows = [clones.row("digits", each, score, exam(), no_query_accuracy=0.1) for each in (cell, refused)]
    assert [(row.queries, row.rejected) for row in rows] == [(60, 0), (80, 20)]


def test_a_cell_on_varied_images_is_trained_as_long_as_its_budget_says(cell: Cell) -> None:
    varied = dataclasses.replace(cell, labels="hard", variation=Writing(0.3), budget=800)
    assert str(varied) == "edm knockoff, budget 800, hard labels, adamw, augmented, seed 0"
    shorter = dataclasses.replace(varied, budget=80)
    assert varied.key != shorter.key
    counting = victims.Counting()
    clones.train(dataclasses.replace(varied, variation=counting))
    assert counting.seen == varied.cloning.epochs * 800


def test_an_exam_survives_its_file(tmp_path: Path) -> None:
    exam().save(tmp_path / "exam.npz")
    loaded = Exam.load(tmp_path / "exam.npz")
    for name, tensor in vars(exam()).items():
        assert torch.equal(getattr(loaded, name), tensor)
    assert metrics.accuracy(loaded.served, loaded.truth) == 0.9
