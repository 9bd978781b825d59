"""What programs start from: labels of the victim's where a set has none, and its weights where they are known."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

import recipes
from tests.conftest import RECIPE, Smoke
from tests.training.test_black_box import adopted
from training.checkpoint import Architecture, CheckpointError, load
from training.examples import body_of, examples, weights
from training.victim import split
from zoo.datasets import Data

RECIPE_ = recipes.read(RECIPE)


def arguments(runs: Path) -> argparse.Namespace:
    return argparse.Namespace(runs=runs, data=None)


def test_a_set_without_labels_is_labelled_by_the_victim(tmp_path: Path) -> None:
    (tmp_path / "smoke").mkdir()
    adopted(tmp_path / "smoke", classes=4)
    found = examples(RECIPE_, Data("china", rows=300), arguments(tmp_path))
    assert len(found.images) == len(found.labels) == 300
    assert found.classes == ("class 0", "class 1", "class 2", "class 3")
    known = examples(RECIPE_, Data("digits"), arguments(tmp_path / "nowhere"))
    assert torch.equal(known.labels, split(Data("digits").load("train")).labels)


def test_weights_are_those_of_a_checkpoint(smoke_runs: Smoke, tmp_path: Path) -> None:
    assert weights(RECIPE_, smoke_runs.runs, "x").path.name == "victim.safetensors"
    (tmp_path / "smoke").mkdir()
    adopted(tmp_path / "smoke")
    with pytest.raises(CheckpointError, match=r"\[networks.meco\] from_victim: expected a victim whose weig"):
        weights(RECIPE_, tmp_path, "[networks.meco] from_victim")


def test_members_start_as_the_victim_but_for_the_last_layer(smoke_runs: Smoke) -> None:
    victim = load(smoke_runs.runs / "smoke/victim.safetensors")
    torch.manual_seed(1)
    member = victim.architectures[0].network()
    fresh = {name: value.clone() for name, value in member.state_dict().items()}
    body_of(victim, member, victim.architectures[0], "x")
    differ = {
        name
        for name, value in member.state_dict().items()
        if not torch.equal(value, victim.networks[0].state_dict()[name])
    }
    last = [name for name, module in member.named_modules() if isinstance(module, torch.nn.Linear)][-1]
    assert differ == {f"{last}.weight", f"{last}.bias"}
    assert all(torch.equal(member.state_dict()[name], fresh[name]) for name in differ)
    other = Architecture("conv3", victim.architectures[0].arguments)
    with pytest.raises(ValueError, match=r"x: expected members of the victim's architecture, lenet5, got conv3; set"):
        body_of(victim, member, other, "x")
