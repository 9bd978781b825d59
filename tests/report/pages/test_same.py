"""The SAME page from made-up results: its numbers can be worked out by hand, losing cells and gaps show."""

from __future__ import annotations

import dataclasses
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from report.atomic import write_json
from report.figures import gates
from report.pages import same
from report.pages.same import Experiment
from report.pages.same_paper import ATTACKS, PAPER, PAPER_RATIOS
from report.schema import Report, ResultError
from tests.report import synthetic
from tests.report.synthetic import (
    attack_row,
    curve_row,
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
# (thief, budget, without its seeds): AUROC of the default gate, the small one, outlier exposure, the ensemble
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
        "score_curves": tuple(
            curve_row(traffic, start, recipe="mnist", detector=detector)
            for detector in DETECTORS
            for traffic, start in ((BENIGN, 0), ("knockoff (fashionmnist)", 9), ("jbda", 3))
        ),
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


def rendered(*experiments: Experiment) -> str:
    """The page, its figures named and not drawn."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("rocs", "histograms", "frontier", "flagged", "work"):
            patch.setattr(gates, name, lambda *_, **__: "<svg>")
        return same.render(experiments, same.plot(experiments))


EXPERIMENT = Experiment("mnist", results(), "same-mnist-reconstructions.png")


@cache
def the_text() -> str:
    return rendered(EXPERIMENT)


def lines(text: str, *words: str) -> list[str]:
    return [line for line in text.splitlines() if all(word in line for word in words)]


def section(name: str, text: str = the_text()) -> str:
    """Of one recipe's part of the page."""
    (found,) = re.findall(rf"^##+ mnist(?:: |, ){re.escape(name)}\n(.*?)(?=^##|\Z)", text, re.DOTALL | re.MULTILINE)
    return str(found)


def test_the_default_gate_beside_the_best_baseline_and_the_paper() -> None:
    brief = section("in short")
    assert lines(
        brief, "| knockoff (fashionmnist) | 1\u202f000 | 99.50 | 92.00 (outlier-exposure) | 99.37 | yes | yes |"
    )
    assert lines(
        brief, "| knockoff (fashionmnist) | 4\u202f000 | 99.00 | 92.00 (outlier-exposure) | 99.19 | yes | **no** |"
    )
    assert lines(brief, "| jbda | 1\u202f000 | 60.00 | 70.00 (edm-fixed) | 93.30 | **no** | **no** |")
    assert lines(brief, "| jbda, without its seeds | 1\u202f000 | 80.00 | 75.00 (edm-fixed) | 93.30 | yes | **no** |")
    assert lines(brief, "| in-distribution | 1\u202f000 | 49.00 | 48.00 (outlier-exposure) | - | yes | - |")


def test_losing_cells_are_named() -> None:
    brief = section("in short")
    (lost,) = lines(brief, "A baseline sees more than the default gate")
    assert lost.endswith("in 1 of 5 cells: jbda, 1\u202f000 (edm-fixed 70.00 against 60.00).")
    assert lines(brief, "- Below the paper's 99.19: knockoff (fashionmnist), 4\u202f000 queries, 99.00.")
    assert len(lines(brief, "- Below the paper's")) == 3
    winning = tuple(row for row in detections() if row.attack != "jbda")
    text = rendered(Experiment("mnist", results(detection=winning)))
    assert lines(section("in short", text), "- In no cell does a baseline see more than the default gate.")


def test_a_baseline_that_was_trained_on_the_thief_s_images_is_told_as_such() -> None:
    told = {**SETTINGS, "baseline.edm-fixed": {"predictor": "edm_fixed", "auxiliary": "fashionmnist"}}
    stronger = tuple(
        dataclasses.replace(row, auroc=1.0) if row.detector == "edm-fixed" else row for row in detections()
    )
    run = dataclasses.replace(synthetic.RUN, settings=told)
    text = rendered(Experiment("mnist", results(run=run, detection=stronger)))
    assert lines(text, "| knockoff (fashionmnist) | 1\u202f000 | 99.50 | 100.00 (edm-fixed, trained on these images) |")
    (lost,) = lines(text, "A baseline sees more than the default gate")
    assert "knockoff (fashionmnist), 1\u202f000 (edm-fixed, trained on these very images, 100.00 against" in lost
    assert "jbda, 1\u202f000 (edm-fixed 100.00 against" in lost
    assert lines(text, "| edm-fixed (disagreement), trained on these images | **100.00** |")
    assert "trained on these" not in the_text()


def test_whom_it_hits_in_short() -> None:
    brief = section("in short")
    assert lines(brief, "- `same-observe` flags 1.20 (0.81 to 1.78) % of the unshifted test images", "for 1.00 %.")
    assert lines(brief, "- `same-pow` flags 3.00 (2.00 to 4.00) %", "**more than it should.**")
    # darker images may be flagged as seldom as calibrated
    assert lines(brief, "- Benign traffic that `same-observe` flags more of", ": blurred 30.00 %.")
    assert lines(brief, "- `same-pow` asks 120 hashes of a benign row on average (meant: 100), nothing of 98.80 %")
    assert lines(brief, "- In batches of 1 `same-observe` takes 10.00 times", "900 microseconds a row")


def test_every_detector_of_every_thief_stands_in_the_table() -> None:
    table = section("what is detected")
    assert len([line for line in table.splitlines() if "| 10\u202f000 |" in line]) == len(AUROC) * len(DETECTORS)
    assert lines(
        table,
        "| jbda | 1\u202f000 | 1\u202f000 | 10\u202f000 | edm-fixed (disagreement) | **70.00** | 80.00 | 30.00 | 20.00 "
        "| 50.00 | 10.00 | 66.06 / 59.73 / 79.60 |",
    )
    assert lines(table, "| jbda, without its seeds | 1\u202f000 | 800 |", "| same-observe | **80.00** |")
    # the paper's gate stands beside the default one alone
    assert lines(table, "| same-small | 55.00 |", "| - |")
    assert lines(table, "| same-observe | 60.00 |", "| 93.30 / 92.95 / 27.40 |")
    # gates first, the default one ahead
    assert [re.split(r" *\| *", line)[5] for line in lines(table, "| in-distribution |")] == [
        "same-observe",
        "same-small",
        "outlier-exposure",
        "edm-fixed (disagreement)",
    ]


def test_the_share_of_malicious_queries() -> None:
    name = "the share of malicious queries (Table 4)"
    (row,) = lines(section(name), "| knockoff (fashionmnist) | 4\u202f000 | same-observe | 0.01 |")
    assert row.endswith("| 1\u202f000 | 2\u202f000 | 5 | 90.00 | 80.00 | 30.00 | 20.00 | 98.93 / 82.78 / 3.90 / 3.05 |")
    other = detection_row(recipe="mnist", detector="same-observe", attack="knockoff (kmnist)", ratio=0.02, draws=5)
    text = rendered(Experiment("mnist", results(detection=(*detections(), other))))
    assert lines(section(name, text), "| knockoff (kmnist) | 1\u202f000 | same-observe | 0.02 |", "| 20.00 | - |")


def test_whom_it_hits() -> None:
    table = section("whom it hits")
    assert lines(table, f"| {BENIGN} | benign | 1.20 (0.81 to 1.78) | 3.00 (2.00 to 4.00) | 2\u202f000 |")
    assert lines(table, "| blurred | benign | 30.00 (28.00 to 32.00) | - |")
    kinds = re.findall(r"\| (benign|thief) \|", table)
    assert kinds == ["benign", "benign", "benign", "thief"]


def test_what_work_is_asked() -> None:
    table = section("what work is asked")
    # 4,000 hashes at 400,000 a second; 10,000 such queries
    (row,) = lines(table, "| same-pow | jbda | 50.00 | 4\u202f000 | 3\u202f200 | 40\u202f000 | 320\u202f000 |")
    assert row.endswith("| 33.3 | 0.0100 | 0.100 | 0.03 |")
    assert lines(table, "Measured: 400\u202f000 hashes a second.")


def test_costs_smallest_first_and_what_fewer_bits_bring() -> None:
    table = section("what it costs")
    rows = [re.split(r" *\| *", line)[1:3] for line in lines(table, "| 123\u202f456 |")]
    assert rows == [["1", "same-small"], ["1", "same-observe"], ["32", "same-small"], ["32", "same-observe"]]
    assert lines(table, "| 10.00 (9.00 to 12.00) | 3 |")
    assert lines(table, "| int8-dynamic | 990 | **1.10** |", "| jbda -0.50 |")
    assert lines(table, "| float32 | 900 | 1.00 |", "| jbda +0.00 |")
    assert lines(table, "| bfloat16 | - | - | - | - | failed: no kernel for a/b |")


def test_what_thieves_get() -> None:
    table = section("what thieves get")
    assert lines(table, "| knockoff | hard | same-reject | 4\u202f000 | 75.00 | 0 | 40.0 % (n = 1) |")
    assert lines(table, "| knockoff | soft | same-pow | 4\u202f000 | 0.00 | 2\u202f000 | 85.0 % (n = 1) |")
    assert lines(table, "| same-reject | 40.0 % (n = 1) | knockoff, hard", "| +40.0 |")
    assert not lines(rendered(Experiment("mnist", results(attacks=()))), "what thieves get")


def test_what_the_run_was_told_and_what_is_missing() -> None:
    table = section("how to make it again")
    assert lines(table, "`make reproduce-same RECIPE=mnist`;")
    assert lines(table, "| gate.same-observe | form robust, alpha 0.5, threshold 9.5, work None |")
    assert lines(table, "Not measured: detection of dfme.")
    bare = section("how to make it again", rendered(Experiment("mnist", Report(synthetic.RUN))))
    assert lines(
        bare, "Not measured: detection by a gate, the baseline outlier exposure,", "pictures of reconstructions."
    )
    assert lines(the_text(), "No results at all on the paper's cifar10.")


def test_a_file_of_costs_alone_is_told_as_such() -> None:
    bench = Experiment("bench-resnet18", Report(synthetic.RUN, gate_costs=(gate_cost_row(policy="same-observe"),)))
    text = rendered(EXPERIMENT, bench)
    assert len(re.findall(r"^## bench-resnet18: .*$", text, re.MULTILINE)) == 1
    assert "## bench-resnet18: what it costs" in text
    assert lines(text, "Made by `make bench-gates`;")
    assert "bench-resnet18, in short" not in text


def test_the_gate_s_limits_and_the_paper_s_stand_on_every_page() -> None:
    for text in (the_text(), rendered(Experiment("mnist", Report(synthetic.RUN)))):
        assert "## What the gate cannot see" in text
        assert "- **A thief with images of the task.**" in text
        assert (
            "92.53 (Knockoff, CIFAR-10, 6,000 queries) and 100.00 (DFME) where Table 2 prints 84.03 and 97.64" in text
        )


def test_the_figures_draw_what_they_are_given() -> None:
    plots = same.plot([EXPERIMENT])
    assert sorted(plots) == [f"same-mnist-{name}.svg" for name in ("flagged", "frontier", "rocs", "scores", "work")]
    rocs = plots["same-mnist-rocs.svg"]
    for name in ("knockoff (fashionmnist)", "jbda", "same-observe", "edm-fixed"):
        assert f"<!-- {name} -->" in rocs
    assert "<!-- same-small -->" not in rocs
    assert "<!-- threshold -->" in plots["same-mnist-scores.svg"]
    for name in ("same-observe", "same-small", "batches of 32"):
        assert f"<!-- {name} -->" in plots["same-mnist-frontier.svg"]
    assert EXPERIMENT.aurocs()["jbda"] == {"same-observe": 0.80, "same-small": 0.75}  # without its seeds
    assert "<!-- blurred -->" in plots["same-mnist-flagged.svg"]
    assert "<!-- same-pow, 99th percentile -->" in plots["same-mnist-work.svg"]
    shown = re.findall(r"\]\((same-.*)\)", the_text())
    assert sorted(shown) == sorted([*plots, "same-mnist-reconstructions.png"])


@pytest.mark.parametrize("text", [the_text(), rendered(Experiment("mnist", Report(synthetic.RUN)), EXPERIMENT)])
def test_every_table_has_as_many_cells_in_a_line_as_in_its_head(text: str) -> None:
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables) >= 12
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
        assert len(table.splitlines()) > 2, table
    assert "\n\n\n" not in text


