"""The MeCo page from made-up results: its numbers can be worked out by hand, and what is missing shows."""

from __future__ import annotations

import dataclasses
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from report.atomic import write_json
from report.pages import meco
from report.pages.meco import Experiment, Verdict
from report.rows.bench import DefenseCostRow
from report.rows.clones import AttackRow
from report.rows.gradients import GradientRow
from report.rows.noise import DenoisingRow, NoiseRow
from report.rows.training import TrainingRow
from report.schema import Report, ResultError
from tests.report import synthetic
from tests.report.synthetic import attack_row, policy_row

SETTINGS = {
    "dataset": {"name": "mnist"},
    "classes": 10,
    "attacks.knockoff": {"surrogate": "fashionmnist", "budget": 10_000},
    "clone": {"architecture": "conv3", "epochs": 8},
    "evaluate.meco-knockoff": {"attacks": ["knockoff"], "clone": {}, "called": None},
}
BENIGN, THIEF = "benign (mnist)", "thief (fashionmnist)"
# (policy, attack, form, labels, budget): clone accuracy
CLONES = {
    ("undefended", "knockoff", None, "soft", 10_000): 0.95,
    ("undefended", "knockoff", None, "soft", 1_000): 0.40,
    ("undefended", "knockoff", None, "hard", 10_000): 0.85,
    ("undefended", "jbda", None, "soft", 9_600): 0.96,
    ("undefended", "jbda", None, "hard", 9_600): 0.94,
    ("label", "knockoff", None, "hard", 10_000): 0.85,
    ("mad-small", "knockoff", None, "soft", 10_000): 0.93,
    ("meco", "knockoff", None, "soft", 10_000): 0.70,
    ("meco", "knockoff", None, "soft", 1_000): 0.20,
    ("meco", "knockoff", None, "hard", 10_000): 0.65,
    ("meco", "knockoff", "log-p", "soft", 10_000): 0.60,
    ("meco-keyed", "knockoff", None, "soft", 10_000): 0.70,
    ("meco-keyed", "knockoff", None, "soft", 1_000): 0.20,
    ("meco-keyed", "jbda", None, "soft", 9_600): 0.93,
    ("meco-keyed", "jbda", None, "hard", 9_600): 0.88,
    ("meco-without-dro", "knockoff", None, "soft", 10_000): 0.75,
    # asked twice, four times: for 10,000 queries in all, and about 1,000 images
    ("meco", "knockoff", "repeats-2", "soft", 10_000): 0.72,
    ("meco", "knockoff", "repeats-4", "soft", 10_000): 0.68,
    ("meco", "knockoff", "repeats-2", "soft", 2_000): 0.25,
    ("meco", "knockoff", "repeats-4", "soft", 4_000): 0.30,
    ("meco", "knockoff", "jittered-2", "soft", 10_000): 0.71,
    ("meco", "knockoff", "jittered-2", "soft", 2_000): 0.24,
    ("meco-keyed", "knockoff", "repeats-2", "soft", 10_000): 0.62,
    ("meco-keyed", "knockoff", "repeats-2", "soft", 2_000): 0.20,
    ("meco-keyed", "knockoff", "jittered-4", "soft", 4_000): 0.22,
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
        )
        for (policy, attack, form, labels, budget), accuracy in CLONES.items()
        for recipe, lost in (("sgd", 0.05), ("adamw", 0.0))
        for seed, off in ((0, 0.01), (1, -0.01))
    )


def noise_row(policy: str, traffic: str, **changes: Any) -> NoiseRow:
    plain: dict[str, Any] = {
        "recipe": "mnist",
        "policy": policy,
        "traffic": traffic,
        "images": 5000,
        "l1": (0.01, 0.02, 0.03),
        "label_flips": (0.002, 0.004, 0.006),
        "accuracy": (0.986, 0.987, 0.988) if traffic == BENIGN else (),
        "rms": 0.3,
        "largest": 0.6,
    }
    return NoiseRow(**{**plain, **changes})


def gradient_row(policy: str, epsilon: float, repeats: int, cosine: float) -> GradientRow:
    return GradientRow("mnist", policy, THIEF, epsilon, repeats, 16, 200, cosine, 0.2)


def denoising_row(policy: str, copying: str, copies: int, l1: float) -> DenoisingRow:
    return DenoisingRow("mnist", policy, THIEF, copying, copies, 500, l1, 0.8)


