"""Adaptive misinformation's wrong network: its loss and threshold by hand, and a network that learned to be wrong."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pytest
import torch

from tests.reached import Reached
from training import misinformation, outlier_exposure
from training.checkpoint import CheckpointError, load
from training.misinformation import Misinformation, largest_tau, wrong_loss
from training.outlier_exposure import answers
from zoo import datasets

TABLES = """
[dataset]
name = "digits"
[victim]
architecture = "lenet5"
optimisation = { epochs = 6, lr = 3e-3, batch_size = 64 }
[networks.outlier_exposure]
auxiliary = "china"
held_out = 100
[networks.misinformation]
auxiliary = "china"
held_out = 100
allowed_drop = 0.02
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Path:
    """The checkpoints' folder of a recipe whose two networks were trained."""
    folder = tmp_path_factory.mktemp("misinformation")
    recipe = folder / "wrong.toml"
    recipe.write_text(TABLES, "utf-8")
    for program in (outlier_exposure, misinformation):
        network = program.NAME
        program.main(argparse.Namespace(recipe=str(recipe), runs=folder, data=None, seed=seed, network=network))
    return folder / "wrong"


@pytest.mark.parametrize(
    ("logits", "label", "expected"),
    [
        # softmax is (1/2, 1/4, 1/4)
        ([math.log(2), 0.0, 0.0], 0, math.log(2)),
        ([math.log(2), 0.0, 0.0], 1, math.log(4 / 3)),
        # where 1 - p is 0 in float32
        ([200.0, 0.0], 0, 200.0),
        ([-200.0, 0.0], 0, 0.0),
    ],
)
def test_the_loss_of_being_right(logits: list[float], label: int, expected: float) -> None:
    assert wrong_loss(torch.tensor([logits]), torch.tensor([label])).item() == pytest.approx(expected, abs=1e-6)


def test_its_gradient_is_finite_and_lowers_the_label_alone() -> None:
    logits = torch.tensor([[90.0, 1.0, 0.0], [0.0, 1.0, 2.0]], requires_grad=True)
    wrong_loss(logits, torch.tensor([0, 2])).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    # d/dz_y -log(1 - p_y) = p_y, and the others get what keeps the sum 0
    assert torch.allclose(logits.grad.sum(1), torch.zeros(2), atol=1e-6)
    right = logits.detach().softmax(1)[[0, 1], [0, 2]]
    assert torch.allclose(logits.grad[[0, 1], [0, 2]], right / 2, atol=1e-6)


def test_the_largest_tau_by_hand() -> None:
    # f is right on four rows of confidence .9, .8, .7, .6; the other network never is
    confidences = torch.tensor([0.9, 0.8, 0.7, 0.6])
    right = torch.stack([confidences, 1 - confidences], 1)
    wrong = torch.tensor([[0.0, 1.0]]).expand(4, 2)
    labels = torch.zeros(4, dtype=torch.int64)

    def tau(drop: float) -> float:
        return largest_tau(right, wrong, labels, allowed_drop=drop, nu=1e5)

    # a hair below a confidence: there the mixture still has the right label
    assert tau(0.01) == pytest.approx(0.599, abs=0.0011)
    assert tau(0.26) == pytest.approx(0.699, abs=0.0011)
    assert tau(0.51) == pytest.approx(0.799, abs=0.0011)
    assert tau(0.99) == pytest.approx(0.899, abs=0.0011)
    # rows that f gets wrong cost nothing
    assert largest_tau(right, wrong, labels + 1, allowed_drop=0.01, nu=1e5) == 0.999
    # two networks that agree can be mixed at any tau
    assert largest_tau(right, right, labels, allowed_drop=0.01, nu=1e5) == 0.999


def test_the_network_is_wrong_inside_and_disagrees_outside(trained: Path, reached: Reached) -> None:
    metrics = load(trained / "misinformation.safetensors").facts["metrics"]
    reached("accuracy in validation", metrics["validation_accuracy"], below=0.05)
    reached("disagreement outside", metrics["disagreement_outside"], above=0.8)
    exposed = load(trained / "outlier_exposure.safetensors").networks[0]
    wrong = load(trained / "misinformation.safetensors").networks[0]
    images = datasets.load("digits", "test")
    reached("accuracy", (answers(wrong, images.pixels).argmax(1) == images.labels).float().mean(), below=0.05)
    reached("f's accuracy", (answers(exposed, images.pixels).argmax(1) == images.labels).float().mean(), above=0.85)


def test_tau_keeps_benign_users_and_catches_outliers(trained: Path, reached: Reached) -> None:
    facts = load(trained / "misinformation.safetensors").facts
    tau = facts["metrics"]["tau"]
    exposed = load(trained / "outlier_exposure.safetensors").networks[0]
    inside = answers(exposed, datasets.load("digits", "test").pixels).amax(1) > tau
    outside = answers(exposed, datasets.load("china", "test").pixels).amax(1) > tau
    reached("tau", tau, above=0.1)
    assert tau < 1
    reached("kept inside", inside.float().mean(), above=0.85)
    reached("kept outside", outside.float().mean(), below=0.3)


def test_the_network_it_started_from_is_recorded(trained: Path) -> None:
    read = load(trained / "misinformation.safetensors")
    assert read.facts["start"] == load(trained / "outlier_exposure.safetensors").digest
    assert read.facts["classes"] == list(datasets.DATASETS["digits"].classes)


def test_without_outlier_exposure_there_is_none(tmp_path: Path) -> None:
    recipe = tmp_path / "wrong.toml"
    recipe.write_text(TABLES, "utf-8")
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*outlier_exposure\.safetensors: train it first"):
        misinformation.main(
            argparse.Namespace(
                recipe=str(recipe), runs=tmp_path / "runs", data=None, seed=0, network=misinformation.NAME
            )
        )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weight", -1.0, "weight: expected >= 0, got -1"),
        ("held_out", 0, "held_out: expected >= 1, got 0"),
        ("allowed_drop", 1.0, "allowed_drop: expected between 0 and 1, got 1"),
    ],
)
def test_what_a_recipe_cannot_ask_for(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Misinformation(auxiliary="china", **{field: value})  # type: ignore[arg-type]
