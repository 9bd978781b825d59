"""What a recipe says to the users of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

import recipes
from attacks.knockoff import Knockoff
from loadtests.tally import LoadTest
from loadtests.users import plan


def recipe(tmp_path: Path, text: str) -> recipes.Recipe:
    path = tmp_path / "small.toml"
    path.write_text(text)
    return recipes.read(path)


def test_an_attacks_table_becomes_the_attacks_own_dataclass(tmp_path: Path) -> None:
    small = recipe(tmp_path, '[attacks.knockoff]\nsurrogate = "flower"\nbudget = 12\n')
    assert plan.parameters(small, "knockoff") == Knockoff("flower", budget=12)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("[attacks.crayon]\nbudget = 1\n", "crayon", r"\[attacks\.crayon\]: unknown attack 'crayon'; expected one of"),
        ('[attacks.knockoff]\nsurrogate = "flower"\n', "knockoff", r"\[attacks\.knockoff\]: missing key 'budget'"),
        (
            '[attacks.knockoff]\nsurrogate = "flower"\nbudget = 0\n',
            "knockoff",
            r"\[attacks\.knockoff\]: budget: expected at least 1 image, got 0",
        ),
        ("", "knockoff", r"\[attacks\.knockoff\]: expected a table, got None"),
    ],
)
def test_a_wrong_table_is_an_error_that_names_it(tmp_path: Path, text: str, name: str, message: str) -> None:
    with pytest.raises(recipes.RecipeError, match=message):
        plan.parameters(recipe(tmp_path, text), name)


def test_limits_have_defaults_and_a_table(tmp_path: Path) -> None:
    assert plan.limits(recipe(tmp_path, "")) == LoadTest()
    assert plan.limits(recipe(tmp_path, "[loadtest]\np99_ms = 20\n")) == LoadTest(p99_ms=20.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clients": 0}, "clients: expected at least 1, got 0"),
        ({"dilution": 100}, "dilution: expected 0 to 99 percent, got 100"),
        ({"quiet_s": -1.0}, r"quiet: expected >= 0 seconds, got -1.0"),
        ({"budgets": ()}, r"budgets: expected at least 1 image, got \(\)"),
    ],
)
def test_what_thieves_cannot_do(changes: dict[str, object], message: str) -> None:
    fine: dict[str, object] = {"attack": "knockoff", "labels": "both", "seed": 0, "budgets": (5,), "rows": 4}
    fine |= {"clients": 1, "dilution": 0, "quiet_s": 0.0, "outcome": Path("theft")}
    plan.Theft(**fine)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        plan.Theft(**{**fine, **changes})  # type: ignore[arg-type]


def test_the_first_attack_of_a_recipe_is_the_one_to_try(tmp_path: Path) -> None:
    assert plan.first_attack(recipe(tmp_path, "[attacks.jbda]\n[attacks.knockoff]\n")) == "jbda"
    with pytest.raises(recipes.RecipeError, match=r"no \[attacks.NAME\] table; an attack needs one"):
        plan.first_attack(recipe(tmp_path, ""))
