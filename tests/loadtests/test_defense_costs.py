"""What defenses cost: the naive forms behind real archives, the memory of a process, and the program."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

import recipes
from attacks.clone import Cloning
from attacks.service import Service
from defenses.poisoning import GradientRedirection, Mad
from defenses.rule import Context
from loadtests import defense_costs
from loadtests.oracles import InProcessOracle
from loadtests.results import read
from tests.conftest import RECIPE, Smoke
from tests.reached import Reached
from zoo import datasets

IMAGES = np.ascontiguousarray(datasets.load("digits", "test").pixels[:16].numpy())


def compared(smoke: Smoke, *policies: str) -> list[defense_costs.Defense]:
    return defense_costs.defenses(recipes.read(RECIPE), policies, store=smoke.store, build=smoke.build)[1]


def test_the_naive_forms_show_what_the_rules_make_of_the_undefended_answers(
    smoke: Smoke, baselines: Smoke, reached: Reached
) -> None:
    rules = {"mad": Mad(0.5), "grad": GradientRedirection(1.5)}  # as tests/smoke.toml has them
    with InProcessOracle(baselines.archive("grad")) as oracle:
        told = oracle.pipeline.graphs["surrogate"](IMAGES)
    with InProcessOracle(smoke.archive("undefended")) as oracle:
        y = oracle.pipeline(IMAGES).probabilities
        naive = {each.name: each.naive for each in compared(baselines, "mad", "grad") if each.naive}
        shown = {name: each.behind(oracle)(IMAGES) for name, each in naive.items()}
    assert y is not None
    assert set(shown) == set(rules)
    for name, rule in rules.items():
        served = rule(y, Context({"surrogate": told}, np.random.default_rng(0)))
        assert served is not None
        assert np.allclose(shown[name], served, atol=1e-5), name
        reached(f"l1 of {name}", np.abs(shown[name] - y).sum(axis=1).mean(), above=0.1)


def test_an_archive_and_a_build_of_different_checkpoints(baselines: Smoke, tmp_path: Path) -> None:
    folder = tmp_path / "smoke"
    folder.mkdir()
    victim = baselines.build / "smoke/victim.ts.pt"
    (folder / "surrogate.ts.pt").write_bytes(victim.read_bytes())
    with pytest.raises(defense_costs.OracleError, match=r"surrogate.ts.pt: of another checkpoint than the archive's"):
        defense_costs.defenses(recipes.read(RECIPE), ["mad"], store=baselines.store, build=tmp_path)


def test_a_surrogate_that_is_not_the_recipe_s(baselines: Smoke) -> None:
    (naive,) = (each.naive for each in compared(baselines, "mad") if each.naive)
    other = dataclasses.replace(naive, planned=Cloning("lenet5-half", epochs=1))
    with pytest.raises(defense_costs.OracleError, match=r"surrogate.ts.pt: not the recipe's lenet5-half"):
        other.network(Service(1, 28, 10))


def test_the_program(smoke: Smoke, baselines: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["x", str(RECIPE), "--run", str(tmp_path), "--store", str(baselines.store), "--build", str(smoke.build)]
    words += ["--batches", "8", "--rounds", "3", "--seconds", "0.02", "--policies", "mad"]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(defense_costs, "POLICIES", ("undefended", "not-in-the-recipe"))
    defense_costs.main()
    rows = {(row.defense, row.form): row for row in read(tmp_path / "report.json").defense_costs}
    assert set(rows) == {("undefended", "served"), ("mad", "served"), ("mad", "naive")}
    for row in rows.values():
        assert (row.architecture, row.batch, row.threads, len(row.ms_rounds)) == ("lenet5", 8, 1, 3)
        assert row.victim_ms_rounds == rows["undefended", "served"].victim_ms_rounds
        assert row.peak_mb is not None
    assert 0.3 < rows["undefended", "served"].times < 3
    assert rows["mad", "naive"].times > rows["mad", "served"].times > 1


def test_the_command_line_is_checked(smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["x", str(RECIPE), "--run", str(tmp_path), "--store", str(smoke.store)]
    monkeypatch.setattr(sys, "argv", [*words, "--batches", "0"])
    with pytest.raises(SystemExit):
        defense_costs.main()
    monkeypatch.setattr(sys, "argv", [*words, "--policies", "nothing"])
    monkeypatch.setattr(defense_costs, "POLICIES", ("undefended",))
    with pytest.raises(SystemExit, match=r"smoke-nothing.mar: no such archive"):
        defense_costs.main()
