"""A machine without data sets and without a network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torchvision import datasets as torchvision

from zoo import files
from zoo.datasets import DATASETS

NOWHERE = "http://127.0.0.1:9/"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout; nothing else on the machine is searched, and every download is refused."""
    folder = tmp_path / "work" / "checkout"
    folder.mkdir(parents=True)
    monkeypatch.setattr(files, "CHECKOUT", folder)
    monkeypatch.delenv(files.VARIABLE, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    for dataset in (torchvision.MNIST, torchvision.FashionMNIST, torchvision.KMNIST):
        monkeypatch.setattr(dataset, "mirrors", [NOWHERE])
    for dataset in (torchvision.CIFAR10, torchvision.CIFAR100):
        monkeypatch.setattr(dataset, "url", NOWHERE + "cifar.tar.gz")
    fashion = DATASETS["fashionmnist"]
    assert fashion.files is not None
    package = files.DebianPackage("dataset-fashion-mnist", tmp_path / "debian")
    moved = replace(fashion, files=replace(fashion.files, debian=package))
    monkeypatch.setitem(DATASETS, "fashionmnist", moved)  # type: ignore[arg-type]
    return folder
