"""Runs that are interrupted, resumed, or changed under way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from training import checkpoint
from training.checkpoint import Architecture, CheckpointError
from training.session import Optimisation, Session, steps_per_epoch
from zoo.augment import Affine

PLAN = Architecture("lenet5", {"classes": 3, "channels": 1, "size": 28, "mean": [0.5], "std": [0.25]})
HOW = Optimisation(epochs=4, lr=1e-2, batch_size=8)


def train(folder: Path, *, stop_after: int = 0, optimisation: Optimisation = HOW) -> nn.Module:
    """Train on 24 fixed random images; `stop_after` epochs the run breaks off, as a kill would."""
    session = Session("synthetic", "victim", {"optimisation": optimisation}, runs=folder, seed=7)
    images = torch.rand(24, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(24) % 3
    network, optimiser, schedule = session.prepare(PLAN.network(), optimisation, len(images))
    for epoch in session.epochs(optimisation, network, optimiser, schedule):
        if stop_after and epoch == stop_after:
            raise KeyboardInterrupt
        for rows in session.batches(len(images), optimisation.batch_size):
            warped = session.augment(images[rows], Affine(degrees=20))
            session.step({"loss": F.cross_entropy(network(warped), labels[rows])}, optimiser, schedule)
    session.finish([network], [PLAN], {"validation_accuracy": 1.0})
    return network


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole").state_dict()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", stop_after=2)
    assert not (tmp_path / "broken/synthetic/victim.safetensors").exists()
    resumed = train(tmp_path / "broken").state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert [path.name for path in (tmp_path / "broken/synthetic").glob("*resume*")] == []


def test_other_settings_start_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_after=2)
    train(tmp_path, optimisation=Optimisation(epochs=4, lr=1e-3, batch_size=8))
    assert "made with other settings; starting over" in capsys.readouterr().err


def test_losses_that_are_not_numbers_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="try a smaller lr"):
        train(tmp_path, optimisation=Optimisation(epochs=4, optimiser="sgd", lr=1e12, batch_size=8))
    assert not (tmp_path / "synthetic/victim.safetensors").exists()


def test_batches_are_full_and_never_repeat_a_row(tmp_path: Path) -> None:
    session = Session("synthetic", "batches", {}, runs=tmp_path, seed=0)
    drawn = list(session.batches(21, 8))
    assert [len(rows) for rows in drawn] == [8, 8]
    assert len(set(torch.cat(drawn).tolist())) == 16
    assert [len(rows) for rows in session.batches(5, 8)] == [5]
    assert steps_per_epoch(5, 8) == 1


def test_a_checkpoint_says_how_it_was_made(tmp_path: Path) -> None:
    network = train(tmp_path)
    read = checkpoint.load(tmp_path / "synthetic/victim.safetensors")
    assert read.architectures == (PLAN,)
    assert read.facts["settings"]["optimisation"]["epochs"] == 4
    assert read.facts["seed"] == 7
    assert read.facts["metrics"] == {"validation_accuracy": 1.0}
    assert {"commit", "torch", "seconds", "device"} <= set(read.facts)
    images = torch.rand(2, 1, 28, 28)
    network.eval()
    assert torch.equal(read.networks[0](images), network(images))


def test_a_checkpoint_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"train it first \(make train\)"):
        checkpoint.load(tmp_path / "victim.safetensors")
    train(tmp_path)
    path = tmp_path / "synthetic/victim.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"damaged .* delete it and train again"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("optimiser", "adam", "optimiser: expected 'adamw' or 'sgd', got 'adam'"),
        ("lr", 0.0, "lr: expected > 0, got 0"),
        ("epochs", 0, "expected >= 1, got 0"),
    ],
)
def test_what_a_recipe_cannot_ask_for(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Optimisation(**{"epochs": 1, field: value})  # type: ignore[arg-type]
