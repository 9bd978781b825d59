"""The thief of augmented seeds: the seeds first, then copies of them until the budget is spent."""

from __future__ import annotations

import pytest
import torch

from attacks import augmented_seeds
from attacks.augmented_seeds import AugmentedSeeds
from attacks.clone import Cloning
from attacks.oracle import Answers, Ledger
from attacks.service import Service
from attacks.thief import Thief, steal

SERVICE = Service(channels=1, size=28, classes=10)


def stolen(budget: int, *, seed: int = 0, seeds: int = 20, strength: float = 0.6) -> Thief:
    thief = augmented_seeds.prepare(
        AugmentedSeeds("digits", budget, seeds=seeds, strength=strength),
        SERVICE,
        cloning=Cloning("lenet5", epochs=1),
        seed=seed,
    )
    for _ in steal(thief, Ledger(lambda images: Answers(torch.zeros(len(images)).long()), budget), rows=64):
        pass
    return thief


def test_the_seeds_come_first_and_every_copy_is_another_one() -> None:
    thief = stolen(700)
    asked, own = thief.transfer_set(), thief.own()
    assert own is not None
    assert torch.equal(asked.images[:20], own.images)
    assert own.labels.bincount().tolist() == [2] * 10
    assert asked.charged == len({image.numpy().tobytes() for image in asked.images}) == 700


@pytest.mark.parametrize("seeds", [10, 50, 150])
def test_every_seed_is_copied_as_often_as_the_others(seeds: int) -> None:
    # copies that are the seeds again, but for rounding
    thief = stolen(7 * seeds, seeds=seeds, strength=0.0)
    own, asked = thief.own(), thief.transfer_set().images
    assert own is not None
    nearest = torch.cdist(asked.flatten(1), own.images.flatten(1)).argmin(dim=1)
    counts = nearest.bincount(minlength=seeds)
    assert (counts == 7).all()


def test_the_seed_of_the_run_decides_seeds_and_copies() -> None:
    first, again, other = (stolen(100, seed=seed).transfer_set().images for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget": 0}, "budget: expected at least 1 image, got 0"),
        ({"budget": 9, "seeds": 1}, "seeds: expected at least 2 images, got 1"),
        ({"budget": 9, "strength": -0.1}, r"strength: expected 0 to 1, got -0\.1"),
    ],
)
def test_ranges(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentedSeeds("digits", **fields)
