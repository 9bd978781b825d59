"""Training that repeats: equal seeds and equal answers give equal networks, whatever else draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def from_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's global generators (weights, dropout) start from `seed` and cuDNN repeats itself; outside, both
    are as they were. Do not yield to a caller from inside."""
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus), torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        torch.manual_seed(seed)
        yield


@contextmanager
def seeded(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """`from_seed` with a number that the CPU `generator` draws."""
    with from_seed(int(torch.randint(2**31, (), generator=generator)), device):
        yield
