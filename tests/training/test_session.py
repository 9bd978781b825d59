"""Runs that are interrupted, resumed, or changed under way."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
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
    files = [tmp_path / folder / "synthetic/victim.safetensors" for folder in ("whole", "broken")]
    assert files[0].read_bytes() == files[1].read_bytes(), "the file too: others name it by its digest"
    assert [path.name for path in (tmp_path / "broken/synthetic").glob("*resume*")] == []


def test_other_settings_start_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_after=2)
    train(tmp_path, optimisation=Optimisation(epochs=4, lr=1e-3, batch_size=8))
    assert "made with other settings; starting over" in capsys.readouterr().err


@pytest.mark.parametrize("has", [True, False], ids=["has bf16", "has none"])
def test_bf16_is_used_where_the_recipe_asks_and_the_cpu_has_it(
    tmp_path: Path, has: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("training.session.cpu_has_bf16", lambda: has)
    asked = dataclasses.replace(HOW, bf16=True)
    session = Session("synthetic", "victim", {"optimisation": asked}, runs=tmp_path, seed=7)
    network, _, _ = session.prepare(PLAN.network(), asked, 24)
    inside: list[torch.dtype] = []
    list(network.children())[-1].register_forward_hook(lambda _, inputs, outputs: inside.append(outputs.dtype))
    with session.autocast():
        logits = network(torch.rand(2, 1, 28, 28))
    assert inside == [torch.bfloat16 if has else torch.float32]
    assert logits.dtype == torch.float32
    assert ("in bf16" if has else "in float32: this CPU has no bf16") in capsys.readouterr().err


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
    assert {"commit", "torch", "device"} <= set(read.facts)
    took = checkpoint.seconds(read.path)
    assert took is not None
    assert 0 < took < 600, "next to the checkpoint: it is no function of what went in"
    images = torch.rand(2, 1, 28, 28)
    network.eval()
    assert torch.equal(read.networks[0](images), network(images))


def test_the_same_checkpoint_is_the_same_bytes_whenever_it_is_saved(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = PLAN.network()
    digests, path = set(), tmp_path / "victim.safetensors"
    for turn in range(12):  # safetensors draws an order for the entries of the metadata at each save
        facts = {"seed": 7, "classes": ["a", "b"], "settings": {"victim": {"lr": 1e-3}}}
        checkpoint.save(path, [network], [PLAN], facts if turn % 2 else dict(reversed(facts.items())))
        digests.add(checkpoint.load(path).digest)
    assert len(digests) == 1


def test_a_checkpoint_of_the_first_format_is_still_read(tmp_path: Path) -> None:
    network = PLAN.network()
    path = tmp_path / "victim.safetensors"
    entries = {
        "format": "torchwarden-checkpoint-1",
        "architectures": json.dumps([{"name": PLAN.name, "arguments": dict(PLAN.arguments)}]),
        "facts": json.dumps({"seed": 7, "seconds": 12.5, "metrics": {"validation_accuracy": 0.5}}),
    }
    save_file({f"0.{name}": value for name, value in network.state_dict().items()}, path, entries)
    read = checkpoint.load(path)
    assert read.architectures == (PLAN,)
    assert read.facts == checkpoint.facts(path) == json.loads(entries["facts"])
    images = torch.rand(2, 1, 28, 28)
    assert torch.equal(read.networks[0](images), network.eval()(images))


@pytest.mark.parametrize(
    ("entries", "got"),
    [
        ({"format": "torchwarden-checkpoint-0"}, "torchwarden-checkpoint-0"),
        ({"torchwarden": '{"format": "torchwarden-checkpoint-9"}'}, "torchwarden-checkpoint-9"),
        (None, "None"),
    ],
)
def test_another_format_is_named(tmp_path: Path, entries: dict[str, str] | None, got: str) -> None:
    path = tmp_path / "victim.safetensors"
    save_file({"weight": torch.zeros(1)}, path, entries)
    with pytest.raises(CheckpointError, match=f"expected format .*checkpoint-2.*checkpoint-1', got '?{got}"):
        checkpoint.facts(path)


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
