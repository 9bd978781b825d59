"""Sharpness and contrast: what SAME's gate measures for the most part, told apart from what it should measure.

    contrast(x) = log std of x's values         detail(x) = log mean (x - b(x))^2, b the binomial blur of 3 x 3

An image can be judged by its error as if it were as sharp as any other in two ways: what its contrast and detail let
one expect of the error, by least squares over benign images, is subtracted; or the image is given the benign medians of
both before the gate sees it.
"""

from __future__ import annotations

import numpy as np
import torch

from attacks.forms.matched import blurred
from defenses.gate import SMALLEST_ERROR
from evaluation.scores.same import View, log_error
from evaluation.scores.score import Known, Rule
from evaluation.scores.sight import Doubles, Seen

# by how much an image's detail may be amplified or damped, at most
MOST = 4.0
# of an image's values, below which it is flat
LEAST_STD = 1e-6


def contrast(images: torch.Tensor) -> Doubles:
    """See above, (N,)."""
    return _doubles(images.double().flatten(1).std(1, correction=0).clamp(min=LEAST_STD).log())


def detail(images: torch.Tensor) -> Doubles:
    """See above, (N,)."""
    return _doubles((images - blurred(images)).double().square().flatten(1).mean(1).clamp(min=SMALLEST_ERROR).log())


def sharpness(known: Known) -> Rule:
    """detail - 2 contrast: how much of an image's variance lies in its edges, and nothing of the gate's."""
    del known
    return lambda seen: detail(seen.images) - 2 * contrast(seen.images)


def given_detail(known: Known) -> Rule:
    """log error less what contrast and detail let one expect of it."""
    error = log_error(known)
    weights = np.linalg.lstsq(_columns(known.benign), error(known.benign), rcond=None)[0]

    def residual(seen: Seen) -> Doubles:
        found: Doubles = error(seen) - _columns(seen) @ weights
        return found

    return residual


def normalised(known: Known) -> View:
    """Shows the gate each image with the benign medians of sharpness, mean and contrast."""
    images = known.benign.images
    sharp = float(np.median(sharpness(known)(known.benign)))
    mean, std = float(images.flatten(1).mean(1).median()), float(np.exp(np.median(contrast(images))))
    return lambda seen: seen.other(like(seen.images, sharp=sharp, mean=mean, std=std))


def error_normalised(known: Known) -> Rule:
    """log error of the image as `normalised` shows it."""
    error, view = log_error(known), normalised(known)
    return lambda seen: error(view(seen))


def like(images: torch.Tensor, *, sharp: float, mean: float, std: float) -> torch.Tensor:
    """Images (N,C,H,W) with their detail amplified or damped towards this sharpness, then shifted and scaled to this
    mean and standard deviation, clipped to [0, 1]."""
    wanted = np.exp((sharp - (detail(images) - 2 * contrast(images))) / 2).clip(1 / MOST, MOST)
    smooth = blurred(images)
    changed = smooth + torch.from_numpy(wanted).float().view(-1, 1, 1, 1) * (images - smooth)
    flat = changed.flatten(1)
    now = flat.std(1, correction=0).clamp(min=LEAST_STD).view(-1, 1, 1, 1)
    return (mean + std * (changed - flat.mean(1).view(-1, 1, 1, 1)) / now).clamp(0, 1)


def _columns(seen: Seen) -> Doubles:
    return np.stack([np.ones(len(seen.images)), contrast(seen.images), detail(seen.images)], axis=1)


def _doubles(values: torch.Tensor) -> Doubles:
    return values.numpy()
