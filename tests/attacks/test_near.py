"""The thief of near corpora: each image once, what it owns, and the box its images are put into."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attacks import near
from attacks.clone import Cloning
from attacks.near import Near, boxed
from attacks.oracle import Answers, Ledger
from attacks.script import ScriptedThief
from attacks.service import Service
from attacks.thief import steal
from zoo import datasets

SERVICE = Service(channels=1, size=28, classes=10)
CORPORA = ("font-digits:test", "digits:test")


def thief(**changes: Any) -> ScriptedThief:
    parameters = Near(**{"corpora": CORPORA, "budget": 5000} | changes)
    return near.prepare(parameters, SERVICE, cloning=Cloning("lenet5", epochs=1), seed=0)


def test_every_image_of_the_corpora_is_asked_once_and_the_attack_ends() -> None:
    asking = thief(boxed=("digits:test",))
    for _ in steal(asking, Ledger(lambda images: Answers(torch.zeros(len(images)).long()), 5000), rows=64):
        pass
    fonts, digits = (datasets.load(name, "train").pixels for name in CORPORA)
    expected = [image.numpy().tobytes() for image in (*fonts, *boxed(digits, 5 / 7))]
    asked = [image.numpy().tobytes() for image in asking.transfer_set().images]
    assert sorted(asked) == sorted(expected)
    assert asked != expected
    assert asking.own() is None


def test_it_owns_what_is_labelled_with_the_task_s_labels() -> None:
    own = thief(labelled=("digits:test",), boxed=("digits:test",)).own()
    digits = datasets.load("digits", "test")
    assert own is not None
    assert digits.labels is not None
    assert torch.equal(own.labels, digits.labels)
    assert torch.equal(own.images, boxed(digits.pixels, 5 / 7))
    with pytest.raises(ValueError, match="expected labels of the victim's task, 0 to 9, got 51 in 'font-letters'"):
        thief(corpora=("font-letters:test",), labelled=("font-letters:test",))


def test_ink_is_put_into_the_box_around_its_centre_of_mass() -> None:
    images = torch.zeros(3, 1, 28, 28)
    images[0, 0, 2:6, 3:5] = 1
    images[1, 0, 1:27, 0:20] = 1
    placed = boxed(images, 5 / 7)
    inked = placed[:, 0] > 0.5
    for number, (height, width) in enumerate([(20, 10), (20, 15)]):
        assert inked[number].any(dim=1).sum() == pytest.approx(height, abs=1)
        assert inked[number].any(dim=0).sum() == pytest.approx(width, abs=1)
        for dim in (1, 2):
            mass = placed[number, 0].sum(dim=dim - 1)
            assert (mass * (torch.arange(28) + 0.5)).sum() / mass.sum() == pytest.approx(14, abs=0.3)
    assert not placed[2].any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"corpora": ()}, "corpora: expected at least one data set, got none"),
        ({"labelled": ("mnist",)}, "labelled: expected some of the corpora font-digits:test, digits:test, got"),
        ({"boxed": ("mnist",)}, "boxed: expected some of the corpora"),
        ({"box": 0.0}, r"box: expected a share of the side above 0 and up to 1, got 0\.0"),
    ],
)
def test_ranges(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        thief(**fields)
