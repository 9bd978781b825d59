"""Weights to start from: what fits is taken, what does not stays, and a file of something else is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zoo import models, pretrained
from zoo.pretrained import PretrainedError


def network(
    architecture: str = "conv3", *, seed: int, classes: int = 10, channels: int = 1, size: int = 28
) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        half = [0.1 + 0.1 * seed] * channels
        return models.build(architecture, classes=classes, channels=channels, size=size, mean=half, std=half)


def same(one: nn.Module, other: nn.Module) -> list[bool]:
    return [a.equal(b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)]


@pytest.mark.parametrize("kind", ["pt", "safetensors", "checkpoint"])
def test_a_whole_network_is_taken(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    learnt, fresh = network(seed=1), network(seed=2)
    path = tmp_path / f"weights.{'pt' if kind == 'pt' else 'safetensors'}"
    if kind == "pt":
        torch.save(learnt.state_dict(), path)
    else:
        prefix = "0." if kind == "checkpoint" else ""
        held = {prefix + name: value for name, value in learnt.state_dict().items()}
        save_file(held, path, metadata={"format": "any"})
    with caplog.at_level(logging.INFO, "zoo"):
        assert pretrained.take(fresh, path) == len(learnt.state_dict())
    assert all(same(fresh, learnt))
    assert "12 of the network's 12 tensors taken" in caplog.text


def test_imagenet_weights_go_where_they_fit(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        imagenet = resnet18(num_classes=1000)
    torch.save(imagenet.state_dict(), tmp_path / "resnet18.pth")
    fresh, before = (network("resnet18-8x", seed=2, channels=3, size=32) for _ in range(2))
    taken = pretrained.take(fresh, tmp_path / "resnet18.pth")
    # all but the stem's convolution, the head's weight and bias, and the normalisation
    assert taken == len(fresh.state_dict()) - 5
    held = fresh.state_dict()
    assert held["network.layer3.1.conv2.weight"].equal(imagenet.state_dict()["layer3.1.conv2.weight"])
    for name in ("normalise.mean", "normalise.std", "network.conv1.weight", "network.fc.weight", "network.fc.bias"):
        assert held[name].equal(before.state_dict()[name])


def test_a_head_of_other_classes_stays_fresh(tmp_path: Path) -> None:
    torch.save(network(seed=1, classes=7).state_dict(), tmp_path / "seven.pt")
    fresh, before = network(seed=2), network(seed=2)
    assert pretrained.take(fresh, tmp_path / "seven.pt") == 10
    assert [name for name, kept in zip(fresh.state_dict(), same(fresh, before), strict=True) if kept] == [
        "network.11.weight",
        "network.11.bias",
    ]


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(PretrainedError, match="expected weights of this architecture; none of 1 tensors fits"):
        pretrained.take(network(seed=1), tmp_path / "other.pt")
    # the normalisation alone is no start
    torch.save(network("lenet5", seed=2).state_dict(), tmp_path / "lenet5.pt")
    with pytest.raises(PretrainedError, match="expected weights of this architecture"):
        pretrained.take(network("resnet18-8x", seed=1), tmp_path / "lenet5.pt")


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "run.pt")
    with pytest.raises(PretrainedError, match="expected a state dict"):
        pretrained.tensors(tmp_path / "run.pt")
    (tmp_path / "cut.safetensors").write_bytes((1000).to_bytes(8, "little") + b"{}")
    with pytest.raises(PretrainedError, match=r"expected a \.safetensors file"):
        pretrained.tensors(tmp_path / "cut.safetensors")
    save_file({"mask": torch.ones(3, dtype=torch.bool)}, tmp_path / "mask.safetensors")
    with pytest.raises(PretrainedError, match=r"mask: expected one of F64, F32, .* got BOOL"):
        pretrained.tensors(tmp_path / "mask.safetensors")


def test_a_bare_network_and_half_precision(tmp_path: Path) -> None:
    learnt, fresh = network(seed=1), network(seed=2)
    held = {name.removeprefix("network."): value.half() for name, value in learnt.state_dict().items()}
    save_file(
        {name: value for name, value in held.items() if not name.startswith("normalise")}, tmp_path / "h.safetensors"
    )
    assert pretrained.take(fresh, tmp_path / "h.safetensors") == 10
    assert fresh.get_parameter("network.0.weight").equal(learnt.get_parameter("network.0.weight").half().float())
