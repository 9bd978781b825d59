"""What a recipe says of its evaluation, and what of that is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import recipes
from attacks.knockoff import Knockoff
from evaluation import tables
from evaluation.tables import Evaluation
from tests.conftest import RECIPE


def recipe(tmp_path: Path, text: str) -> recipes.Recipe:
    path = tmp_path / "small.toml"
    path.write_text(text)
    return recipes.read(path)


def test_an_attacks_table_becomes_the_attacks_own_dataclass(tmp_path: Path) -> None:
    small = recipe(tmp_path, '[attacks.knockoff]\nsurrogate = "flower"\nbudget = 12\n')
    assert tables.parameters(small, "knockoff") == Knockoff("flower", budget=12)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("[attacks.crayon]\nbudget = 1\n", "crayon", r"\[attacks\.crayon\]: no attack 'crayon'; expected one of"),
        ('[attacks.knockoff]\nsurrogate = "flower"\n', "knockoff", r"\[attacks\.knockoff\]: missing key 'budget'"),
        (
            '[attacks.knockoff]\nsurrogate = "flower"\nbudget = 0\n',
            "knockoff",
            r"\[attacks\.knockoff\]: budget: expected at least 1 image, got 0",
        ),
        ("", "jbda", r"\[attacks\.jbda\]: expected a table, got None"),
    ],
)
def test_a_wrong_table_is_an_error_that_names_it(tmp_path: Path, text: str, name: str, message: str) -> None:
    with pytest.raises(recipes.RecipeError, match=message):
        tables.parameters(recipe(tmp_path, text), name)


def test_the_first_attack_of_a_recipe_is_the_one_to_try(tmp_path: Path) -> None:
    both = '[attacks.jbda]\ndataset = "digits"\nbudget = 5\n[attacks.knockoff]\nsurrogate = "flower"\nbudget = 5\n'
    assert tables.first_attack(recipe(tmp_path, both)) == "jbda"
    assert tables.first_attack(recipe(tmp_path, "")) == "knockoff"  # which every recipe has by default


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


def test_an_attack_may_be_different_in_one_matrix() -> None:
    smoke = recipes.read(RECIPE)
    plain = Evaluation(policies=("edm",), budgets=(40, 80))
    changed = dataclasses.replace(plain, overrides={"targets": "p"}, called="p-as-logits")
    own, other = plain.parameters(smoke, "dfme"), changed.parameters(smoke, "dfme")
    assert own == dataclasses.replace(tables.parameters(smoke, "dfme"), budget=80)
    assert other == dataclasses.replace(own, targets="p")
    with pytest.raises(recipes.RecipeError, match=r"overrides of knockoff: unknown key 'targets'; expected one of "):
        changed.parameters(smoke, "knockoff")
    with pytest.raises(recipes.RecipeError, match=r"overrides of dfme: .*expected 'log-p' or 'p', got 'logits'"):
        dataclasses.replace(changed, overrides={"targets": "logits"}).parameters(smoke, "dfme")


def test_a_clone_may_be_different_in_one_matrix(tmp_path: Path) -> None:
    small = recipe(tmp_path, '[clone]\narchitecture = "lenet5"\nepochs = 3\n')
    plain = tables.cloning(small)
    assert plain.epochs == 3
    assert tables.cloning(small, {"epochs": 5}) == dataclasses.replace(plain, epochs=5)
    with pytest.raises(recipes.RecipeError, match=r"small.toml: \[clone\]: unknown key 'epoch'"):
        tables.cloning(small, {"epoch": 5})
    assert tables.cloning(recipe(tmp_path, "")).architecture == "lenet5"


def test_an_evaluation_needs_a_table(tmp_path: Path) -> None:
    text = "[evaluate.{}]\npolicies = ['plain']\nbudgets = [{}]\n"
    plain = "[victim]\narchitecture = 'lenet5'\noptimisation = {epochs = 1}\n[policies.plain]\npredictor = 'victim'\n"
    small = recipe(tmp_path, plain + text.format("a", 5) + text.format("b", 6))
    assert list(tables.evaluations(small)) == ["a", "b"]
    assert tables.evaluations(small, ["b"])["b"].budgets == (6,)
    with pytest.raises(recipes.RecipeError, match=r"no \[evaluate.c\]; it has a, b"):
        tables.evaluations(small, ["a", "c"])
    with pytest.raises(recipes.RecipeError, match=r"no \[evaluate.NAME\] table; an evaluation needs one"):
        tables.evaluations(recipe(tmp_path, ""))
