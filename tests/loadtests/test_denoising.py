"""What averaging brings on real archives: fresh noise goes with the copies, keyed noise stays."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from loadtests import denoising
from loadtests.oracles import InProcessOracle, OracleError
from loadtests.results import DenoisingRow, read
from tests.conftest import RECIPE, Smoke
from tests.reached import Reached
from zoo import datasets

# at once the traffic of a thief: the smoke victim's digits, upside down
IMAGES = datasets.load("digits", "test").pixels[:30].flip(2)


def left(noisy: Smoke, policy: str) -> dict[tuple[str, int], DenoisingRow]:
    rows = denoising.measure("smoke", policy, noisy.store, {"thief (digits)": IMAGES})
    return {(row.copying, row.copies): row for row in rows}


def test_fresh_noise_goes_with_identical_copies_and_keyed_noise_stays(noisy: Smoke, reached: Reached) -> None:
    fresh, keyed = left(noisy, "meco"), left(noisy, "meco-keyed")
    assert list(fresh) == [(copying, copies) for copying in ("identical", "jittered") for copies in (1, 2, 4, 8, 16)]
    reached("share of fresh noise that is left", fresh["identical", 16].l1 / fresh["identical", 1].l1, below=0.75)
    alone = keyed["identical", 1]
    assert all(keyed["identical", copies].l1 == pytest.approx(alone.l1, rel=1e-5) for copies in (2, 4, 8, 16))
    # half of its noise is keyed by the bytes
    reached("share of keyed noise that is left", keyed["jittered", 16].l1 / alone.l1, below=1.0)


def test_the_mean_is_of_the_first_copies_and_is_held_against_the_answer_without_noise(noisy: Smoke) -> None:
    row = left(noisy, "meco")["identical", 2]
    with InProcessOracle(noisy.archive("meco"), seed=0) as oracle:
        clean = oracle.everyone(IMAGES)[:, 0]
        told = oracle(IMAGES.repeat_interleave(16, dim=0)).probabilities
    assert told is not None
    mean = (told[0::16] + told[1::16]) / 2
    assert row.l1 == pytest.approx((mean - clean).abs().sum(1).mean().item(), rel=1e-5)
    assert row.kept == pytest.approx((mean.argmax(1) == clean.argmax(1)).float().mean().item())


def test_policies_without_a_mean_are_refused(smoke: Smoke) -> None:
    met = {"thief (digits)": torch.zeros(2, 1, 28, 28)}
    with pytest.raises(OracleError, match="smoke-edm: expected a policy of one member"):
        list(denoising.measure("smoke", "edm", smoke.store, met))
    with pytest.raises(OracleError, match="tells labels only"):
        list(denoising.measure("smoke", "label", smoke.store, met))


def test_the_program_merges_its_rows(noisy: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["denoising", str(RECIPE), "--policies", "meco-keyed", "--run", str(tmp_path), "--store", str(noisy.store)]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(denoising, "IMAGES", 4)
    denoising.main()
    rows = read(tmp_path / "report.json").denoising
    assert {row.traffic for row in rows} == {"benign (digits)", "thief (flower)", "untrained generators"}
    assert {row.images for row in rows} == {4}
