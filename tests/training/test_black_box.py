"""Victims as black boxes: a checkpoint of the recipe, and an ONNX file of anyone's."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tests.conftest import Smoke
from tests.handlers.archives import write_onnx
from training.black_box import black_box
from training.checkpoint import load


def images() -> torch.Tensor:
    return torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_a_checkpoint_gives_its_probabilities(smoke_runs: Smoke) -> None:
    box = black_box("victim", smoke_runs.runs / "smoke")
    read = load(smoke_runs.runs / "smoke/victim.safetensors")
    with torch.inference_mode():
        expected = read.networks[0](images()).softmax(1)
    torch.testing.assert_close(box.answer(images()), expected)
    assert box.digest == read.digest


def test_an_exported_graph_gives_the_same(smoke_graphs: Smoke) -> None:
    path = smoke_graphs.build / "smoke/victim.onnx"
    box = black_box(str(path), Path("nowhere"))
    same = black_box("victim", smoke_graphs.runs / "smoke")
    torch.testing.assert_close(box.answer(images()), same.answer(images()), atol=1e-5, rtol=1e-4)
    assert box.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_graph_may_name_its_input_and_output_as_it_likes(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    write_onnx(path, "mine", (1, 28, 28), 4, output="softmax_out")
    response = black_box(str(path), tmp_path).answer(images())
    assert response.shape == (5, 4)
    torch.testing.assert_close(response.sum(1), torch.ones(5))


def test_a_graph_that_gives_logits_is_reported(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["images"], ["logits"])],
        "logits",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["rows", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 784])],
    )
    path = tmp_path / "logits.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )
    onnx.checker.check_model(onnx.load(path))
    with pytest.raises(ValueError, match=r"logits.onnx: expected an output .* whose rows sum to 1.*end the graph with"):
        black_box(str(path), tmp_path).answer(images())


def test_a_graph_with_several_outputs_is_reported(smoke_graphs: Smoke) -> None:
    with pytest.raises(ValueError, match=r"hash.onnx: expected one input \(N,C,S,S\) and one output"):
        black_box(str(smoke_graphs.build / "smoke/hash.onnx"), Path("nowhere"))


def test_images_of_another_size_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    write_onnx(path, "mine", (3, 32, 32), 4)
    with pytest.raises(
        ValueError, match=r"mine.onnx: expected images \(3, 32, 32\) \(C,H,W\), got \(1, 28, 28\); give"
    ):
        black_box(str(path), tmp_path).answer(images())


def test_what_is_no_single_classifier_is_reported(smoke_runs: Smoke) -> None:
    with pytest.raises(ValueError, match=r"expected an ONNX file, found none at nothing\.onnx"):
        black_box("nothing.onnx", smoke_runs.runs)
    with pytest.raises(ValueError, match=r"edm.safetensors: expected a checkpoint of one classifier, got 3 networks"):
        black_box("edm", smoke_runs.runs / "smoke")
