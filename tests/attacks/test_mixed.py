"""The thief of mixtures: what lies between two seeds, in value or in place."""

from __future__ import annotations

import pytest
import torch

from attacks import mixed
from attacks.clone import Cloning
from attacks.mixed import Mixed, rectangles
from attacks.oracle import Answers, Ledger
from attacks.service import Service
from attacks.thief import steal

SERVICE = Service(channels=1, size=28, classes=10)


def test_a_mixture_is_made_of_two_seeds() -> None:
    thief = mixed.prepare(
        Mixed("digits", 80, seeds=2, strength=0.0), SERVICE, cloning=Cloning("lenet5", epochs=1), seed=0
    )
    for _ in steal(thief, Ledger(lambda images: Answers(torch.zeros(len(images)).long()), 80), rows=64):
        pass
    asked, own = thief.transfer_set().images, thief.own()
    assert own is not None
    assert len(own) == 2
    low, high = own.images.amin(dim=0), own.images.amax(dim=0)
    assert torch.equal(asked[:2], own.images)
    mixtures = asked[2:]
    assert (low - 1e-5 <= mixtures).all()
    assert (mixtures <= high + 1e-5).all()
    # of two different seeds: pixels of the one or the other, or neither
    apart = (own.images[0] - own.images[1]).abs() > 0.5
    at_ends = ((mixtures - low).abs().minimum((mixtures - high).abs()) < 1e-5)[:, apart].float().mean(dim=1)
    assert ((at_ends > 0.99).sum(), (at_ends < 0.01).sum()) > (10, 10)


def test_rectangles_have_the_area_asked_for_and_lie_anywhere() -> None:
    area = torch.full((500,), 0.25)
    inside = rectangles(area, (28, 28), generator=torch.Generator().manual_seed(0))
    share = inside.float().mean(dim=(1, 2))
    assert share.max() == pytest.approx(0.25)
    assert share.min() > 0.05
    assert inside.any(dim=0).all()
    wide = rectangles(area, (20, 40), generator=torch.Generator().manual_seed(0))
    assert wide.shape == (500, 20, 40)
    assert wide.float().mean(dim=(1, 2)).max() == pytest.approx(0.25)
    assert rectangles(torch.zeros(3), (20, 28), generator=torch.Generator()).sum() == 0
