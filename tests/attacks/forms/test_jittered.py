"""The jittering thief: copies a grey level or two apart, and what their mean is worth against keyed noise."""

from __future__ import annotations

import hashlib

import pytest
import torch

from attacks.clone import Cloning
from attacks.forms.averaging import AveragingThief
from attacks.forms.jittered import Jitter, JitteredThief
from attacks.forms.repeats import RepeatsThief
from attacks.knockoff import KnockoffThief
from attacks.oracle import Answers, Ledger
from attacks.service import Service
from attacks.thief import steal
from tests.attacks import victims

COPIES = 16


def thief(form: type[AveragingThief], count: int, *, copies: int = COPIES) -> AveragingThief:
    inner = KnockoffThief(victims.images(count, seed=0), seed=1)
    service = Service(channels=1, size=victims.SIZE, classes=victims.CLASSES)
    return form(inner, service=service, cloning=Cloning("conv3", epochs=1), seed=2, copies=copies)


def keyed(images: torch.Tensor) -> Answers:
    """The victim with noise on its probabilities that an image's bytes decide: equal images get equal answers."""
    response = victims.probabilities(images)
    for row, image in enumerate(images):
        seed = int.from_bytes(hashlib.sha256(image.numpy().tobytes()).digest()[:7], "big")
        response[row] += torch.rand(response.shape[1], generator=torch.Generator().manual_seed(seed))
    response = response / response.sum(dim=1, keepdim=True)
    return Answers(response.argmax(dim=1), response)


def error(form: type[AveragingThief], *, copies: int) -> float:
    stealing = thief(form, 100, copies=copies)
    list(steal(stealing, Ledger(keyed, copies * 100), rows=64))
    transfer = stealing.transfer_set()
    assert transfer.probabilities is not None
    plain = victims.probabilities(transfer.images) + 0.5
    return (transfer.probabilities - plain / plain.sum(dim=1, keepdim=True)).std().item()


def test_every_level_is_as_likely_as_any_other() -> None:
    grey = torch.full((40, 1, 20, 20), 0.5)
    moved = Jitter(levels=2)(grey, generator=torch.Generator().manual_seed(0))
    steps = (moved - grey) * 255
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    levels, counts = steps.round().unique(return_counts=True)
    assert levels.tolist() == [-2, -1, 0, 1, 2]
    # 16,000 draws, standard deviation of a share 0.0032
    assert torch.allclose(counts / 16_000, torch.full((5,), 0.2), atol=0.015)


def test_copies_differ_from_each_other_by_little_and_stay_images() -> None:
    jittering = thief(JitteredThief, 6, copies=3)
    copies = jittering.propose(9)
    assert copies is not None
    originals = KnockoffThief(victims.images(6, seed=0), seed=1).propose(3)
    assert originals is not None
    assert 0 <= copies.min() <= copies.max() <= 1
    moved = copies.view(3, 3, 1, victims.SIZE, victims.SIZE) - originals[:, None]
    assert 0 < moved.abs().max() <= 2.001 / 255
    assert not torch.equal(moved[:, 0], moved[:, 1])
    assert not torch.equal(moved[0], moved[1])


def test_the_originals_are_kept_and_every_copy_is_charged() -> None:
    jittering = thief(JitteredThief, 6, copies=3)
    assert list(steal(jittering, Ledger(victims.oracle, 100), rows=9)) == [9, 18]
    transfer = jittering.transfer_set()
    assert transfer.charged == 18
    known = {image.numpy().tobytes() for image in victims.images(6, seed=0)}
    assert {image.numpy().tobytes() for image in transfer.images} == known


def test_pure_black_is_pulled_inwards_by_as_much_as_said() -> None:
    black = torch.zeros(40, 1, 20, 20)
    moved = Jitter(levels=2)(black, generator=torch.Generator().manual_seed(0)).clamp(0, 1)
    assert 255 * moved.mean().item() == pytest.approx(0.6, abs=0.02)


def test_the_mean_takes_noise_away_that_a_digest_of_the_image_decides_and_repeats_do_not() -> None:
    once = error(RepeatsThief, copies=1)
    assert error(RepeatsThief, copies=COPIES) == pytest.approx(once)
    assert 0.2 < error(JitteredThief, copies=COPIES) / once < 0.32, "expected about 1 / sqrt(16) of the noise"


def test_no_grey_level_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="levels: expected 1 to 255 grey levels, got 0"):
        Jitter(levels=0)
