"""To add an ablation is one table in one file: a synthetic one is trained, packed, attacked, measured and on a page."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import recipes
from export import archive, graphs
from recipes.rules import rules
from report.schema import read
from tests.conftest import RECIPE
from tests.product import Smoke
from training import meco

CHECKOUT = Path(__file__).resolve().parents[2]
ABLATION = """
[networks.meco_made_up]
like = "meco"
filters = 2
about = "a generator of two filters"
policy = { perturb = { noise = "fresh" }, tags = ["made-up"] }
"""
# what a recipe with ablations has already
AROUND = """
[evaluate.meco-knockoff]
policies = ["undefended", "tag:made-up"]
budgets = [40]
clone = { recipes = ["adamw"], epochs = 1, architecture = "lenet5", options = {} }
labels = ["soft"]
[studies.meco]
utility = ["undefended", "tag:made-up"]
"""
ATTACKS = '[attacks.knockoff]\nsurrogate = "flower"\nbudget = 40\n'


def run(*words: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_made_up_ablation_goes_the_whole_way(tmp_path: Path, smoke: Smoke, key_file: Path) -> None:
    del key_file  # in the environment
    path = tmp_path / "smoke.toml"
    around = AROUND if "[attacks.knockoff]" in RECIPE.read_text("utf-8") else ATTACKS + AROUND
    path.write_text(RECIPE.read_text("utf-8") + ABLATION + around, "utf-8")
    recipe = recipes.read(path)

    # make's rules train it by its program, and the study asks for it
    text = rules(recipe)
    assert "$(py) -m training.meco $(spec) --network meco_made_up" in text
    assert "studied.meco = undefended meco-made-up" in text
    assert "evaluation.studies utility $(spec) --policies undefended meco-made-up" in text
    assert "--only meco-knockoff" in text

    runs, build, store, report = (tmp_path / name for name in ("runs", "build", "store", "report"))
    (runs / "smoke").mkdir(parents=True)
    victim = "smoke/victim.safetensors"
    (runs / victim).write_bytes((smoke.runs / victim).read_bytes())
    meco.main(argparse.Namespace(recipe=str(path), runs=runs, data=None, seed=0, network="meco_made_up"))
    folders = ["--runs", str(runs), "--build", str(build)]
    graphs.main([str(path), *folders])
    archive.main([str(path), *folders, "--store", str(store), "--policies", "undefended", "meco-made-up"])
    where = ("--store", store, "--run", report)
    run("evaluation.studies", "utility", path, "--policies", "undefended", "meco-made-up", *where)
    run("evaluation.matrix", path, "--only", "meco-knockoff", *where)
    run("report.html", report)

    found = read(report / "report.json")
    assert {row.policy for row in found.policies} == {"undefended", "meco-made-up"}
    assert {row.policy for row in found.attacks} == {"undefended", "meco-made-up"}
    page = (report / "report.html").read_text("utf-8")
    assert "meco-made-up<small>a generator of two filters</small>" in page
