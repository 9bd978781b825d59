"""Outlier exposure: its loss by hand, and a network that learned with it."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pytest
import torch

from tests.reached import Reached
from training import outlier_exposure
from training.checkpoint import load
from training.outlier_exposure import OutlierExposure, answers, outside, uniform_loss
from training.victim import split
from zoo import datasets

TABLES = """
[dataset]
name = "digits"
[victim]
architecture = "lenet5"
optimisation = { epochs = 8, lr = 3e-3, batch_size = 64 }
[networks.outlier_exposure]
auxiliary = "china"
held_out = 100
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Path:
    """The folder of a recipe whose network was trained."""
    folder = tmp_path_factory.mktemp("exposure")
    recipe = folder / "exposed.toml"
    recipe.write_text(TABLES, "utf-8")
    outlier_exposure.main(
        argparse.Namespace(
            recipe=str(recipe), runs=folder / "runs", data=None, seed=seed, network=outlier_exposure.NAME
        )
    )
    return folder


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([[5.0, 5.0, 5.0, 5.0]], math.log(4)),
        # softmax is (3/4, 1/4): -(log 3/4 + log 1/4) / 2
        ([[math.log(3), 0.0]], math.log(4) - math.log(3) / 2),
        ([[math.log(3), 0.0], [1.0, 1.0]], (math.log(4) - math.log(3) / 2 + math.log(2)) / 2),
        ([[1e4, 0.0]], 5e3),
    ],
)
def test_the_cross_entropy_of_the_uniform_distribution(logits: list[list[float]], expected: float) -> None:
    assert uniform_loss(torch.tensor(logits)).item() == pytest.approx(expected, rel=1e-6)


def test_it_is_the_cross_entropy_and_least_where_logits_are_equal() -> None:
    logits = torch.randn(64, 7, generator=torch.Generator().manual_seed(0)) * 3
    direct = torch.nn.functional.cross_entropy(logits, torch.full((64, 7), 1 / 7))
    assert uniform_loss(logits).item() == pytest.approx(direct.item(), rel=1e-5)
    assert uniform_loss(logits).item() > math.log(7)


def test_the_network_is_sure_of_its_task_alone(trained: Path, reached: Reached) -> None:
    metrics = load(trained / "runs/exposed/outlier_exposure.safetensors").facts["metrics"]
    reached("accuracy in validation", metrics["validation_accuracy"], above=0.85)
    reached("confidence inside", metrics["confidence_inside"], above=0.75)
    # ten classes: 0.1 is the least there is
    assert metrics["confidence_outside"] >= 0.1
    reached("confidence outside", metrics["confidence_outside"], below=0.3)


def test_the_checkpoint_can_be_served(trained: Path, reached: Reached) -> None:
    read = load(trained / "runs/exposed/outlier_exposure.safetensors")
    assert read.facts["classes"] == list(datasets.DATASETS["digits"].classes)
    images = datasets.load("digits", "test")
    right = answers(read.networks[0], images.pixels).argmax(1) == images.labels
    reached("accuracy", right.float().mean(), above=0.85)


def test_what_is_trained_is_not_trained_again(trained: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    path = trained / "runs/exposed/outlier_exposure.safetensors"
    before = path.stat().st_mtime_ns
    outlier_exposure.main(
        argparse.Namespace(
            recipe=str(trained / "exposed.toml"),
            runs=trained / "runs",
            data=None,
            seed=seed,
            network=outlier_exposure.NAME,
        )
    )
    assert path.stat().st_mtime_ns == before
    assert "trained with these settings already" in capsys.readouterr().err


def test_images_to_report_on_are_kept_from_training() -> None:
    like = split(datasets.load("digits", "train"), rows=10)
    unseen, seen = outside("china", 100, like=like, root=None)
    whole = datasets.load("china", "train").pixels
    assert torch.equal(torch.cat([unseen, seen]), whole)
    assert len(unseen) == 100
    with pytest.raises(ValueError, match=r"auxiliary: expected more than 6000 images \(held_out\), got 6000"):
        outside("china", 6000, like=like, root=None)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weight", 0.0, "weight: expected > 0, got 0"),
        ("held_out", 0, "held_out: expected >= 1, got 0"),
    ],
)
def test_what_a_recipe_cannot_ask_for(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OutlierExposure(auxiliary="china", **{field: value})  # type: ignore[arg-type]
