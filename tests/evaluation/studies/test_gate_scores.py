"""The study of scores, on the smoke product and by its parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.oracles import InProcessOracle, OracleError
from evaluation.scores import registry
from evaluation.scores.score import Score
from evaluation.scores.sight import Seen, Sight
from evaluation.studies import gate_scores
from evaluation.studies.gate_scores import Gated, Judge, in_turn
from evaluation.traffic import SHIFTS
from tests.conftest import Smoke
from tests.evaluation.scores import seeing
from tests.evaluation.studies.command import study

FEW = ("served", "alpha-0", "error-two-sided", "sharpness-two-sided", "nearest")


def darkness(seen: Seen) -> np.ndarray:
    return -seen.images.double().flatten(1).mean(1).numpy()


def test_every_tenth_image_of_a_shifted_set_is_as_it_was() -> None:
    images = torch.rand(25, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    changed = in_turn(images)
    same = [torch.equal(a, b) for a, b in zip(changed, images, strict=True)]
    assert len(SHIFTS) == 9
    assert [number for number, kept in enumerate(same) if kept] == [0, 10, 20]
    blurred = list(SHIFTS).index("blurred, sigma 1") + 1
    assert torch.equal(changed[blurred::10], SHIFTS["blurred, sigma 1"](images[blurred::10]))


def test_what_scores_above_the_threshold_is_refused() -> None:
    sight = seeing.sight()
    images = seeing.images(30)
    scores = darkness(sight(images))
    judge = Judge("dark", darkness, float(np.median(scores)), 100, scores)
    gate = Gated(judge, sight)
    answers = gate(images)
    assert answers.refused.tolist() == (scores > judge.threshold).tolist()
    assert sum(answers.refused) == 15
    assert answers.labels[~answers.refused].tolist() == sight(images).served.argmax(1)[~answers.refused].tolist()
    assert (np.concatenate(gate.scores) == scores).all()


def test_a_score_costs_its_arithmetic_and_the_gate_where_it_reads_it() -> None:
    sight = seeing.sight()
    rules = {
        "dark": darkness,
        "error": lambda seen: seen.gated[0],
        "energy": lambda seen: seen.logits.max(axis=1),
        "of another": lambda seen: seen.other(seen.images / 2).gated[0],
    }
    spent = gate_scores.costs(sight, rules, seeing.images(4), 5)
    assert [name for name, each in spent.items() if each.reads_features] == ["energy"]
    for each in spent.values():
        assert len(each.spent) == 5
        assert (each.spent > 1).all()


def test_the_study_on_digits(gated: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_scores, "RATE", 0.05)
    monkeypatch.setattr(gate_scores, "PROBES", 56)
    few = {name: registry.SCORES[name] for name in FEW}
    monkeypatch.setattr(registry, "SCORES", few)
    found = study(
        "gate-scores",
        *("--policies", "same-reject", "--runs", str(gated.runs), "--queries", "300", "--rounds", "2"),
        run=tmp_path,
        store=gated.store,
    )
    assert [(row.score, row.shifted) for row in found.gate_scores] == [(n, s) for s in (False, True) for n in FEW]
    for row in found.gate_scores:
        assert (row.images, row.benign, row.rounds) == (65, 500, 2)
        assert row.reads_features == (row.family == "features")
    traffic = {(row.score, row.shifted, row.traffic, row.form): row for row in found.gate_traffic}
    assert len(traffic) == 2 * len(FEW) * (2 + 1 + len(SHIFTS))
    plain = traffic["served", False, "knockoff", None]
    assert (plain.images, plain.malicious, plain.variant) == (300, True, None)
    assert plain.auroc > 0.9, "crops of a photograph"
    assert traffic["served", False, "in-distribution", None].auroc < 0.7
    tuned = traffic["served", False, "knockoff", "matched"]
    assert (tuned.images, tuned.variant is not None) == (300 - 4 * 56, True)
    assert not traffic["served", True, "moved 3 pixels", None].malicious


def test_too_few_images_and_too_few_queries_are_messages(
    gated: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--policies", "same-reject", "--runs", str(gated.runs), "--rounds", "1")
    with pytest.raises(SystemExit, match=r"digits: expected at least 198 validation images, .* at 0\.01, got 129"):
        study("gate-scores", *words, run=tmp_path, store=gated.store)
    monkeypatch.setattr(gate_scores, "RATE", 0.05)
    monkeypatch.setattr(registry, "SCORES", {"served": Score("gate", registry.SCORES["served"].fit)})
    with pytest.raises(SystemExit, match="queries: expected more than the 960 that a matched attacker probes with"):
        study("gate-scores", *words, "--queries", "960", run=tmp_path, store=gated.store)
    elsewhere = ("--policies", "same-reject", "--runs", str(tmp_path))
    with pytest.raises(SystemExit, match=r"no checkpoint at .*victim\.safetensors"):
        study("gate-scores", *elsewhere, run=tmp_path, store=gated.store)


def test_a_checkpoint_of_another_network_is_refused(gated: Smoke, tmp_path: Path) -> None:
    with InProcessOracle(gated.archive("same-reject")) as oracle:
        folder = gated.runs / "smoke"
        assert Sight.of(oracle, folder).gate.alpha == 0.8
        other = tmp_path / "victim.safetensors"
        other.write_bytes((folder / "surrogate.safetensors").read_bytes())
        with pytest.raises(OracleError, match="expected the network of the archive smoke-same-reject, got another"):
            Sight.of(oracle, tmp_path)
    with (
        InProcessOracle(gated.archive("edm-pow")) as oracle,
        pytest.raises(OracleError, match="expected one network, got 3"),
    ):
        Sight.of(oracle, folder)
