"""The EDM page from made-up results: what it says can be worked out by hand, and losing cells stand there."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from report.atomic import write_json
from report.pages import edm
from report.rows.routing import CoherenceRow, HashCostRow, InvarianceRow, RoutingRow
from report.rows.training import TrainingRow
from report.schema import Report
from tests.report import synthetic
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
    search = (
        {"lambda": 0.0, "step": "short", "validation_accuracy": 0.988, "diversity": 0.9, "drop": 0.0, "kept": True},
        {"lambda": 1.0, "step": "short", "validation_accuracy": 0.986, "diversity": 0.05, "drop": 0.002, "kept": True},
        {"lambda": 3.0, "step": "short", "validation_accuracy": 0.98, "diversity": 0.02, "drop": 0.008, "kept": False},
    )
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
            training_row("edm", search=search),
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


def page(report: Report, folder: Path) -> str:
    write_json(folder / "edm-mnist.json", dataclasses.asdict(report))
    return edm.render(edm.load(folder))


def lines(text: str, *words: str) -> list[str]:
    return [line for line in text.splitlines() if all(word in line for word in words)]


def test_targets_met_and_missed_are_both_shown(tmp_path: Path) -> None:
    text = page(results(), tmp_path)
    (near,) = lines(text, "near the paper's 90 %")
    (lower,) = lines(text, "at least 25 points below")
    (within,) = lines(text, "within 0.5 points")
    assert near.endswith("| 91.00 | yes |")
    assert lower.endswith("| 26.00 | yes |")
    assert within.endswith("| 0.70 | **no** |")


def test_thefts_stand_beside_the_papers(tmp_path: Path) -> None:
    text = page(results(), tmp_path)
    (largest,) = lines(text, "| mnist | soft | 50\u202f000 | 91.0 % | - | 65.0 % |")
    assert "0.92 → 0.66 | 90.18 | 88.04 | 51.34 |" in largest
    (hard,) = lines(text, "| mnist | hard | 10\u202f000 | 70.0 % | 69.0 % | 40.0 % |")
    assert hard.endswith("| 61.2 | - | 41.25 |")


def test_the_averaging_thief_is_compared_at_equal_images(tmp_path: Path) -> None:
    (soft,) = lines(page(results(), tmp_path), "| mnist | soft | 10\u202f000 | 50\u202f000 |")
    assert "90.0 % → 88.0 % | 60.0 % → 72.0 % | 55.0 % → 77.0 % |" in soft


def test_balance_is_the_entropy_of_the_shares(tmp_path: Path) -> None:
    assert len(lines(page(results(), tmp_path), "| 1.00 (50.0 %) | 0.00 (100.0 %) |")) == 4


def test_the_search_and_what_was_taken(tmp_path: Path) -> None:
    text = page(results(), tmp_path)
    assert lines(text, "| mnist | 3.0 | short | 98.0 % | +0.8 | 0.020 | no |")
    assert lines(text, "| mnist | 1.0 | **taken** | 98.5 % | +0.3 |")
    assert lines(text, "| mnist | edm | 5 | 4 | 80 | 10.0 | cpu |")


def test_every_table_has_as_many_cells_in_a_line_as_in_its_head(tmp_path: Path) -> None:
    tables = re.findall(r"(?:^\|.*\|\n)+", page(results(), tmp_path), re.MULTILINE)
    assert len(tables) >= 10
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
        assert len(table.splitlines()) > 2, table


def test_the_program_writes_page_and_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "edm-mnist.json", dataclasses.asdict(results()))
    output = tmp_path / "docs/edm.md"
    monkeypatch.setattr(sys, "argv", ["edm", "--results", str(tmp_path), "--output", str(output)])
    edm.main()
    for name in re.findall(r"\]\((.*\.svg)\)", output.read_text("utf-8")):
        assert (output.parent / name).read_text("utf-8").startswith("<svg")


def test_no_results_say_how_to_make_some(tmp_path: Path) -> None:
    with pytest.raises(edm.ResultError, match=r"no edm-\*\.json; make one with `make reproduce RECIPE=mnist`"):
        edm.load(tmp_path)
