"""A user's ONNX file: it answers from an archive as it did before, or the error explains why it cannot."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import recipes
from attacks.oracle import REFUSED
from evaluation.oracles import InProcessOracle
from export import archive
from export.adopted import adopt
from export.archive import PolicyTable
from export.graphs import ExportError, on_onnxruntime
from export.predictor import Predictor
from tests.conftest import RECIPE, Smoke
from tests.handlers.archives import weights, write_onnx
from tests.reached import Reached
from training.black_box import black_box
from training.calibration import calibrate
from training.same import Same
from training.victim import Victim
from zoo import datasets
from zoo.datasets import Images
from zoo.models import ARCHITECTURES

SHAPE = (1, 28, 28)
POLICY = """
[policies.own]
predictor = "{}"
gate = {{ action = "reject", form = "robust", alpha = 0.8, false_positive_rate = 0.01 }}
"""


@pytest.fixture(scope="module")
def data() -> Images:
    return datasets.load("digits", "test")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A linear classifier of digits: `images` in, `softmax_out` out, any number of rows."""
    path = tmp_path / "user/mine.onnx"
    path.parent.mkdir()
    write_onnx(path, "mine", SHAPE, 10, output="softmax_out")
    return path


def adopted(path: Path, data: Images, folder: Path) -> Predictor:
    """As export.archive does it, in folder/build and next to folder/runs."""
    return adopt(path, data, folder / "build", folder / "runs")


def some(rows: int) -> np.ndarray:
    return np.random.default_rng(3).random((rows, *SHAPE), dtype=np.float32)


def renamed(source: Path, path: Path) -> None:
    """One of our own graphs as a user's: no metadata, other names, and ours for values within it."""
    proto = onnx.load(source)
    proto.graph.node.insert(0, helper.make_node("Identity", ["x"], ["images"]))
    proto.graph.node.append(helper.make_node("Identity", ["probabilities"], ["softmax_out"]))
    proto.graph.input[0].name, proto.graph.output[0].name = "x", "softmax_out"
    del proto.metadata_props[:]
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


@dataclass(frozen=True)
class Own:
    """A user's classifier, and the recipe that puts a gate before it; everything lies in `folder`."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "mine.onnx"

    @property
    def recipe(self) -> Path:
        return self.folder / "smoke.toml"

    def archive(self) -> Path:
        """By the command that users call."""
        named = {"runs": "runs", "build": "build", "store": "model_store"}
        folders = [word for name, place in named.items() for word in (f"--{name}", str(self.folder / place))]
        archive.main([str(self.recipe), "--policies", "own", *folders])
        return self.folder / "model_store/smoke-own.mar"


@pytest.fixture(scope="module")
def own(smoke_graphs: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Own:
    """The smoke recipe's gate, calibrated before a file that is its victim by another name."""
    own = Own(tmp_path_factory.mktemp("own"))
    for file in ("runs/smoke/same.safetensors", "build/smoke/same.onnx"):
        (own.folder / file).parent.mkdir(parents=True)
        shutil.copyfile(smoke_graphs.root / file, own.folder / file)
    renamed(smoke_graphs.build / "smoke/victim.onnx", own.file)
    own.recipe.write_text(RECIPE.read_text() + POLICY.format(own.file))
    calibrate.main(calibrate.parse([str(own.recipe), "--runs", str(own.folder / "runs"), "--policies", "own"]))
    return own


def test_a_user_s_classifier_answers_from_behind_a_gate_as_it_did_before(
    own: Own, data: Images, capsys: pytest.CaptureFixture[str], reached: Reached
) -> None:
    packed = own.archive()
    assert capsys.readouterr().out.strip() == str(packed)
    noise = torch.rand(16, *SHAPE, generator=torch.Generator().manual_seed(0))
    with InProcessOracle(packed) as oracle:
        assert oracle.pipeline.policy.members == ("mine",)
        assert oracle.pipeline.policy.class_names == data.classes
        answers, foreign = oracle(data.pixels[:64]), oracle(noise)
    answered = answers.labels != REFUSED
    reached("answered of 64 digits", answered.sum(), above=57.5)
    reached("answered of 16 foreign images", (foreign.labels != REFUSED).sum(), below=0.5)
    assert answers.probabilities is not None
    before = on_onnxruntime(own.file)(data.pixels[:64].numpy())["softmax_out"]
    np.testing.assert_allclose(answers.probabilities[answered], before[answered.numpy()], atol=1e-6)


def test_another_file_wants_another_calibration(own: Own) -> None:
    own.archive()
    kept = own.file.read_bytes()
    changed = onnx.load_from_string(kept)
    changed.doc_string = "trained for longer"
    own.file.write_bytes(changed.SerializeToString())
    try:
        with pytest.raises(
            SystemExit, match=r"of another predictor: .* calibrate it \(python -m training\.calibration"
        ):
            own.archive()
    finally:
        own.file.write_bytes(kept)


