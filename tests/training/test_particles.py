"""MeCo's particle step: its formula pair by pair, what each sign does, and a step that must not do nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from training.particles import FLOOR, direction, displacement, worst_case

SHAPE = (1, 6, 6)


def images(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(rows, *SHAPE, generator=torch.Generator().manual_seed(seed))


def gradients(rows: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 36, generator=torch.Generator().manual_seed(1))).view(rows, *SHAPE)


def pair_by_pair(particles: torch.Tensor, pulls: torch.Tensor, sign: float) -> torch.Tensor:
    """phi of each particle in float64, from (B,D) of both, one pair of particles at a time."""
    particles, pulls = particles.double(), pulls.double()
    rows = len(particles)
    distances = [[(one - other).square().sum().item() for other in particles] for one in particles]
    others = sorted(distances[i][j] for i in range(rows) for j in range(rows) if i != j)
    median = others[(len(others) - 1) // 2]
    variance = median / math.log(rows + 1) / 2
    phi = torch.zeros_like(particles)
    for i in range(rows):
        mass = 0.0
        for j in range(rows):
            kernel = math.exp(-distances[i][j] / (2 * variance))
            phi[i] += kernel * pulls[j] + sign * kernel * (particles[i] - particles[j]) / variance
            mass += kernel
        phi[i] /= mass
    return phi


def apart(particles: torch.Tensor) -> float:
    """Mean distance between two particles."""
    return torch.pdist(particles.flatten(1)).mean().item()


def small_network() -> Callable[[torch.Tensor], torch.Tensor]:
    """Losses of a network of random weights, a label a row."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 32), nn.Tanh(), nn.Linear(32, 3)).eval()

    def losses(particles: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(network(particles), torch.arange(len(particles)) % 3, reduction="none")

    return losses


def flat(particles: torch.Tensor) -> torch.Tensor:
    """Losses with no slope anywhere."""
    return 0 * particles.flatten(1).sum(1)


@pytest.mark.parametrize(("repel", "sign"), [(True, 1.0), (False, -1.0)])
@pytest.mark.parametrize("rows", [2, 3, 8])
def test_the_direction_is_the_formula_s(rows: int, repel: bool, sign: float) -> None:
    particles, pulls = images(rows), gradients(rows)
    expected = pair_by_pair(particles.flatten(1), pulls.flatten(1), sign)
    moved = direction(particles, pulls, repel=repel)
    assert moved.shape == particles.shape
    torch.testing.assert_close(moved.flatten(1).double(), expected, atol=1e-4, rtol=1e-4)


def test_neighbours_pull_as_the_kernel_says() -> None:
    # three particles of which two are near: 2 sigma^2 = 1 / log 4 for the median distance 1
    particles = torch.tensor([0.0, 0.6, 1.0]).view(3, 1, 1, 1)
    pulls = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1, 1)
    squared = torch.tensor([[0, 0.36, 1], [0.36, 0, 0.16], [1, 0.16, 0]])
    kernel = (-squared * math.log(4) / 0.36).exp()
    with_pull, without = direction(particles, pulls), direction(particles, torch.zeros(3, 1, 1, 1))
    torch.testing.assert_close((with_pull - without).flatten(), kernel[:, 0] / kernel.sum(1))


def test_particles_repel_and_the_printed_sign_gathers_them() -> None:
    start = images(8) / 4 + 0.375
    repelled = worst_case(start, flat, steps=1, step=0.1)
    gathered = worst_case(start, flat, steps=1, step=0.1, repel=False)
    assert apart(repelled) > 1.02 * apart(start)
    assert apart(gathered) < 0.98 * apart(start)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_loss_rises_with_every_step(steps: int) -> None:
    losses, start = small_network(), images(16)
    before, after = (losses(worst_case(start, losses, steps=count, step=0.5)).detach() for count in (steps - 1, steps))
    assert after.mean() > before.mean() + 0.01
    assert (after > before).float().mean() > 0.8


@pytest.mark.parametrize("repel", [True, False])
@pytest.mark.parametrize("step", [0.5, 50.0])
def test_images_stay_images(step: float, repel: bool) -> None:
    start = images(8)
    kept = start.clone()
    moved = worst_case(start, small_network(), steps=3, step=step, repel=repel)
    assert moved.shape == start.shape
    assert moved.dtype == torch.float32
    assert not moved.requires_grad
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert torch.equal(start, kept)


