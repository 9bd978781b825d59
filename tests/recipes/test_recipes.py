"""Recipes as read: types, and the words of every refusal."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import recipes
from recipes import Recipe, RecipeError


@dataclass(frozen=True)
class Inner:
    degrees: float = 0.0


@dataclass(frozen=True)
class Table:
    name: str
    rows: int = 0
    lr: float = 0.1
    seeds: tuple[int, ...] = (0,)
    inner: Inner | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise ValueError(f"rows: expected >= 0, got {self.rows}")


def write(folder: Path, text: str) -> Recipe:
    path = folder / "mine.toml"
    path.write_text(text)
    return recipes.read(path)


def test_a_table_becomes_its_dataclass(tmp_path: Path) -> None:
    recipe = write(tmp_path, '[victim]\nname="a"\nlr=1\nseeds=[1,2]\ninner={degrees=5}\noptions={width=2}')
    assert recipe.name == "mine"
    assert recipe.section("victim", Table) == Table("a", lr=1.0, seeds=(1, 2), inner=Inner(5.0), options={"width": 2})
    assert isinstance(recipe.section("victim", Table).lr, float)


def test_a_family_keeps_its_order(tmp_path: Path) -> None:
    recipe = write(tmp_path, '[policies.b]\nname="x"\n[policies.a]\nname="y"')
    assert list(recipe.family("policies", Table)) == ["b", "a"]
    assert recipe.family("attacks", Table) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[victim]\nname="a"\nnmae="b"', r"\[victim\]: unknown key 'nmae'; expected one of name, rows"),
        ("[victim]\nrows=1", r"\[victim\]: missing key 'name'"),
        ("[victim]\nname=3", r"\[victim\]: name: expected str, got 3"),
        ('[victim]\nname="a"\nrows=true', r"rows: expected int, got True"),
        ('[victim]\nname="a"\nrows=-1', r"\[victim\]: rows: expected >= 0, got -1"),
        ('[victim]\nname="a"\nseeds=[1,"x"]', r"seeds\[1\]: expected int, got 'x'"),
        ('[victim]\nname="a"\ninner={degree=1}', r"inner: unknown key 'degree'; expected one of degrees"),
        ("[dataset]\nx=1", r"no table \[victim\]; this program needs one"),
        ("[victims]\nx=1", r"unknown table \[victims\]; expected one of dataset, victim"),
        ("[victim", "not TOML"),
    ],
)
def test_what_is_refused_and_why(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        write(tmp_path, text).section("victim", Table)


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'nope': expected one of .*digits"):
        recipes.read("nope")


TIERED = """
[victim]
name = "a"
rows = 3
[tiers.paper.victim]
rows = 30
inner = { degrees = 2.0 }
[tiers.odd.victims]
rows = 1
"""


def test_a_tier_is_laid_over_the_recipe_and_has_its_own_name(tmp_path: Path) -> None:
    path = write(tmp_path, TIERED).path
    assert recipes.read(path).section("victim", Table) == Table("a", rows=3)
    paper = recipes.read(f"{path}@paper")
    assert paper.name == f"{path.stem}-paper"
    assert paper.section("victim", Table) == Table("a", rows=30, inner=Inner(2.0))
    assert recipes.read(paper.spec) == paper


@pytest.mark.parametrize(
    ("tier", "message"), [("cpu", "no tier 'cpu'; it has paper, odd"), ("odd", r"unknown table \[victims\]")]
)
def test_a_tier_that_cannot_be_read(tmp_path: Path, tier: str, message: str) -> None:
    path = write(tmp_path, TIERED).path
    with pytest.raises(RecipeError, match=message):
        recipes.read(f"{path}@{tier}")
