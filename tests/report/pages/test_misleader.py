"""The MISLEADER page from synthetic results: its numbers can be worked out by hand, what is lost and missing shows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from report.pages import misleader
from report.rows.clones import AttackRow
from report.rows.members import ShiftRow
from report.rows.training import TrainingRow
from report.schema import Report, write
from tests.report import synthetic
from tests.report.pages.reading import answer, check, lines
from tests.report.synthetic import attack_row, ensemble_cost_row, member_row, policy_row, shift_row

SETTINGS = {
    "dataset": {"name": "mnist"},
    "classes": 10,
    "trained.victim": {"architecture": "conv3"},
    "clone": {"architecture": "conv3", "epochs": 8},
    "evaluate.misleader-knockoff": {"attacks": ["knockoff"], "clone": {}, "called": None, "overrides": {}},
    "evaluate.misleader-released-harness": {
        "attacks": ["dfme"],
        "clone": {"architecture": "lenet5"},
        "called": "p-as-logits",
        "overrides": {"targets": "p"},
    },
}
# (policy, attack, form, labels, budget): clone accuracy
CLONES = {
    ("undefended", "knockoff", None, "soft", 10_000): 0.95,
    ("undefended", "knockoff", None, "soft", 1_000): 0.40,
    ("undefended", "knockoff", None, "hard", 10_000): 0.85,
    ("undefended", "knockoff", "log-p", "soft", 10_000): 0.96,
    ("undefended", "knockoff", "averaging", "soft", 10_000): 0.80,
    ("undefended", "jbda", None, "soft", 9_600): 0.96,
    ("undefended", "dfme", None, "soft", 50_000): 0.90,
    ("undefended", "dfme", "p-as-logits", "soft", 50_000): 0.50,
    ("label", "knockoff", None, "hard", 10_000): 0.85,
    ("distilled", "knockoff", None, "soft", 10_000): 0.90,
    ("distilled", "knockoff", None, "soft", 1_000): 0.35,
    ("distilled", "knockoff", None, "hard", 10_000): 0.80,
    ("distilled", "knockoff", "log-p", "soft", 10_000): 0.91,
    ("distilled", "jbda", None, "soft", 9_600): 0.95,
    ("distilled", "dfme", None, "soft", 50_000): 0.20,
    ("distilled-routed", "knockoff", None, "soft", 10_000): 0.85,
    ("misleader", "knockoff", None, "soft", 10_000): 0.80,
    ("misleader", "knockoff", None, "soft", 1_000): 0.30,
    ("misleader", "knockoff", None, "hard", 10_000): 0.795,
    ("misleader", "knockoff", "log-p", "soft", 10_000): 0.93,
    ("misleader", "jbda", None, "soft", 9_600): 0.94,
    ("misleader", "dfme", None, "soft", 50_000): 0.15,
    ("misleader", "dfme", "p-as-logits", "soft", 50_000): 0.12,
    ("misleader-routed", "knockoff", None, "soft", 10_000): 0.70,
    ("misleader-routed", "knockoff", "averaging", "soft", 10_000): 0.75,
}
# by shift, accuracy of the undefended, the distilled and MISLEADER's members
SHIFTED = {
    "moved 3 pixels": (0.90, 0.92, 0.915),
    "blurred, sigma 1": (0.80, 0.70, 0.60),
    ShiftRow.NONE: (0.99, 0.988, 0.985),
    ShiftRow.TRAINED: (0.94, 0.95, 0.93),
}


def rows() -> tuple[AttackRow, ...]:
    """Two seeds, a point above and below; a losing recipe five points lower that agrees less."""
    return tuple(
        attack_row(
            recipe="mnist",
            policy=policy,
            attack=attack,
            adaptive=form,
            labels=labels,
            budget=budget,
            queries=budget,
            seed=seed,
            clone_recipe=recipe,
            clone_accuracy=accuracy + off - lost,
            held_out=0.85 - lost,
            no_query_accuracy=0.8 if attack == "jbda" else 0.1,
            victim_accuracy=1.0,
        )
        for (policy, attack, form, labels, budget), accuracy in CLONES.items()
        for recipe, lost in (("sgd", 0.05), ("adamw", 0.0))
        for seed, off in ((0, 0.01), (1, -0.01))
    )


def costs(times: float = 1.1) -> tuple[Any, ...]:
    """A routed answer that takes `times` as long as its dearest member, 2 ms, next to a mean of 5 ms."""
    routed = {
        "policy": "misleader-routed",
        "ms": 2 * times,
        "ms_rounds": [2 * times, 2 * times, 2 * times],
        "routed_ms_rounds": {"misleader-0": [2.4, 2.4, 2.4], "misleader-1": [1.2, 1.2, 1.2]},
        "hash_ms_rounds": [0.1, 0.1, 0.1],
        "peak_mb": None,
        "held_mb": None,
    }
    return (ensemble_cost_row(**routed), ensemble_cost_row())


def results(**changes: Any) -> Report:
    sections: dict[str, Any] = {
        "run": dataclasses.replace(synthetic.RUN, settings=SETTINGS),
        "attacks": rows(),
        "policies": (
            policy_row(policy="misleader-routed", accuracy=0.9849, accuracy_drop=0.0051, forward_passes=2.0),
            policy_row(
                policy="misleader", accuracy=0.985, accuracy_drop=0.005, label_flips=0.006, l1=0.02, forward_passes=3.0
            ),
            policy_row(),
            policy_row(policy="label", l1=None, ece=None),
            policy_row(policy="distilled", accuracy=0.988, accuracy_drop=0.002),
        ),
        "shifts": tuple(
            shift_row(policy=policy, shift=shift, accuracy=accuracy, kept=0.97, ece=0.0123)
            for shift, values in SHIFTED.items()
            for policy, accuracy in zip(("undefended", "distilled", "misleader"), values, strict=True)
        ),
        "members": (
            member_row(),
            member_row(member=1, architecture="lenet5-half", lambda_attacker=0.5, attacker_agreement=0.8),
            member_row(predictor="distilled", lambda_attacker=0.0),
        ),
        "training": (
            TrainingRow("mnist", "misleader", 2, 0.0, 6, 25.0, "cpu", 0.985, 0.123, None),
            TrainingRow("mnist", "victim", 1, None, 4, 10.0, "cpu", 0.99, None, None),
        ),
        "ensemble_costs": costs(),
    }
    return Report(**{**sections, **changes})


def page(**changes: Any) -> str:
    return misleader.METHOD.render([misleader.Experiment("mnist", results(**changes))])


def said(text: str, *words: str) -> str:
    (found,) = [line for line in answer(text) if all(word in line for word in words)]
    return found


def test_what_does_not_hold_opens_the_page() -> None:
    text = page()
    check(text)
    assert said(text, "hiding").startswith("**Does not hold**: mnist: `misleader` adds nothing to hiding probabilities")
    # knockoff soft .90 to .80, log-p .91 to .93, hard .80 to .795, jbda .95 to .94; dfme gets nothing from either
    assert said(text, "attacker term") == (
        "**Does not hold**: mnist: the attacker term changes clones by -2.4 points on average over 4 attackers: "
        "1 worse, 1 better, most knockoff (log-p), soft, 10\u202f000 (91.0 ± 1.4 % → 93.0 ± 1.4 %)."
    )
    assert said(text, "shifted images") == (
        "**Does not hold**: mnist: `misleader` loses more than 1 point to `undefended` on 1 of 4 kinds of shifted "
        "images: blurred, sigma 1 (80.00 → 60.00)."
    )
    assert said(text, "lost by users").startswith(
        "**Does not hold**: mnist: points lost by users: 0.50 under `misleader`, 0.51"
    )
    assert "takes 40.0 points from DFME on `undefended`" in said(text, "harness")


@pytest.mark.parametrize(("times", "lost"), [(1.1, 0), (1.11, 1)])
def test_a_routed_response_keeps_its_targets_or_not(times: float, lost: int) -> None:
    # 2.2 ms of a mean of 5
    found = said(page(ensemble_costs=costs(times)), "routed cells")
    assert f"{lost} of 1 routed cells miss their targets" in found
    assert found.startswith("**Does not hold**") == bool(lost)


def test_parts_are_pairs_that_differ_in_one_thing() -> None:
    (row,) = lines(page(), "| mnist | the attacker term | distilled → misleader |")
    assert "| 4 of 5 | 1 | **1** | -2.4 | -0.3 | knockoff (log-p), soft, 10\u202f000" in row
    (row,) = lines(page(), "| routing in place of the mean | misleader → misleader-routed |")
    assert "| 1 of 1 | 1 | 0 | -10.0 |" in row
    assert not lines(page(), "the diversity term |")


def test_the_harness_alone() -> None:
    text = page()
    assert lines(text, "| undefended | 90.0 ± 1.4 % | 50.0 ± 1.4 % | +40.0 | +40.0 | +0.0 |")
    assert lines(text, "| misleader | 15.0 ± 1.4 % | 12.0 ± 1.4 % | +3.0 | +78.0 | +75.0 |")


def test_shifts_the_worst_first_and_members_next_to_the_released_lambda() -> None:
    text = page()
    table = text.split("accuracy on shifted images")[1]
    kinds = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")][1:5]
    assert kinds[0] == "| blurred, sigma 1"
    assert lines(text, "| blurred, sigma 1 | 80.00 | 70.00 | 60.00 |")
    assert lines(text, "| mnist | misleader | 1 | lenet5-half |", "| 0.5 | 0.5 | 6 |")


def test_what_is_missing_is_named() -> None:
    (row,) = lines(page(), "Not measured: mnist: accuracy of ")
    assert "clones of distilled-routed" not in row
    assert "misleader-released" in row


@pytest.mark.parametrize("name", ["attacks", "policies", "shifts", "members", "training", "ensemble_costs"])
def test_a_section_without_rows_leaves_a_page(name: str) -> None:
    check(page(**{name: ()}))


def test_page_and_figure_are_made_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "misleader-mnist.json", results())
    write(tmp_path / "misleader-bench.json", Report(synthetic.RUN, ensemble_costs=costs(2.0)))
    made = misleader.METHOD.pages(tmp_path)
    assert lines(made["results/misleader.md"], "1 of 2 routed cells miss", "takes 2.00 times its dearest member")
    assert made["results/misleader.svg"].startswith("<svg")
