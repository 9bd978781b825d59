"""N networks of one architecture as one module: images (B,C,H,W) to logits (B,N,K).

Two forms with the same answers and gradients. On a CPU the members run one after another; of large images one member's
layers are held at a time (training/recomputed.py). On a GPU, where small
networks leave the device idle between kernels, their weights are stacked and one `torch.func.vmap` runs all of
them in each kernel.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from training.recomputed import answered


class Ensemble(nn.Module):
    """The members side by side."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([answered(member, images) for member in self.members], dim=1)

    def networks(self) -> list[nn.Module]:
        """The members themselves."""
        return list(self.members)


class Stacked(nn.Module):
    """The members' parameters and buffers stacked along a first dimension of N.

    Batch statistics stay separate for each member; an optimiser that works element by element (SGD, AdamW) updates
    the stack as it would update each member.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self._count = len(members)
        # in a tuple, so that its parameters are not ours
        self._template = (copy.deepcopy(members[0]).to("meta"),)
        parameters, buffers = stack_module_state(list(members))
        for name, value in parameters.items():
            self.register_parameter(_spelled(name), nn.Parameter(value.detach().clone()))
        for name, value in buffers.items():
            self.register_buffer(_spelled(name), value.detach().clone())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        template = self._template[0].train(self.training)

        def one(weights: dict[str, torch.Tensor]) -> torch.Tensor:
            logits: torch.Tensor = functional_call(template, weights, (images,))
            return logits

        weights = {_named(name): value for name, value in (*self.named_parameters(), *self.named_buffers())}
        stacked: torch.Tensor = vmap(one, randomness="different")(weights)
        return stacked.transpose(0, 1)

    def networks(self) -> list[nn.Module]:
        """The members unstacked, each a separate network."""
        weights = self.state_dict()
        members = []
        for number in range(self._count):
            member = copy.deepcopy(self._template[0]).to_empty(device=next(self.parameters()).device)
            member.load_state_dict({_named(name): value[number] for name, value in weights.items()})
            members.append(member)
        return members


def ensemble_of(members: Sequence[nn.Module], device: torch.device) -> Ensemble | Stacked:
    """The form that is faster on `device`."""
    return Stacked(members) if device.type == "cuda" else Ensemble(members)


def _spelled(name: str) -> str:
    """A member's parameter name as a name that torch lets a module have: no dots."""
    return name.replace(".", "/")


def _named(name: str) -> str:
    return name.replace("/", ".")