def cost_row(defense: str, form: str, times: float) -> DefenseCostRow:
    victim = (1.0, 2.0, 1.0)
    return DefenseCostRow(
        "conv3", 8, defense, form, 1, times, tuple(times * each for each in victim), victim, peak_mb=10 * times
    )


def results(**changes: Any) -> Report:
    sections: dict[str, Any] = {
        "run": dataclasses.replace(synthetic.RUN, settings=SETTINGS),
        "attacks": rows(),
        "policies": (
            policy_row(recipe="mnist"),
            policy_row(recipe="mnist", policy="label", l1=None, ece=None),
            policy_row(recipe="mnist", policy="mad-small", l1=0.013, forward_passes=2.0),
            policy_row(recipe="mnist", policy="meco-keyed", accuracy=0.9849, accuracy_drop=0.0051, l1=0.03),
            policy_row(recipe="mnist", policy="meco", accuracy=0.985, accuracy_drop=0.005, label_flips=0.006, l1=0.02),
        ),
        "noise": (
            noise_row("meco-keyed", BENIGN, l1=(0.015,), label_flips=(0.003,), accuracy=(0.985,)),
            noise_row("meco", BENIGN),
            noise_row("meco", THIEF, l1=(0.4, 0.4, 0.4), largest=0.55),
        ),
        "gradients": tuple(
            gradient_row(policy, epsilon, repeats, cosine)
            for policy, epsilon, repeats, cosine in (
                ("undefended", 0.001, 1, 0.99),
                ("meco", 0.001, 1, 0.05),
                ("meco", 0.1, 1, 0.30),
                ("meco", 0.1, 8, 0.60),
                ("meco-keyed", 0.1, 1, 0.40),
                ("meco-keyed", 0.1, 8, 0.40),
            )
        ),
        "denoising": (
            denoising_row("meco", "identical", 1, 0.4),
            denoising_row("meco", "identical", 16, 0.2),
            denoising_row("meco-keyed", "identical", 1, 0.41),
            denoising_row("meco-keyed", "identical", 16, 0.41),
            denoising_row("meco-keyed", "jittered", 16, 0.3),
        ),
        "defense_costs": (
            cost_row("undefended", "served", 1.0),
            cost_row("mad", "served", 1.5),
            cost_row("mad", "naive", 60.0),
            cost_row("grad", "naive", 12.0),
            cost_row("meco", "served", 3.0),
            cost_row("meco-keyed", "served", 4.0),
        ),
        "training": (
            TrainingRow("mnist", "victim", 1, None, 4, 10.0, "cpu", 0.99, None, None),
            TrainingRow("mnist", "meco", 1, None, 3, 25.0, "cpu", 0.986, None, None),
        ),
    }
    return Report(**{**sections, **changes})


EXPERIMENT = Experiment("mnist", results())


@cache
def the_text() -> str:
    return meco.render([EXPERIMENT])


def lines(text: str, *words: str) -> list[str]:
    return [line for line in text.splitlines() if all(word in line for word in words)]


def section(name: str, text: str = the_text()) -> str:
    """Of one recipe's part of the page."""
    (found,) = re.findall(rf"^##+ mnist(?:: |, ){name}\n(.*?)(?=^##|\Z)", text, re.DOTALL | re.MULTILINE)
    return str(found)


def test_users_lose_half_a_point_at_most_or_it_says_so() -> None:
    (fresh,) = lines(the_text(), "| mnist | conv3 | meco |")
    # sqrt(.99 x .01 / 10,000)
    assert fresh == (
        "| mnist | conv3 | meco | 99.00 | 0.10 | 98.50 | 0.50 | yes | 0.0200 | 0.0200 ± 0.0100 | 0.28 | 0.0126 |"
    )
    (keyed,) = lines(the_text(), "| mnist | conv3 | meco-keyed |")
    assert "| 98.49 | 0.51 | **no** | 0.0300 | 0.0150 |" in keyed


@pytest.mark.parametrize(("drop", "told"), [(-0.01, "yes"), (0.005, "yes"), (0.00501, "**no**")])
def test_the_target(drop: float, told: str) -> None:
    assert str(Verdict("meco", policy_row(accuracy_drop=drop))) == told
    assert str(Verdict("meco", None)) == "not measured"


