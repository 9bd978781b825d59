"""The EDM page from synthetic results: what it says can be worked out by hand, and losing cells stand there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from report.pages import edm
from report.rows.routing import CoherenceRow, HashCostRow, InvarianceRow, RoutingRow
from report.rows.training import TrainingRow
from report.schema import Report, ResultError, write
from tests.report import synthetic
from tests.report.pages.reading import answer, check, lines
from tests.report.synthetic import attack_row, policy_row

BENIGN, THIEF = "benign (mnist)", "thief (fashionmnist)"
CLONES = {  # soft at 50,000 queries, the rest at 10,000
    ("undefended", None, 50_000): 0.91,
    ("undefended", None, 10_000): 0.90,
    ("undefended", "averaging", 50_000): 0.88,
    ("edm", None, 50_000): 0.65,
    ("edm", None, 10_000): 0.60,
    ("edm", "averaging", 50_000): 0.72,
    ("edm-class-confidence", None, 10_000): 0.55,
    ("edm-class-confidence", "averaging", 50_000): 0.77,
    ("ensemble", None, 10_000): 0.89,
}


def training_row(predictor: str, **changes: Any) -> TrainingRow:
    plain: dict[str, Any] = {
        "recipe": "mnist",
        "predictor": predictor,
        "members": 5,
        "lambda_diversity": 1.0,
        "epochs": 4,
        "seconds_per_epoch": 80.0,
        "device": "cpu",
        "validation_accuracy": 0.985,
        "diversity": 0.04,
        "coherence": 0.2,
    }
    return TrainingRow(**{**plain, **changes})


def results(**changes: Any) -> Report:
    settings = {"dataset": {"name": "mnist"}, "clone": {"epochs": 8, "recipes": ["sgd", "adamw"]}}
    hashes = ("edm", "edm-class-confidence", "DCT pHash", "SHA-1")
    sections: dict[str, Any] = {
        "run": dataclasses.replace(synthetic.RUN, settings=settings),
        "attacks": tuple(
            attack_row(
                recipe="mnist",
                policy=policy,
                adaptive=adaptive,
                budget=budget,
                queries=budget,
                labels=labels,
                clone_accuracy=accuracy - (0.2 if labels == "hard" else 0),
            )
            for (policy, adaptive, budget), accuracy in CLONES.items()
            for labels in ("soft", "hard")
        ),
        "policies": (
            policy_row(recipe="mnist"),
            policy_row(recipe="mnist", policy="ensemble", accuracy=0.99),
            policy_row(recipe="mnist", policy="edm", accuracy=0.983, accuracy_drop=0.007),
        ),
        "detection": (),
        "bench": (),
        "routing": tuple(
            RoutingRow("mnist", policy, traffic, member, rows)
            for policy in hashes
            for traffic, counts in ((BENIGN, (50, 50)), (THIEF, (100, 0)))
            for member, rows in enumerate(counts)
        ),
        "coherence": tuple(
            CoherenceRow("mnist", policy, THIEF, 100, mean, tuple(n / 100 for n in range(101)))
            for policy, mean in (("ensemble", 0.95), ("edm", 0.25))
        ),
        "training": (
            training_row("victim", members=1, lambda_diversity=None, seconds_per_epoch=8.0, validation_accuracy=0.988),
            training_row("ensemble", lambda_diversity=0.0),
            training_row("edm"),
        ),
        "invariance": tuple(
            InvarianceRow("mnist", policy, traffic, degrees, 0.1, 0.1, 10, 10, kept, (round(100 * kept), 0))
            if kept == 1
            else InvarianceRow("mnist", policy, traffic, degrees, 0.1, 0.1, 10, 10, kept, (80, 20))
            for policy in hashes
            for traffic in (BENIGN, THIEF)
            for degrees, kept in ((5.0, 1.0), (15.0, 0.8))
        ),
        "hash_costs": tuple(HashCostRow("mnist", policy, 8, 150.0, 2.5) for policy in hashes[:2]),
    }
    return Report(**{**sections, **changes})


def page(**changes: Any) -> str:
    return edm.METHOD.render([edm.Experiment("mnist", results(**changes))])


def test_targets_missed_stand_before_targets_met() -> None:
    text = page()
    check(text)
    found = answer(text)
    (lowered,) = [line for line in found if "EDM lowers" in line]
    assert lowered == (
        "mnist: EDM lowers Knockoff's clone by 26.0 points (91.0 % → 65.0 %, soft labels, 50\u202f000 queries); "
        "at least 25 was asked."
    )
    (drop,) = [line for line in found if "lost by users" in line]
    assert drop == "**Does not hold**: mnist: points lost by users: 0.70 under `edm`; at most 0.5 was asked."
    (routing,) = [line for line in found if "not trained to disagree" in line]
    assert routing.startswith("**Does not hold**: mnist:")
    assert "by 1.0 points (90.0 % → 89.0 %" in routing
    assert found.index(drop) < found.index(lowered)


def test_the_averaging_attacker_is_compared_at_equal_images() -> None:
    text = page()
    assert lines(text, "| mnist | edm | soft | 10\u202f000 | 50\u202f000 | 60.0 % | 72.0 % | +12.0 |")
    assert lines(text, "**Does not hold**: mnist: the averaging attacker moves EDM's clone from 60.0 % to 72.0 %")
    assert lines(text, "| mnist | soft | edm, plain → averaging | 50\u202f000 | 60.0 % → 72.0 % | 51.34 → 72.0 |")


def test_clones_stand_next_to_the_papers() -> None:
    text = page()
    assert lines(text, "| mnist | soft | edm | 50\u202f000 | 91.0 % → 65.0 % | 90.18 → 51.34 |")
    assert lines(text, "| mnist | soft | ensemble | 10\u202f000 | 90.0 % → 89.0 % | 90.18 → 88.04 |")
    assert lines(text, "| mnist | hard | ensemble | 10\u202f000 | 70.0 % → 69.0 % | - |")


def test_the_worst_balance_of_a_hash_is_the_entropy_of_its_least_even_traffic() -> None:
    assert lines(page(), f"| mnist | edm | 0.00 | {BENIGN} 80.0 %, attacker (fashionmnist) 80.0 % |")


def test_clones_that_were_not_measured_are_said() -> None:
    rows = tuple(row for row in results().attacks if row.policy != "ensemble")
    assert lines(page(attacks=rows), "**Not measured**: mnist: clones of `ensemble` from soft labels.")


def test_page_and_figure_are_made_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"no edm-\*\.json; make reproduce-edm RECIPE=mnist measures one"):
        edm.METHOD.pages(tmp_path)
    write(tmp_path / "edm-mnist.json", results())
    made = edm.METHOD.pages(tmp_path)
    assert sorted(made) == ["results/edm.md", "results/edm.svg"]
    assert made["results/edm.svg"].startswith("<svg")
    assert "](edm.svg)" in made["results/edm.md"]
