"""The matrix of thefts on real archives: its rows, its resumption, and its refusals."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

import recipes
from attacks.transfer import TransferSet
from loadtests import evaluate
from loadtests.evaluate import Evaluation, Job
from loadtests.results import read
from loadtests.users.plan import parameters
from tests.conftest import RECIPE, Smoke
from zoo import datasets


@pytest.fixture(scope="module")
def folder(smoke: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The matrix of the smoke recipe, done once."""
    run = tmp_path_factory.mktemp("evaluate")
    program(run, smoke)
    return run


def program(run: Path, smoke: Smoke, *words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["evaluate", str(RECIPE), "--run", str(run), "--store", str(smoke.store), *words])
        evaluate.main()


def test_every_cell_of_the_matrix_is_a_row(folder: Path) -> None:
    rows = read(folder / "report.json").attacks
    told = {(row.policy, row.adaptive, row.labels, row.budget, row.queries) for row in rows}
    assert told == {
        *(("undefended", None, labels, n, n) for labels in ("soft", "hard") for n in (60, 120)),
        *(("label", None, "hard", n, n) for n in (60, 120)),
        *(("edm", "averaging", labels, 200, 200) for labels in ("soft", "hard")),
    }
    assert len(rows) == len(told)
    # its margin is measured in test_utility.py and test_programs.py
    assert all(row.victim_accuracy > 0.5 for row in rows)


def test_five_copies_are_charged_for_every_image(folder: Path) -> None:
    told = {
        labels: TransferSet.load(path / "transfer.npz")
        for labels in ("soft", "hard")
        for path in (folder / "transfer").glob(f"knockoff-averaging-{labels}-*")
    }
    assert {labels: (len(each), each.charged) for labels, each in told.items()} == {
        "soft": (40, 200),
        "hard": (40, 200),
    }
    # a mean of probabilities and a vote of labels are two things
    assert told["soft"].probabilities is not None
    assert told["hard"].probabilities is None
    assert torch.equal(told["soft"].images, told["hard"].images)


def test_policies_of_one_victim_are_asked_the_same_images(folder: Path) -> None:
    first, second = (TransferSet.load(path) for path in (folder / "transfer").glob("knockoff-both-*/transfer.npz"))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)


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
    assert len(stolen) == 1, "one archive under two names tells the same, so it is robbed once"
    assert stolen < {path.name for path in (folder / "transfer").glob("knockoff-both-*")}
    assert {row.labels for row in read(tmp_path / "report.json").attacks} == {"hard"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policies": ()}, "policies: expected at least one, got none"),
        ({"budgets": (0,)}, "budgets: expected at least 1 image"),
        ({"labels": ("loud",)}, "labels: expected some of soft, hard, got 'loud'"),
        ({"attacks": ("crayon",)}, "unknown attack 'crayon'"),
        ({"adaptive": ("patience",)}, "unknown adaptive form 'patience'; expected one of averaging, "),
        (
            {"adaptive": ("averaging",), "called": "larger-clone"},
            "called: expected no other name of the form",
        ),
        ({"overrides": {"targets": "p"}}, "called: expected a name for the attack with {'targets': 'p'}, got none"),
        ({"overrides": {"budget": 5}, "called": "short"}, "overrides: expected no budget"),
    ],
)
def test_what_a_matrix_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Evaluation(**{"policies": ("edm",), "budgets": (10,), **changes})  # type: ignore[arg-type]


def test_an_attack_may_be_different_in_one_matrix(smoke: Smoke, tmp_path: Path) -> None:
    recipe = recipes.read(RECIPE)
    job = Job(recipe, recipe.section("dataset", datasets.Data).load("test"), tmp_path, smoke.store, None)
    plain = Evaluation(policies=("edm",), budgets=(40, 80))
    changed = dataclasses.replace(plain, overrides={"targets": "p"}, called="p-as-logits")
    own, other = job.parameters("dfme", plain), job.parameters("dfme", changed)
    assert own == dataclasses.replace(parameters(recipe, "dfme"), budget=80)
    assert other == dataclasses.replace(own, targets="p")
    with pytest.raises(recipes.RecipeError, match=r"overrides of knockoff: unknown key 'targets'; expected one of "):
        job.parameters("knockoff", changed)
    with pytest.raises(recipes.RecipeError, match=r"overrides of dfme: .*expected 'log-p' or 'p', got 'logits'"):
        job.parameters("dfme", dataclasses.replace(changed, overrides={"targets": "logits"}))


def test_an_unknown_matrix_names_the_known_ones(smoke: Smoke, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no \[evaluate.nope\]; it has plain, averaging"):
        program(tmp_path, smoke, "--only", "nope")
