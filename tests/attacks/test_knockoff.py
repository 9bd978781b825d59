"""Knockoff's random policy: each surrogate image once, in an order that the seed decides."""

from __future__ import annotations

import pytest
import torch

from attacks import knockoff
from attacks.clone import Cloning
from attacks.knockoff import Knockoff, KnockoffThief
from attacks.oracle import Ledger
from attacks.service import Service
from attacks.thief import steal
from tests.attacks import victims

CLONING = Cloning("lenet5", epochs=1)


def stolen(surrogate: torch.Tensor, *, seed: int, budget: int, rows: int) -> tuple[KnockoffThief, list[int]]:
    thief = KnockoffThief(surrogate, seed=seed)
    return thief, list(steal(thief, Ledger(victims.oracle, budget), rows=rows))


def test_no_image_is_asked_twice_and_the_set_is_exhausted() -> None:
    surrogate = victims.images(50, seed=0)
    thief, progress = stolen(surrogate, seed=1, budget=1000, rows=8)
    assert progress == [8, 16, 24, 32, 40, 48, 50]
    asked = {image.numpy().tobytes() for image in thief.transfer_set().images}
    assert asked == {image.numpy().tobytes() for image in surrogate}


def test_the_budget_is_spent_to_the_last_image() -> None:
    thief, progress = stolen(victims.images(50, seed=0), seed=1, budget=21, rows=8)
    assert progress == [8, 16, 21]
    assert thief.transfer_set().charged == 21


def test_the_transfer_set_holds_what_was_answered() -> None:
    thief, _ = stolen(victims.images(50, seed=0), seed=1, budget=30, rows=7)
    transfer = thief.transfer_set()
    assert transfer.probabilities is not None
    assert torch.equal(transfer.probabilities, victims.probabilities(transfer.images))
    assert torch.equal(transfer.labels, transfer.probabilities.argmax(dim=1))


def test_the_seed_decides_the_order_and_nothing_else_does() -> None:
    surrogate = victims.images(50, seed=0)
    torch.manual_seed(1)
    first, _ = stolen(surrogate, seed=5, budget=20, rows=8)
    torch.manual_seed(2)
    again, _ = stolen(surrogate, seed=5, budget=20, rows=4)
    other, _ = stolen(surrogate, seed=6, budget=20, rows=8)
    assert torch.equal(first.transfer_set().images, again.transfer_set().images)
    assert not torch.equal(first.transfer_set().images, other.transfer_set().images)


def test_the_surrogate_set_meets_the_geometry_of_the_service() -> None:
    thief = knockoff.prepare(
        Knockoff("flower", budget=10), Service(channels=3, size=32, classes=10), cloning=CLONING, seed=0
    )
    images = thief.propose(4)
    assert images is not None
    assert images.shape == (4, 3, 32, 32)
    assert 0 <= images.min() <= images.max() <= 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget": 0}, "budget: expected at least 1 image, got 0"),
        ({"budget": 5, "rows": 0}, "rows: expected .* got 0"),
    ],
)
def test_ranges(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Knockoff("flower", **fields)