@pytest.mark.parametrize("name", ["detection", "false_positives", "work", "policies", "gate_costs", "gate_precision"])
def test_a_section_without_rows_is_not_measured(name: str) -> None:
    text = rendered(Experiment("mnist", results(**{name: ()})))
    assert len(re.findall(r"^Not measured\.$", text, re.MULTILINE)) == (2 if name == "detection" else 1)
    assert not re.findall(r"^Not measured\.$", the_text(), re.MULTILINE)
    drawn = {"detection": {"rocs", "scores", "frontier"}, "false_positives": {"flagged"}, "work": {"work"}}
    gone = {"gate_costs": {"frontier"}, **drawn}.get(name, set())
    figures = {f"same-mnist-{figure}.svg" for figure in {"flagged", "frontier", "rocs", "scores", "work"} - gone}
    assert set(re.findall(r"\]\((same-.*\.svg)\)", text)) == figures


def test_the_paper_s_tables_are_whole() -> None:
    for budgets in PAPER.values():
        for kinds in budgets.values():
            assert set(kinds) == {"outlier-exposure", "disagreement", "gate"}
            assert all(tuple(line) == ATTACKS for line in kinds.values())
    assert [*PAPER["mnist"], *PAPER["cifar10"]] == [1000, 4000, 6000, 10_000]
    assert PAPER["mnist"][1000]["gate"]["jbda"] == (93.30, 92.95, 27.40)
    assert PAPER["cifar10"][6000]["gate"]["dfme"] == (97.64, 97.43, 12.52)
    assert {tuple(ratios) for ratios in PAPER_RATIOS.values()} == {(0.01, 0.05, 0.1, 0.3, 0.5, 0.9)}


