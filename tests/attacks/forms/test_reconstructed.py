"""The reconstructing thief: what its autoencoder learns from, and what is asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attacks.clone import Cloning
from attacks.forms.reconstructed import ReconstructedThief
from attacks.knockoff import KnockoffThief
from attacks.oracle import Answers, Ledger, Oracle
from attacks.script import Script, ScriptedThief
from attacks.service import Service
from attacks.thief import Thief, steal
from attacks.transfer import TransferSet
from tests.attacks import victims
from tests.reached import Reached

SERVICE = Service(channels=1, size=victims.SIZE, classes=victims.CLASSES)


def reconstructed(thief: Thief, *, seed: int = 0, **changes: Any) -> ReconstructedThief:
    return ReconstructedThief(thief, service=SERVICE, cloning=Cloning("lenet5", epochs=1), seed=seed, **changes)


def asked(thief: Thief, oracle: Oracle, budget: int) -> torch.Tensor:
    sent = []

    def listening(images: torch.Tensor) -> Answers:
        sent.append(images.clone())
        return oracle(images)

    ledger = Ledger(listening, budget)
    for _ in steal(thief, ledger, rows=20):
        pass
    assert ledger.queries == thief.transfer_set().charged == budget
    return torch.cat(sent)


def owning(own: TransferSet, images: torch.Tensor) -> ScriptedThief:
    def script() -> Script:
        yield images

    return ScriptedThief(script(), own=own)


def test_it_learns_from_what_the_thief_owns(reached: Reached, seed: int) -> None:
    images = victims.images(60, seed=seed + 1)
    thief = reconstructed(owning(victims.transfer_set(100, seed=seed), images), seed=seed, steps=150)
    made = asked(thief, victims.oracle, 60)
    assert 0 <= made.min() <= made.max() <= 1
    assert torch.equal(thief.transfer_set().images, made)
    error, spread = (made - images).square().mean(), (images - images.mean(dim=0)).square().mean()
    reached("error as a share of the images' variance", error / spread, below=0.7)


def test_who_owns_nothing_learns_from_the_first_images_that_were_answered() -> None:
    surrogate = victims.crisp(100, seed=0)
    thief = reconstructed(KnockoffThief(surrogate, seed=0), first=60, steps=5)
    made = asked(thief, victims.gated, 100)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(made[:60], surrogate[order][:60])
    assert not torch.isclose(made[60:], surrogate[order][60:]).flatten(1).all(dim=1).any()


def test_equal_seeds_give_equal_proposals() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (
        asked(
            reconstructed(owning(victims.transfer_set(30), victims.images(20, seed=1)), seed=seed, steps=3),
            victims.oracle,
            20,
        )
        for seed in (0, 0, 1)
    )
    assert torch.get_rng_state().equal(before), "the thief moved the global generator"
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ["code", "first"])
def test_ranges(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        reconstructed(KnockoffThief(victims.images(6, seed=0), seed=1), **{name: 0})
