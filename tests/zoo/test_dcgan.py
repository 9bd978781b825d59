from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.dcgan import LATENT, Discriminator, Generator, deceive, discriminate


def count(network: nn.Module) -> int:
    return sum(each.numel() for each in network.parameters())


def test_they_have_the_size_of_the_paper_s() -> None:
    # 4x4 kernels 100-512-256-128-64, gains and offsets, 1x1 to the colours with offsets
    assert count(Generator(channels=3, size=32)) == 16 * (100 * 512 + 512 * 256 + 256 * 128 + 128 * 64) + 1920 + 195
    # 4x4 kernels 3-64-128-256-512 with offsets, 2x2 to the logit with its offset
    kernels = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512)
    assert count(Discriminator(channels=3, size=32)) == kernels + 64 + 128 + 256 + 512 + 2049


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (1, 14), (1, 33)])
def test_latents_become_images_and_images_logits_and_gradients_return(channels: int, size: int) -> None:
    torch.manual_seed(0)
    latents = torch.randn(4, LATENT, requires_grad=True)
    images = Generator(channels=channels, size=size, filters=4)(latents)
    assert images.shape == (4, channels, size, size)
    assert 0 <= images.min() < images.max() <= 1
    logits = Discriminator(channels=channels, size=size, filters=4)(images)
    assert logits.shape == (4,)
    (logits * torch.arange(4)).sum().backward()
    assert latents.grad is not None
    assert latents.grad.abs().sum(1).min() > 0


def test_other_sides_are_the_middle_of_the_next_multiple_of_16() -> None:
    torch.manual_seed(0)
    small, large = Generator(channels=1, size=28, filters=4), Generator(channels=1, size=32, filters=4)
    large.load_state_dict(small.state_dict())
    latents = torch.randn(4, LATENT)
    assert torch.equal(small(latents), large(latents)[:, :, 2:30, 2:30])
    judge, judge_of_large = Discriminator(channels=1, size=28, filters=4), Discriminator(channels=1, size=32, filters=4)
    judge_of_large.load_state_dict(judge.state_dict())
    images = torch.rand(4, 1, 28, 28)
    assert torch.equal(judge(images), judge_of_large(F.pad(images, (2, 2, 2, 2), mode="replicate")))


def test_a_side_has_pixels() -> None:
    with pytest.raises(ValueError, match="size: expected at least 1, got 0"):
        Generator(channels=1, size=0)


@pytest.mark.parametrize(("filters", "spread"), [(64, 0.02), (16, 0.04)])
def test_weights_start_as_radford_s_and_larger_in_narrower_networks(filters: int, spread: float) -> None:
    torch.manual_seed(0)
    network = Generator(channels=1, size=32, filters=filters)
    gains = torch.cat([each.weight.detach() for each in network.modules() if isinstance(each, nn.BatchNorm2d)])
    kernels = torch.cat(
        [each.weight.detach().flatten() for each in network.modules() if isinstance(each, nn.ConvTranspose2d)]
    )
    assert gains.mean().item() == pytest.approx(1, abs=0.01)
    assert gains.std().item() == pytest.approx(0.02, rel=0.2)
    latents = torch.randn(64, LATENT)
    assert network(latents).std(dim=0).mean() > 0.03, "contrast from the start"
    assert kernels.std().item() == pytest.approx(spread, rel=0.01)


def test_the_losses_are_those_of_probabilities() -> None:
    judge = nn.Flatten(0)  # an image of one pixel is its own logit
    shown, drawn = torch.tensor([0.0, math.log(3)]).view(2, 1, 1, 1), torch.tensor([-math.log(4)]).view(1, 1, 1, 1)
    drawn.requires_grad_()
    # D is 1/2 and 3/4 on what was shown, 1/5 on what was drawn
    loss = discriminate(judge, shown, drawn)
    assert loss.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2 - math.log(4 / 5))
    assert not loss.requires_grad
    deceiving = deceive(judge, drawn)
    assert deceiving.item() == pytest.approx(math.log(5))
    deceiving.backward()
    assert drawn.grad is not None
    assert drawn.grad.item() == pytest.approx(1 / 5 - 1)
