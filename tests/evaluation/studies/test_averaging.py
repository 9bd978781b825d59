"""What averaging brings on real archives: fresh noise goes with the copies, keyed noise stays."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from evaluation.oracles import InProcessOracle, OracleError
from evaluation.studies import averaging
from report.rows.noise import DenoisingRow
from tests.conftest import Smoke
from tests.evaluation.studies.command import study
from zoo import datasets

# at once the traffic of an attacker: the smoke victim's digits, upside down


@cache
def some_images() -> torch.Tensor:
    return datasets.load("digits", "test").pixels[:30].flip(2)


def left(noisy: Smoke, policy: str) -> dict[tuple[str, int], DenoisingRow]:
    with InProcessOracle(noisy.archive(policy), seed=0) as oracle:
        rows = list(averaging.measure(oracle, {"thief (digits)": some_images()}, recipe="smoke", policy=policy))
    return {(row.copying, row.copies): row for row in rows}


def alone(noisy: Smoke, policy: str) -> float:
    """How far one answer is from the one without noise, over all that `left` asks of identical copies."""
    with InProcessOracle(noisy.archive(policy), seed=0) as oracle:
        clean = oracle.everyone(some_images())[:, 0]
        return (averaging.asked(oracle, some_images(), None) - clean[:, None]).abs().sum(2).mean().item()


def test_fresh_noise_goes_with_identical_copies_and_keyed_noise_stays(noisy: Smoke) -> None:
    fresh, keyed = left(noisy, "meco"), left(noisy, "meco-keyed")
    copies = (1, 2, 4, 8, 16)
    assert list(fresh) == [(copying, number) for copying in ("identical", "jittered") for number in copies]
    # the mean of answers that differ is nearer than they are
    assert fresh["identical", 16].l1 < 0.999 * alone(noisy, "meco")
    assert len({fresh["identical", number].l1 for number in copies}) == len(copies), "each copy has a draw of its own"
    assert all(
        keyed["identical", number].l1 == pytest.approx(alone(noisy, "meco-keyed"), rel=1e-5) for number in copies
    )
    # half of its noise is keyed by the bytes
    assert keyed["jittered", 16].l1 != pytest.approx(keyed["jittered", 1].l1, rel=1e-5)


def test_the_mean_is_of_the_first_copies_and_is_held_against_the_answer_without_noise(noisy: Smoke) -> None:
    row = left(noisy, "meco")["identical", 2]
    with InProcessOracle(noisy.archive("meco"), seed=0) as oracle:
        clean = oracle.everyone(some_images())[:, 0]
        means = oracle(some_images().repeat_interleave(16, dim=0)).probabilities
    assert means is not None
    mean = (means[0::16] + means[1::16]) / 2
    assert row.l1 == pytest.approx((mean - clean).abs().sum(1).mean().item(), rel=1e-5)
    assert row.kept == pytest.approx((mean.argmax(1) == clean.argmax(1)).float().mean().item())


def test_policies_without_a_mean_are_refused(smoke: Smoke) -> None:
    by_kind = {"thief (digits)": torch.zeros(2, 1, 28, 28)}
    for policy, message in (("edm", "smoke-edm: expected a policy of one member"), ("label", "returns labels only")):
        with InProcessOracle(smoke.archive(policy), seed=0) as oracle, pytest.raises(OracleError, match=message):
            list(averaging.measure(oracle, by_kind, recipe="smoke", policy=policy))


def test_the_program_merges_its_rows(noisy: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(averaging, "IMAGES", 4)
    rows = study("averaging", "--policies", "meco-keyed", run=tmp_path, store=noisy.store).denoising
    assert {row.traffic for row in rows} == {"benign (digits)", "thief (flower)", "untrained generators"}
    assert {row.images for row in rows} == {4}
