"""A timm network at 224 in every form that owners keep one in.

The network's last layer is fitted to labelled photographs (bench/adopted/owner.py). The owner's pipeline is timm's own
transform on Pillow's pictures, and the network itself.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import onnx
import timm
import timm.data
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from assurance.owners import photographs
from assurance.owners.brought import Brought, Form
from bench.adopted import owner
from bench.adopted.owner import ROWS, SIDE, exported
from bench.adopted.photographs import CLASSES

# which is in no type of timm's
timm_data: Any = timm.data
PHOTOGRAPHS = 120


class _Softmax(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Probabilities (N,K); the normalisation is left to the client."""
        found: torch.Tensor = self.network(images).softmax(1)
        return found


class _Bytes(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.mean, self.std = (torch.tensor(each).view(1, 3, 1, 1) for each in (owner.MEAN, owner.STD))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of bytes (N,H,W,C): probabilities (N,K) and labels (N,)."""
        logits = self.network((images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std)
        return logits.softmax(1), logits.argmax(1)


@cache
def _owned(folder: Path, name: str) -> tuple[Any, Path, dict[Path, str]]:
    """The network, its photographs, and the owner's own label of each."""
    images = photographs.labelled(folder.parent / "timm-photographs", PHOTOGRAPHS, seed=3)
    network, names, _ = owner.learnt(images, seed=0, name=name)
    transform = timm_data.create_transform(**timm_data.resolve_data_config({}, model=network), is_training=False)
    labels = {}
    with torch.inference_mode():
        for path in sorted(images.glob("*/*.jpg")):
            with Image.open(path) as picture:
                labels[path] = names[int(network(transform(picture.convert("RGB"))[None]).argmax())]
    return network, images, labels


def _state_dict(network: Any, path: Path) -> tuple[str, ...]:
    torch.save(network.state_dict(), path)
    return ()


def _checkpoint(network: Any, path: Path) -> tuple[str, ...]:
    """Of a training loop on several devices."""
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, path)
    return ()


def _safetensors(network: Any, path: Path) -> tuple[str, ...]:
    save_file(network.state_dict(), path)
    return ()


def _torchscript(network: Any, path: Path) -> tuple[str, ...]:
    torch.jit.trace(network, torch.zeros(1, 3, SIDE, SIDE)).save(str(path))
    return "--size", str(SIDE)


def _program(network: Any, path: Path) -> tuple[str, ...]:
    like = torch.zeros(2, 3, SIDE, SIDE)
    torch.export.save(torch.export.export(network, (like,), dynamic_shapes=({0: ROWS},)), path)
    return ()


def _mar(network: Any, path: Path) -> tuple[str, ...]:
    """A TorchServe archive of TorchScript, as torch-model-archiver lays it out."""
    script = path.with_suffix(".pt")
    _torchscript(network, script)
    manifest = {"model": {"modelName": "mine", "serializedFile": script.name, "handler": "image_classifier"}}
    names = {str(column): name for column, name in enumerate(sorted(CLASSES))}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("index_to_name.json", json.dumps(names))
        archive.write(script, script.name)
    return "--size", str(SIDE)


def _fixed(network: Any, path: Path) -> tuple[str, ...]:
    exported(network, torch.zeros(1, 3, SIDE, SIDE), path, free=False)
    return ()


def _free(network: Any, path: Path) -> tuple[str, ...]:
    exported(network, torch.zeros(2, 3, SIDE, SIDE), path)
    return ()


def _softmax(network: Any, path: Path) -> tuple[str, ...]:
    exported(_Softmax(network), torch.zeros(2, 3, SIDE, SIDE), path)
    return ()


def _half(network: Any, path: Path) -> tuple[str, ...]:
    name = network.default_cfg["architecture"]
    halved: Any = timm.create_model(name, num_classes=4)
    halved.load_state_dict(network.state_dict())
    exported(halved.eval().half(), torch.zeros(2, 3, SIDE, SIDE).half(), path)
    return ()


def _bytes(network: Any, path: Path) -> tuple[str, ...]:
    exported(_Bytes(network), torch.zeros(2, SIDE, SIDE, 3, dtype=torch.uint8), path)
    return ()


def _quantised(network: Any, path: Path) -> tuple[str, ...]:
    """Weights and, anew for every batch, activations of 8 bits: a row's answer depends on the rows beside it."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = path.with_name("whole.onnx")
    _softmax(network, whole)
    graph = onnx.load(whole)
    del graph.graph.value_info[:]  # the quantiser infers them again, and takes those that are there for its own
    onnx.save(graph, whole)
    quantize_dynamic(str(whole), str(path), weight_type=QuantType.QUInt8)
    return ()


WRITE: dict[str, tuple[str, Callable[[Any, Path], tuple[str, ...]]]] = {
    "state dict": ("state.pth", _state_dict),
    "checkpoint of DataParallel": ("checkpoint.pth", _checkpoint),
    "safetensors": ("weights.safetensors", _safetensors),
    "TorchScript": ("script.pt", _torchscript),
    "torch.export program": ("program.pt2", _program),
    "TorchServe archive": ("archive.mar", _mar),
    "ONNX logits, batch of one": ("fixed.onnx", _fixed),
    "ONNX logits, free batch": ("free.onnx", _free),
    "ONNX softmax, normalisation outside": ("softmax.onnx", _softmax),
    "ONNX float16": ("half.onnx", _half),
    "ONNX bytes, channels last": ("bytes.onnx", _bytes),
    "ONNX dynamic int8": ("dynamic.onnx", _quantised),
}
NETWORKS = {
    "resnet18": tuple(WRITE),
    "mobilenetv3_small_100": (
        *("state dict", "TorchScript", "ONNX logits, batch of one", "ONNX logits, free batch"),
        *("ONNX softmax, normalisation outside", "ONNX float16", "ONNX bytes, channels last"),
    ),
}
REFUSED = {"ONNX dynamic int8": "its answers to an image depend on the images beside it"}


def _bring(folder: Path, *, network: str, form: str) -> Brought:
    held, images, labels = _owned(folder.parent, network)
    name, write = WRITE[form]
    words = write(held, folder / name)
    if name.endswith((".pth", ".safetensors")):
        words = (*words, "--architecture", f"timm:{network}")
    return Brought(folder / name, words, images, labels)


def forms() -> list[Form]:
    """Each network in its forms."""
    source = f"timm {timm.__version__}"
    return [
        Form(f"{name}: {form}", source, partial(_bring, network=name, form=form), REFUSED.get(form, ""))
        for name, its in NETWORKS.items()
        for form in its
    ]
