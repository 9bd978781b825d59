"""Weights to start from: a file's tensors go where name and shape fit, the rest of the network stays as it was.

Reads what torch.save wrote of a state dict (torchvision's .pth files) and .safetensors files, checkpoints of this
project among them. A head for other classes, or a stem for other images, simply does not fit and stays fresh.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import torch
from torch import nn

_log = logging.getLogger(__name__)
# safetensors' names of the types that networks are kept in
TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}


class PretrainedError(ValueError):
    """A file that holds no weights, or none for the network."""


@torch.no_grad()
def take(network: nn.Module, path: str | os.PathLike[str]) -> int:
    """Copy into `network` (zoo.models.build) every tensor of the file that fits by name and shape; how many did.

    A checkpoint of this project begins its names with the network's number, of which the first counts; files from
    elsewhere know nothing of the normalisation before the network, which then stays as it is in the network. Raises
    PretrainedError where not one parameter fits.
    """
    found = tensors(path)
    learnt = {name for name, _ in network.named_parameters()}
    taken = set()
    for name, own in network.state_dict(keep_vars=True).items():
        for called in (f"0.{name}", name, name.removeprefix("network.")):
            if called in found and found[called].shape == own.shape:
                own.copy_(found[called])
                taken.add(name)
                break
    if not taken & learnt:
        raise PretrainedError(f"{path}: expected weights of this architecture; none of {len(found)} tensors fits")
    _log.info("%s: %d of the network's %d tensors taken", path, len(taken), len(network.state_dict()))
    return len(taken)


def tensors(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The file's tensors by name, on the CPU. Raises PretrainedError where it holds something else."""
    path = Path(path)
    if path.suffix == ".safetensors":
        return _safetensors(path)
    held = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(held, dict) or not all(isinstance(value, torch.Tensor) for value in held.values()):
        raise PretrainedError(f"{path}: expected a state dict, tensors by name, got another {type(held).__name__}")
    return held


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The format: length of the header (8 bytes, little endian), JSON header, then the tensors' bytes."""
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    if 8 + length > len(content):
        raise PretrainedError(f"{path}: expected a .safetensors file, got a header of {length} bytes in {len(content)}")
    header = json.loads(content[8 : 8 + length])
    found = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in TYPES:
            raise PretrainedError(f"{path}: {name}: expected one of {', '.join(TYPES)}, got {entry['dtype']}")
        begin, end = entry["data_offsets"]
        # a copy each: offsets need not be multiples of an element's size
        part = torch.frombuffer(bytearray(content[8 + length + begin : 8 + length + end]), dtype=TYPES[entry["dtype"]])
        found[name] = part.view(entry["shape"])
    return found