def test_a_step_s_length_is_not_shared_by_a_batch() -> None:
    losses = small_network()
    lengths = []
    for rows in (4, 64):
        start = images(rows) / 2 + 0.25  # so that no pixel is clipped
        moved = worst_case(start, losses, steps=1, step=0.2)
        lengths.append((moved - start).flatten(1).norm(dim=1).mean().item())
    assert 0.05 < lengths[0] < 0.4
    assert lengths[1] > lengths[0] / 2, "1/16 of it where a mean loss is divided by the batch"


def test_no_step_is_no_move() -> None:
    start = images(4)
    assert torch.equal(worst_case(start, small_network(), steps=0, step=1e-9), start)


def test_a_step_that_moves_nothing_stops_the_run() -> None:
    with pytest.raises(FloatingPointError, match=r"expected one that moves pixels by 1e-03 .* got 1e-09, which moved"):
        worst_case(images(16), small_network(), steps=2, step=1e-9)


def test_losses_that_are_not_numbers_stop_the_run() -> None:
    def broken(particles: torch.Tensor) -> torch.Tensor:
        return particles.flatten(1).sum(1) * torch.nan

    with pytest.raises(FloatingPointError, match="which moved them by nan"):
        worst_case(images(4), broken, steps=1, step=0.5)


def test_the_released_code_s_step_would_have_moved_nothing() -> None:
    """Its update on a batch of 64: the gradient of a mean loss, divided by the batch once more; a kernel
    exp(-d^2 / h) of h = 0.05 median^2 / log(B + 1); the printed sign; a step of 1e-4."""
    rows, step = 64, 1e-4
    losses, start = small_network(), images(rows)
    variable = start.clone().requires_grad_()
    (pulls,) = torch.autograd.grad(losses(variable).mean(), variable)
    particles = start.flatten(1)
    squared = torch.cdist(particles, particles).square()
    others = squared[~torch.eye(rows, dtype=torch.bool)]
    bandwidth = 0.05 * others.median() / math.log(rows + 1)
    kernel = (-squared / bandwidth).exp()
    towards = (kernel @ particles - kernel.sum(1, keepdim=True) * particles) * 2 / bandwidth
    moved = (start + step * ((kernel @ pulls.flatten(1) + towards) / rows).view_as(start)).clamp(0, 1)
    assert (kernel - torch.eye(rows)).max() < 1e-3, "a kernel under which no particle sees another"
    assert displacement(start, moved) < FLOOR / 1000
    assert (moved == start).float().mean() > 0.9
    assert displacement(start, worst_case(start, losses, steps=1, step=0.5)) > 10 * FLOOR


def test_an_image_alone_follows_its_own_gradient() -> None:
    losses, start = small_network(), images(1)
    variable = start.clone().requires_grad_()
    (pull,) = torch.autograd.grad(losses(variable).sum(), variable)
    moved = worst_case(start, losses, steps=1, step=0.1)
    torch.testing.assert_close(moved, (start + 0.1 * F.normalize(pull.flatten(1)).view_as(start)).clamp(0, 1))


@pytest.mark.parametrize("rows", [2, 5, 24, 64])
def test_equal_images_move_as_one(rows: int) -> None:
    # rounding alone tells them apart, and no bandwidth may make a force of that
    start, pulls = images(1).expand(rows, *SHAPE).clone(), gradients(1).expand(rows, *SHAPE).clone()
    assert (direction(start, pulls) - pulls).flatten(1).norm(dim=1).max() < 0.05


def test_most_images_equal_is_finite() -> None:
    start = images(1).expand(8, *SHAPE).clone()
    start[0] = images(1, seed=9)[0]
    assert torch.isfinite(direction(start, gradients(8))).all()


def test_displacement_is_of_a_pixel() -> None:
    start = torch.zeros(2, *SHAPE)
    moved = start.clone()
    moved[0, 0, 0, :3] = torch.tensor([0.5, -0.5, 1.0])
    assert displacement(start, moved).item() == pytest.approx(2 / 72)
