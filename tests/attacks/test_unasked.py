"""What a thief could train without a query: as long a training as on answers, from as few images as it has."""

from __future__ import annotations

import pytest
import torch

from attacks import clone, unasked
from attacks.clone import Clone, Cloning
from attacks.owned import Labelled
from attacks.transfer import TransferSet
from tests.attacks import victims
from zoo.augment import Affine, Variation
from zoo.writing import Writing

CLONING = Cloning("conv3", epochs=4, options={"width": 1}, batch_size=32)
VARIED = Affine(flip=True)


def owned(count: int, *, seed: int = 0) -> TransferSet:
    pixels = victims.images(count, seed=seed)
    return Labelled(pixels, victims.label_oracle(pixels).labels).as_transfer_set()


def trained(own: TransferSet, *, seed: int = 0, variation: Variation = VARIED, images: int = 128) -> Clone:
    return unasked.train(
        own, CLONING, classes=victims.CLASSES, recipe="adamw", variation=variation, images=images, seed=seed
    )


def test_it_trains_as_long_as_on_answers() -> None:
    counting = victims.Counting()
    trained(owned(24), variation=counting, images=600)
    assert counting.seen == CLONING.epochs * 600
    few = victims.Counting()
    trained(owned(24), variation=few, images=5)
    assert few.seen == CLONING.epochs * 22, "each image that is not held out, once an epoch"


def test_equal_seeds_give_equal_clones_and_the_global_generator_stays() -> None:
    own = owned(30)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (trained(own, seed=seed, variation=Writing(0.5)).network.state_dict() for seed in (0, 0, 1))
    assert torch.get_rng_state().equal(before)
    assert all(map(torch.equal, first.values(), again.values()))
    assert not all(map(torch.equal, first.values(), other.values()))


def test_fewer_images_than_one_can_choose_by_are_all_trained_on() -> None:
    made = trained(owned(clone.LEAST_ROWS - 1))
    assert made.held_out == 0
    assert not made.network.training
    assert 0 < trained(owned(200)).held_out <= 1
    with pytest.raises(ValueError, match="owned images: expected at least 2, got 1"):
        trained(owned(1))
