"""The detection program on archives made by hand: its rows are what the scores say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import recipes
from defenses.policy import Policy
from evaluation import roc
from evaluation.studies import detection
from report.schema import Report
from tests.data_sets import digits_test
from tests.defenses.policies import PAID_GATE, section
from tests.evaluation import gated
from tests.evaluation.studies.command import study
from tests.reached import Reached
from zoo import datasets


def detected(folder: Path, *words: str) -> Report:
    return study("detection", *words, run=folder / "run", store=folder, recipe=folder / "made-up.toml")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, key_file: Path) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("detection")
    gated.recipe(folder)
    for policy in ("undefended", "outlier-exposure"):
        gated.archive(folder, policy)
    gated.archive(folder, "same-observe", gate=gated.GATE)
    gated.archive(folder, "same-reject", gate=gated.REJECTING)
    gated.ensemble(folder)
    return folder, detected(folder, "--policies", "same-observe", "same-reject")


def test_every_detector_sees_every_attacker_at_every_budget(measured: tuple[Path, Report]) -> None:
    rows = [row for row in measured[1].detection if not row.draws]
    assert {(row.detector, row.kind) for row in rows} == {
        ("same-observe", "gate"),
        ("same-reject", "gate"),
        ("outlier-exposure", "outlier-exposure"),
        ("edm", "disagreement"),
    }
    found = [
        (row.attack, row.budget, row.seeds_left_out, row.n_attack) for row in rows if row.detector == "same-observe"
    ]
    assert found == [
        ("knockoff (flower)", 200, False, 200),
        ("knockoff (flower)", 400, False, 400),
        ("steps", 60, False, 60),
        ("steps", 60, True, 20),
        ("steps", 100, False, 100),
        ("steps", 100, True, 60),
    ]
    assert {(row.n_benign, row.ratio) for row in rows} == {(len(digits_test()), 0.5)}
    assert len(rows) == 4 * 6


def test_the_figures_are_those_of_the_scores(measured: tuple[Path, Report]) -> None:
    folder, report = measured
    flowers = datasets.load("flower", "train").pixels
    with np.load(next((folder / "run" / "queries").glob("knockoff-*.npz"))) as file:
        asked = file["images"]
    assert len(flowers) > len(asked) == 400
    benign, attack = (
        np.square(images - gated.reconstructed(images)).sum((1, 2, 3), dtype=np.float64)
        for images in (digits_test().pixels.numpy(), asked[:200])
    )
    (row,) = [row for row in report.detection if (row.detector, row.budget) == ("same-observe", 200)]
    by_hand = roc.figures(benign, attack, ratio=0.5)
    assert row.auroc == pytest.approx(by_hand.auroc, abs=1e-4)
    assert row.aupr == pytest.approx(by_hand.aupr, abs=1e-3)
    assert row.fpr95 == pytest.approx(by_hand.fpr95, abs=5e-3)
    assert row.auroc > 0.7
    (curve,) = [row for row in report.score_curves if (row.detector, row.malicious) == ("same-observe", False)]
    assert (curve.traffic, curve.images) == ("benign (digits)", len(digits_test()))
    assert curve.percentiles[50] == pytest.approx(np.median(benign), rel=1e-4)


def test_copies_a_step_away_are_seen_better_without_the_seeds(measured: tuple[Path, Report], reached: Reached) -> None:
    rows = [
        row for row in measured[1].detection if (row.detector, row.attack, row.budget) == ("same-observe", "steps", 100)
    ]
    whole, left_out = rows
    reached("gain in AUROC", left_out.auroc - whole.auroc, above=0.0)
    traffic = [row.traffic for row in measured[1].score_curves if row.detector == "edm"]
    assert traffic == ["benign (digits)", "knockoff (flower)", "steps", "steps, without its seeds"]


def test_table_4_is_of_knockoff_under_the_first_policy(measured: tuple[Path, Report]) -> None:
    rows = [row for row in measured[1].detection if row.draws]
    assert {(row.detector, row.attack, row.budget, row.draws) for row in rows} == {
        ("same-observe", "knockoff (flower)", 400, 5)
    }
    assert [(row.ratio, row.n_attack, row.n_benign) for row in rows] == [
        (0.01, 5, 500),
        (0.05, 26, 500),
        (0.1, 56, 500),
        (0.3, 214, 500),
        (0.5, 400, 400),
        (0.9, 400, 44),
    ]
    assert [row.aupr for row in rows] == sorted(row.aupr for row in rows)


def test_the_run_says_what_was_judged_and_no_secret(measured: tuple[Path, Report]) -> None:
    settings = measured[1].run.settings
    assert settings["detection.steps"]["attack"] == "jbda"
    assert (settings["detection.steps"]["seeds"], settings["detection.steps"]["step"]) == (40, 0.3)
    found = settings["gate.same-observe"]
    assert (found["form"], found["alpha"], found["threshold"], found["thresholds"]) == (
        "paper",
        1.0,
        11.0,
        {"0.01": 11.0},
    )
    assert "gate.edm" not in settings
    assert settings["baseline.edm"] == {"predictor": "edm", "auxiliary": "china"}
    assert "baseline.same-observe" not in settings


def test_the_host_of_a_store_is_not_reported() -> None:
    work, store = {"mean_benign": 10.0}, "redis://machine.example:6379/0"
    gate = {**PAID_GATE, "work": work}
    policy = Policy.parse(section(policy="pow", gate=gate, store=store, key_env="TORCHWARDEN_KEY"))
    oracle: Any = SimpleNamespace(pipeline=SimpleNamespace(policy=policy))
    found = detection.gate(oracle)
    assert found["gate.pow"]["work"]["mean_benign"] == 10.0
    assert "machine.example" not in str(found)


def test_what_cannot_be_judged_is_an_error(measured: tuple[Path, Report]) -> None:
    folder, _ = measured
    with pytest.raises(SystemExit, match="made-up-undefended: expected a policy with a gate that scores every row"):
        detected(folder, "--policies", "undefended")
    with pytest.raises(SystemExit, match=r"made-up-nothing\.mar: no such archive"):
        detected(folder, "--policies", "same-observe", "--ensemble", "nothing")
    with pytest.raises(SystemExit, match=r"no \[detection.nothing\]"):
        detected(folder, "--policies", "same-observe", "--only", "nothing")


def test_the_parameters_are_those_of_the_attacker(tmp_path: Path) -> None:
    settings = detection.thieves(recipes.read(gated.recipe(tmp_path)))
    assert settings["detection.knockoff (flower)"] == {
        "attack": "knockoff",
        "after": 0,
        "surrogate": "flower",
        "budget": 400,
        "rows": 64,
    }
    assert settings["clone"]["architecture"] == "lenet5"
