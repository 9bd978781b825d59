r"""Worst-case training images by Wasserstein gradient flow: MeCo's particle step (NeurIPS 2023, equation 11).

A batch's images are particles that climb the loss L = -U, and keep their distance from each other:

    phi_i = 1/k_i sum_j [ k(x_i, x_j) g_j + grad_{x_j} k(x_i, x_j) * s ],   k_i = sum_j k(x_i, x_j)
    x_i  <- clip(x_i + step * phi_i, 0, 1)
    k(x, x') = exp(-||x - x'||^2 / 2 sigma^2),   2 sigma^2 = median_{i != j}(||x_i - x_j||)^2 / log(B + 1)

grad_{x_j} k = k (x_i - x_j) / sigma^2 points away from x_j, so s = +1 repels, as the paper's text states and as Stein
variational gradient descent has it (Liu, NeurIPS 2017); the paper prints s = -1, which gathers the particles at one
place. g_j is the loss's gradient of image j alone, at length 1: with a mean loss and equation 11's 1/N, as the released
code computes them, an image moves by 1e-9 and float32 keeps it where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

# a mean |displacement| of a pixel below this is a step that did nothing
FLOOR = 1e-3
# least 2 sigma^2: what tells images apart that are nearer than this is rounding, which must not become a force
NEAR = 1e-3
TINY = 1e-12


def worst_case(
    images: torch.Tensor,
    losses: Callable[[torch.Tensor], torch.Tensor],
    *,
    steps: int,
    step: float,
    repel: bool = True,
) -> torch.Tensor:
    """Images (B,C,H,W) float32 in [0,1], moved by `steps` particle steps of `step` times phi.

    In phi a gradient has length 1 (L2 over an image), so `step` is about the length of a step.
    losses: images to the loss of each row (B,), differentiable in the images; it owns whatever it draws. repel: s
    above. Raises FloatingPointError where the batch has hardly moved (FLOOR): a no-op must not pass for training.
    """
    moved = images.detach()
    for _ in range(steps):
        moved = (moved + step * direction(moved, _unit_gradients(moved, losses), repel=repel)).clamp(0, 1)
    if steps:
        distance = displacement(images, moved)
        if not distance >= FLOOR:
            raise FloatingPointError(
                f"step: expected one that moves pixels by {FLOOR:.0e} in the mean, got {step}, "
                f"which moved them by {distance:.1e}"
            )
    return moved


def displacement(images: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
    """Mean |moved - images| of a pixel, a scalar."""
    return (moved - images).abs().mean()


def direction(images: torch.Tensor, gradients: torch.Tensor, *, repel: bool = True) -> torch.Tensor:
    """phi of every particle: images and gradients (B,C,H,W) to (B,C,H,W)."""
    particles, pulls = images.flatten(1), gradients.flatten(1)
    squared = torch.cdist(particles, particles).square()
    twice_variance = _bandwidth(squared)
    kernel = (-squared / twice_variance).exp()
    mass = kernel.sum(1, keepdim=True)
    # sum_j k_ij (x_i - x_j) / sigma^2
    apart = (mass * particles - kernel @ particles) * (2 / twice_variance)
    phi = (kernel @ pulls + (apart if repel else -apart)) / mass
    return phi.view_as(images)


def _bandwidth(squared: torch.Tensor) -> torch.Tensor:
    """2 sigma^2 from the squared distances (B,B); of a batch of one, or of equal images, a number above 0."""
    count = len(squared)
    others = squared[~torch.eye(count, dtype=torch.bool, device=squared.device)]
    if not len(others):
        return squared.new_ones(())
    bandwidth: torch.Tensor = others.median() / math.log(count + 1)
    return bandwidth.clamp(min=NEAR)


def _unit_gradients(images: torch.Tensor, losses: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    variable = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(losses(variable).sum(), variable)
    return torch.nn.functional.normalize(gradient.flatten(1), eps=TINY).view_as(images)
