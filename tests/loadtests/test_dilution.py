"""Benign images among stolen ones: how many, where, and nothing lost."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from loadtests.users.dilution import Dilution

BENIGN = torch.full((5, 1, 2, 2), -1.0)


def numbered(first: int, count: int) -> torch.Tensor:
    """Images that show their number."""
    return torch.arange(first, first + count).float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def dilution(percent: int, seed: int = 0) -> Dilution:
    return Dilution(percent, BENIGN, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(percent=some.integers(0, 99), counts=some.lists(some.integers(1, 40), min_size=1, max_size=6))
def test_the_share_is_kept_over_all_exchanges_and_every_stolen_image_is_found_again(
    percent: int, counts: list[int]
) -> None:
    mixer, sent = dilution(percent), 0
    for number, count in enumerate(counts):
        images = numbered(100 * number, count)
        mixed, places = mixer.mix(images)
        assert torch.equal(mixed[places], images)
        assert places.tolist() == sorted(set(places.tolist()))
        rest = torch.ones(len(mixed), dtype=torch.bool)
        rest[places] = False
        assert (mixed[rest] == -1).all()
        sent += len(mixed)
        assert mixer.sent == sent
    assert mixer.stolen == sum(counts)
    assert abs((sent - mixer.stolen) - sent * percent / 100) <= 1


def test_ninety_percent_by_hand() -> None:
    mixed, places = dilution(90).mix(numbered(0, 6))
    assert len(mixed) == 60
    assert len(places) == 6
    # at random places: not all at one end
    assert places.max() - places.min() > 6


def test_nothing_is_mixed_in_at_zero() -> None:
    images = numbered(0, 3)
    mixed, places = Dilution(0, None, generator=torch.Generator()).mix(images)
    assert mixed is images
    assert places.tolist() == [0, 1, 2]


def test_equal_seeds_mix_equally() -> None:
    one, other, third = (dilution(50, seed).mix(numbered(0, 20))[1] for seed in (1, 1, 2))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


def test_what_cannot_be_mixed() -> None:
    with pytest.raises(ValueError, match="dilution: expected 0 to 99 percent, got 100"):
        dilution(100)
    with pytest.raises(ValueError, match="benign: expected images to dilute with, got none"):
        Dilution(50, None, generator=torch.Generator())