def test_the_best_thief_of_each_policy_copies_included() -> None:
    brief = section("in short")
    assert lines(
        brief, "| meco | 0.50 | 0.0200 | 72.0 ± 1.4 % (n = 2) | knockoff (repeats-2), soft, 10\u202f000, adamw"
    )
    assert lines(
        brief, "| meco-keyed | 0.51 | 0.0300 | 93.0 ± 1.4 % (n = 2) | jbda, soft, 9\u202f600, adamw, n = 2 | 5 |"
    )
    assert lines(brief, "| label | 0.00 | - | 85.0 ± 1.4 % (n = 2) |")
    assert [line.policy for line in EXPERIMENT.headline][:4] == ["undefended", "label", "mad-small", "meco"]


def test_what_it_adds_to_hiding_probabilities() -> None:
    brief = section("in short")
    # meco met Knockoff alone: .85 from labels, .72 its best; meco-keyed met JBDA too: .94 from labels, .93 its best
    assert lines(brief, "`meco` adds 13.0 points to", "its best clone is 72.0 ± 1.4 %", "85.0 ± 1.4 %")
    assert lines(brief, "`meco-keyed` adds 1.0 points to")
    stronger = tuple(row if row.policy != "meco" else dataclasses.replace(row, clone_accuracy=0.9) for row in rows())
    assert lines(meco.render([Experiment("mnist", results(attacks=stronger))]), "`meco` adds nothing to")


def test_what_it_does_not_stop() -> None:
    (said,) = lines(section("in short"), "thieves that met both")
    assert said.startswith(
        "- 1 of 3 thieves that met both, and do well on `undefended`, lose fewer than 5 points to `meco-keyed`, so"
    )
    assert said.endswith(" jbda, soft, 9\u202f600 (96.0 ± 1.4 % → 93.0 ± 1.4 %).")
    table = section("thieves at equal utility")
    assert lines(table, "| jbda | soft | 9\u202f600 | 96.0 ± 1.4 % (n = 2) | 93.0 ± 1.4 % (n = 2) | 3.0 | **no** |")
    assert lines(table, "| jbda | hard | 9\u202f600 |", "| 6.0 | yes |")
    assert lines(table, "| knockoff | soft | 10\u202f000 |", "| 25.0 | yes |")


def test_a_thief_who_gets_nothing_anyway_is_not_counted() -> None:
    failures = [
        attack_row(recipe="mnist", policy=policy, attack="dfme", budget=20_000, clone_accuracy=accuracy)
        for policy, accuracy in (("undefended", 0.20), ("meco-keyed", 0.19))
    ]
    text = meco.render([Experiment("mnist", results(attacks=(*rows(), *failures)))])
    assert lines(text, "- 1 of 3 thieves that met both")
    assert lines(text, "| dfme | soft | 20\u202f000 | 20.0 % (n = 1) | 19.0 % (n = 1) | 1.0 | - |")


def test_the_noise_and_the_figures_that_it_is_chosen_by() -> None:
    brief = section("in short")
    (fresh,) = lines(brief, "| meco | drawn anew")
    assert fresh.endswith(
        "| 70.0 ± 1.4 % (n = 2) | 72.0 ± 1.4 % (n = 2), K = 2 | 71.0 ± 1.4 % (n = 2), K = 2 | +10.0 | +4.0 "
        "| 0.30 ± 0.20 | 0.60 ± 0.20 |"
    )
    (keyed,) = lines(brief, "| meco-keyed (default) |")
    assert keyed.endswith(
        "| 70.0 ± 1.4 % (n = 2) | 62.0 ± 1.4 % (n = 2), K = 2 | - | +0.0 | +2.0 | 0.40 ± 0.20 | 0.40 ± 0.20 |"
    )
    assert lines(brief, "- `meco-keyed` leaves the best of", "70.0 ± 1.4 % (n = 2), and is the default.")
    assert lines(brief, "- `meco-keyed` shows least of the gradient, a cosine of 0.40 ± 0.20, and is the default.")


def test_a_noise_that_is_better_than_the_default_is_named() -> None:
    worse = tuple(
        dataclasses.replace(row, clone_accuracy=0.99) if (row.policy, row.budget) == ("meco-keyed", 10_000) else row
        for row in rows()
    )
    text = meco.render([Experiment("mnist", results(attacks=worse))])
    assert lines(text, "- `meco` leaves the best of", "72.0 ± 1.4 % (n = 2); the default leaves 99.0 ± 0.0 % (n = 2).")


