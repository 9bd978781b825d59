"""The rules that make includes: of every recipe, each policy's networks are those whose graphs its archive holds."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

import recipes
from export import rules
from export.archive import PolicyTable
from recipes import RecipeError

CHECKOUT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (CHECKOUT / "recipes").glob("*.toml"))


def read(tmp_path: Path, text: str) -> recipes.Recipe:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return recipes.read(path)


def test_a_policy_needs_its_predictor_and_what_each_stage_reads(tmp_path: Path) -> None:
    gate = '{ action = "observe", form = "robust", alpha = 0.9, false_positive_rate = 0.01, graph = "same_small" }'
    tables = "[victim]\n[edm]\n[hash]\n[meco]\n[same_small]\n[surrogate]\n"
    policies = f"""
[policies.plain]
predictor = "victim"
[policies.routed]
predictor = "edm"
route = {{ hash = "projection" }}
[policies.noisy]
predictor = "meco"
perturb = {{ noise = "fresh" }}
gate = {gate}
[policies.poisoned]
predictor = "victim"
response = {{ rule = "mad", epsilon = 0.5 }}
[policies.own]
predictor = "/data/mine.onnx"
"""
    assert rules.rules(read(tmp_path, tables + policies)).splitlines()[1:] == [
        "policies = plain routed noisy poisoned own",
        "gates = noisy",
        "tables = victim edm hash meco same_small surrogate policies",
        "evaluations =",
        "nets.plain = $(runs)/victim.safetensors",
        "nets.routed = $(runs)/edm.safetensors $(runs)/hash.safetensors",
        "nets.noisy = $(runs)/meco.safetensors $(runs)/same_small.safetensors",
        "nets.poisoned = $(runs)/victim.safetensors $(runs)/surrogate.safetensors",
        "nets.own = /data/mine.onnx",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_rules_of_every_recipe_name_every_policy(name: str) -> None:
    recipe = recipes.read(name)
    policies = recipe.family("policies", PolicyTable)
    text = rules.rules(recipe)
    assert policies
    for policy in policies:
        assert f"\nnets.{policy} = " in text


def test_a_network_without_a_table_is_an_error_before_anything_trains(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"\[policies.edm\] runs 'hash', but there is no table \[hash\]"):
        rules.rules(read(tmp_path, '[edm]\n[policies.edm]\npredictor = "edm"\nroute = { hash = "projection" }\n'))


@pytest.mark.parametrize("path", ["/data/my model.onnx", "/data/$(HOME).onnx", "/data/a#b.onnx"])
def test_what_make_would_take_apart_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(RecipeError, match="expected a name or path without spaces"):
        rules.rules(read(tmp_path, f'[policies.own]\npredictor = "{path}"\n'))


def commands(*words: str) -> str:
    done = subprocess.run(["make", "-n", *words], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


# a key file and folders that nobody has: everything is yet to be made
FRESH = ("RECIPE=digits", "runs=build/absent/runs", "graphs=build/absent/.exported")


def test_make_trains_what_the_policies_run_and_nothing_else() -> None:
    victim = commands("train", *FRESH, "POLICIES=undefended")
    assert "training.victim digits" in victim
    assert "training.edm" not in victim
    demo = commands("train", *FRESH, "POLICIES=undefended edm")
    assert "training.edm digits" in demo
    assert "training.perceptual_hash digits" in demo
    assert "training.meco" not in demo
    assert "training.same" not in demo
    gated = commands("train", *FRESH, "POLICIES=same-pow")
    assert "training.same digits --table same" in gated
    assert "training.edm" not in gated


def test_make_refuses_a_policy_that_the_recipe_has_not() -> None:
    assert "recipe digits has no policy nonsense; it has: undefended edm" in commands(
        "archive", "POLICIES=nonsense edm"
    )


def test_make_exports_again_when_another_policy_needs_a_network_that_is_not_there(tmp_path: Path) -> None:
    # what a demo of `undefended` leaves behind: its network, and then its graphs
    runs, exported = tmp_path / "runs", tmp_path / "build/.exported"
    for age, path in ((20, runs / "victim.safetensors"), (0, exported)):
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (time.time() + 60 - age, time.time() + 60 - age))
    found = commands("export", "RECIPE=digits", f"runs={runs}", f"graphs={exported}", "POLICIES=same-pow")
    assert found.index("training.same digits --table same") < found.index("export.graphs digits")
