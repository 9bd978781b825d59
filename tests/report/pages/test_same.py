"""The SAME page from synthetic results: its numbers can be worked out by hand, losing cells and gaps show."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from report.analysis.detection import Detection
from report.pages import same
from report.schema import Report, write
from tests.report import synthetic
from tests.report.pages.reading import answer, check, lines
from tests.report.synthetic import (
    attack_row,
    detection_row,
    false_positive_row,
    gate_cost_row,
    gate_precision_row,
    policy_row,
    work_row,
)

BENIGN = "benign (mnist)"
GATES = ("same-observe", "same-small")
SETTINGS = {
    "dataset": {"name": "mnist"},
    "detection.knockoff (fashionmnist)": {"attack": "knockoff", "surrogate": "fashionmnist"},
    "detection.jbda": {"attack": "jbda", "seeds": 200},
    "gate.same-observe": {"form": "robust", "alpha": 0.5, "threshold": 9.5, "work": None},
    "gate.same-pow": {"form": "robust", "alpha": 0.5, "threshold": 9.5, "work": {"mean_benign": 100.0}},
    "clone": {"architecture": "conv3", "epochs": 8},
}
# (attacker, budget, without its seeds): AUROC of the default gate, the small one, outlier exposure, the ensemble
AUROC = {
    ("knockoff (fashionmnist)", 1000, False): (0.995, 0.97, 0.92, 0.87),
    ("knockoff (fashionmnist)", 4000, False): (0.99, 0.96, 0.92, 0.86),
    ("jbda", 1000, False): (0.60, 0.55, 0.58, 0.70),
    ("jbda", 1000, True): (0.80, 0.75, 0.60, 0.75),
    ("in-distribution", 1000, False): (0.49, 0.5, 0.48, 0.47),
}
KINDS = ("gate", "gate", "outlier-exposure", "disagreement")
DETECTORS = (*GATES, "outlier-exposure", "edm-fixed")


def detections() -> tuple[Any, ...]:
    rows = [
        detection_row(
            recipe="mnist",
            detector=detector,
            kind=kind,
            attack=attack,
            budget=budget,
            seeds_left_out=left_out,
            n_attack=budget - (200 if left_out else 0),
            n_benign=10_000,
            auroc=auroc,
        )
        for (attack, budget, left_out), values in AUROC.items()
        for detector, kind, auroc in zip(DETECTORS, KINDS, values, strict=True)
    ]
    diluted = [
        detection_row(
            recipe="mnist", detector="same-observe", attack="knockoff (fashionmnist)", budget=4000, ratio=ratio, draws=5
        )
        for ratio in (0.01, 0.5)
    ]
    return (*rows, *diluted)


def results(**changes: Any) -> Report:
    sections: dict[str, Any] = {
        "run": dataclasses.replace(synthetic.RUN, settings=SETTINGS),
        "detection": detections(),
        "false_positives": (
            false_positive_row(policy="same-observe", traffic=BENIGN),
            false_positive_row(policy="same-pow", traffic=BENIGN, flagged=0.03, low=0.02, high=0.04),
            false_positive_row(policy="same-observe", traffic="jbda", malicious=True, flagged=0.5, low=0.4, high=0.6),
            false_positive_row(policy="same-observe", traffic="blurred", flagged=0.3, low=0.28, high=0.32),
            false_positive_row(policy="same-observe", traffic="darker", flagged=0.015, low=0.008, high=0.022),
        ),
        "work": (
            work_row(traffic=BENIGN),
            work_row(traffic="jbda", malicious=True, charged=0.5, mean=4000.0, median=3200.0, p99=40_000.0),
        ),
        "policies": (policy_row(), policy_row(policy="same-pow", false_positive_rate=0.012, forward_passes=2.0)),
        "gate_costs": tuple(
            gate_cost_row(policy=policy, gate_us=gate_us, ratio=ratio, batch=batch)
            for policy, gate_us, ratio in (("same-observe", 900.0, 10.0), ("same-small", 100.0, 3.0))
            for batch in (1, 32)
        ),
        "gate_precision": (
            gate_precision_row(policy="same-observe", format="float32", us=900.0, times=1.0, auroc={"jbda": 0.6}),
            gate_precision_row(
                policy="same-observe", format="int8-dynamic", us=990.0, times=1.1, auroc={"jbda": 0.595}
            ),
            gate_precision_row(
                policy="same-observe",
                format="bfloat16",
                us=None,
                times=None,
                graph_bytes=None,
                flagged=None,
                failed="no kernel for a|b",
                auroc={},
            ),
        ),
        "attacks": (
            attack_row(recipe="mnist", clone_accuracy=0.9),
            attack_row(recipe="mnist", labels="hard", clone_accuracy=0.8),
            attack_row(
                recipe="mnist", policy="same-pow", clone_accuracy=0.85, queries=4000, rejected=0, pow_hashes=8_000_000
            ),
            attack_row(
                recipe="mnist", policy="same-reject", labels="hard", clone_accuracy=0.4, queries=4000, rejected=3000
            ),
        ),
    }
    return Report(**{**sections, **changes})


def page(**changes: Any) -> str:
    return same.METHOD.render([Detection("mnist", results(**changes))])


def test_what_does_not_hold_opens_the_page() -> None:
    text = page()
    check(text)
    found = answer(text)
    assert "[gate-aware.md](gate-aware.md)" in found[0]
    assert found[1] == (
        "**Does not hold**: mnist: `same-observe` tells in-distribution apart with an AUROC of 49.00 "
        "(1\u202f000 queries; 50 is a guess), the median over 5 cells is 80.00."
    )
    assert found[2] == (
        "**Does not hold**: mnist: a baseline sees more in 1 of 5 cells, most on jbda: 60.00 against 70.00 "
        "(edm-fixed); 3 fall short of the paper."
    )
    # darker images may be flagged as seldom as calibrated
    assert found[3] == (
        "**Does not hold**: mnist: 2 of 3 kinds of benign traffic are flagged more often than the threshold was "
        "calibrated for: blurred 30.00 % (`same-observe`), benign (mnist) 3.00 % (`same-pow`)."
    )


def test_a_gate_that_wins_everywhere_is_said_to() -> None:
    winning = tuple(row for row in detections() if row.attack.startswith("knockoff") and row.budget == 1000)
    found = [line for line in answer(page(detection=winning)) if "baseline" in line]
    assert found == ["mnist: a baseline sees more in 0 of 1 cells; 0 fall short of the paper."]


def test_the_gate_next_to_the_best_baseline_and_the_paper() -> None:
    text = page()
    assert lines(text, "| mnist | jbda | 1\u202f000 | 60.00 |", "| **70.00 (edm-fixed)** | **93.30** |")
    assert lines(text, "| mnist | jbda, without its seeds | 1\u202f000 | 80.00 |", "| 75.00 (edm-fixed) | **93.30** |")
    # the budget at which the gate sees least, and it falls short of the paper there
    assert lines(
        text, "| mnist | knockoff (fashionmnist) | 4\u202f000 | 99.00 |", "| 92.00 (outlier-exposure) | **99.19** |"
    )
    assert not lines(text, "| mnist | knockoff (fashionmnist) | 1\u202f000 | 99.50 |")
    order = [
        line.split(" | ")[1] for line in lines(text, "| mnist | ", "(edm-fixed)") + lines(text, "outlier-exposure) |")
    ]
    assert order[0] == "jbda"


def test_a_baseline_that_was_trained_on_the_attackers_images_is_said_to_be() -> None:
    settings = {**SETTINGS, "baseline.edm-fixed": {"predictor": "edm_fixed", "auxiliary": "fashionmnist"}}
    stronger = tuple(
        dataclasses.replace(row, auroc=1.0) if row.detector == "edm-fixed" else row for row in detections()
    )
    run = dataclasses.replace(synthetic.RUN, settings=settings)
    text = page(run=run, detection=stronger)
    assert lines(text, "| knockoff (fashionmnist) |", "| **100.00 (edm-fixed, trained on these images)** |")
    assert lines(text, "| jbda |", "| **100.00 (edm-fixed)** |")


def test_whom_it_hits_and_what_work_is_asked() -> None:
    text = page()
    assert lines(text, "| blurred | user | **30.00** (28.00 to 32.00) | - |")
    assert lines(text, f"| {BENIGN} | user | 1.20 (0.81 to 1.78) | **3.00** (2.00 to 4.00) |")
    assert lines(text, "| jbda | attacker | 50.00 (40.00 to 60.00) | - |")
    # 4,000 hashes at 400,000 a second; 10,000 such queries
    (row,) = lines(text, "| same-pow | attackers, cheapest | jbda | 50.00 | 4\u202f000 | 40\u202f000 |")
    assert row.endswith("| 0.0100 | 0.03 |")


def test_detectors_costs_and_fewer_bits() -> None:
    text = page()
    assert lines(
        text, "| mnist | same-observe | gate | 80.00 | 49.00 | in-distribution | 1\u202f000 | 123\u202f456 | 900 |"
    )
    assert lines(text, "| mnist | edm-fixed | disagreement | 75.00 | 47.00 |")
    assert lines(text, "| mnist | 1 | same-small | 123\u202f456 | 100 |", "| 3.00 | 9.00 to 12.00 |")
    assert lines(text, "of 2 converted graphs 1 run, at 1.10 to 1.10 times float32's time")


def test_what_attackers_get_behind_a_refusal() -> None:
    (row,) = lines(page(), "| knockoff | hard | 4\u202f000 |")
    assert "40.0 (75.0 % refused)" in row


@pytest.mark.parametrize("name", ["detection", "false_positives", "work", "policies", "gate_costs", "gate_precision"])
def test_a_section_without_rows_is_not_measured(name: str) -> None:
    text = page(**{name: ()})
    check(text)
    assert lines(text, f"Not measured: mnist: {name}")
    assert "Not measured: " not in page().split("## Provenance")[1]


def test_page_and_figure_are_made_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "same-mnist.json", results())
    write(
        tmp_path / "same-bench.json",
        Report(synthetic.RUN, gate_costs=(gate_cost_row(policy="same-observe", ratio=2.0),)),
    )
    made = same.METHOD.pages(tmp_path)
    text = made["results/same.md"]
    check(text)
    assert lines(text, "`same-observe` takes 2.00 (bench) to 10.00 (mnist) times")
    assert lines(text, "| bench | - |", "`make reproduce-same RECIPE=bench` |")
    assert "<!-- blurred -->" in made["results/same.svg"]
