"""SAME's score with other weights, and with an image's sharpness and contrast taken out of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from defenses.gate import FORMS
from evaluation.scores import detail, same
from evaluation.scores.score import threshold, two_sided
from tests.evaluation.scores import seeing


def test_terms_are_the_gate_s_own() -> None:
    seen = seeing.others(seeing.known())
    error, auxiliary = seen.gated
    assert same.terms(seen, "robust") == pytest.approx(FORMS["robust"].terms(error, seen.served, auxiliary, 64))
    assert same.terms(seen, "paper")[:, 0] == pytest.approx(64 * error)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.95])
def test_same_with_any_weight(alpha: float) -> None:
    known = seeing.known()
    seen = seeing.others(known)
    error, auxiliary = seen.gated
    benign, of_benign = known.benign.gated
    far = [0.5 * sum((np.sqrt(p) - np.sqrt(q)) ** 2) for p, q in zip(seen.served, auxiliary, strict=True)]
    benign_far = [
        0.5 * sum((np.sqrt(p) - np.sqrt(q)) ** 2) for p, q in zip(known.benign.served, of_benign, strict=True)
    ]
    by_hand = np.zeros(len(error))
    for weight, mine, theirs in (
        (alpha, np.log(error), np.log(benign)),
        (1 - alpha, np.sqrt(far), np.sqrt(benign_far)),
    ):
        centre = np.median(theirs)
        by_hand += weight * (mine - centre) / max(np.median(abs(theirs - centre)), 1e-3)
    assert same.same(alpha=alpha)(known)(seen) == pytest.approx(by_hand, rel=1e-4, abs=1e-4)


def test_what_is_served_has_the_policy_s_weight() -> None:
    known = seeing.known()
    seen = seeing.others(known)
    assert (same.served(known)(seen) == same.same(alpha=0.95)(known)(seen)).all()


def test_contrast_and_detail() -> None:
    images = seeing.images(3)
    image = images[1, 0].double().numpy()
    framed = np.pad(image, 1, mode="edge")
    kernel = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])
    blurred = [[(framed[y : y + 3, x : x + 3] * kernel).sum() for x in range(8)] for y in range(8)]
    assert detail.detail(images)[1] == pytest.approx(np.log(np.square(image - blurred).mean()), rel=1e-5)
    assert detail.contrast(images)[1] == pytest.approx(np.log(image.std()), rel=1e-5)


def test_an_error_is_compared_with_those_of_images_as_sharp() -> None:
    known = seeing.known()
    rule, benign = detail.given_detail(known), known.benign
    left = rule(benign)
    # least squares: nothing is left that is linear in what was taken out
    for column in (detail.contrast(benign.images), detail.detail(benign.images), np.ones(len(left))):
        assert abs((left * column).mean()) < 1e-8
    assert left.std() < np.log(benign.gated[0]).std()


def test_an_image_is_given_the_benign_sharpness_mean_and_contrast() -> None:
    made = detail.like(seeing.images(40), sharp=-3.0, mean=0.5, std=0.1)
    assert made.flatten(1).mean(1).tolist() == pytest.approx([0.5] * 40, abs=1e-3)
    assert np.exp(detail.contrast(made)).tolist() == pytest.approx([0.1] * 40, abs=2e-3)
    before, after = (detail.detail(x) - 2 * detail.contrast(x) for x in (seeing.images(40), made))
    assert abs(after + 3).max() < abs(before + 3).max()
    flat = detail.like(torch.full((1, 1, 8, 8), 0.3), sharp=-3.0, mean=0.5, std=0.1)
    assert torch.isfinite(flat).all()


def test_a_normalised_error_does_not_see_contrast() -> None:
    known = seeing.known()
    rule, images = detail.error_normalised(known), seeing.images(10, seed=5) * 0.5 + 0.25
    paler = 0.5 + (images - 0.5) * 0.5
    assert rule(known.benign.other(paler)) == pytest.approx(rule(known.benign.other(images)), abs=0.02)
    plain = same.log_error(known)
    assert plain(known.benign.other(paler)) == pytest.approx(plain(known.benign.other(images)) - np.log(4), abs=1e-4)


def test_the_gate_alone_is_shown_the_normalised_image() -> None:
    known = seeing.known()
    seen, view = seeing.others(known), detail.normalised(known)
    found = same.terms(seen, "robust", view)
    error, auxiliary = seen.sight(view(seen).images).gated
    assert found == pytest.approx(FORMS["robust"].terms(error, seen.served, auxiliary, 64))
    alone = same.same(alpha=1.0, shown=detail.normalised)(known)(seen)
    logs = detail.error_normalised(known)
    centre = np.median(logs(known.benign))
    spread = np.median(np.abs(logs(known.benign) - centre))
    assert alone == pytest.approx((logs(seen) - centre) / spread)


def test_two_sides() -> None:
    known = seeing.known()
    benign = np.log(known.benign.gated[0])
    centre = np.median(benign)
    spread = np.median(np.abs(benign - centre))
    seen = seeing.others(known)
    by_hand = np.abs(np.log(seen.gated[0]) - centre) / spread
    assert two_sided(same.log_error)(known)(seen) == pytest.approx(by_hand)


def test_thresholds_are_conformal() -> None:
    assert threshold(np.arange(199.0), 0.01) == 197, "the second largest of 199"
    assert threshold(np.arange(99.0), 0.01) == 98
    with pytest.raises(ValueError, match=r"expected at least 99 benign images for 0\.01, got 98"):
        threshold(np.arange(98.0), 0.01)
