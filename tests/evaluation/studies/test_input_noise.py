"""Noise rows of real archives: figures held against the archives' own answers, and what has no noise to measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import recipes
from evaluation.oracles import InProcessOracle
from evaluation.studies import input_noise
from report.rows.noise import NoiseRow
from tests.conftest import RECIPE, Smoke
from tests.data_sets import digits_test
from tests.evaluation.studies.command import study
from tests.reached import Reached

BENIGN, SHIFTED = "benign (digits)", "shifted benign (digits)"
RMS = 0.05  # of the smoke recipe's generator


def measured(noisy: Smoke, policy: str, by_kind: input_noise.Traffic) -> NoiseRow:
    """The only row of a policy, seeded as the study is."""
    with InProcessOracle(noisy.archive(policy), seed=0) as oracle:
        (row,) = input_noise.measure(oracle, by_kind, recipe="smoke", policy=policy)
    return row


def test_a_draw_is_what_a_client_is_told_against_what_no_client_sees(noisy: Smoke, reached: Reached) -> None:
    assert digits_test().labels is not None
    images, labels = (
        digits_test().pixels[:70],
        digits_test().labels[:70],
    )  # more than the archive takes in one request
    with InProcessOracle(noisy.archive("meco"), seed=3) as oracle:
        clean = oracle.everyone(images)[:, 0]
        answers = oracle(images)
    with InProcessOracle(noisy.archive("meco"), seed=3) as oracle:
        drawn = input_noise.drawn(oracle, images, labels)
    with InProcessOracle(noisy.archive("meco"), seed=3) as oracle:
        size = np.concatenate([oracle.pipeline.perturbed(part.numpy()) - part.numpy() for part in images.split(32)])
    assert answers.probabilities is not None
    assert drawn.l1 == pytest.approx((answers.probabilities - clean).abs().sum(1).mean().item(), rel=1e-4)
    assert drawn.label_flips == pytest.approx((answers.labels != clean.argmax(1)).float().mean().item())
    assert drawn.accuracy == pytest.approx((answers.labels == labels).float().mean().item())
    assert drawn.largest == np.abs(size).max()
    assert drawn.rms == pytest.approx(np.sqrt((size**2).mean((1, 2, 3))).mean(), rel=1e-4)
    assert drawn.l1 > 0
    reached("share of the size that is allowed", drawn.rms / RMS, above=0.4)
    assert drawn.rms < 1.001 * RMS
    assert drawn.rms < drawn.largest <= 2.001 * RMS


def test_images_without_labels_have_no_accuracy(noisy: Smoke) -> None:
    with InProcessOracle(noisy.archive("meco"), seed=3) as oracle:
        assert input_noise.drawn(oracle, digits_test().pixels[:5], None).accuracy is None


def test_fresh_noise_is_drawn_five_times_and_keyed_noise_once(noisy: Smoke) -> None:
    test = digits_test()
    assert test.labels is not None
    by_kind: input_noise.Traffic = {BENIGN: (test.pixels[:40], test.labels[:40])}
    fresh, keyed = measured(noisy, "meco", by_kind), measured(noisy, "meco-keyed", by_kind)
    assert (len(set(fresh.l1)), len(fresh.accuracy), fresh.images) == (5, 5, 40)
    assert (len(keyed.l1), len(keyed.label_flips), len(keyed.accuracy)) == (1, 1, 1)
    assert measured(noisy, "meco", by_kind) == fresh
    assert measured(noisy, "meco-keyed", by_kind) == keyed


def test_the_traffic_and_who_has_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_noise, "ROWS", 25)
    by_kind = input_noise.traffic(recipes.read(RECIPE), digits_test(), None)
    assert set(by_kind) == {BENIGN, SHIFTED, "thief (flower)", "uniform noise", "untrained generators"}
    assert {name for name, (_, labels) in by_kind.items() if labels is not None} == {BENIGN, SHIFTED}
    assert {len(images) for images, _ in by_kind.values()} == {25}
    assert torch.equal(by_kind[BENIGN][0], digits_test().pixels[:25])
    assert not torch.equal(by_kind[SHIFTED][0], digits_test().pixels[:25])


def test_the_program(noisy: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_noise, "ROWS", 40)
    monkeypatch.setattr(input_noise, "DRAWS", 2)
    report = study("input-noise", "--policies", "meco", "meco-keyed", run=tmp_path, store=noisy.store)
    rows: dict[tuple[str, str], NoiseRow] = {(row.policy, row.traffic): row for row in report.noise}
    assert len(rows) == 2 * 5
    assert {len(row.l1) for (policy, _), row in rows.items() if policy == "meco"} == {2}
    assert {traffic for (_, traffic), row in rows.items() if row.accuracy} == {BENIGN, SHIFTED}
    assert all(0 < row.rms < 1.1 * RMS for row in rows.values())


def test_policies_without_noise_are_refused(noisy: Smoke, smoke: Smoke, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"smoke-undefended: expected a policy with noise and one member"):
        study("input-noise", "--policies", "undefended", run=tmp_path, store=smoke.store)
    with pytest.raises(SystemExit, match=r"smoke-nothing\.mar: no such archive"):
        study("input-noise", "--policies", "nothing", run=tmp_path, store=noisy.store)
    assert not (tmp_path / "report.json").exists()
