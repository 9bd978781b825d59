"""Every perturbation of the registry against one list of properties, and each against its own formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.perturbation import PERTURBATIONS, Learned, Perturbation, RandomFilters, perturbation, root_mean_square

RMS = 0.1

every_kind = pytest.mark.parametrize("kind", PERTURBATIONS)
every_geometry = pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])


def fresh(kind: str, *, channels: int = 1, size: int = 28, rms: float = RMS) -> Perturbation:
    """A perturbation in evaluation mode; a learned one as training leaves it: its head far from 0."""
    torch.manual_seed(0)
    learned = {"filters": 6} if kind == "meco" else {}
    made = perturbation(kind, channels=channels, size=size, rms=rms, **learned).eval()
    if isinstance(made, Learned):
        with torch.no_grad():
            made.head.weight.mul_(20)
    return made


def images(rows: int, channels: int = 1, size: int = 28, seed: int = 1) -> torch.Tensor:
    return torch.rand(rows, channels, size, size, generator=torch.Generator().manual_seed(seed))


def noise(made: Perturbation, rows: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(rows, *made.noise_shape, generator=torch.Generator().manual_seed(seed))


@every_kind
@every_geometry
def test_it_adds_h_to_the_images(kind: str, channels: int, size: int) -> None:
    made, given = fresh(kind, channels=channels, size=size), images(5, channels, size)
    kept, eps = given.clone(), noise(fresh(kind, channels=channels, size=size), 5)
    with torch.inference_mode():
        h, shown = made.h(given, eps), made(given, eps)
    assert h.shape == given.shape
    assert h.dtype == torch.float32
    assert torch.equal(shown, given + h)
    assert torch.equal(given, kept)


@every_kind
@pytest.mark.parametrize("rms", [0.02, 0.5])
def test_its_size_is_the_one_that_was_asked_for(kind: str, rms: float) -> None:
    made = fresh(kind, rms=rms)
    with torch.inference_mode():
        h = made.h(images(20), noise(made, 20))
    sizes = root_mean_square(h).flatten()
    # a blank channel of a random filter has no deviation to fix: none of these is blank
    torch.testing.assert_close(sizes, torch.full((20,), rms), rtol=2e-3, atol=0)


@every_geometry
@pytest.mark.parametrize("factor", [1.0, 0.1, 1e-3, 1e3])
def test_a_learned_one_never_exceeds_its_bounds(factor: float, channels: int, size: int) -> None:
    made = fresh("meco", channels=channels, size=size)
    assert isinstance(made, Learned)
    with torch.inference_mode():
        made.head.weight.mul_(factor)
        made.head.bias.zero_()
        h = made.h(images(20, channels, size), noise(made, 20))
    assert h.abs().max() <= 2 * RMS + 1e-6
    assert root_mean_square(h).max() <= RMS + 1e-6
    if factor == 1e-3:
        assert root_mean_square(h).max() < RMS / 10, "what is faint is not blown up"
    if factor == 1e3:
        assert (h.abs() - RMS).abs().mean() < 1e-3, "tanh at its ends"


def test_a_learned_one_is_its_formula_s() -> None:
    made = fresh("meco")
    assert isinstance(made, Learned)
    given, eps = images(3), noise(made, 3)
    with torch.inference_mode():
        hidden = made.stem(torch.cat([2 * given - 1, eps], 1))
        for block in made.blocks:
            hidden = hidden + block(hidden)
        for row, u in enumerate(made.head(hidden).tanh()):
            h = RMS * u / max(u.square().mean().sqrt().item(), 0.5)
            torch.testing.assert_close(made.h(given, eps)[row], h)


def test_the_paper_s_has_two_blocks_of_64_filters() -> None:
    made = perturbation("meco", channels=3, size=32, rms=RMS)
    sizes = [tuple(each.weight.shape) for each in made.modules() if isinstance(each, nn.Conv2d)]
    assert sizes == [(64, 6, 3, 3), *[(64, 64, 3, 3)] * 4, (3, 64, 3, 3)]
    assert not list(perturbation("gaussian", channels=3, size=32, rms=RMS).parameters())
    assert not list(perturbation("random-filters", channels=3, size=32, rms=RMS).parameters())


def test_gradients_reach_all_that_is_learned() -> None:
    made, given = fresh("meco").train(), images(8)
    made.h(given, noise(made, 8)).square().mean((1, 2, 3)).sub(images(8).mean()).abs().sum().backward()
    names = {name for name, each in made.named_parameters() if each.grad is None or not each.grad.abs().sum() > 0}
    assert names == set()


@every_kind
def test_h_listens_to_its_noise(kind: str) -> None:
    made, same = fresh(kind), images(1).expand(6, 1, 28, 28)
    with torch.inference_mode():
        h = made.h(same, noise(made, 6))
    differences = h[:, None] - h[None]
    apart = differences.square().mean((2, 3, 4)).sqrt()[~torch.eye(6, dtype=torch.bool)]
    assert apart.min() > RMS / 20


def test_gaussian_noise_is_its_noise() -> None:
    made, eps = fresh("gaussian"), torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    h = made.h(images(4), eps)
    expected = torch.stack([RMS * each / (each.norm() / 28) for each in eps])
    torch.testing.assert_close(h, expected)
    assert torch.equal(h, made.h(images(4, seed=9), eps)), "whatever the image"


@every_geometry
def test_random_filters_are_convolutions_of_each_image_by_its_own_noise(channels: int, size: int) -> None:
    made = fresh("random-filters", channels=channels, size=size)
    given, eps = images(4, channels, size), noise(made, 4)
    assert made.noise_shape == (2 * (2 * channels + 2 * 2 * 9 + channels * 2),)
    h = made.h(given, eps)
    for row in range(4):
        hidden, weights = given[row : row + 1], eps[row]
        for _ in range(2):
            for outputs, inputs, side in ((2, channels, 1), (2, 2, 3), (channels, 2, 1)):
                count = outputs * inputs * side**2
                kernel, weights = weights[:count].view(outputs, inputs, side, side), weights[count:]
                hidden = F.conv2d(hidden, kernel, dilation=2, padding=2 if side == 3 else 0)
                hidden = F.instance_norm(hidden, eps=1e-6)
                # none after the last of a block
                hidden = hidden if side == 1 and outputs == channels and inputs == 2 else hidden.relu()
        assert weights.numel() == 0
        torch.testing.assert_close(h[row], RMS * hidden[0], atol=1e-4, rtol=1e-3)


@every_kind
@every_geometry
def test_no_row_s_perturbation_depends_on_the_other_rows(kind: str, channels: int, size: int) -> None:
    made = fresh(kind, channels=channels, size=size)
    given, eps = images(7, channels, size), noise(made, 7)
    with torch.inference_mode():
        together = made(given, eps)
        # a batch of another size may be summed in another order: twenty times what that changes
        for row in range(7):
            torch.testing.assert_close(made(given[row, None], eps[row, None])[0], together[row], atol=1e-5, rtol=0)
        others = images(7, channels, size, seed=5)
        others[3] = given[3]
        other_eps = noise(made, 7, seed=6)
        other_eps[3] = eps[3]
        torch.testing.assert_close(made(others, other_eps)[3], together[3], atol=1e-5, rtol=0)


@every_kind
@pytest.mark.parametrize("grey", [0.0, 0.5, 1.0])
def test_no_noise_and_blank_images_are_finite(kind: str, grey: float) -> None:
    made = fresh(kind)
    blank, silent = torch.full((2, 1, 28, 28), grey), torch.zeros(2, *made.noise_shape)
    with torch.inference_mode():
        for given, eps in ((blank, silent), (blank, noise(made, 2)), (images(2), silent)):
            h = made.h(given, eps)
            assert torch.isfinite(h).all()
            assert h.abs().max() < 1


def test_gradients_are_finite_where_h_is_nothing() -> None:
    made = fresh("meco")
    assert isinstance(made, Learned)
    with torch.no_grad():
        made.head.weight.zero_()
        made.head.bias.zero_()
    h = made.h(images(2), noise(made, 2))
    assert not h.any()
    (h.sum() + root_mean_square(h).sum()).backward()
    assert made.head.weight.grad is not None
    assert torch.isfinite(made.head.weight.grad).all()
    assert made.head.weight.grad.abs().sum() > 0


@every_kind
@pytest.mark.parametrize("rms", [0.0, -0.1, 1.5, float("nan")])
def test_a_size_out_of_range_is_named(kind: str, rms: float) -> None:
    with pytest.raises(ValueError, match=f"rms: expected above 0, at most 1, got {rms}"):
        perturbation(kind, channels=1, size=28, rms=rms)


def test_an_unknown_kind_and_no_filters_are_named() -> None:
    with pytest.raises(ValueError, match="unknown perturbation 'pink'; expected one of meco, gaussian, random-filters"):
        perturbation("pink", channels=1, size=28, rms=RMS)
    with pytest.raises(ValueError, match="filters: expected at least 1, got 0"):
        perturbation("meco", channels=1, size=28, rms=RMS, filters=0)


def test_weights_are_those_of_the_seed() -> None:
    torch.manual_seed(3)
    one = perturbation("meco", channels=1, size=28, rms=RMS, filters=2).state_dict()
    torch.manual_seed(3)
    other = perturbation("meco", channels=1, size=28, rms=RMS, filters=2).state_dict()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_random_filters_count_their_weights() -> None:
    made = perturbation("random-filters", channels=3, size=32, rms=RMS)
    assert isinstance(made, RandomFilters)
    assert made.noise_shape == (96,)


def test_the_learned_one_may_look_at_a_small_copy() -> None:
    torch.manual_seed(0)
    made = perturbation("meco", channels=3, size=(40, 60), rms=0.1, filters=4, shrunk=20).eval()
    assert made.noise_shape == (3, 20, 20)
    images, noise = torch.rand(2, 3, 40, 60), torch.randn(2, 3, 20, 20)
    h = made.h(images, noise)
    assert h.shape == images.shape
    assert h.square().mean((1, 2, 3)).sqrt().max() <= 0.1001
    torch.testing.assert_close(made(images, noise), images + h)
