"""Forward differences against gradients worked out by hand, and what the data-free thieves make of odd answers."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from attacks.clone import CloneRecipe, Cloning, centred_log
from attacks.oracle import REFUSED, Answers, distributions
from attacks.service import Service
from attacks.zeroth_order import RECENT, Apprentice, Forger, Probes, pixels, players
from tests.reached import Reached
from zoo.generator import UpsampledConv2d

SERVICE = Service(channels=1, size=14, classes=4)
CLONING = Cloning("conv3", epochs=1, options={"width": 1})


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(*, lr_generator: float = 1e-3, seed: int = 0) -> tuple[Forger, Apprentice, torch.Generator]:
    recipe = CloneRecipe("adamw", 1e-3, 0.0)
    return players(SERVICE, CLONING, recipe, lr_generator=lr_generator, filters=4, latent=8, affine=False, seed=seed)


def weights(apprentice: Apprentice) -> torch.Tensor:
    return torch.cat([each.flatten() for each in apprentice.clone().network.parameters()])


def squared(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return (logits - wanted).square().mean(dim=1)


def test_answers_become_rows_that_sum_to_one() -> None:
    served = torch.tensor([[0.5, 0.3, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [torch.nan] * 4, [0.9, -0.1, 0.0, 0.1]])
    rows = distributions(Answers(torch.tensor([0, 2, REFUSED, 0]), served), 4)
    assert torch.allclose(rows[0], torch.tensor([0.625, 0.375, 0.0, 0.0]))  # top-2, not renormalised
    assert rows[1].tolist() == [0.0, 0.0, 1.0, 0.0]  # rounded away: only the label is left
    assert rows[2].isnan().all()
    assert torch.allclose(rows[3], torch.tensor([0.9, 0.0, 0.0, 0.1]))


def test_labels_become_unit_vectors() -> None:
    rows = distributions(Answers(torch.tensor([3, REFUSED, 0])), 4)
    assert rows[0].tolist() == [0.0, 0.0, 0.0, 1.0]
    assert rows[1].isnan().all()
    assert rows[2].tolist() == [1.0, 0.0, 0.0, 0.0]


def test_log_probabilities_are_the_logits_but_for_a_constant() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5, -1.5], [3.0, 3.0, 1.0, 1.0]])
    expected = logits - logits.mean(dim=1, keepdim=True)
    assert torch.allclose(centred_log(logits.softmax(dim=1), 1e-7), expected, atol=1e-5)


def test_a_unit_vector_has_the_floor_s_logits() -> None:
    top, rest = centred_log(torch.tensor([[0.0, 1.0, 0.0, 0.0]]), 1e-4)[0, [1, 0]].tolist()
    assert (top, rest) == pytest.approx((-0.75 * math.log(1e-4), 0.25 * math.log(1e-4)))


def test_a_slope_by_hand() -> None:
    # 1 x 1 x 2 x 2 pixels, D = 4; along the first axis the loss rises by 0.3 over a step of 0.1: 4 * 3 * (1, 0, 0, 0)
    units = torch.zeros(1, 2, 1, 2, 2)
    units[0, 0, 0, 0, 0] = units[0, 1, 0, 1, 1] = 1
    probes = Probes(torch.zeros(2, 1, 2, 2), units, 0.1)
    gradient = probes.gradient(torch.tensor([1.0, 5.0, 1.3, 4.8]))
    # of a mean over two images: half of each one's own
    assert torch.allclose(gradient[0].flatten(), torch.tensor([6.0, 0.0, 0.0, 0.0]), atol=1e-4)
    assert torch.allclose(gradient[1].flatten(), torch.tensor([0.0, 0.0, 0.0, -4.0]), atol=1e-4)


def test_many_directions_come_to_the_gradient() -> None:
    before = torch.randn(3, 1, 3, 3, generator=draws(1))
    slope = torch.randn(3, 1, 3, 3, generator=draws(2))
    probes = Probes.around(before, directions=20_000, epsilon=0.1, draws=draws(3))
    assert torch.allclose(probes.units.flatten(2).norm(dim=2), torch.tensor(1.0))
    asked = torch.cat([before, (before + 0.1 * probes.units).flatten(0, 1)])
    assert torch.allclose(probes.images(), pixels(asked))
    losses = (slope.repeat(20_001, 1, 1, 1) * asked).flatten(1).sum(dim=1)
    assert torch.allclose(probes.gradient(losses), slope / 3, atol=0.04)


def test_refused_probes_are_left_out() -> None:
    before = torch.zeros(2, 1, 2, 2)
    probes = Probes.around(before, directions=2, epsilon=0.1, draws=draws())
    # of image 0 the second direction is refused; of image 1 the image itself
    losses = torch.tensor([1.0, torch.nan, 1.2, 9.0, torch.nan, 9.0])
    gradient = probes.gradient(losses)
    assert torch.allclose(gradient[0], 4 * 2.0 * probes.units[0, 0], atol=1e-4)
    assert not gradient[1].any()
    assert not probes.gradient(torch.full((6,), torch.nan)).any()


def test_images_are_what_a_service_takes() -> None:
    forger, _, _ = start()
    images = forger.images(5)
    assert images.shape == (5, 1, 14, 14)  # a generator's sides are multiples of 4
    assert 0 <= images.min() < 0.5 < images.max() <= 1
    assert torch.equal(start()[0].images(5), images)
    assert not torch.equal(start(seed=1)[0].images(5), images)


def test_the_generator_climbs(reached: Reached, seed: int) -> None:
    forger, _, _ = start(lr_generator=1e-2, seed=seed)
    first = forger.images(64).mean()
    for _ in range(20):
        before = forger.before_tanh(16)
        # the loss is brightness off centre; the last normalisation takes the mean brightness away
        slope = torch.zeros_like(before)
        slope[:, :, :7] = 1.0
        forger.climb(before, slope, rate=1.0)
    images = forger.images(64)
    reached("brighter where it pays", images[:, :, :7].mean() - first, above=0.1)
    reached("brighter elsewhere", images[:, :, 7:].mean() - first, below=-0.05)


def test_without_a_gradient_the_generator_stays() -> None:
    forger, _, _ = start(lr_generator=1e-2)
    before = forger.before_tanh(16)
    forger.climb(before, torch.ones_like(before), rate=1.0)  # momentum
    kept = [each.clone() for each in forger._network.parameters()]
    before = forger.before_tanh(16)
    forger.climb(before, torch.zeros_like(before), rate=1.0)
    assert all(torch.equal(a, b) for a, b in zip(kept, forger._network.parameters(), strict=True))


def test_the_clone_learns_from_the_rows_that_were_answered() -> None:
    images, wanted = torch.rand(6, 1, 14, 14, generator=draws()), torch.randn(6, 4, generator=draws(1))
    _, one, _ = start()
    _, other, _ = start()
    one.study(images[:4], wanted[:4], squared, rate=1.0)
    wanted[4:] = torch.nan
    before = weights(other)
    other.study(images, wanted, squared, rate=1.0)
    assert torch.equal(weights(one), weights(other))
    assert not torch.equal(weights(other), before)
    other.study(images, torch.full((6, 4), torch.nan), squared, rate=1.0)
    assert torch.equal(weights(one), weights(other))


def test_agreement_is_counted_over_the_latest_answers() -> None:
    _, apprentice, _ = start()
    assert apprentice.clone().held_out == 0.0
    right = torch.zeros(4, dtype=torch.int64)
    guesses = F.one_hot(right, 4).float()
    apprentice.judge(guesses, torch.tensor([0, 1, REFUSED, 0]))
    assert apprentice.clone().held_out == pytest.approx(2 / 3)
    for _ in range(RECENT // 4 + 1):
        apprentice.judge(guesses, right)
    assert apprentice.clone().held_out == 1.0
    assert sum(map(len, apprentice._recent)) == RECENT
    apprentice.judge(guesses, torch.full((4,), REFUSED))
    assert apprentice.clone().held_out == 1.0


def test_a_clone_is_left_as_it_is_by_later_steps() -> None:
    _, apprentice, _ = start()
    clone = apprentice.clone()
    assert not clone.network.training
    kept = [each.clone() for each in clone.network.parameters()]
    apprentice.study(torch.rand(4, 1, 14, 14), torch.randn(4, 4), squared, rate=1.0)
    assert all(torch.equal(a, b) for a, b in zip(kept, clone.network.parameters(), strict=True))


def test_a_folded_convolution_is_that_of_the_larger_image() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convolution = UpsampledConv2d(3, 5)
    small = torch.randn(2, 3, 4, 6, generator=draws())
    large = F.conv2d(F.interpolate(small, scale_factor=2), convolution.weight, convolution.bias, padding=1)
    assert torch.allclose(convolution(small), large, atol=1e-5)