def test_the_graph_has_our_names_and_says_which_file_it_is(mine: Path, data: Images, tmp_path: Path) -> None:
    digest = black_box(str(mine), tmp_path).digest
    assert adopted(mine, data, tmp_path) == Predictor(("mine",), 1, 28, data.classes, digest)
    path = tmp_path / "build/mine.onnx"
    proto = onnx.load(path)
    assert {each.key: each.value for each in proto.metadata_props} == {"checkpoint": digest, "graph": "mine"}
    assert [each.name for each in proto.graph.input] == ["images"]
    served = on_onnxruntime(path)(some(5))
    assert list(served) == ["probabilities"]
    np.testing.assert_array_equal(served["probabilities"], on_onnxruntime(mine)(some(5))["softmax_out"])


def test_the_same_file_gives_the_same_bytes(mine: Path, data: Images, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        adopted(mine, data, tmp_path / folder)
    first, second = ((tmp_path / folder / "build/mine.onnx").read_bytes() for folder in ("a", "b"))
    assert first == second
    assert first != mine.read_bytes()
    adopted(mine, data, tmp_path / "a")
    assert [path.name for path in (tmp_path / "a/build").iterdir()] == ["mine.onnx"]


def test_our_names_may_be_taken_within_and_read_by_a_branch(data: Images, tmp_path: Path) -> None:
    """Of the file below, `probabilities` is the input and `images` a value that the branches read."""
    branches = {
        name: helper.make_graph(
            [
                helper.make_node("MatMul", ["images", "weights"], [f"{name}_logits"]),
                helper.make_node("Softmax", [f"{name}_logits"], [name], axis=1),
            ],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name in ("then_branch", "else_branch")
    }
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["probabilities"], ["images"]),
            helper.make_node("If", ["always"], ["p"], **branches),
        ],
        "branches",
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", *SHAPE])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 10])],
        [
            numpy_helper.from_array(weights("mine", 784, 10), "weights"),
            numpy_helper.from_array(np.array(True), "always"),
        ],
    )
    path = tmp_path / "own.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    adopted(path, data, tmp_path)
    served = on_onnxruntime(tmp_path / "build/own.onnx")(some(5))["probabilities"]
    np.testing.assert_array_equal(served, on_onnxruntime(path)(some(5))["p"])


def test_weights_next_to_the_file_come_into_it(mine: Path, data: Images, tmp_path: Path) -> None:
    expected = on_onnxruntime(mine)(some(5))["softmax_out"]
    settings = {"save_as_external_data": True, "location": "mine.weights", "size_threshold": 0}
    onnx.save(onnx.load(mine), mine, **settings)
    assert (mine.parent / "mine.weights").stat().st_size >= 784 * 10 * 4
    assert adopted(mine, data, tmp_path).digest == black_box(str(mine), tmp_path).digest
    (mine.parent / "mine.weights").unlink()
    got = on_onnxruntime(tmp_path / "build/mine.onnx")(some(5))["probabilities"]
    np.testing.assert_array_equal(got, expected)
    with pytest.raises(ExportError, match=r"mine\.onnx: not an ONNX file that can be read .*mine\.weights"):
        adopted(mine, data, tmp_path)


def a_double_input(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def two_outputs(proto: onnx.ModelProto) -> None:
    proto.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 10]))


def no_output(proto: onnx.ModelProto) -> None:
    del proto.graph.output[:]


def batch_of_one(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def of_another_size(proto: onnx.ModelProto) -> None:
    for axis in (2, 3):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 32


def of_any_size(proto: onnx.ModelProto) -> None:
    for axis in (2, 3):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "side"


def of_rows(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", TensorProto.FLOAT, ["rows", 784]))


def logits(proto: onnx.ModelProto) -> None:
    del proto.graph.node[-1]
    proto.graph.output[0].name = "logits"


def for_one_row_within(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1, 784]), "one"))
    proto.graph.node[0].CopyFrom(helper.make_node("Reshape", ["images", "one"], ["flat"]))


def one_answer_for_all(proto: onnx.ModelProto) -> None:
    proto.graph.node[-1].output[0] = "each"
    proto.graph.node.append(helper.make_node("ReduceMean", ["each"], ["softmax_out"], axes=[0]))


