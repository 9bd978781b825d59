from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from attest.campaign import consistency
from attest.measured import Consistency
from tests.attest.service import Answer, Means, Reply, Service, honest, scores
from tests.attest.test_asking import asking
from zoo import datasets


@pytest.fixture(scope="module")
def model() -> Means:
    return Means()


def moved(values: np.ndarray, seed: int) -> Reply:
    """The same label, other numbers."""
    noise = np.random.default_rng(seed).dirichlet(np.ones(10)).astype(np.float32)
    mixed = 0.8 * values + 0.2 * noise
    mixed[values.argmax()] += 1
    return scores(mixed / mixed.sum())


def noisy(service: Service, pixels: np.ndarray) -> Reply:
    return moved(service.model(pixels), service.number)


def keyed(service: Service, pixels: np.ndarray) -> Reply:
    return moved(service.model(pixels), int(hashlib.sha256(pixels.tobytes()).hexdigest()[:8], 16))


def unstable(service: Service, pixels: np.ndarray) -> Reply:
    return scores(np.eye(10, dtype=np.float32)[service.number % 7])


def refusing(service: Service, pixels: np.ndarray) -> Reply:
    return 403, {}, b"no"


def measure(folder: Path, answer: Answer, model: Means) -> Consistency:
    images = datasets.load("digits", "test").pixels[:5]
    with Service(answer, model) as service, asking(service.url, folder, connections=1) as ask:
        found = consistency.consistency(ask, images, seed=0)
        assert len(service.seen) == 5 * (1 + consistency.REPEATS + consistency.COPIES)
    return found


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (honest, "deterministic"),
        (noisy, "noisy"),
        (keyed, "keyed"),
        (unstable, "unstable labels"),
        (refusing, "not measured"),
    ],
)
def test_kinds_are_told_apart(tmp_path: Path, model: Means, answer: Answer, kind: str) -> None:
    assert measure(tmp_path, answer, model).kind == kind


def test_a_near_copy_differs_by_one_level_in_one_value_and_is_another_file() -> None:
    images = datasets.load("digits", "test").pixels[:8]
    copies = consistency.near(images, torch.Generator().manual_seed(0))
    moved = (copies - images).abs().flatten(1)
    assert (moved > 0).sum(dim=1).tolist() == [1] * 8
    torch.testing.assert_close(moved.max(dim=1).values, torch.full((8,), 1 / 255), rtol=0, atol=1e-6)
    assert copies.min() >= 0
    assert copies.max() <= 1
    assert not (torch.round(copies * 255) == torch.round(images * 255)).flatten(1).all(dim=1).any()
