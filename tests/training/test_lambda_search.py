"""The search for lambda, on real trainings of seconds."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest

from tests.conftest import RECIPE, Smoke
from tests.reached import Reached
from training import checkpoint, edm

TRAINED = "held_out = 100\noptimisation = { epochs = 2, lr = 3e-3, batch_size = 64 }\n"


def recipe(folder: Path, lambdas: str, *, allowed: float) -> Path:
    """The smoke recipe with candidates, in a file of its own."""
    text = RECIPE.read_text("utf-8").replace(
        "held_out = 100",
        f"{TRAINED}lambda_diversity = {lambdas}\nsearch_rows = 300\nallowed_drop = {allowed}\n"
        f"[ensemble]\nauxiliary = 'china'\nmembers = 3\nlambda_diversity = 0.0\n{TRAINED}",
    )
    path = folder / "searched.toml"
    path.write_text(text, "utf-8")
    return path


def search(folder: Path, path: Path, smoke: Smoke, seed: int) -> Path:
    runs = folder / "runs"
    (runs / "searched").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(smoke.runs / "smoke/victim.safetensors", runs / "searched/victim.safetensors")
    for table in ("ensemble", "edm"):
        edm.main(argparse.Namespace(recipe=str(path), runs=runs, data=None, seed=seed, table=table))
    return runs / "searched"


def test_the_largest_lambda_that_keeps_the_rule_is_published(
    tmp_path: Path, smoke_runs: Smoke, reached: Reached, seed: int
) -> None:
    runs = search(tmp_path, recipe(tmp_path, "[1, 2]", allowed=0.99), smoke_runs, seed)
    facts = checkpoint.facts(runs / "edm.safetensors")
    assert facts["settings"]["edm"]["lambda_diversity"] in (1.0, 2.0)
    trail = facts["search"]
    assert [step["lambda"] for step in trail][:2] == [0.0, 1.0]
    assert facts["settings"]["edm"]["lambda_diversity"] == max(step["lambda"] for step in trail if step["kept"])
    assert all(step["step"] == "short" and 0 <= step["diversity"] <= 1 for step in trail)
    # diversity is what the search climbs for
    reached("diversity loss with lambda and without", trail[1]["diversity"] / trail[0]["diversity"], below=0.8)
    assert not [path.name for path in runs.glob("*.safetensors") if "step" in path.name]


def test_a_search_that_was_done_trains_nothing(
    tmp_path: Path, smoke_runs: Smoke, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    path = recipe(tmp_path, "[0.1]", allowed=0.99)
    runs = search(tmp_path, path, smoke_runs, seed)
    made = {file: file.stat().st_mtime_ns for file in (runs / "search").glob("*.safetensors")}
    capsys.readouterr()
    search(tmp_path, path, smoke_runs, seed)
    assert {file: file.stat().st_mtime_ns for file in (runs / "search").glob("*.safetensors")} == made
    assert capsys.readouterr().err.count("trained with these settings already") == len(made) + 1 == 4


def test_where_no_lambda_keeps_the_rule_nothing_is_published(
    tmp_path: Path, smoke_runs: Smoke, reached: Reached, seed: int
) -> None:
    # two epochs on all rows stay behind the victim's eight
    path = recipe(tmp_path, "[0.1]", allowed=1e-6)
    with pytest.raises(ValueError, match=r"none of \(0.1,\) keeps the members' accuracy within 1e-06 of the victim's"):
        search(tmp_path, path, smoke_runs, seed)
    runs = tmp_path / "runs/searched"
    assert not (runs / "edm.safetensors").exists()
    victim, ensemble = (
        checkpoint.facts(runs / f"{name}.safetensors")["metrics"]["validation_accuracy"]
        for name in ("victim", "ensemble")
    )
    reached("how far two epochs stay behind", victim - ensemble, above=0.0)


def test_a_search_needs_the_victim(tmp_path: Path) -> None:
    path = recipe(tmp_path, "[0.1]", allowed=0.99)
    arguments = argparse.Namespace(recipe=str(path), runs=tmp_path / "runs", data=None, seed=0, table="edm")
    with pytest.raises(ValueError, match=r"the search starts from it; train it first"):
        edm.main(arguments)