def run(monkeypatch: pytest.MonkeyPatch, results: Path, output: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["same", "--results", str(results), "--output", str(output)])
    same.main()


def test_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "docs" / "same.md"
    with pytest.raises(SystemExit, match=r"no same-\*\.json; make one with `make reproduce-same RECIPE=mnist`"):
        run(monkeypatch, tmp_path, output)
    for recipe in ("fashionmnist", "mnist"):
        write_json(tmp_path / f"same-{recipe}.json", dataclasses.asdict(results()))
    output.parent.mkdir()
    (output.parent / "same-mnist-reconstructions.png").write_bytes(b"a picture")
    run(monkeypatch, tmp_path, output)
    text = output.read_text()
    assert text.index("### mnist, in short") < text.index("### fashionmnist, in short")
    assert "(same-mnist-reconstructions.png)" in text
    assert "(same-fashionmnist-reconstructions.png)" not in text
    for name in re.findall(r"\]\((same-.*)\)", text):
        assert (output.parent / name).is_file()
    before = {file.name: file.read_bytes() for file in output.parent.iterdir()}
    run(monkeypatch, tmp_path, output)
    assert {file.name: file.read_bytes() for file in output.parent.iterdir()} == before


def test_a_malformed_file_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "same-mnist.json").write_text("{")
    with pytest.raises(SystemExit, match=r"report.pages.same: .*same-mnist\.json: not JSON"):
        run(monkeypatch, tmp_path, tmp_path / "same.md")
    with pytest.raises(ResultError):
        same.load(tmp_path, pictures=tmp_path)
