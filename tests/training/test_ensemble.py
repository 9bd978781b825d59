"""Members side by side and members stacked: one function, one gradient, one set of batch statistics."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.reached import Reached
from training.ensemble import Ensemble, Stacked, ensemble_of


def members(seed: int = 0) -> list[nn.Module]:
    torch.manual_seed(seed)
    # no bias before the batch statistics: its gradient is rounding alone, which AdamW would magnify
    return [
        nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3)
        )
        for _ in range(3)
    ]


def test_an_ensemble_stacks_its_members_answers() -> None:
    networks, images = members(), torch.rand(5, 1, 8, 8)
    ensemble = Ensemble(networks).eval()
    answers = ensemble(images)
    assert answers.shape == (5, 3, 3)
    assert torch.equal(answers[:, 1], networks[1](images))
    assert ensemble.networks() == networks


@pytest.mark.parametrize(
    "optimiser",
    [
        lambda weights: torch.optim.SGD(weights, 0.1, momentum=0.9, weight_decay=1e-2, nesterov=True),
        lambda weights: torch.optim.AdamW(weights, 1e-2, weight_decay=1e-2),
    ],
    ids=["sgd", "adamw"],
)
def test_stacked_members_learn_what_members_side_by_side_learn(
    optimiser: Callable[[object], torch.optim.Optimizer], reached: Reached, seed: int
) -> None:
    images, labels = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(seed)), torch.arange(16) % 3
    trained = []
    for form in (Ensemble, Stacked):
        network = form(members(seed)).train()
        steps = optimiser(network.parameters())
        for _ in range(3):
            steps.zero_grad()
            # members interact in the loss, as EDM's do
            logits = network(images)
            nn.functional.cross_entropy(logits.mean(1), labels).backward()
            steps.step()
        trained.append(network)
    side_by_side, stacked = (network.networks() for network in trained)
    apart = []
    for one, other in zip(side_by_side, stacked, strict=True):
        assert one.state_dict().keys() == other.state_dict().keys()
        apart += [(value - other.state_dict()[name]).abs().max().item() for name, value in one.state_dict().items()]
    reached("the largest difference", max(apart), below=1e-5)
    first, second = (network.get_submodule("1") for network in side_by_side[:2])
    assert first.num_batches_tracked == 3
    assert not torch.allclose(first.running_mean, second.running_mean)


def test_evaluation_uses_the_stacked_statistics() -> None:
    images = torch.rand(4, 1, 8, 8)
    stacked = Stacked(members())
    stacked.train()(torch.rand(32, 1, 8, 8))
    together = stacked.eval()(images)
    alone = torch.stack([network.eval()(images) for network in stacked.networks()], dim=1)
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.allclose(stacked(images[:1]), together[:1], atol=1e-6)


def test_a_processor_runs_members_side_by_side() -> None:
    assert isinstance(ensemble_of(members(), torch.device("cpu")), Ensemble)
