"""A precision beside float32 in process: which pairs there are, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

import recipes
from bench import twins
from bench.overhttp import BenchError

RECIPE = """
[dataset]
name = "digits"
[victim]
architecture = "conv3"
optimisation = { epochs = 1 }
[policies.undefended]
predictor = "victim"
[policies.undefended-int8]
like = "undefended"
precision = "int8"
[policies.alone]
predictor = "victim"
precision = "int8"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> recipes.Recipe:
    path = tmp_path / "twins.toml"
    path.write_text(RECIPE)
    return recipes.read(str(path))


def test_a_policy_s_twin_is_its_name_without_the_precision(recipe: recipes.Recipe) -> None:
    assert twins.twin(recipe, "undefended-int8") == "undefended"


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("undefended", "expected the name NAME-PRECISION"),
        ("alone", "expected the name NAME-PRECISION"),
        ("edm-int8", "no .policies.edm-int8.; it has undefended, undefended-int8, alone"),
    ],
)
def test_another_is_refused(recipe: recipes.Recipe, policy: str, words: str) -> None:
    with pytest.raises(BenchError, match=words):
        twins.twin(recipe, policy)


def test_without_archives_it_says_what_to_do(recipe: recipes.Recipe, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"bench\.twins: .*undefended\.mar"):
        twins.main([str(recipe.path), "--policies", "undefended-int8", "--store", str(tmp_path)])
