"""Victims as black boxes: a checkpoint of the recipe, and the graph of an adopted model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import onnx
import pytest
import torch
from torch.nn import functional as F

from tests.conftest import Smoke
from tests.handlers.archives import write_onnx
from training.black_box import black_box, labelled
from training.checkpoint import CheckpointError, load
from zoo.images import Images


def images() -> torch.Tensor:
    return torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def adopted(folder: Path, classes: int = 4, shape: tuple[int, int, int] = (1, 28, 28)) -> Path:
    """victim.onnx as an adoption leaves it."""
    path = folder / "victim.onnx"
    write_onnx(path, "mine", shape, classes)
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {"facts": json.dumps({"classes": [f"class {n}" for n in range(classes)]})})
    onnx.save(proto, path)
    return path


def test_a_checkpoint_gives_its_probabilities(smoke_runs: Smoke) -> None:
    box = black_box("victim", smoke_runs.runs / "smoke")
    read = load(smoke_runs.runs / "smoke/victim.safetensors")
    with torch.inference_mode():
        expected = read.networks[0](images()).softmax(1)
    torch.testing.assert_close(box.answer(images()), expected)
    assert (box.digest, box.shape, len(box.classes)) == (read.digest, (1, 28, 28), 10)


def test_an_adopted_graph_says_what_it_is(tmp_path: Path) -> None:
    path = adopted(tmp_path)
    box = black_box("victim", tmp_path)
    assert (box.shape, box.classes[1]) == ((1, 28, 28), "class 1")
    assert box.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    response = box.answer(images())
    assert response.shape == (5, 4)
    torch.testing.assert_close(response.sum(1), torch.ones(5))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_log_probabilities_are_an_exact_teacher(smoke_runs: Smoke, temperature: float) -> None:
    """softmax(log p / T) = softmax(z / T): the logits of a network and its answers distil alike."""
    box = black_box("victim", smoke_runs.runs / "smoke")
    network = load(smoke_runs.runs / "smoke/victim.safetensors").networks[0]
    with torch.inference_mode():
        logits = network(images())
    torch.testing.assert_close(
        F.softmax(box.teacher()(images()) / temperature, 1), F.softmax(logits / temperature, 1), atol=1e-6, rtol=1e-4
    )


def test_images_without_labels_get_the_victim_s(tmp_path: Path) -> None:
    adopted(tmp_path)
    box = black_box("victim", tmp_path)
    found = labelled(Images("mine", images(), None, ()), box)
    assert found.classes == box.classes
    assert found.labels is not None
    assert torch.equal(found.labels, box.answer(images()).argmax(1))
    known = Images("mine", images(), torch.zeros(5).long(), ("a", "b"))
    assert labelled(known, box) is known


def test_what_is_no_single_classifier_is_reported(smoke_runs: Smoke, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nothing\.safetensors: train it first"):
        black_box("nothing", smoke_runs.runs)
    with pytest.raises(ValueError, match=r"edm.safetensors: expected a checkpoint of one classifier, got 3 networks"):
        black_box("edm", smoke_runs.runs / "smoke")
    (tmp_path / "victim.onnx").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match=r"victim\.onnx: damaged .*; adopt the model again \(make adopt\)"):
        black_box("victim", tmp_path)
