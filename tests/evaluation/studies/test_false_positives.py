"""Whom a gate hits: counts held against the scores, prices against the policy's own, intervals against Wilson's."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import altcha
import numpy as np
import pytest
import torch

from evaluation.oracles import InProcessOracle, OracleError
from evaluation.studies import false_positives, utility
from evaluation.studies.false_positives import Traffic
from tests.data_sets import digits_test
from tests.evaluation import gated
from tests.evaluation.studies.command import study
from zoo import datasets


@cache
def some_flowers() -> torch.Tensor:
    return datasets.load("flower", "train").pixels[:150]


BENIGN = "benign (digits)"


def above(images: torch.Tensor) -> np.ndarray:
    errors = np.square(images.numpy() - gated.reconstructed(images.numpy())).sum((1, 2, 3))
    return np.asarray(errors > gated.THRESHOLD)


@pytest.fixture
def charging(tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(false_positives, "hashes_per_s", lambda *_: 1000.0)
    return gated.archive(tmp_path, "pow", gate=gated.CHARGING, key_env="TORCHWARDEN_KEY")


@pytest.mark.parametrize("gate", [gated.GATE, gated.REJECTING])
def test_a_row_above_the_threshold_is_flagged_whatever_becomes_of_it(tmp_path: Path, gate: dict[str, object]) -> None:
    streams = [Traffic(BENIGN, lambda: digits_test().pixels, False), Traffic("flowers", lambda: some_flowers(), True)]
    with InProcessOracle(gated.archive(tmp_path, "same", gate=gate)) as oracle:
        (benign, flowers), paid = false_positives.measure(oracle, streams)
        accuracy = utility.measure(oracle, digits_test(), oracle(digits_test().pixels), recipe="made-up", policy="same")
    assert paid == []
    assert benign.flagged == above(digits_test().pixels).mean()
    assert flowers.flagged == above(some_flowers()).mean()
    assert 0 < benign.flagged < 0.05 < 0.5 < flowers.flagged < 1
    assert (benign.malicious, flowers.malicious, benign.stated, benign.images) == (
        False,
        True,
        0.01,
        len(digits_test()),
    )
    assert benign.low < benign.flagged < benign.high
    assert accuracy.false_positive_rate == benign.flagged


def test_prices_are_those_of_the_rows(charging: Path) -> None:
    with InProcessOracle(charging) as oracle:
        _, (row,) = false_positives.measure(oracle, [Traffic("flowers", lambda: some_flowers(), True)])
        work = np.concatenate([oracle.pipeline(part.numpy()).work for part in some_flowers().split(64)])
    assert ((work > 0) == above(some_flowers())).all()
    assert row.charged == above(some_flowers()).mean()
    assert (row.mean, row.median, row.largest) == (work.mean(), np.median(work), work.max())
    assert row.p99 == np.percentile(work, 99)
    assert row.seconds(row.mean) == row.mean / 1000
    assert row.largest > row.median > 0


def test_the_reference_client_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(false_positives, "MEASURED_S", 0.02)
    solved: list[int] = []
    solve = altcha.solve_challenge

    def counted(challenge: altcha.Challenge, timeout: float) -> altcha.Solution:
        solution = solve(challenge, timeout=timeout)
        solved.append(solution.counter)
        return solution

    monkeypatch.setattr(altcha, "solve_challenge", counted)
    false_positives.hashes_per_s.cache_clear()
    speed = false_positives.hashes_per_s("SHA-256", 1, 8)
    assert speed == false_positives.hashes_per_s("SHA-256", 1, 8)
    assert solved == [32 * 2**number - 1 for number in range(len(solved))]
    assert len(solved) > 3
    assert 1e3 < speed < 1e8
    assert speed > 20 * false_positives.hashes_per_s("SCRYPT", 1024, 8)
    false_positives.hashes_per_s.cache_clear()


def test_the_program(charging: Path, tmp_path: Path) -> None:
    gated.archive(tmp_path, "undefended")
    gated.archive(tmp_path, "same", gate=gated.GATE)
    words = ("--policies", "same", "pow")
    report = study("false-positives", *words, run=tmp_path / "run", store=tmp_path, recipe=gated.recipe(tmp_path))
    by_traffic = {(row.policy, row.traffic): row for row in report.false_positives}
    kinds = {traffic: row.malicious for (policy, traffic), row in by_traffic.items() if policy == "same"}
    assert [name for name, malicious in kinds.items() if malicious] == [
        "knockoff (flower)",
        "steps",
        "steps, without its seeds",
    ]
    assert {BENIGN, "rotated 15 degrees", "darker by 0.2", "other-hands (digits:train)"} <= {
        name for name, malicious in kinds.items() if not malicious
    }
    assert len(by_traffic) == 2 * (1 + 9 + 1 + 3)
    assert by_traffic["same", "other-hands (digits:train)"].images == 1297
    assert by_traffic["same", "Gaussian noise 0.1"].flagged > by_traffic["same", BENIGN].flagged
    assert by_traffic["pow", BENIGN].flagged == by_traffic["same", BENIGN].flagged
    prices = {row.traffic: row for row in report.work}
    assert {row.policy for row in report.work} == {"pow"}
    assert prices.keys() == kinds.keys()
    assert prices["knockoff (flower)"].mean > prices[BENIGN].mean
    assert report.run.settings["gate.pow"]["work"]["mean_benign"] == 10.0


def test_a_policy_without_a_gate_hits_nobody(tmp_path: Path) -> None:
    with (
        InProcessOracle(gated.archive(tmp_path, "undefended")) as oracle,
        pytest.raises(OracleError, match="made-up-undefended: expected a policy with a gate, got none"),
    ):
        false_positives.measure(oracle, [])


def test_the_utility_of_a_policy_that_refuses(tmp_path: Path) -> None:
    with InProcessOracle(gated.archive(tmp_path, "undefended")) as oracle:
        clean = oracle(digits_test().pixels)
        row = utility.measure(oracle, digits_test(), clean, recipe="made-up", policy="undefended")
    assert row.false_positive_rate is None
    with InProcessOracle(gated.archive(tmp_path, "same", gate=gated.REJECTING)) as oracle:
        row = utility.measure(oracle, digits_test(), clean, recipe="made-up", policy="same")
    # refused rows are wrong, and have no distance
    assert row.label_flips == row.false_positive_rate == above(digits_test().pixels).mean()
    assert row.l1 == pytest.approx(0, abs=1e-5)
    everyone = {**gated.REJECTING, "calibration": _refusing(gated.REJECTING["calibration"])}
    with InProcessOracle(gated.archive(tmp_path, "closed", gate=everyone)) as oracle:
        row = utility.measure(oracle, digits_test(), clean, recipe="made-up", policy="closed")
    assert (row.accuracy, row.l1, row.ece, row.false_positive_rate) == (0.0, None, None, 1.0)


def _refusing(calibration: object) -> dict[str, object]:
    assert isinstance(calibration, dict)
    return {**calibration, "thresholds": [{"rate": 0.01, "score": -1.0, "low": None, "high": None}]}
