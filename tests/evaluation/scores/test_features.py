"""Scores of features, each against its paper's formula worked out image by image."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.scores import features
from evaluation.scores.features import BANK, NEIGHBOURS, RIDGE, dimensions
from evaluation.scores.sight import Doubles
from tests.evaluation.scores import seeing


def test_features_are_what_goes_into_the_last_layer() -> None:
    seen = seeing.others(seeing.known())
    head = seen.sight.head
    by_hand = seen.features @ head.weight.detach().double().numpy().T + head.bias.detach().double().numpy()
    assert seen.features.shape == (20, seeing.FEATURES)
    assert seen.logits == pytest.approx(by_hand, abs=1e-5)
    assert (seen.features >= 0).all(), "behind a ReLU"
    assert not seen.sight.head._forward_pre_hooks, "taken off again"


def test_mahalanobis() -> None:
    known = seeing.known()
    seen, labels = seeing.others(known), known.labels.numpy()
    trained = known.training.features
    means = {label: trained[labels == label].mean(axis=0) for label in range(seeing.CLASSES)}
    covariance = np.mean([np.outer(f - means[k], f - means[k]) for f, k in zip(trained, labels, strict=True)], axis=0)
    covariance += RIDGE * covariance.trace() / len(covariance) * np.eye(len(covariance))
    inverse = np.linalg.inv(covariance)
    by_hand = [min((f - mean) @ inverse @ (f - mean) for mean in means.values()) for f in seen.features]
    assert features.mahalanobis(known)(seen) == pytest.approx(by_hand, rel=1e-6)


def test_nearest_neighbours() -> None:
    known = seeing.known()
    seen = seeing.others(known)

    def unit(row: Doubles) -> Doubles:
        found: Doubles = row / np.linalg.norm(row)
        return found

    bank = [unit(row) for row in known.training.features]
    by_hand = [sorted(np.linalg.norm(unit(row) - each) for each in bank)[NEIGHBOURS - 1] for row in seen.features]
    assert features.nearest(known)(seen) == pytest.approx(by_hand, abs=1e-3)
    assert len(bank) < BANK


def test_fewer_training_images_than_neighbours_have_a_farthest_one() -> None:
    known = seeing.known(training=30)
    far = features.nearest(known)(known.training)
    assert (far > 0).all()


def test_energy_and_largest_probability() -> None:
    known = seeing.known()
    seen = seeing.others(known)
    p = np.exp(seen.logits) / np.exp(seen.logits).sum(axis=1, keepdims=True)
    assert features.energy(known)(seen) == pytest.approx([-np.log(np.exp(row).sum()) for row in seen.logits], rel=1e-9)
    assert features.max_probability(known)(seen) == pytest.approx(np.log(1 - p.max(axis=1)), rel=1e-9)


def test_virtual_logit() -> None:
    known = seeing.known()
    seen, head = seeing.others(known), known.training.sight.head
    origin = -np.linalg.pinv(head.weight.detach().double().numpy()) @ head.bias.detach().double().numpy()
    shifted = known.training.features - origin
    principal = np.linalg.svd(shifted, full_matrices=True)[2][: seeing.FEATURES // 2]

    def left(rows: Doubles) -> Doubles:
        moved = rows - origin
        found: Doubles = np.linalg.norm(moved - moved @ principal.T @ principal, axis=1)
        return found

    scale = known.training.logits.max(axis=1).mean() / left(known.training.features).mean()
    # ViM's own figure is softmax(z, a ||r||) of the last entry, which rises with this
    virtual = np.concatenate([seen.logits, scale * left(seen.features)[:, None]], axis=1)
    last = np.exp(virtual[:, -1]) / np.exp(virtual).sum(axis=1)
    found = features.virtual_logit(known)(seen)
    assert 1 / (1 + np.exp(-found)) == pytest.approx(last, rel=1e-6)


@pytest.mark.parametrize(("features", "kept"), [(2048, 1000), (1280, 512), (768, 512), (256, 128)])
def test_dimensions_are_the_paper_s(features: int, kept: int) -> None:
    assert dimensions(features) == kept
