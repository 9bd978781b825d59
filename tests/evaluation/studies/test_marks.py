"""The study of marks on synthetic archives: clones of one epoch, kept, and tried against accounts and keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import recipes
from defenses.mark import Mark
from evaluation.marks import rivals, thieves
from evaluation.studies import marks
from evaluation.studies.runner import carry_out
from evaluation.studies.study import StudyError, Task
from report.schema import read
from tests.evaluation import gated

THIEVES = ("labels", "served as labels", "served in int8", "fine-tuned on 150")
FEW = marks.Battery(THIEVES, ("fine-tuned on 1,000",), once=True, strengths=(0.04, 0.02))


@pytest.fixture
def task(tmp_path: Path, key_file: Path) -> Task:
    recipe = recipes.read(gated.recipe(tmp_path))
    gated.archive(tmp_path, "undefended")
    return Task(recipe, ("undefended",), tmp_path / "run", tmp_path)


def carried_out(task: Task, **changes: Any) -> None:
    own = {"strength": 0.02, "seeds": 1, "epochs": 1, "nulls": 2, "network": "lenet5", "battery": "few", "workers": 1}
    carry_out(marks.STUDY, task, **{**own, **changes})


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(marks.BATTERIES, "few", FEW)
    monkeypatch.setattr(marks, "KEYS", 3)
    monkeypatch.setattr(marks, "EACH", 2)
    monkeypatch.setattr(marks, "ACCOUNTS", 20)
    monkeypatch.setattr(marks, "HONEST_TO_UNMARKED", 2)
    monkeypatch.setattr(marks, "HONEST_EPOCHS", 1)
    monkeypatch.setattr(marks, "QUERIES", (128, 256))


@pytest.mark.usefixtures("small")
def test_clones_are_trained_once_and_tried(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    carried_out(task)
    # two budgets and another strength
    assert "[3/3] linear" in capsys.readouterr().out
    report = read(task.folder / "report.json")
    served = [row for row in report.marks if row.statistic == "capped" and row.strength == 0.02]
    assert [(row.thief, row.queries) for row in served] == [
        ("soft", 128),
        ("soft", 256),
        ("labels", 128),
        ("served as labels", 128),
        ("served in int8", 128),
        ("fine-tuned on 150", 128),
        ("fine-tuned on 1,000", 256),
    ]
    others = [(row.strength, row.thief, row.statistic) for row in report.marks if row.strength != 0.02]
    assert others == [(0.04, "soft", "capped")]
    compared = {row.statistic for row in report.marks if row.thief == "soft" and row.strength == 0.02}
    assert compared == {*rivals.STATISTICS, "references"}
    assert {row.statistic for row in report.marks if row.thief == "labels"} == {"capped"}
    soft = report.marks[0]
    assert 0 < soft.l1 <= 0.04 + 1e-6
    assert soft.images == len(task.test.pixels)
    assert 0 < soft.p <= 1
    nulls = {row.kind: row for row in report.mark_nulls}
    assert {kind: (row.models, row.tries) for kind, row in nulls.items()} == {
        "clones of another account": (7, 7 * 20),
        "clones under another key": (7, 42),
        "true labels": (2, 12),
        "unmarked answers": (1, 6),
        "the owner's own model": (1, 6),
    }
    assert (nulls["the owner's own model"].least, nulls["the owner's own model"].accused) == (1.0, 0)
    before = {path: path.stat().st_mtime_ns for path in (task.folder / "marks").iterdir()}
    carried_out(task)
    assert {path: path.stat().st_mtime_ns for path in (task.folder / "marks").iterdir()} == before


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"network": "vgg"}, "network: expected one of lenet5, resnet9, got 'vgg'"),
        ({"battery": "all"}, "battery: expected one of whole, short, headline, few, got 'all'"),
        ({"strength": 2.0}, "strength: expected a number above 0, at most 0.1, got 2.0"),
    ],
)
def test_what_there_is_not_is_an_error(task: Task, changes: dict[str, Any], error: str) -> None:
    with pytest.raises(StudyError, match=error):
        carried_out(task, **changes)


def test_no_two_nulls_of_a_kind_are_tried_against_the_same_key_and_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[str, int, int]] = []

    def note(job: marks.Job, _: object, keys: Sequence[int], accounts: range) -> Iterator[float]:
        for number in keys:
            for each in accounts:
                tried.append((job.thief, number, each))
                yield 1.0

    monkeypatch.setattr(marks, "_tried", note)
    monkeypatch.setattr(marks, "_asked", lambda _: {"served": np.ones((2, 3)) / 3})
    mark = Mark(0.02)
    kinds = [("soft", "linear"), ("soft, log p", "linear"), (marks.HONEST, "none"), (marks.HONEST, "none")]
    jobs = [
        marks.Job(tmp_path, tmp_path, form, mark, thief, seed, 1, 100, "lenet5")
        for seed, (thief, form) in enumerate(kinds)
    ]
    nulls = list(marks.accusations("r", mark, jobs, {job: np.ones((2, 3)) for job in jobs}))
    assert [row.tries for row in nulls] == [200, 200, 200, 100]
    honest = [(number, each) for thief, number, each in tried if thief == marks.HONEST]
    assert len(set(honest)) == len(honest) == 200
    accounts = [(number, each) for _, number, each in tried if number < 1000]
    assert min(each for _, each in accounts) == 2, "0 asked, and 1 may have helped"
    assert len(set(accounts)) == 200


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
    marker = rivals.FORMS[form](Mark(0.02, parts=8), key=marks.key(0), channels=1, classes=10)
    shown, _ = marker(images, rows, ["a"] * 64)
    assert (shown.argmax(1) == rows.argmax(1)).all()
    assert shown.sum(1) == pytest.approx(np.ones(64), abs=1e-5)
    assert not np.array_equal(shown, rows)


@pytest.mark.parametrize("name", [name for name in rivals.STATISTICS if name != "capped"])
def test_rival_statistics_see_a_mark_and_nothing_in_the_owners_own_answers(name: str) -> None:
    excess = rivals.STATISTICS[name]
    owner = np.array([[0.97, 0.012, 0.01, 0.008]])
    assert excess(owner, owner).tolist() == [[0.0] * 4]
    marked = 0.99 * owner + 0.01 * np.eye(4)[[3]]
    assert excess(marked, owner)[0, 1:].argmax() == 2
