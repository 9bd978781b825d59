"""Layers that are computed again give the same gradients and move batch statistics once, in less memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from training import recomputed
from training.ensemble import Ensemble


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Conv2d(8, 8, 3),
        nn.Flatten(),
        nn.Linear(128, 5),
    )


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def stepped(ensemble: Ensemble, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Weights and statistics after two steps in which members interact, and the last gradients."""
    steps = torch.optim.SGD(ensemble.parameters(), 0.1, momentum=0.9)
    torch.manual_seed(1)  # dropout's
    for _ in range(2):
        steps.zero_grad()
        answers = ensemble(images).softmax(-1)
        (answers[:, 0] * answers[:, 1]).sum(1).mean().backward()
        steps.step()
    gradients = {
        f"gradient of {name}": each.grad for name, each in ensemble.named_parameters() if each.grad is not None
    }
    return {**ensemble.state_dict(), **gradients}


def test_training_ends_in_the_same_bits(images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Ensemble([network(0), network(1)]).train()
    other = copy.deepcopy(held)
    expected = stepped(held, images)
    passes = again(monkeypatch)
    found = stepped(other, images)
    assert len(passes) == 2 * 2  # two members, two steps
    assert found.keys() == expected.keys()
    assert any(name.endswith("running_mean") for name in found)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def again(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """From now on every batch is large; the networks that are computed again, each time that one is."""
    monkeypatch.setattr(recomputed, "LARGE", 1)
    seen: list[nn.Module] = []
    before = recomputed._passes
    monkeypatch.setattr(recomputed, "_passes", lambda each: (seen.append(each), before(each))[1])
    return seen


def test_layers_are_not_held_between_the_passes(images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def held() -> int:
        """Bytes that wait for the backward pass, batch by batch of the first layers."""
        sizes: list[int] = []

        def packed(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel() * tensor.element_size())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(packed, lambda tensor: tensor):
            recomputed.answered(network(0).train(), images)
        return sum(sizes)

    whole = held()
    monkeypatch.setattr(recomputed, "LARGE", 1)
    assert held() == 4 * images.numel() < whole / 5


def test_where_nothing_is_learned_nothing_is_computed_again(
    images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = again(monkeypatch)
    with torch.inference_mode():
        recomputed.answered(network(0).train(), images)
    recomputed.answered(network(0).eval(), images)
    assert not passes
    recomputed.answered(network(0).train(), images)
    assert len(passes) == 1
