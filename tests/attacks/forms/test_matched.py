"""The thief who matches a gate: what it tries, what it keeps, and what becomes of its refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attacks.clone import Cloning
from attacks.forms.matched import VARIANTS, MatchedThief, blurred
from attacks.knockoff import KnockoffThief
from attacks.oracle import Answers, Ledger, Oracle
from attacks.service import Service
from attacks.thief import Thief, steal
from tests.attacks import victims
from tests.reached import Reached

SERVICE = Service(channels=1, size=victims.SIZE, classes=victims.CLASSES)


def matched(thief: Thief, **changes: Any) -> MatchedThief:
    return MatchedThief(thief, service=SERVICE, cloning=Cloning("lenet5", epochs=1), seed=0, **changes)


def blurry(count: int, *, seed: int = 0) -> torch.Tensor:
    return blurred(victims.crisp(count, seed=seed))


def attacked(thief: Thief, oracle: Oracle, budget: int, *, rows: int = 64) -> Ledger:
    ledger = Ledger(oracle, budget)
    for _ in steal(thief, ledger, rows=rows):
        pass
    return ledger


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("channels", [1, 3])
def test_variants_stay_in_range_and_leave_flat_images_flat(name: str, channels: int) -> None:
    images = torch.rand(4, channels, 14, 14, generator=torch.Generator().manual_seed(0))
    varied = VARIANTS[name](images)
    assert varied.shape == images.shape
    assert 0 <= varied.min() <= varied.max() <= 1
    assert torch.equal(varied, images) == (name == "same")
    assert torch.allclose(VARIANTS[name](torch.full_like(images, 0.5)), torch.tensor(0.5), atol=1e-5)


def test_refusals_go_down_within_the_budget(reached: Reached, seed: int) -> None:
    surrogate = blurry(2000, seed=seed)
    assert victims.gated(surrogate).refused.all()
    thief = matched(KnockoffThief(surrogate, seed=seed))
    tuning = attacked(thief, victims.gated, 1000)
    assert tuning.queries == thief.transfer_set().charged == 1000
    assert len(thief.left) == 1
    refused = tuning.refused
    ledger = attacked(thief, victims.gated, 500)
    assert ledger.queries == 500
    reached("share of the probes refused", refused / 1000, below=0.6)
    reached("share refused afterwards", ledger.refused / 500, below=0.2)


def test_what_is_kept_is_what_was_sent_and_answered() -> None:
    sent = []

    def listening(images: torch.Tensor) -> Answers:
        sent.append(images.clone())
        return victims.gated(images)

    thief = matched(KnockoffThief(blurry(300), seed=0), probes=60)
    attacked(thief, listening, 300)
    everything, transfer = torch.cat(sent), thief.transfer_set()
    assert torch.equal(transfer.images, everything[transfer.places])
    assert not victims.gated(transfer.images).refused.any()
    assert 0 < len(transfer) < 300


def test_without_a_gate_images_stay_as_they_are() -> None:
    surrogate = blurry(400)
    thief = matched(KnockoffThief(surrogate, seed=0), probes=48)
    attacked(thief, victims.oracle, 4 * 48)
    assert thief.left == ["same"]
    rest = thief.propose(100)
    known = {image.numpy().tobytes() for image in surrogate}
    assert rest is not None
    assert all(image.numpy().tobytes() in known for image in rest)


def test_how_many_images_a_request_holds_changes_nothing() -> None:
    images = []
    for rows in (7, 64):
        thief = matched(KnockoffThief(blurry(400), seed=0), probes=48)
        attacked(thief, victims.gated, 300, rows=rows)
        images.append(thief.transfer_set().images)
    assert torch.equal(*images)


def test_the_choice_is_the_variant_refused_least() -> None:
    def picky(images: torch.Tensor) -> Answers:
        # sure about the second variant, undecided about the others
        wanted = images.mean(dim=(1, 2, 3)) > 0.9
        return Answers(torch.where(wanted, 0, -1))

    variants = {"same": VARIANTS["same"], "white": torch.ones_like, "black": torch.zeros_like}
    thief = matched(KnockoffThief(victims.crisp(60, seed=0), seed=0), probes=12, variants=variants)
    attacked(thief, picky, 24, rows=5)
    assert thief.left == ["white"]


def test_ranges() -> None:
    with pytest.raises(ValueError, match="probes: expected at least one for each of 14 variants, got 11"):
        matched(KnockoffThief(blurry(6), seed=1), probes=11)
