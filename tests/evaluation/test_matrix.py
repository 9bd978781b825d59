"""The matrix of attacks on real archives: its rows, its resumption, and its refusals."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import recipes
from attacks.owned import Labelled
from attacks.transfer import TransferSet
from evaluation import clones, matrix
from evaluation.clones import Exam
from evaluation.matrix import Job, Plan, Victim
from evaluation.tables import Evaluation
from evaluation.thefts import Snapshot
from report.schema import read
from tests.conftest import RECIPE, Smoke
from zoo import datasets
from zoo.datasets import Images
from zoo.writing import Writing

IMAGES = Images("blank", torch.zeros(100, 1, 28, 28), torch.zeros(100).long(), tuple("0123456789"))


@pytest.fixture(scope="module")
def folder(smoke: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The matrix of the smoke recipe, done once."""
    run = tmp_path_factory.mktemp("evaluate")
    program(run, smoke)
    return run


def program(run: Path, smoke: Smoke, *words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["evaluate", str(RECIPE), "--run", str(run), "--store", str(smoke.store), *words])
        matrix.main()


def test_every_cell_of_the_matrix_is_a_row(folder: Path) -> None:
    rows = read(folder / "report.json").attacks
    found = {(row.policy, row.adaptive, row.labels, row.budget, row.queries) for row in rows}
    assert found == {
        *(("undefended", None, labels, n, n) for labels in ("soft", "hard") for n in (60, 120)),
        *(("label", None, "hard", n, n) for n in (60, 120)),
        *(("edm", "averaging", labels, 200, 200) for labels in ("soft", "hard")),
    }
    assert len(rows) == len(found)
    # its margin is measured in test_utility.py and test_programs.py
    assert all(row.victim_accuracy > 0.5 for row in rows)


def test_five_copies_are_charged_for_every_image(folder: Path) -> None:
    found = {
        labels: TransferSet.load(path / "transfer.npz")
        for labels in ("soft", "hard")
        for path in (folder / "transfer").glob(f"knockoff-averaging-{labels}-*")
    }
    assert {labels: (len(each), each.charged) for labels, each in found.items()} == {
        "soft": (40, 200),
        "hard": (40, 200),
    }
    # a mean of probabilities and a vote of labels are two things
    assert found["soft"].probabilities is not None
    assert found["hard"].probabilities is None
    assert torch.equal(found["soft"].images, found["hard"].images)


def test_policies_of_one_victim_are_asked_the_same_images(folder: Path) -> None:
    first, second = (TransferSet.load(path) for path in (folder / "transfer").glob("knockoff-both-*/transfer.npz"))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)


def test_rows_say_that_no_server_was_asked(folder: Path) -> None:
    assert {row.path for row in read(folder / "report.json").attacks} == {"in process"}


def test_what_is_done_is_not_done_again(folder: Path, smoke: Smoke) -> None:
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "exam" not in path.name and path.is_file()}
    rows = read(folder / "report.json").attacks
    program(folder, smoke, "--only", "averaging")
    kept = {path: path.stat().st_mtime_ns for path in made if path.name != "report.json"}
    assert kept == {path: made[path] for path in kept}
    assert len(kept) > len(rows)
    assert sorted(map(str, read(folder / "report.json").attacks)) == sorted(map(str, rows))


