"""Recipes as read: types, defaults, tiers, and the words of every refusal."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import recipes
from recipes import Recipe, RecipeError, build, defaults


@dataclass(frozen=True)
class Inner:
    degrees: float = 0.0


@dataclass(frozen=True)
class Table:
    name: str
    rows: int = 0
    lr: float = 0.1
    seeds: tuple[int, ...] = (0,)
    weight: float | tuple[float, ...] = 1.0
    inner: Inner | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise ValueError(f"rows: expected >= 0, got {self.rows}")


def write(folder: Path, text: str, name: str = "mine") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def test_a_table_becomes_its_dataclass() -> None:
    built = build(Table, {"name": "a", "lr": 1, "seeds": [1, 2], "inner": {"degrees": 5}, "weight": [1]}, where="t")
    assert built == Table("a", lr=1.0, seeds=(1, 2), weight=(1.0,), inner=Inner(5.0))
    assert (type(built), type(built.inner), type(built.lr)) == (Table, Inner, float)
    assert build(Table, {"name": "a", "options": {"width": [2]}}, where="t").options == {"width": [2]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "a", "nmae": "b"}, r"^t: unknown key 'nmae'; did you mean 'name'\? expected one of name, rows"),
        ({"rows": 1}, r"^t: missing key 'name'$"),
        ({"name": 3}, r"^t: name: expected a string, got 3$"),
        ({"name": "a", "rows": True}, r"^t: rows: expected an integer, got True$"),
        ({"name": "a", "rows": 1.0}, r"^t: rows: expected an integer, got 1.0$"),
        ({"name": "a", "rows": -1}, r"^t: rows: expected >= 0, got -1$"),
        ({"name": "a", "seeds": [1, "x"]}, r"^t: seeds\[1\]: expected an integer, got 'x'$"),
        ({"name": "a", "weight": "x"}, r"^t: weight: expected a number or an array, got 'x'$"),
        ({"name": "a", "inner": {"degree": 1}}, r"^t: inner: unknown key 'degree'; did you mean 'degrees'\?"),
        ({"name": "a", "inner": 3}, r"^t: inner: expected a table, got 3$"),
        ({"name": 3, "rows": "x"}, r"^t: name: expected a string, got 3\nt: rows: expected an integer, got 'x'$"),
        ("a text", r"^t: expected a table, got 'a text'$"),
    ],
)
def test_what_is_refused_and_why(fields: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(Table, fields, where="t")


def test_a_section_a_family_and_a_network_are_asked_for_by_name(tmp_path: Path) -> None:
    text = '[networks.edm]\nauxiliary="china"\n[policies.b]\npredictor="victim"\n[policies.a]\npredictor="victim"'
    recipe = recipes.read(write(tmp_path, text))
    assert recipe.name == "mine"
    assert list(recipe.tables["policies"]) == ["b", "a"]
    assert recipe.networks == {"edm": {"auxiliary": "china"}}
    with pytest.raises(RecipeError, match=r"no table \[victim\]; this program needs one"):
        recipe.section("victim", Table)
    with pytest.raises(RecipeError, match=r"no table \[networks.edn\]; did you mean 'edm'\?"):
        recipe.network("edn", Table)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[victims]\nx=1",
            r"unknown table \[victims\]; did you mean 'victim'\? expected one of dataset, model, victim",
        ),
        ("[edm]\nx=1", r"unknown table \[edm\]; a network's table is called \[networks.edm\]"),
        ("dataset = 3", r"dataset: expected a table, got 3"),
        ("[victim", "not TOML"),
    ],
)
def test_what_no_table_may_be(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipes.read(write(tmp_path, text))


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'digit': did you mean 'digits'\? expected one of .*mnist"):
        recipes.read("digit")


TIERED = """
[victim]
architecture = "lenet5"
optimisation = { epochs = 3, lr = 0.5 }
[tiers.paper.victim]
optimisation = { epochs = 30 }
affine = { degrees = 2.0 }
[tiers.odd.victims]
rows = 1
"""


def test_a_tier_is_laid_over_the_recipe_and_has_its_own_name(tmp_path: Path) -> None:
    path = write(tmp_path, TIERED)
    assert recipes.read(path).tables["victim"]["optimisation"] == {"epochs": 3, "lr": 0.5}
    paper = recipes.read(f"{path}@paper")
    assert paper.name == f"{path.stem}-paper"
    assert paper.tables["victim"]["optimisation"] == {"epochs": 30, "lr": 0.5}
    assert paper.tables["victim"]["affine"] == {"degrees": 2.0}
    assert recipes.read(paper.spec) == paper


@pytest.mark.parametrize(
    ("tier", "message"), [("cpu", "no tier 'cpu'; it has paper, odd"), ("odd", r"unknown table \[victims\]")]
)
def test_a_tier_that_cannot_be_read(tmp_path: Path, tier: str, message: str) -> None:
    path = write(tmp_path, TIERED)
    with pytest.raises(RecipeError, match=message):
        recipes.read(f"{path}@{tier}")


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    text = '[victim]\narchitecture = "conv3"\noptions = { width = 2 }\noptimisation = { epochs = 1 }\n'
    recipe = recipes.read(write(tmp_path, text))
    assert recipe.tables["attacks"] == {"knockoff": defaults.KNOCKOFF}
    assert recipe.tables["serving"] == {}
    # the attacker knows the architecture
    assert (recipe.tables["clone"]["architecture"], recipe.tables["clone"]["options"]) == ("conv3", {"width": 2})
    own = recipes.read(write(tmp_path, text + "[clone]\narchitecture = 'lenet5'\nepochs = 1\n", "own"))
    assert own.tables["clone"] == {"architecture": "lenet5", "epochs": 1}


def test_every_recipe_says_in_its_first_line_what_it_is() -> None:
    for name in recipes.known():
        first = (recipes.HERE / f"{name}.toml").read_text("utf-8").partition("\n")[0]
        assert first.startswith("# "), name
        assert isinstance(recipes.read(name), Recipe)
