"""JBDA-TR: targets are other classes, steps go towards them, in one part or several."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attacks import jbda_tr
from attacks.clone import Cloning
from attacks.jbda_tr import JBDATR
from attacks.oracle import Answers, Ledger
from attacks.service import Service
from attacks.thief import steal

CLONING = Cloning("lenet5", epochs=1, batch_size=32)
SERVICE = Service(channels=1, size=28, classes=10)


def linear() -> nn.Module:
    """logits (2a, 2b, a + b) of two pixels (a, b)."""
    layer = nn.Linear(2, 3, bias=False)
    layer.weight = nn.Parameter(torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))
    return nn.Sequential(nn.Flatten(), layer).eval()


def two_pixels(*values: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 2)


def oracle(images: torch.Tensor) -> Answers:
    """Ten bands of brightness."""
    response = (-100 * (images.mean(dim=(1, 2, 3))[:, None] * 2 - torch.linspace(0, 1, 10)).abs()).softmax(dim=1)
    return Answers(response.argmax(dim=1), response)


def test_a_step_goes_towards_the_target() -> None:
    # towards class 1 from anywhere, b rises and a falls: sum_k p_k w_k - w_1 = (2 p_0 + p_2, 2 p_1 + p_2 - 2) = (+, -).
    # towards class 2 from (0.5, 0.2), where class 0 is ahead of class 1: (p_0 - p_1, p_1 - p_0) = (+, -), descended
    images = two_pixels((0.5, 0.2), (0.5, 0.2), (0.05, 0.95))
    moved = JBDATR("digits", 1, step=0.1).move(linear(), images, torch.tensor([1, 2, 1]))
    torch.testing.assert_close(moved, two_pixels((0.4, 0.3), (0.4, 0.3), (0.0, 1.0)))


def test_parts_of_a_step_turn_with_the_gradient() -> None:
    # towards class 2 from (0.32, 0.2): a single step of 0.4 overshoots, parts of 0.1 turn once b is ahead of a:
    # (0.22, 0.30) -> (0.32, 0.20) -> (0.22, 0.30) -> (0.32, 0.20)
    images, targets = two_pixels((0.32, 0.2)), torch.tensor([2])
    single = JBDATR("digits", 1, step=0.4).move(linear(), images, targets)
    torch.testing.assert_close(single, two_pixels((0.0, 0.6)))
    parts = JBDATR("digits", 1, step=0.4, iterations=4).move(linear(), images, targets)
    torch.testing.assert_close(parts, two_pixels((0.32, 0.2)))


def test_targets_are_all_the_other_classes_alike() -> None:
    labels = torch.arange(5).repeat(4000)
    targets = jbda_tr.others(labels, 5, generator=torch.Generator().manual_seed(0))
    assert not torch.any(targets == labels)
    for label in range(5):
        counts = torch.bincount(targets[labels == label], minlength=5)
        others = counts[torch.arange(5) != label]
        assert others.min() > 900
        assert others.max() < 1100


def stolen(seed: int) -> torch.Tensor:
    parameters = JBDATR("digits", 1000, seeds=20, rounds=2, epochs=1)
    thief = jbda_tr.prepare(parameters, SERVICE, cloning=CLONING, seed=seed)
    for _ in steal(thief, Ledger(oracle, 1000), rows=32):
        pass
    transfer, own = thief.transfer_set(), thief.own()
    assert own is not None
    assert torch.equal(own.images, transfer.images[:20])
    assert transfer.charged == 20 * 2**2
    return transfer.images


def test_the_seed_decides_what_is_asked_and_the_global_state_does_not() -> None:
    torch.manual_seed(1)
    first = stolen(7)
    torch.manual_seed(2)
    assert torch.equal(first, stolen(7))
    assert not torch.equal(first, stolen(8))


def test_ranges() -> None:
    with pytest.raises(ValueError, match="iterations: expected at least 1, got 0"):
        JBDATR("digits", 10, iterations=0)
    with pytest.raises(ValueError, match="budget: expected at least 1 image, got 0"):
        JBDATR("digits", 0)