def test_another_policy_under_the_same_name_is_not_mistaken_for_it(folder: Path, smoke: Smoke, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    for policy, source in (("undefended", "label"), ("label", "label")):
        (store / f"smoke-{policy}.mar").write_bytes(smoke.archive(source).read_bytes())
    program(tmp_path, Smoke(tmp_path, smoke.key_file), "--only", "plain", "--store", str(store))
    stolen = {path.name for path in (tmp_path / "transfer").glob("knockoff-both-*")}
    assert len(stolen) == 1, "one archive under two names returns the same, so it is attacked once"
    assert stolen < {path.name for path in (folder / "transfer").glob("knockoff-both-*")}
    assert {row.labels for row in read(tmp_path / "report.json").attacks} == {"hard"}


def test_an_unknown_matrix_names_the_known_ones(smoke: Smoke, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no \[evaluate.nope\]; it has plain, averaging"):
        program(tmp_path, smoke, "--only", "nope")


def grown(folder: Path, *budgets: int) -> Path:
    """The folder of an attack whose attack trained a clone, which was right about so many of a hundred images."""
    folder.mkdir()
    for budget in budgets:
        labels = (torch.arange(100) >= budget).long()
        Snapshot(labels, held_out=0.5, queries=budget, rejected=3, work=0.6, seconds=1.0).save(
            folder / f"clone-{budget}.npz"
        )
    return folder


def plan(job: Job, *budgets: int) -> Plan:
    """What [evaluate.NAME] says of one policy and DFME, which trains its own clone."""
    assert IMAGES.labels is not None
    exam = Exam(IMAGES.pixels, IMAGES.labels, IMAGES.labels)
    evaluation = Evaluation(policies=("edm",), budgets=budgets, attacks=("dfme",), labels=("soft",))
    victim = Victim("edm", exam, job.folder / "exam.npz", "edm", "edm", soft=True)
    (found,) = matrix.plans(job, evaluation, {"edm": victim})
    return found


def test_a_clone_that_its_attack_trained_is_a_row_at_each_budget(tmp_path: Path) -> None:
    job = Job(recipes.read(RECIPE), IMAGES, tmp_path, tmp_path, None)
    asked = plan(job, 40, 20)
    rows = matrix.rows(job, [asked], {asked.theft.name: grown(tmp_path / "theft", 20, 40)})
    assert [(row.budget, row.clone_accuracy, row.agreement) for row in rows] == [(40, 0.4, 0.4), (20, 0.2, 0.2)]
    for row in rows:
        assert (row.attack, row.clone_recipe, row.labels, row.held_out) == ("dfme", "own", "soft", 0.5)
        assert (row.queries, row.rejected, row.pow_hashes) == (row.budget, 3, 1)
        # it had nothing labelled before its first query, so it could only guess
        assert (row.no_query_accuracy, row.victim_accuracy) == (0.1, 1.0)


def test_two_tables_may_ask_for_the_same_clone_and_not_for_two_of_one_name(tmp_path: Path) -> None:
    job = Job(recipes.read(RECIPE), IMAGES, tmp_path, tmp_path, None)
    one, longer = plan(job, 20), plan(job, 20, 40)
    folders = {one.theft.name: grown(tmp_path / "one", 20), longer.theft.name: grown(tmp_path / "longer", 20, 40)}
    assert [row.budget for row in matrix.rows(job, [one, longer], folders)] == [20, 40]
    Snapshot(torch.ones(100).long(), 0.5, 20, 3, 0.6, 1.0).save(tmp_path / "longer" / "clone-20.npz")
    with pytest.raises(recipes.RecipeError, match=r"tables give different clones for \('edm', 'dfme', "):
        matrix.rows(job, [one, longer], folders)


def seeded(tmp_path: Path, count: int, **changes: object) -> tuple[Job, Plan, dict[str, Path]]:
    """A job, one plan for augmented seeds, and the folders of its attack, which had `count` labelled images."""
    (tmp_path / "seeded.toml").write_text(
        RECIPE.read_text("utf-8") + '\n[attacks.augmented-seeds]\ndataset = "digits"\nbudget = 40\nseeds = 20\n',
        "utf-8",
    )
    test = datasets.load("digits", "test")
    assert test.labels is not None
    job = Job(recipes.read(tmp_path / "seeded.toml"), test, tmp_path, tmp_path, None)
    exam = Exam(test.pixels, test.labels, test.labels)
    exam.save(tmp_path / "exam.npz")
    evaluation = Evaluation(
        policies=("undefended",),
        budgets=(40,),
        attacks=("augmented-seeds",),
        clone={"architecture": "lenet5", "options": {}, "epochs": 1, "recipes": ["adamw"]},
        **changes,  # type: ignore[arg-type]
    )
    victim = Victim("undefended", exam, tmp_path / "exam.npz", "one", "one", soft=False)
    (plan,) = matrix.plans(job, evaluation, {"undefended": victim})
    folder = tmp_path / "theft"
    folder.mkdir()
    train = datasets.load("digits", "train")
    assert train.labels is not None
    Labelled(train.pixels[:count], train.labels[:count]).as_transfer_set().save(folder / "own.npz")
    everything = torch.arange(40)
    TransferSet(train.pixels[:40], train.labels[:40], None, everything, charged=40).save(folder / "transfer.npz")
    return job, plan, {plan.theft.name: folder}


@pytest.mark.parametrize(("count", "recipes_tried"), [(30, ["adamw, augmented", "adamw"]), (10, ["adamw, augmented"])])
def test_the_baseline_varies_what_the_attacker_owns_as_the_attacker_does(
    tmp_path: Path, count: int, recipes_tried: list[str]
) -> None:
    job, asked, folders = seeded(tmp_path, count)
    outcome = matrix._outcome(asked, folders[asked.theft.name], 10, asked.victim.path)
    assert [cell.recipe_name for cell in outcome.baseline[40]] == recipes_tried
    assert [cell.variation for cell in outcome.trained] == [None]
    assert outcome.baseline[40][0].variation == Writing(0.6)
    scores = {cell.key: clones.train(cell) for cell in outcome.cells}
    assert len(scores) == len(recipes_tried) + 1
    (row,) = matrix._rows(job, outcome, scores)
    assert row.clone_recipe == "adamw"
    assert row.no_query_accuracy is not None
    # of the recipe that did best on what was held out
    best = max(outcome.baseline[40], key=lambda cell: scores[cell.key].held_out)
    assert row.no_query_accuracy == scores[best.key].clone_accuracy


def test_each_seed_is_held_against_its_own_baseline(tmp_path: Path) -> None:
    job, asked, folders = seeded(tmp_path, 30, seeds=(0, 1))
    rows = matrix.rows(job, [asked], folders)
    assert {row.seed for row in rows} == {0, 1}
    tried = matrix._outcome(asked, folders[asked.theft.name], 10, tmp_path / "transfer/exam-truth.npz").baseline[40]
    found = list(clones.finish(tried, tmp_path / "cells", say=print))  # nothing is trained again
    chosen = matrix._best(found, 0.1)
    assert {row.seed: row.no_query_accuracy for row in rows} == chosen
    # the clone that asked nobody is judged by the right labels, whatever the policy says
    assert all(cell.exam.name == "exam-truth.npz" for cell in tried)


def test_a_table_may_say_how_the_baseline_varies_what_any_attacker_owns(tmp_path: Path) -> None:
    _, asked, folders = seeded(tmp_path, 30, own_strength=0.3)
    baseline = matrix._outcome(asked, folders[asked.theft.name], 10, asked.victim.path).baseline[40]
    # as the attack does, as the table says, and as they are
    assert [cell.variation for cell in baseline] == [Writing(0.6), Writing(0.3), None]
    with pytest.raises(ValueError, match=r"own_strength: expected 0 to 1, got 1\.5"):
        Evaluation(policies=("undefended",), budgets=(40,), own_strength=1.5)
