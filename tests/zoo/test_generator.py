from __future__ import annotations

import pytest
import torch

from zoo.generator import LATENT, Generator, untrained
from zoo.noise import noise


def test_it_has_the_size_of_dfme_s() -> None:
    assert sum(each.numel() for each in Generator(channels=1, size=32).parameters()) == 2_327_937


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
def test_latents_become_images_and_gradients_return(channels: int, size: int) -> None:
    torch.manual_seed(0)
    latents = torch.randn(4, LATENT, requires_grad=True)
    images = Generator(channels=channels, size=size, filters=8)(latents)
    assert images.shape == (4, channels, size, size)
    assert 0 <= images.min() < 0.2
    assert 0.8 < images.max() <= 1
    images.square().sum().backward()
    assert latents.grad is not None
    assert latents.grad.abs().sum(1).min() > 0


def test_sides_are_multiples_of_four() -> None:
    with pytest.raises(ValueError, match="size: expected a multiple of 4, got 30"):
        Generator(channels=1, size=30)


def test_untrained_images_follow_from_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (untrained(5, channels=1, size=30, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.shape == (5, 1, 30, 30)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_noise_is_white_or_smooth() -> None:
    def step(grain: int) -> float:
        images = noise(20, channels=3, size=28, grain=grain, generator=torch.Generator().manual_seed(0))
        assert images.shape == (20, 3, 28, 28)
        assert 0 <= images.min() <= images.max() <= 1
        return images.diff(dim=3).abs().mean().item()

    assert step(1) == pytest.approx(1 / 3, abs=0.01)  # of two independent draws from [0, 1]
    assert step(1) > 2 * step(3) > 4 * step(12)
    with pytest.raises(ValueError, match="grain: expected 1 to the side 28, got 29"):
        step(29)