def test_what_users_lose_stands_beside_the_papers() -> None:
    table = section("what users lose")
    (fresh,) = lines(table, "| meco |")
    assert fresh == (
        "| meco | 98.50 | 0.50 | yes | 0.6 % | 0.0200 | 0.0200 ± 0.0100 | 0.0200 | 95.0 % | 1 "
        "| 98.63 % (0.0126) | 94.17 % (0.099) |"
    )
    assert lines(table, "| undefended |", "| 98.91 % (0.0) | 94.91 % (0.0) |")
    assert lines(table, "| label |", "| - | - | - | 95.0 % | 1 | - | - |")
    policies = re.findall(r"^\| (meco\S*|undefended|label|mad-small) \|", table, re.MULTILINE)
    assert policies == ["undefended", "label", "mad-small", "meco", "meco-keyed"]


def test_noise_by_traffic() -> None:
    table = section("noise by traffic")
    (fresh,) = lines(table, f"| {BENIGN} | meco |")
    assert fresh.endswith("| 5\u202f000 | 3 | 0.0200 ± 0.0100 | 0.40 ± 0.20 | 98.70 ± 0.10 | 98.60 | 0.300 | 0.60 |")
    (keyed,) = lines(table, f"| {BENIGN} | meco-keyed |")
    assert keyed.endswith("| 1 | 0.0150 | 0.30 | 98.50 | 98.50 | 0.300 | 0.60 |")
    (thief,) = lines(table, f"| {THIEF} | meco |")
    assert "| 0.4000 ± 0.0000 |" in thief
    assert thief.endswith("| - | - | 0.300 | 0.55 |")


def test_ablations_stand_beside_the_default_training() -> None:
    noise = (*results().noise, noise_row("meco-without-dro", BENIGN))
    table = section("noise by traffic", meco.render([Experiment("mnist", results(noise=noise))]))
    (without,) = lines(table, "| meco-without-dro | no particle steps |")
    assert without.endswith("| - | 0.0200 ± 0.0100 | - | 75.0 ± 1.4 % (n = 2) | - | - |")
    (fresh,) = lines(table, "| meco | the generator")
    assert fresh.endswith("| 70.0 ± 1.4 % (n = 2) | 60.0 ± 1.4 % (n = 2) | 65.0 ± 1.4 % (n = 2) |")
    assert "Ablations" not in section("noise by traffic")


def test_copies_are_compared_for_equal_queries_and_for_equal_images() -> None:
    table = section("averaging")
    queries, images = table.split("**Soft labels, 1\u202f000 images**")
    assert "**Soft labels, 10\u202f000 queries**; plain clone of `undefended`: 95.0 ± 1.4 % (n = 2)." in queries
    assert images.startswith("; plain clone of `undefended`: 40.0 ± 1.4 % (n = 2).")
    cell = "{} ± 1.4 % (n = 2)".format
    fresh = ["| meco | identical", cell("70.0"), cell("72.0"), cell("68.0"), "+2.0 |"]
    assert lines(queries, " | ".join(fresh))
    assert lines(images, " | ".join(["| meco | identical", cell("20.0"), cell("25.0"), cell("30.0"), "+10.0 |"]))
    assert lines(images, " | ".join(["| meco | jittered", cell("20.0"), cell("24.0"), "-", "+4.0 |"]))
    assert lines(queries, " | ".join(["| meco-keyed | identical", cell("70.0"), cell("62.0"), "-", "-8.0 |"]))
    assert not lines(queries, "| meco-keyed | jittered |")


def test_a_form_without_a_number_makes_five_copies() -> None:
    row = attack_row(recipe="mnist", policy="meco", adaptive="repeats", budget=5_000, clone_accuracy=0.33)
    experiment = Experiment("mnist", results(attacks=(*rows(), row)))
    (images,) = [each for each in experiment.copying if each.equal == "images"]
    curve = images.curve("meco", "identical")
    assert curve is not None
    assert {count: round(cell.accuracy, 2) for count, cell in curve.cells.items()} == {1: 0.2, 2: 0.25, 4: 0.3, 5: 0.33}


def test_what_the_mean_of_copies_knows() -> None:
    table = section("averaging")
    assert lines(table, f"| {THIEF} | copies | K = 1 | K = 16 | label of T(x), largest K |")
    assert lines(table, "| meco | identical | 0.400 | 0.200 | 80.0 % |")
    assert lines(table, "| meco-keyed | jittered | - | 0.300 | 80.0 % |")
    brief = section("in short")
    assert lines(brief, "| meco | drawn anew for every query | 0.200 | - |")
    assert lines(brief, "| meco-keyed (default) | keyed by the image, a mix of the next two | 0.410 | 0.300 |")


