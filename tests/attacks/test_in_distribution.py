"""The in-distribution thief: the task's images, each once, and the baseline trained on them without a query."""

from __future__ import annotations

import pytest
import torch

from attacks import in_distribution
from attacks.clone import Cloning
from attacks.in_distribution import InDistribution
from attacks.oracle import Answers, Ledger
from attacks.script import ScriptedThief
from attacks.service import Service
from attacks.thief import steal
from zoo import datasets

SERVICE = Service(channels=1, size=28, classes=10)


def oracle(images: torch.Tensor) -> Answers:
    """Labels by the mean brightness: not the true ones."""
    return Answers((images.mean(dim=(1, 2, 3)) * 10).long().clamp(0, 9))


def stolen(budget: int, *, seed: int = 0, service: Service = SERVICE) -> tuple[ScriptedThief, list[int]]:
    thief = in_distribution.prepare(
        InDistribution("digits", budget, rows=16), service, cloning=Cloning("lenet5", epochs=1), seed=seed
    )
    return thief, list(steal(thief, Ledger(oracle, 10_000), rows=16))


def test_each_image_of_the_training_split_is_asked_once_and_the_attack_ends() -> None:
    thief, progress = stolen(5000)
    train = datasets.load("digits", "train")
    transfer = thief.transfer_set()
    assert progress[-1] == transfer.charged == len(train) < 5000
    # as often as the data set holds it, which has a few images twice
    asked = sorted(image.numpy().tobytes() for image in transfer.images)
    assert asked == sorted(image.numpy().tobytes() for image in train.pixels)


def test_the_baseline_is_what_was_asked_with_true_labels() -> None:
    thief, progress = stolen(40)
    assert progress == [16, 32, 40]
    transfer, own = thief.transfer_set(), thief.own()
    assert own is not None
    assert torch.equal(own.images, transfer.images)
    assert torch.equal(transfer.labels, oracle(transfer.images).labels)
    train = datasets.load("digits", "train")
    assert train.labels is not None
    truth = {image.numpy().tobytes(): int(label) for image, label in zip(train.pixels, train.labels, strict=True)}
    assert own.labels.tolist() == [truth[image.numpy().tobytes()] for image in own.images]
    assert own.charged == 0
    assert own.probabilities is None
    assert own.places.tolist() == list(range(40))


def test_the_seed_decides_the_images() -> None:
    first, again, other = (stolen(40, seed=seed)[0].transfer_set().images for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_images_have_the_geometry_of_the_service() -> None:
    thief, _ = stolen(5, service=Service(channels=3, size=32, classes=10))
    assert thief.transfer_set().images.shape == (5, 3, 32, 32)
    assert thief.clone() is None


@pytest.mark.parametrize(
    ("dataset", "classes", "message"),
    [
        ("china", 10, "dataset: expected labelled images of the victim's task, got 'china' without labels"),
        ("digits", 4, "dataset: expected labels of the victim's task, 0 to 3, got 9 in 'digits'"),
    ],
)
def test_images_of_another_task_are_refused(dataset: str, classes: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        in_distribution.prepare(
            InDistribution(dataset, 10), Service(1, 28, classes), cloning=Cloning("lenet5", epochs=1), seed=0
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget": 0}, "budget: expected at least 1 image, got 0"),
        ({"budget": 5, "rows": 0}, "rows: expected .* got 0"),
    ],
)
def test_ranges(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InDistribution("digits", **fields)
