"""A network whose layers are computed a second time when gradients are, in place of being held until then.

A training that needs the answers of several networks before its loss is known holds the layers of all of them: three
ResNet-18 on 64 images of 224 x 224 fill 4 GB. Computed again one network at a time they fill a third, for a third more
time. The gradients are the same, and batch statistics move once: in the second pass they are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

# float32 bytes of a batch from which on its layers are not held: they are some thirty times as much
LARGE = 2**25


def answered(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The network's answer to images (N,C,H,W); in training its layers are held only where the batch is small."""
    large = 4 * images.numel() >= LARGE
    if not (large and network.training and torch.is_grad_enabled()):
        return network(images)  # type: ignore[no-any-return]
    return checkpoint(network, images, use_reentrant=False, context_fn=lambda: _passes(network))  # type: ignore[no-any-return]


def _passes(network: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the first pass, and the second."""
    return nullcontext(), _without_statistics(network)


@contextmanager
def _without_statistics(network: nn.Module) -> Iterator[None]:
    """Batch normalisation by the batch, as in the first pass, of which running means and counts remember nothing."""
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    before = [(layer, layer.momentum, layer.num_batches_tracked.clone()) for layer in layers]  # type: ignore[union-attr]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum, count in before:
            layer.momentum = momentum
            layer.num_batches_tracked.copy_(count)  # type: ignore[union-attr]