def test_why_the_mix_is_the_default() -> None:
    gradients = (
        gradient_row("meco-keyed", 0.1, 1, 0.1),
        gradient_row("meco-keyed-bytes", 0.1, 1, 0.05),
        gradient_row("meco-keyed-perceptual", 0.1, 1, 0.5),
    )
    denoising = (
        denoising_row("meco-keyed", "jittered", 16, 0.39),
        denoising_row("meco-keyed-bytes", "jittered", 16, 0.38),
    )
    told = meco.render([Experiment("mnist", results(gradients=gradients, denoising=denoising))])
    assert "keeps more of the distance under jittered copies than the bytes alone (0.390 against 0.380)" in told
    assert "less of the gradient than the perceptual code alone (0.10 ± 0.20 against 0.50 ± 0.20): that is why" in told
    turned = (gradients[2], dataclasses.replace(gradients[0], cosine=0.6), gradients[1])
    told = meco.render([Experiment("mnist", results(gradients=turned, denoising=denoising))])
    assert "shows no less of the gradient" in told
    assert "that is why" not in told
    assert "The mix" not in the_text()


def test_the_gradients_table() -> None:
    table = section("the gradient a data-free thief sees")
    assert "1 / sqrt(16) = 0.25" in table
    assert lines(table, f"| {THIEF} | answers a probe | epsilon 0.001 | epsilon 0.1 |")
    assert lines(table, "| undefended | 1 | 0.99 ± 0.20 | - |")
    assert lines(table, "| meco | 1 | 0.05 ± 0.20 | 0.30 ± 0.20 |")
    assert lines(table, "| meco | 8 | - | 0.60 ± 0.20 |")


def test_times_and_their_ratios() -> None:
    table = section("what it costs at test time")
    assert lines(table, "| 8 | mad | naive | 1 | 60.000 | 60.00 | 600.0 |")
    assert lines(table, "| 8 | meco-keyed | served | 1 | 4.000 | 4.00 | 40.0 |")
    assert lines(table, "| 8 | mad | naive | 20.00 | 15.00 | 17 to 172 |")
    assert lines(table, "| 8 | mad | served | 0.50 | 0.38 | - |")
    assert lines(table, "| 8 | grad | naive | 4.00 | 3.00 | 17 to 172 |")


def test_training_and_what_the_run_was_told() -> None:
    table = section("training, and how to make it again")
    assert lines(table, "| meco | 3 | 25.0 | 2.5 | 98.6 % | cpu |")
    assert lines(table, "Made by `make reproduce-meco RECIPE=mnist`;")
    assert lines(table, '| attacks.knockoff | surrogate "fashionmnist", budget 10000 |')
    assert not lines(table, "evaluate.")
    assert Experiment("mnist-paper", results()).command == "make reproduce-meco RECIPE=mnist TIER=paper"


def test_the_run_is_stated() -> None:
    (row,) = lines(the_text(), "| mnist | mnist | conv3 | cpu |")
    assert f"| {len(rows())} | thieves 0, clones 0, 1 | 2026-01-02 | 0123456789ab | Linux x86_64, 2 CPUs" in row
    assert "python 3.11.7, torch 2.15.0" in row


def test_what_is_missing_is_named() -> None:
    table = section("not measured")
    (served,) = lines(table, "| accuracy as served |")
    assert "meco-keyed-bytes" in served
    assert "| undefended" not in served
    assert lines(table, "| gradients | randp, meco-keyed-bytes, meco-keyed-perceptual |")
    assert lines(table, "| time and memory | randp (served), grad (served) |")
    assert lines(
        table,
        "| jittered copies, K = 4, soft labels, 1\u202f000 images | meco, meco-keyed-bytes, meco-keyed-perceptual |",
    )
    (jbda,) = lines(table, "| jbda, soft labels |")
    assert jbda == "| jbda, soft labels | mad-small, meco, meco-without-dro |"
    assert lines(table, "Attacks and forms that no policy met:", "dfme, maze, dfms-hl")
    assert not lines(table, "| training |")
    assert lines(the_text(), "No results at all on the paper's cifar10.")


def test_every_clone_of_the_report_is_on_the_page() -> None:
    printed = [line for line in the_text().splitlines() if "**adamw** (" in line]
    assert len(printed) == len(CLONES)
    assert all("sgd" in line for line in printed)


