"""What defenses cost: the naive forms behind real archives, the memory of a process, and the program."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import recipes
from attacks.clone import Cloning
from attacks.service import Service
from bench.costs import defenses
from defenses.responses.poisoning import GradientRedirection, Mad
from defenses.responses.rule import Context
from evaluation.oracles import InProcessOracle
from tests.bench.command import cost
from tests.conftest import RECIPE, Smoke
from tests.reached import Reached
from zoo import datasets


@cache
def some_images() -> np.ndarray:
    return np.ascontiguousarray(datasets.load("digits", "test").pixels[:16].numpy())


def compared(smoke: Smoke, *policies: str) -> list[defenses.Defense]:
    return defenses.defenses(recipes.read(RECIPE), policies, store=smoke.store, build=smoke.build)[1]


def test_the_naive_forms_show_what_the_rules_make_of_the_undefended_answers(
    smoke: Smoke, baselines: Smoke, reached: Reached
) -> None:
    rules = {"mad": Mad(0.5), "grad": GradientRedirection(1.5)}  # as tests/smoke.toml has them
    with InProcessOracle(baselines.archive("grad")) as oracle:
        outputs = oracle.pipeline.graphs["surrogate"](some_images())
    with InProcessOracle(smoke.archive("undefended")) as oracle:
        y = oracle.pipeline(some_images()).probabilities
        naive = {each.name: each.naive for each in compared(baselines, "mad", "grad") if each.naive}
        shown = {name: each.behind(oracle)(some_images()) for name, each in naive.items()}
    assert y is not None
    assert set(shown) == set(rules)
    for name, rule in rules.items():
        served = rule(y, Context({"surrogate": outputs}, np.random.default_rng(0)))
        assert served is not None
        assert np.allclose(shown[name], served, atol=1e-5), name
        reached(f"l1 of {name}", np.abs(shown[name] - y).sum(axis=1).mean(), above=0.1)


def test_an_archive_and_a_build_of_different_checkpoints(baselines: Smoke, tmp_path: Path) -> None:
    folder = tmp_path / "smoke"
    folder.mkdir()
    victim = baselines.build / "smoke/victim.ts.pt"
    (folder / "surrogate.ts.pt").write_bytes(victim.read_bytes())
    with pytest.raises(defenses.OracleError, match=r"surrogate.ts.pt: of another checkpoint than the archive's"):
        defenses.defenses(recipes.read(RECIPE), ["mad"], store=baselines.store, build=tmp_path)


def test_a_surrogate_that_is_not_the_recipe_s(baselines: Smoke) -> None:
    (naive,) = (each.naive for each in compared(baselines, "mad") if each.naive)
    other = dataclasses.replace(naive, planned=Cloning("lenet5-half", epochs=1))
    with pytest.raises(defenses.OracleError, match=r"surrogate.ts.pt: not the recipe's lenet5-half"):
        other.network(Service(1, 28, 10))


def test_the_program(smoke: Smoke, baselines: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defenses, "POLICIES", ("undefended", "not-in-the-recipe"))
    words = ("--build", str(smoke.build), "--batches", "8", "--policies", "mad")
    report = cost("defenses", *words, run=tmp_path, store=baselines.store)
    rows = {(row.defense, row.form): row for row in report.defense_costs}
    assert set(rows) == {("undefended", "served"), ("mad", "served"), ("mad", "naive")}
    for row in rows.values():
        assert (row.architecture, row.batch, row.threads, len(row.ms_rounds)) == ("lenet5", 8, 1, 3)
        assert row.victim_ms_rounds == rows["undefended", "served"].victim_ms_rounds
        assert row.peak_mb is not None
    assert 0.3 < rows["undefended", "served"].times < 3
    assert rows["mad", "naive"].times > rows["mad", "served"].times > 1


def test_the_command_line_is_checked(smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="2"):
        cost("defenses", "--batches", "0", run=tmp_path, store=smoke.store)
    monkeypatch.setattr(defenses, "POLICIES", ("undefended",))
    with pytest.raises(SystemExit, match=r"smoke-nothing.mar: no such archive"):
        cost("defenses", "--policies", "nothing", run=tmp_path, store=smoke.store)