def negative(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(numpy_helper.from_array(np.array([2, *[-1] * 9], np.float32) / -7, "answer"))
    proto.graph.node[-1].output[0] = "each"
    proto.graph.node.append(helper.make_node("Sub", ["each", "each"], ["nothing"]))
    proto.graph.node.append(helper.make_node("Add", ["nothing", "answer"], ["softmax_out"]))


INPUT = r"images float \({}\)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            a_double_input,
            r"one input and one output, both float32, got the inputs images double \(any, 1, 28, 28\) and",
        ),
        (two_outputs, r"the outputs softmax_out float \(any, 10\), logits float \(any, 10\)"),
        (no_output, "and the outputs none"),
        (
            batch_of_one,
            rf"any number of images, got {INPUT.format('1, 1, 28, 28')}; export it with torch\.onnx\.export\(",
        ),
        (
            of_another_size,
            rf"\(N, 1, 28, 28\), got {INPUT.format('any, 1, 32, 32')}; set `size` and `channels` in \[data",
        ),
        (of_any_size, rf"\(N, 1, 28, 28\), got {INPUT.format('any, 1, any, any')}; .* or export it for that size"),
        (of_rows, rf"\(N, 1, 28, 28\), got {INPUT.format('any, 784')}"),
        (logits, r"expected probabilities, whose rows sum to 1, got .* sums from .*; end the graph with a Softmax"),
        (negative, "expected probabilities, whose rows sum to 1, got"),
        (for_one_row_within, r"ONNX Runtime cannot run it on \(1, 7, 32\) images: "),
        (one_answer_for_all, r"expected an output \(7,K\) for 7 images, got \(1, 10\)"),
    ],
)
def test_a_file_that_is_no_such_classifier_is_reported_and_not_written(
    mine: Path, data: Images, tmp_path: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    proto = onnx.load(mine)
    change(proto)
    onnx.save(proto, mine)
    with pytest.raises(ExportError, match=rf"mine\.onnx: .*{message}"):
        adopted(mine, data, tmp_path)
    assert not (tmp_path / "build").exists()


def test_the_classes_are_the_data_set_s(data: Images, tmp_path: Path) -> None:
    write_onnx(tmp_path / "four.onnx", "four", SHAPE, 4)
    with pytest.raises(ExportError, match=r"four\.onnx: expected the data set's 10 classes, got 4"):
        adopted(tmp_path / "four.onnx", data, tmp_path)


def test_what_is_no_onnx_file_is_reported(data: Images, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"mine\.onnx: expected an ONNX file, found none"):
        adopted(tmp_path / "mine.onnx", data, tmp_path)
    (tmp_path / "mine.onnx").write_bytes(b"PK\3\4 an archive")
    with pytest.raises(ExportError, match=r"mine\.onnx: not an ONNX file that can be read \(DecodeError"):
        adopted(tmp_path / "mine.onnx", data, tmp_path)


@pytest.mark.parametrize(
    ("file", "checkpoint"), [("victim", "victim"), ("edm-2", "edm"), ("meco-perturbation", "meco"), ("v-2", "v-2")]
)
def test_no_graph_of_a_checkpoint_is_replaced(
    mine: Path, data: Images, tmp_path: Path, file: str, checkpoint: str
) -> None:
    (tmp_path / "runs").mkdir()
    path = mine.rename(mine.with_name(f"{file}.onnx"))
    (tmp_path / f"runs/{checkpoint}.safetensors").touch()
    with pytest.raises(ExportError, match=rf"{file}\.onnx: '{file}' is a graph of .*{checkpoint}\.safetensors; give"):
        adopted(path, data, tmp_path)
    assert not (tmp_path / "build").exists()
    adopted(path.rename(path.with_name("mine-edm.onnx")), data, tmp_path)


def test_the_user_s_file_is_not_written_over(mine: Path, data: Images, tmp_path: Path) -> None:
    before = mine.read_bytes()
    with pytest.raises(ExportError, match=r"mine\.onnx: expected a file elsewhere, .*; move it"):
        adopt(mine, data, mine.parent, tmp_path / "runs")
    assert mine.read_bytes() == before


def test_an_onnx_file_answers_on_onnx_runtime_without_noise() -> None:
    with pytest.raises(ValueError, match="backend: expected 'onnxruntime', an ONNX file answers, got 'torchscript'"):
        PolicyTable("a/mine.onnx", backend="torchscript")
    with pytest.raises(
        ValueError, match=re.escape("perturb: expected none, an ONNX file was not trained with any noi")
    ):
        PolicyTable("a/mine.onnx", perturb={"graph": "meco-perturbation"})


def test_the_manual_s_recipe_can_be_read(tmp_path: Path) -> None:
    manual = (Path(archive.__file__).parents[1] / "docs/recipes.md").read_text("utf-8")
    (text,) = (body for body in re.findall(r"```toml\n(.*?)```", manual, re.DOTALL) if body.startswith("[dataset]"))
    (tmp_path / "mine.toml").write_text(text)
    recipe = recipes.read(tmp_path / "mine.toml")
    recipe.section("dataset", datasets.Data)
    victim, same = recipe.section("victim", Victim), recipe.network("same", Same)
    tables = recipe.family("policies", PolicyTable)
    assert {table.predictor for table in tables.values()} == {same.victim}
    assert set(calibrate.guarded(recipe, None)) == set(tables)
    assert victim.architecture in ARCHITECTURES
