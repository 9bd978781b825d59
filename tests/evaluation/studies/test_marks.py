"""The study of marks on synthetic archives: clones of one epoch, kept, and tried against accounts and keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import recipes
from evaluation.marks import rivals, thieves
from evaluation.studies import marks
from evaluation.studies.runner import carry_out
from evaluation.studies.study import Task
from report.schema import read
from tests.evaluation import gated


def few(asked: Path, folder: Path, seed: int, epochs: int) -> Iterator[marks.Job]:
    for thief in ("soft", "labels", "served as labels", "served in int8", "fine-tuned on 150"):
        yield marks.Job(asked, folder, "linear", marks.DEFAULT, thief, seed, epochs)
    yield marks.Job(asked, folder, "none", marks.DEFAULT, marks.HONEST, 10, epochs)


@pytest.fixture
def task(tmp_path: Path, key_file: Path) -> Task:
    recipe = recipes.read(gated.recipe(tmp_path))
    gated.archive(tmp_path, "undefended")
    return Task(recipe, ("undefended",), tmp_path / "run", tmp_path)


def test_clones_are_trained_once_and_tried(
    task: Task, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(marks, "plan", few)
    monkeypatch.setattr(marks, "KEYS", 3)
    carry_out(marks.STUDY, task, seeds=1, epochs=1, workers=1)
    assert "[1/1] linear" in capsys.readouterr().out
    report = read(task.folder / "report.json")
    assert [row.thief for row in report.marks] == [
        "soft",
        "labels",
        "served as labels",
        "served in int8",
        "fine-tuned on 150",
    ]
    soft = report.marks[0]
    assert 0 < soft.l1 <= 0.04 + 1e-6
    assert soft.images == len(task.test.pixels)
    assert 0 < soft.p <= 1
    nulls = {row.kind: row for row in report.mark_nulls}
    assert (nulls["clones under another key"].models, nulls["clones under another key"].tries) == (5, 15)
    assert nulls["clones of another account"].tries == 5 * 98
    assert (nulls["the owner's own model"].least, nulls["the owner's own model"].accused) == (1.0, 0)
    before = {path: path.stat().st_mtime_ns for path in (task.folder / "marks").iterdir()}
    carry_out(marks.STUDY, task, seeds=1, epochs=1, workers=1)
    assert {path: path.stat().st_mtime_ns for path in (task.folder / "marks").iterdir()} == before


def loot() -> thieves.Loot:
    answers = torch.tensor([[0.9, 0.08, 0.02], [0.2, 0.3, 0.5]])
    other = torch.tensor([[0.9, 0.02, 0.08], [0.25, 0.25, 0.5]])
    images = torch.zeros(2, 1, 4, 4)
    return thieves.Loot(images, answers, other, answers.flip(0), images, torch.tensor([0, 1]), 0.04)


def test_what_thieves_make_of_their_answers() -> None:
    def taught(name: str) -> list[list[float]]:
        return thieves.LESSONS[name].targets(loot())[1].tolist()

    assert taught("mark taken off")[0] == pytest.approx([0.9 / 0.96, 0.04 / 0.96, 0.02 / 0.96])
    assert taught("two accounts compared")[0] == pytest.approx([0.9 / 0.94, 0.02 / 0.94, 0.02 / 0.94])
    assert taught("two accounts, half each") == [pytest.approx([0.9, 0.08, 0.02]), pytest.approx([0.25, 0.25, 0.5])]
    assert taught("labels") == [0, 2]
    assert taught("half of the queries") == [pytest.approx([0.9, 0.08, 0.02])]
    assert taught("label smoothing")[0] == pytest.approx([0.81 + 0.1 / 3, 0.072 + 0.1 / 3, 0.018 + 0.1 / 3])
    assert taught("averaged over copies")[0] == pytest.approx([0.2, 0.3, 0.5])


@pytest.mark.parametrize("form", [form for form in rivals.FORMS if form != "none"])
def test_rival_forms_keep_the_label_and_distributions(form: str) -> None:
    random = np.random.default_rng(0)
    rows = random.dirichlet(np.full(10, 0.1), 64).astype(np.float32)
    images = random.random((64, 1, 28, 28), dtype=np.float32)
    marker = rivals.FORMS[form](marks.Mark(0.02, parts=8), key=marks.key(0), channels=1, classes=10)
    shown, _ = marker(images, rows, ["a"] * 64)
    assert (shown.argmax(1) == rows.argmax(1)).all()
    assert shown.sum(1) == pytest.approx(np.ones(64), abs=1e-5)
    assert not np.array_equal(shown, rows)
