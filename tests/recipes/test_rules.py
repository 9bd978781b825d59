"""The rules that make includes: of every recipe, each policy's networks are those whose graphs its archive holds."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

import recipes
from recipes import RecipeError
from recipes.rules import rules
from tests.recipes.texts import HASH, VICTIM

CHECKOUT = Path(__file__).resolve().parents[2]
NETWORKS = (
    VICTIM
    + HASH
    + """
[networks.ensemble]
program = "edm"
auxiliary = "china"
[networks.edm]
auxiliary = "china"
lambda_diversity = [0.1, 1.0]
[networks.meco]
[networks.same_small]
program = "same"
groups = 2
fit = { epochs = 1 }
[networks.surrogate]
kind = "random"
auxiliary = "china"
"""
)
MODEL = """
[model]
file = "/data/mine.onnx"
classes = ["cat", "dog"]
input = { size = 28, channels = 1 }
[policies.undefended]
predictor = "victim"
"""
GATE = '{{ action = "observe", form = "robust", alpha = 0.9, false_positive_rate = 0.01, graph = "{}" }}'
POLICIES = f"""
[policies.plain]
predictor = "victim"
[policies.routed]
predictor = "edm"
route = {{ hash = "projection" }}
[policies.noisy]
predictor = "meco"
perturb = {{ noise = "fresh" }}
gate = {GATE.format("same_small")}
[policies.poisoned]
predictor = "victim"
response = {{ rule = "mad", epsilon = 0.5 }}
"""
STUDIES = """
[attacks.knockoff]
surrogate = "flower"
budget = 10
[evaluate.edm-knockoff]
policies = ["plain", "routed"]
budgets = [10]
[evaluate.edm-over-http]
policies = ["routed"]
budgets = [10]
[studies.edm]
utility = ["plain", "routed"]
detection = { policies = ["noisy"], ensemble = "routed" }
gates = ["noisy"]
over-http = ["edm-over-http"]
[studies.fuzz]
policies = ["plain"]
"""


def read(tmp_path: Path, text: str) -> recipes.Recipe:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return recipes.read(path)


def rule(text: str, target: str) -> list[str]:
    """The prerequisites of a target, and its recipe's lines."""
    lines = text.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith(f"{target}:")]
    commands = []
    for line in lines[at + 1 :]:
        if not line.startswith("\t"):
            break
        commands.append(line.strip())
    return [lines[at].partition(": ")[2], *commands]


def test_a_policy_needs_its_predictor_and_what_each_stage_reads(tmp_path: Path) -> None:
    assert rules(read(tmp_path, NETWORKS + POLICIES)).splitlines()[1:8] == [
        "policies = plain routed noisy poisoned",
        "gates = noisy",
        "studies =",
        "nets.plain = $(runs)/victim.safetensors",
        "nets.routed = $(runs)/edm.safetensors $(runs)/hash.safetensors",
        "nets.noisy = $(runs)/meco.safetensors $(runs)/same_small.safetensors",
        "nets.poisoned = $(runs)/victim.safetensors $(runs)/surrogate.safetensors",
    ]


def test_a_network_is_trained_by_its_program_after_what_it_starts_from(tmp_path: Path) -> None:
    recipe = read(tmp_path, NETWORKS + POLICIES)
    text, file = rules(recipe), recipe.path
    assert rule(text, "$(runs)/victim.safetensors") == [str(file), "$(py) -m training.victim $(spec) && touch $@"]
    for network, needs, program in (
        ("hash", "$(TORCHWARDEN_KEY_FILE)", "perceptual_hash"),
        ("edm", "$(runs)/ensemble.safetensors | $(runs)/victim.safetensors", "edm"),
        ("meco", "$(runs)/victim.safetensors", "meco"),
        ("same_small", "$(runs)/victim.safetensors $(TORCHWARDEN_KEY_FILE)", "same"),
        ("surrogate", "$(runs)/victim.safetensors $(TORCHWARDEN_KEY_FILE)", "surrogate"),
    ):
        command = f"$(py) -m training.{program} $(spec) --network {network} && touch $@"
        assert rule(text, f"$(runs)/{network}.safetensors") == [f"{file} {needs}", command]
    assert rule(text, "$(runs)/ensemble.safetensors")[0] == str(file)


