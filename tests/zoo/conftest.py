"""A machine without data sets and without a network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

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
    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        monkeypatch.setattr(f"torchvision.datasets.{name}.mirrors", [NOWHERE])
    for name in ("CIFAR10", "CIFAR100"):
        monkeypatch.setattr(f"torchvision.datasets.{name}.url", NOWHERE + "cifar.tar.gz")
    fashion = DATASETS["fashionmnist"]
    assert fashion.files is not None
    package = files.DebianPackage("dataset-fashion-mnist", tmp_path / "debian")
    moved = replace(fashion, files=replace(fashion.files, debian=package))
    monkeypatch.setitem(DATASETS, "fashionmnist", moved)  # type: ignore[arg-type]
    return folder