def test_the_heat_map_leaves_out_copies_and_what_met_knockoff_alone() -> None:
    heat = EXPERIMENT.heat()
    assert heat["columns"] == ["undefended", "label", "mad-small", "meco", "meco-keyed"]
    assert heat["rows"] == ["knockoff, 10k", "knockoff (log-p), 10k", "jbda, 9600"]
    assert heat["panels"]["soft labels"]["jbda, 9600", "meco-keyed"] == (pytest.approx(0.93), "")
    assert ("soft labels", "jbda, 9600", "label") in heat["void"]


def test_the_figures_draw_what_they_are_given() -> None:
    plots = meco.plot([EXPERIMENT])
    assert sorted(plots) == [f"meco-mnist-{name}.svg" for name in ("averaging", "gradients", "heat-map")]
    averaging, gradients = plots["meco-mnist-averaging.svg"], plots["meco-mnist-gradients.svg"]
    for title in ("soft labels, 10\u202f000 queries", "soft labels, 1\u202f000 images"):
        assert f"<!-- {title} -->" in averaging
    for name in ("meco, identical", "meco-keyed, jittered", "undefended, K = 1"):
        assert f"<!-- {name} -->" in averaging
    assert f"<!-- {THIEF} -->" in gradients
    for name in ("undefended, one answer", "meco, mean of 8", "as good as chance"):
        assert f"<!-- {name} -->" in gradients
    assert EXPERIMENT.averaging()["levels"] == {
        "soft labels, 10\u202f000 queries": pytest.approx(0.95),
        "soft labels, 1\u202f000 images": pytest.approx(0.40),
    }


@pytest.mark.parametrize("text", [the_text(), meco.render([Experiment("mnist", Report(synthetic.RUN)), EXPERIMENT])])
def test_every_table_has_as_many_cells_in_a_line_as_in_its_head(text: str) -> None:
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables) >= 20
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
        assert len(table.splitlines()) > 2, table
    assert "\n\n\n" not in text


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("attacks", ["gradients"]),
        ("gradients", ["averaging", "heat-map"]),
        *(
            (name, ["averaging", "gradients", "heat-map"])
            for name in ("policies", "noise", "defense_costs", "training")
        ),
    ],
)
def test_a_section_without_rows_is_not_measured(name: str, drawn: list[str]) -> None:
    experiment = Experiment("mnist", results(**{name: ()}))
    text = meco.render([experiment])
    assert text.count("ot measured.\n") > the_text().count("ot measured.\n")
    figures = sorted(re.findall(r"\]\((.*\.svg)\)", text))
    assert figures == [f"meco-mnist-{figure}.svg" for figure in drawn]
    if len(figures) < 3:
        assert sorted(meco.plot([experiment])) == figures


def test_nothing_at_all_is_a_page_without_figures() -> None:
    experiment = Experiment("mnist", Report(synthetic.RUN))
    text = meco.render([experiment])
    assert meco.plot([experiment]) == {}
    assert "svg" not in text
    assert lines(text, "| mnist | - | meco | - | - | - | - | not measured | - | - | - | - |")
    assert lines(text, "No results at all on the paper's mnist, cifar10.")


def test_every_result_has_sections_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tuple(row for row in rows() if row.policy in ("undefended", "meco") and row.adaptive is None)
    for recipe, report in (("mnist-lenet5", results(attacks=few, gradients=())), ("mnist", results())):
        write_json(tmp_path / f"meco-{recipe}.json", dataclasses.asdict(report))
    cifar = dataclasses.replace(synthetic.RUN, settings={"dataset": {"name": "cifar10"}})
    write_json(tmp_path / "meco-cifar10-resnet34.json", dataclasses.asdict(Report(cifar)))
    output = tmp_path / "docs/meco.md"
    monkeypatch.setattr(sys, "argv", ["meco", "--results", str(tmp_path), "--output", str(output)])
    meco.main()
    said = capsys.readouterr().out
    text = output.read_text("utf-8")
    headings = [f"## {recipe}: averaging" for recipe in ("mnist", "mnist-lenet5", "cifar10-resnet34")]
    assert sorted(headings, key=text.index) == headings
    assert not lines(text, "No results at all")
    figures = re.findall(r"\]\((.*\.svg)\)", text)
    assert len(figures) == 3 + 1
    for name in figures:
        assert (output.parent / name).read_text("utf-8").startswith("<svg")
        assert name in said
    assert sorted(path.name for path in output.parent.iterdir()) == sorted([*figures, "meco.md"])


def test_no_results_say_how_to_make_some(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"no meco-\*\.json; make one with `make reproduce-meco RECIPE=mnist`"):
        meco.load(tmp_path)