def test_an_archive_with_a_gate_needs_its_calibration(tmp_path: Path) -> None:
    text = rules(read(tmp_path, NETWORKS + POLICIES))
    assert rule(text, "model_store/mine-plain.mar")[0] == "$(graphs) $(packed)"
    assert rule(text, "model_store/mine-noisy.mar")[0] == "$(graphs) $(runs)/noisy.calibration.json $(packed)"
    assert rule(text, "$(runs)/noisy.calibration.json") == [
        "$(nets.noisy)",
        "$(py) -m training.calibration $(spec) --policies noisy",
    ]


def test_a_study_is_run_in_the_order_of_its_table_and_published(tmp_path: Path) -> None:
    text = rules(read(tmp_path, NETWORKS + POLICIES + STUDIES))
    assert "\nstudies = edm\n" in text  # what only names policies measures nothing
    assert "\nstudied.edm = plain routed noisy\n" in text
    assert "\nstudied.fuzz = plain\n" in text
    run = "--run reports/$(name)-edm"
    assert rule(text, "reproduce-edm")[1:] == [
        '$(MAKE) archive POLICIES="$(studied.edm)"',
        f"$(py) -m evaluation.studies utility $(spec) --policies plain routed {run}",
        f"$(py) -m evaluation.studies detection $(spec) --policies noisy --ensemble routed {run}",
        f"$(py) -m bench.costs gates $(spec) --policies noisy {run}",
        f"$(py) -m evaluation.matrix $(spec) --only edm-knockoff {run}",
        "$(call published,reports/$(name)-edm,edm)",
    ]
    assert rule(text, "over-http-edm")[1] == '$(MAKE) serve POLICIES="routed"'


@pytest.mark.parametrize("name", recipes.known())
def test_the_rules_of_every_recipe_name_every_policy(name: str) -> None:
    recipe = recipes.read(name)
    text = rules(recipe)
    assert recipe.tables["policies"]
    for policy in recipe.tables["policies"]:
        assert f"\nnets.{policy} = " in text


def test_a_network_without_a_table_is_an_error_before_anything_trains(tmp_path: Path) -> None:
    text = '[networks.edm]\nauxiliary = "china"\n[policies.edm]\npredictor = "edm"\nroute = { hash = "projection" }\n'
    with pytest.raises(RecipeError, match=r"\[policies.edm\]: it runs 'hash', and there is no \[networks.hash\]"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    "tables",
    [
        '[evaluate."x; touch y"]\npolicies = ["plain"]\nbudgets = [1]\n',
        '[studies.edm]\ndetection = { policies = ["plain"], ensemble = "x; touch y" }\n',
        '[studies.edm]\n"utility; touch y" = ["plain"]\n',
    ],
)
def test_nothing_of_a_recipe_reaches_the_shell_but_words(tmp_path: Path, tables: str) -> None:
    with pytest.raises(RecipeError, match=r"touch.*: expected a name or path without spaces or signs"):
        rules(read(tmp_path, NETWORKS + POLICIES + tables))


@pytest.mark.parametrize("path", ["/data/my model.onnx", "/data/$(HOME).onnx", "/data/a#b.onnx"])
def test_what_make_would_take_apart_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(RecipeError, match="expected a name or path without spaces"):
        rules(read(tmp_path, MODEL.replace("/data/mine.onnx", path)))


