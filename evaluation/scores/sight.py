"""What scores of an image are made of: what a policy's graphs and its victim's network say of it, asked for once each.

The gate's graph and the predictor's answer out of the archive, as they are served. Features and logits are of the
predictor's checkpoint, since no graph gives them: features are what goes into the last linear layer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from defenses.gate import Gate
from evaluation.oracles import InProcessOracle, OracleError
from training import checkpoint

Doubles = NDArray[np.float64]
Graph = Callable[..., Mapping[str, NDArray[np.float32]]]

# images that a graph or a network is shown at once
ROWS = 256
# largest difference between a probability of the checkpoint and of its graph: rounding alone
APART = 1e-3


@dataclass(frozen=True, eq=False)
class Sight:
    """gate: of the policy, and gate_graph its graph. predictor: the graph that answers. network: the same with its
    weights, to `features` (N,F) and `logits` (N,K). head: its last linear layer."""

    gate: Gate
    gate_graph: Graph
    predictor: Graph
    network: Graph
    head: nn.Linear

    @classmethod
    def of(cls, oracle: InProcessOracle, folder: Path) -> Sight:
        """Of an archive, and the checkpoint in `folder` that it was made from. Raises OracleError, where it has no gate
        or several members, or is of another network; CheckpointError."""
        policy = oracle.pipeline.policy
        graph = oracle.gate_graph
        assert policy.gate is not None, "it has a graph"
        if len(policy.members) != 1:
            raise OracleError(f"{policy.recipe}-{policy.policy}: expected one network, got {len(policy.members)}")
        read = checkpoint.load(folder / f"{policy.members[0]}.safetensors")
        linear = [module for module in read.networks[0].modules() if isinstance(module, nn.Linear)]
        if len(read.networks) != 1 or not linear:
            raise OracleError(f"{read.path}: expected one network that ends in a linear layer")
        graphs = oracle.pipeline.graphs
        network = watched(read.networks[0], linear[-1])
        sight = cls(policy.gate, graphs[graph], graphs[policy.members[0]], network, linear[-1])
        seen = sight(torch.rand(8, *policy.input.shape, generator=torch.Generator().manual_seed(0)))
        apart = np.abs(np.exp(log_softmax(seen.logits)) - seen.served).max()
        if apart > APART:
            raise OracleError(
                f"{read.path}: expected the network of the archive {policy.recipe}-{policy.policy}, got another: "
                f"probabilities differ by {apart:.3g}; build the archive again (make archive)"
            )
        return sight

    def __call__(self, images: torch.Tensor) -> Seen:
        """Of images float32 (N,C,H,W), N >= 1."""
        return Seen(self, images)

    def remembering(self) -> Sight:
        """The same, which asks nothing about an image that it has asked before."""
        return replace(
            self,
            gate_graph=Memory(self.gate_graph),
            predictor=Memory(self.predictor),
            network=Memory(self.network),
        )


class Memory:
    """A graph that keeps what it has answered, for each image by its bytes."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._rows: dict[bytes, dict[str, NDArray[np.float32]]] = {}

    def __call__(self, images: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """The graph's outputs for images (N,C,H,W), N >= 1."""
        keys = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]
        new = [row for row, key in enumerate(keys) if key not in self._rows]
        if new:
            outputs = self._graph(images[new])
            for place, row in enumerate(new):
                self._rows[keys[row]] = {name: values[place] for name, values in outputs.items()}
        found = [self._rows[key] for key in keys]
        return {name: np.stack([row[name] for row in found]) for name in found[0]}


def watched(network: nn.Module, head: nn.Module) -> Graph:
    """A network as a graph: images to its logits, and to what goes into its head."""

    def answer(images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        features: list[torch.Tensor] = []

        def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            features.append(inputs[0])

        hook = head.register_forward_pre_hook(keep)
        try:
            with torch.inference_mode():
                logits = network(torch.from_numpy(images))
        finally:
            hook.remove()
        return {"features": features[0].numpy(), "logits": logits.numpy()}

    return answer


@dataclass(frozen=True, eq=False)
class Seen:
    """N images, and what is said of them; nothing is asked before it is wanted. scores: of rules that keep them."""

    sight: Sight
    images: torch.Tensor
    scores: dict[object, Doubles] = field(default_factory=dict)

    @property
    def pixels(self) -> int:
        """Numbers in an image."""
        return self.images[0].numel()

    @cached_property
    def served(self) -> Doubles:
        """The predictor's probabilities (N,K)."""
        return _together(self.sight.predictor(part)["probabilities"] for part in self._parts())

    @cached_property
    def gated(self) -> tuple[Doubles, Doubles]:
        """The gate's mean squared errors (N,) and its auxiliary model's probabilities (N,K)."""
        answers = [self.sight.gate_graph(part) for part in self._parts()]
        return _together(each["error"] for each in answers)[:, 0], _together(each["auxiliary"] for each in answers)

    @property
    def features(self) -> Doubles:
        """Of the predictor's last layer but one, (N,F)."""
        return self._network[0]

    @property
    def logits(self) -> Doubles:
        """Of the predictor, (N,K)."""
        return self._network[1]

    @property
    def asked_gate(self) -> bool:
        """Whether the gate was asked about these images."""
        return "gated" in vars(self)

    @property
    def asked_network(self) -> bool:
        """Whether the network was."""
        return "_network" in vars(self)

    def unscored(self) -> Seen:
        """The same, with all that was asked and no scores."""
        copy = Seen(self.sight, self.images)
        vars(copy).update({name: value for name, value in vars(self).items() if name != "scores"})
        return copy

    def other(self, images: torch.Tensor) -> Seen:
        """Of other images, by the same."""
        return Seen(self.sight, images)

    @cached_property
    def _network(self) -> tuple[Doubles, Doubles]:
        answers = [self.sight.network(part) for part in self._parts()]
        return _together(each["features"] for each in answers), _together(each["logits"] for each in answers)

    def _parts(self) -> Iterator[NDArray[np.float32]]:
        for part in self.images.split(ROWS):
            yield part.numpy()


def log_softmax(logits: Doubles) -> Doubles:
    """log p (N,K)."""
    found: Doubles = logits - log_sum_exp(logits)[:, None]
    return found


def log_sum_exp(logits: Doubles) -> Doubles:
    """log sum_k exp z_k, (N,)."""
    most = logits.max(axis=1)
    found: Doubles = most + np.log(np.exp(logits - most[:, None]).sum(axis=1))
    return found


def _together(parts: Iterable[NDArray[np.float32]]) -> Doubles:
    return np.concatenate(list(parts)).astype(np.float64)