def test_an_adopted_victim_is_made_from_its_file(tmp_path: Path) -> None:
    recipe = read(tmp_path, MODEL + NETWORKS + POLICIES)
    text = rules(recipe)
    assert rule(text, "$(runs)/victim.onnx") == [
        f"{recipe.path} /data/mine.onnx $(adopting)",
        "$(py) -m export.adopt --recipe $(spec) && touch $@",
    ]
    assert "training.victim" not in text
    assert "nets.plain = $(runs)/victim.onnx\n" in text
    assert rule(text, "$(runs)/same_small.safetensors")[0].endswith("$(runs)/victim.onnx $(TORCHWARDEN_KEY_FILE)")
    weights = read(tmp_path, MODEL.replace("classes", 'architecture = "timm:resnet18"\ngives = "logits"\nclasses'))
    assert rule(rules(weights), "$(runs)/victim.safetensors")[1].startswith("$(py) -m export.adopt --recipe")


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
    assert "training.same digits --network same" in gated
    assert "training.edm" not in gated


def test_make_takes_a_path_as_programs_do(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text((CHECKOUT / "recipes/digits.toml").read_text("utf-8"))
    found = commands("train", f"RECIPE={path}", "runs=build/absent/runs")
    assert f"training.victim {path} && touch build/absent/runs/victim.safetensors" in found
    (CHECKOUT / "build/rules/mine.mk").unlink(missing_ok=True)


def test_make_knows_a_policy_as_soon_as_the_recipe_has_it(tmp_path: Path) -> None:
    path = tmp_path / "growing.toml"
    text = (CHECKOUT / "recipes/digits.toml").read_text("utf-8")
    path.write_text(text)
    rules = CHECKOUT / "build/rules/growing.mk"
    asked = ("train", f"RECIPE={path}", "runs=build/absent/runs", "POLICIES=later")
    try:
        assert "has no policy later; it has: undefended" in commands(*asked)
        path.write_text(f'{text}\n[policies.later]\npredictor = "victim"\n')
        # files are compared by their times
        os.utime(path, (rules.stat().st_mtime + 1,) * 2)
        assert "training.victim" in commands(*asked)
    finally:
        rules.unlink(missing_ok=True)


def test_make_refuses_a_policy_that_the_recipe_has_not() -> None:
    assert "recipe digits has no policy nonsense; it has: undefended fitted edm" in commands(
        "archive", "POLICIES=nonsense edm"
    )


def test_a_recipe_with_a_fault_stops_make_before_anything_is_trained(tmp_path: Path) -> None:
    path = tmp_path / "faulty.toml"
    path.write_text((CHECKOUT / "recipes/digits.toml").read_text("utf-8").replace('"projection"', '"projectoin"'))
    done = subprocess.run(
        ["make", "train", f"RECIPE={path}"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "[policies.edm]: route: hash: expected one of class-confidence, projection, got 'projectoin'" in done.stderr
    assert "training.victim" not in done.stdout
    assert not (CHECKOUT / "build/rules/faulty.mk").exists()


def test_make_exports_again_when_another_policy_needs_a_network_that_is_not_there(tmp_path: Path) -> None:
    # what a demo of `undefended` leaves behind: its network, and then its graphs
    runs, exported = tmp_path / "runs", tmp_path / "build/.exported"
    for age, path in ((20, runs / "victim.safetensors"), (0, exported)):
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (time.time() + 60 - age, time.time() + 60 - age))
    found = commands("export", "RECIPE=digits", f"runs={runs}", f"graphs={exported}", "POLICIES=same-pow")
    assert found.index("training.same digits --network same") < found.index("export.graphs digits")


def test_the_makefile_names_no_network_and_no_policy_but_the_demo_s() -> None:
    text = (CHECKOUT / "Makefile").read_text("utf-8")
    policies = {name for recipe in recipes.known() for name in recipes.read(recipe).tables["policies"]}
    networks = {name for recipe in recipes.known() for name in recipes.read(recipe).networks}
    said = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    words = set(said.replace("$(", " ").replace(")", " ").split())
    # the demo's, and the studies that `make help` names
    assert words & (policies | networks) <= {"undefended", "edm", "same", "meco", "misleader"}
    assert len(text.splitlines()) <= 170
