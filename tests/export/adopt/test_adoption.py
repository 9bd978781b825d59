"""Whatever the file's form, the victim answers as its owner does; or the error says what to do."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import recipes
from export.adopt import __main__ as program
from export.adopt import adoption, sources
from export.adopt.adoption import Adopted, adopted, remade
from export.adopt.asked import Asked
from export.adopt.preprocessing import UNPROVEN
from export.graphs import ExportError, on_onnxruntime
from pictures.model_input import ModelInput
from recipes.rules import rules
from tests.export.adopt import owners
from tests.export.adopt.owners import CLASSES, FORMS, SHAPE, images, model, node, right, saved, two_classes, value
from training.black_box import black_box
from zoo.published import published

SIZE = {"all free": {"size": (8, 8)}, "flat": {"size": (8, 8)}}


def served(found: Adopted, folder: Path, given: np.ndarray) -> np.ndarray:
    """What the victim says, by the room that trains with it."""
    found.victim(folder)
    with torch.inference_mode():
        return black_box("victim", folder).answer(torch.from_numpy(given)).numpy()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_answers_as_its_owner_does(form: str, tmp_path: Path) -> None:
    path = saved(FORMS[form](), tmp_path / "mine.onnx")
    before = path.read_bytes()
    found = adopted(Asked(path, **SIZE.get(form, {})))
    for rows in (1, 2, 3, 7, 20):
        given = images(rows, seed=rows)
        np.testing.assert_allclose(
            served(found, tmp_path / "runs", given), right(given), atol=2e-3 if form == "float16" else 2e-6
        )
    assert path.read_bytes() == before
    again = remade(found.model)
    np.testing.assert_array_equal(
        served(again, tmp_path / "again", images(5)), served(found, tmp_path / "runs", images(5))
    )
    assert found.said[-1].startswith(UNPROVEN)


@pytest.mark.parametrize(
    ("form", "lines"),
    [
        ("logits", ["layout NCHW: 3 in the second dimension", "takes any number of images", "4 logits: rows sum to"]),
        ("batch of one declared", ["batch of 1 declared, and it takes any number with the same answers"]),
        ("batch of one within", ["batch of one within: looped over, an image at a time"]),
        ("batch of three", ["batch of 3: looped over, an image at a time; each image costs a whole batch"]),
        (
            "channels last",
            ["layout NHWC: 3 in the last dimension", "4 probabilities out of a Softmax, taken in float32"],
        ),
        ("log-probabilities", ["4 log-probabilities: their exponentials sum to 1"]),
        ("all free", ["layout NCHW: a convolution reads it", "images 3 x 8 x 8 (C x H x W): as stated"]),
        (
            "bytes, channels last, with labels",
            ["answers with 'p' of the outputs label, p", "takes x uint8 (any, 8, 8, 3)"],
        ),
    ],
)
def test_it_says_what_it_found_and_how(form: str, lines: list[str], tmp_path: Path) -> None:
    found = adopted(Asked(saved(FORMS[form](), tmp_path / "mine.onnx"), **SIZE.get(form, {})))
    for line in lines:
        assert any(said.startswith(line) for said in found.said), found.said


@pytest.mark.parametrize("sigmoid", [False, True])
def test_one_column_becomes_two(sigmoid: bool, tmp_path: Path) -> None:
    found = adopted(Asked(saved(owners.column(sigmoid), tmp_path / "mine.onnx")))
    assert found.model.gives == "logit"  # a Sigmoid's own logit is taken
    np.testing.assert_allclose(served(found, tmp_path, images(9)), two_classes(images(9)), atol=2e-6)
    assert found.model.classes == ("0", "1")


def test_a_sigmoid_is_exact_where_onnx_runtime_s_is_not(tmp_path: Path) -> None:
    """Far below 0 a float32 Sigmoid of the runtime is off by a tenth; the softmax of two logits is not."""
    made = owners.column(True)
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(owners.W * 20, "W"))
    path = saved(made, tmp_path / "mine.onnx")
    found = adopted(Asked(path))
    given = images(64)
    z = ((given.reshape(64, -1) - 0.5).astype(np.float64) @ (owners.W * 20).astype(np.float64))[:, :2]
    exact = 1 / (1 + np.exp(z[:, 0] - z[:, 1]))
    far = (exact < 1e-6) & (exact > 1e-30)
    assert far.any()
    np.testing.assert_allclose(served(found, tmp_path, given)[far, 1], exact[far], rtol=1e-2)


def test_values_that_do_not_sum_to_one_are_several_labels(tmp_path: Path) -> None:
    made = model([*owners.linear(), node("Sigmoid", "logits", "p")], ["n", *SHAPE], [value("p", ["n", CLASSES])])
    with pytest.raises(ExportError, match=r"mine\.onnx: 4 independent probabilities .*: several labels an image"):
        adopted(Asked(saved(made, tmp_path / "mine.onnx")))


def test_weights_beside_the_file_come_with_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    onnx.save(owners.logits(), path, save_as_external_data=True, location="mine.data", size_threshold=0)
    found = adopted(Asked(path))
    (tmp_path / "mine.data").unlink()
    np.testing.assert_allclose(served(found, tmp_path / "runs", images(5)), right(images(5)), atol=2e-6)
    with pytest.raises(ExportError, match=r"mine\.onnx: not an ONNX file that can be read .*mine\.data"):
        adopted(Asked(path))


def test_of_several_outputs_one_must_be_said(tmp_path: Path) -> None:
    other = numpy_helper.from_array(-owners.W, "other")
    nodes = [*owners.linear(), helper.make_node("MatMul", ["centred", "other"], ["z"])]
    made = model(nodes, ["n", *SHAPE], [value("z", ["n", CLASSES]), value("logits", ["n", CLASSES])], more=[other])
    path = saved(made, tmp_path / "mine.onnx")
    with pytest.raises(
        ExportError, match=r"several outputs may answer: z \(4 logits\), logits \(4 logits\); say which"
    ):
        adopted(Asked(path))
    for output in ("logits", "1"):
        found = adopted(Asked(path, output=output))
        np.testing.assert_allclose(served(found, tmp_path / output, images(5)), right(images(5)), atol=2e-6)
    with pytest.raises(ExportError, match="--output: expected one of z, logits, or its index, got 'p'"):
        adopted(Asked(path, output="p"))


# rows


def normed(training: int) -> onnx.ModelProto:
    names = ("scale", "shift", "mean", "var")
    constants = [
        numpy_helper.from_array(np.full(3, each, np.float32), name)
        for each, name in zip((1, 0, 0.5, 0.1), names, strict=True)
    ]
    outputs = ["normed", *(["m", "v"] if training else [])]
    attributes = {"training_mode": 1} if training else {}
    nodes = [helper.make_node("BatchNormalization", ["x", *names], outputs, **attributes), *owners.linear("normed")]
    return model(nodes, ["n", *SHAPE], [value("logits", ["n", CLASSES])], more=constants)


def quantised() -> onnx.ModelProto:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["back"]),
        *owners.linear("back"),
    ]
    return model(nodes, ["n", *SHAPE], [value("logits", ["n", CLASSES])])


def over_the_batch() -> onnx.ModelProto:
    nodes = [
        node("ReduceMean", "x", "middle", axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "middle"], ["apart"]),
        *owners.linear("apart"),
    ]
    return model(nodes, ["n", *SHAPE], [value("logits", ["n", CLASSES])])


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda: normed(1), r"batch normalisation was left in training mode; export it in evaluation mode"),
        (quantised, "its quantisation is dynamic, the scale comes from the whole batch; quantise it statically"),
        (over_the_batch, "something in it looks across the batch"),
    ],
)
def test_answers_that_depend_on_neighbours_are_refused(
    made: Callable[[], onnx.ModelProto], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(
        ExportError, match=rf"mine\.onnx: its answers to an image depend on the images beside it, .*{reason}"
    ):
        adopted(Asked(saved(made(), tmp_path / "mine.onnx")))
    assert adopted(Asked(saved(normed(0), tmp_path / "good.onnx"))).model.gives == "logits"


def test_they_are_refused_before_hundreds_of_pictures_are_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*arguments: object) -> None:
        raise AssertionError("its preprocessing was looked for")

    monkeypatch.setattr(adoption, "preprocessing", asked)
    with pytest.raises(ExportError, match="depend on the images beside it"):
        adopted(Asked(saved(quantised(), tmp_path / "mine.onnx")))
    with pytest.raises(AssertionError, match="was looked for"):
        adopted(Asked(saved(normed(0), tmp_path / "good.onnx")))


def test_answers_that_are_drawn_are_refused(tmp_path: Path) -> None:
    nodes = [
        node("RandomNormalLike", "x", "noise"),
        helper.make_node("Add", ["x", "noise"], ["noisy"]),
        *owners.linear("noisy"),
    ]
    made = model(nodes, ["n", *SHAPE], [value("logits", ["n", CLASSES])])
    with pytest.raises(ExportError, match=r"the same image gets other answers .*dropout in training mode"):
        adopted(Asked(saved(made, tmp_path / "mine.onnx")))


# what cannot be adopted


def changed(change: Callable[[onnx.ModelProto], object]) -> Callable[[], onnx.ModelProto]:
    def made() -> onnx.ModelProto:
        proto = owners.logits()
        change(proto)
        return proto

    return made


def _input(kind: int, shape: list[object]) -> Callable[[], onnx.ModelProto]:
    return lambda: model(owners.linear(), shape, [value("logits", ["n", CLASSES])], kind=kind)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (_input(TensorProto.INT32, ["n", *SHAPE]), r"expected an input of float32, .*, got x int32 \(any, 3, 8, 8\)"),
        (
            _input(TensorProto.FLOAT, ["n", 5, 8, 8]),
            "expected 1 or 3 channels in one of its dimensions, .*--layout NCHW",
        ),
        (
            _input(TensorProto.FLOAT, ["n", 3, "h", "w"]),
            r"its height and width are free \(any x any\); say .* --size 224",
        ),
        (_input(TensorProto.FLOAT, ["n", 191]), r"rows of 191 numbers are no square images; give --size HxW"),
        (_input(TensorProto.FLOAT, ["n", 1, 2, 3, 32]), "expected an input of two to four dimensions, got 5"),
        (
            changed(lambda proto: proto.graph.output.pop()),
            "expected an output of probabilities or logits, .*, got none",
        ),
        (
            changed(lambda proto: proto.graph.input.append(value("y", ["n", 2]))),
            r"expected one input, the images, got x float32 \(any, 3, 8, 8\), y float32 \(any, 2\)",
        ),
        (
            changed(lambda proto: proto.graph.node.append(node("ArgMax", "logits", "label", axis=1)))
            and (
                lambda: model(
                    [*owners.linear(), node("ArgMax", "logits", "label", axis=1)],
                    ["n", *SHAPE],
                    [value("label", ["n", 1], TensorProto.INT64)],
                )
            ),
            r"expected an output of probabilities or logits, \(N,K\), got label int64",
        ),
        (
            lambda: model([node("Identity", "x", "y")], ["n", *SHAPE], [value("y", ["n", *SHAPE])]),
            r"a row an image, got .*detector",
        ),
        (
            lambda: model(
                [*owners.linear(), helper.make_node("Sub", ["logits", "logits"], ["same"])],
                ["n", *SHAPE],
                [value("same", ["n", CLASSES])],
            ),
            "it gives the same output for 12 different images",
        ),
        (
            lambda: model([node("NoSuchOperator", "x", "y")], ["n", *SHAPE], [value("y", ["n", CLASSES])]),
            "ONNX Runtime cannot run it: .*NoSuchOperator",
        ),
    ],
)
def test_what_cannot_be_adopted_is_said_in_words(
    made: Callable[[], onnx.ModelProto], message: str, tmp_path: Path
) -> None:
    path = saved(made(), tmp_path / "mine.onnx")
    with pytest.raises(ExportError, match=message) as caught:
        adopted(Asked(path))
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.onnx", None, "no such file"),
        ("text.onnx", b"PK\3\4 an archive", r"not an ONNX file that can be read \(DecodeError"),
        ("empty.onnx", b"", "not an ONNX file that can be read"),
        ("model.h5", b"x", r"expected an \.onnx, .*ends in \.h5; Keras: model\.export"),
        ("module.pth", b"x", "not a state dict that can be read: a pickled module"),
        ("weights.safetensors", b"\xff" * 16, "expected a .safetensors file"),
        ("program.pt2", b"x", "not a .pt2 file that can be read"),
        ("served.mar", b"x", "not a TorchServe archive that can be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ExportError, match=message) as caught:
        adopted(Asked(tmp_path / name))
    assert str(caught.value).startswith(str(tmp_path / name))


# torch's files


class Small(nn.Module):
    """The linear classifier as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, CLASSES, 8, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.from_numpy(owners.W.T.reshape(CLASSES, *SHAPE)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.first(x - 0.5).flatten(1)
        return logits


class Branching(Small):
    """Another function for one image than for several."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + (1.0 if x.shape[0] == 1 else torch.arange(4.0))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_a_torchscript_file_says_nothing_of_its_images(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    torch.jit.trace(Small().eval(), torch.zeros(1, *SHAPE)).save(str(path))
    found = adopted(Asked(path, size=(8, 8)))
    np.testing.assert_allclose(served(found, tmp_path / "runs", images(5)), right(images(5)), atol=2e-6)
    with pytest.raises(
        ExportError, match=r"a TorchScript file says nothing of its images, and it takes .*say what it was"
    ):
        adopted(Asked(path))
    with pytest.raises(ExportError, match="--size: it does not take 4 x 4"):
        adopted(Asked(path, size=(4, 4)))


@pytest.mark.parametrize("free", [False, True])
def test_an_exported_program_is_adopted(free: bool, tmp_path: Path) -> None:
    shapes = {"dynamic_shapes": ({0: torch.export.Dim("rows", min=1)},)} if free else {}
    program_ = torch.export.export(Small().eval(), (torch.zeros(2, *SHAPE),), **shapes)
    torch.export.save(program_, tmp_path / "mine.pt2")
    found = adopted(Asked(tmp_path / "mine.pt2"))
    np.testing.assert_allclose(served(found, tmp_path / "runs", images(5)), right(images(5)), atol=2e-6)


def test_an_export_that_kept_one_branch_is_found() -> None:
    assert sources.exported(Small().eval(), SHAPE).graph.node
    with pytest.raises(ExportError, match=r"for 1 images: the exporter kept one b|cannot be exported to ONNX"):
        sources.exported(Branching().eval(), SHAPE)


def state(folder: Path, name: str = "timm:test_resnet", classes: int = 3) -> tuple[Path, nn.Module]:
    torch.manual_seed(0)
    network = published(name, classes=classes, channels=3, size=32).eval()
    path = folder / "weights.pth"
    torch.save(network.state_dict(), path)
    return path, network


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_become_a_checkpoint(wrapped: bool, tmp_path: Path) -> None:
    path, network = state(tmp_path)
    if wrapped:
        held = {"epoch": 3, "state_dict": {f"module.{name}": each for name, each in network.state_dict().items()}}
        torch.save(held, path)
    asked = Asked(
        path, architecture="timm:test_resnet", size=(32, 32), fields={"mean": (0.2,), "std": (0.5,), "scale": 2.0}
    )
    found = adopted(asked)
    assert found.victim(tmp_path / "runs").name == "victim.safetensors"
    given = torch.rand(3, 3, 32, 32)
    with torch.inference_mode():
        expected = network((given * 2 - 0.2) / 0.5).softmax(1)
        torch.testing.assert_close(black_box("victim", tmp_path / "runs").answer(given), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [("timm:test_resnet", 1, 32), ("timm:mobilenetv3_small_050", 3, 32), ("torchvision:squeezenet1_1", 3, 64)],
)
def test_the_order_of_the_weights_in_a_file_says_nothing(name: str, channels: int, size: int, tmp_path: Path) -> None:
    """safetensors sorts by type and name: neither the first convolution is first nor the head last."""
    network = published(name, classes=5, channels=channels, size=size)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    found = sources.opened(tmp_path / "weights.safetensors", architecture=name, size=(size, size))
    assert (found.classes, found.channels) == (5, channels)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path, _ = state(tmp_path)
    with pytest.raises(ExportError, match="a state dict says nothing of its network; give --architecture timm:NAME"):
        adopted(Asked(path))
    with pytest.raises(ExportError, match=r"its tensors are not those of timm:resnet10t: missing .*; not of it"):
        adopted(Asked(path, architecture="timm:resnet10t", size=(32, 32)))
    with pytest.raises(ExportError, match="timm has no network 'resnet1O'"):
        adopted(Asked(path, architecture="timm:resnet1O", size=(32, 32)))
    with pytest.raises(ExportError, match="--architecture: expected timm:NAME or torchvision:NAME, got 'resnet18'"):
        adopted(Asked(path, architecture="resnet18"))


def test_no_pickled_module_is_opened(tmp_path: Path) -> None:
    torch.save(Small(), tmp_path / "whole.pth")
    with pytest.raises(
        ExportError, match=r"a pickled module or optimiser would run code .* save model\.state_dict\(\)"
    ):
        adopted(Asked(tmp_path / "whole.pth", architecture="timm:test_resnet"))


def test_an_archive_of_torchserve_brings_its_names(tmp_path: Path) -> None:
    names = {str(number): [f"n{number}", name] for number, name in enumerate(("cat", "dog", "bird", "fish"))}
    with zipfile.ZipFile(tmp_path / "served.mar", "w") as packed:
        packed.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"serializedFile": "mine.onnx"}}))
        packed.writestr("mine.onnx", owners.logits().SerializeToString())
        packed.writestr("index_to_name.json", json.dumps(names))
        packed.writestr("handler.py", "raise SystemExit('run')")
    found = adopted(Asked(tmp_path / "served.mar"))
    assert found.model.classes == ("cat", "dog", "bird", "fish")
    np.testing.assert_allclose(served(found, tmp_path / "runs", images(5)), right(images(5)), atol=2e-6)


# preprocessing


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in the folder of the class that the classifier finds in values less 0.485... by 0.229..."""
    folder = tmp_path_factory.mktemp("photographs")
    for number, given in enumerate(images(160, seed=9)):
        label = int(right(imagenet(given[None])).argmax())
        picture = Image.fromarray((given.transpose(1, 2, 0) * 255).round().astype(np.uint8))
        (folder / "abcd"[label]).mkdir(exist_ok=True)
        picture.save(folder / "abcd"[label] / f"{number}.png")
    return folder


def imagenet(given: np.ndarray) -> np.ndarray:
    mean, std = (
        np.array(each, np.float32).reshape(1, 3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    shown: np.ndarray = (given - mean) / std
    return shown


def expectations(folder: Path, path: Path) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            (f"{each.parent.name}/{each.name}", each.parent.name) for each in sorted(folder.glob("*/*"))
        )
    return path


def test_labelled_pictures_show_the_preprocessing(photographs: Path, tmp_path: Path) -> None:
    path = saved(owners.logits(), tmp_path / "mine.onnx")
    found = adopted(Asked(path, images=photographs))
    assert found.model.input.mean == (0.485, 0.456, 0.406)
    assert found.model.classes == ("a", "b", "c", "d")
    assert "accuracy" in found.model.proven
    assert "imagenet, crop" in found.shown.splitlines()[1]
    given = images(9)
    np.testing.assert_allclose(served(found, tmp_path, given), right(imagenet(given)), atol=2e-6)


def test_pictures_of_the_model_s_size_are_taken_as_they_are(photographs: Path, tmp_path: Path) -> None:
    """Unless the owner's own predictions can tell."""
    path, expect = saved(owners.logits(), tmp_path / "mine.onnx"), expectations(photographs, tmp_path / "expect.csv")
    found = adopted(Asked(path, images=photographs))
    assert (found.model.input.fit, found.model.input.resize) == ("crop", 0)
    assert "letterbox" not in found.shown
    assert "letterbox" in adopted(Asked(path, images=photographs, expect=expect)).shown
    larger = tmp_path / "larger"
    shutil.copytree(photographs, larger)
    first = next(larger.rglob("*.png"))
    Image.open(first).resize((16, 16)).save(first)
    assert "letterbox" in adopted(Asked(path, images=larger)).shown


def test_the_owner_s_own_predictions_decide(photographs: Path, tmp_path: Path) -> None:
    path, expect = saved(owners.logits(), tmp_path / "mine.onnx"), expectations(photographs, tmp_path / "expect.csv")
    with pytest.raises(ExportError, match=r"it agrees with the owner's own predictions on .*expected 99%"):
        adopted(Asked(path, images=photographs, expect=expect, preset="unit"))
    found = adopted(Asked(path, images=photographs, expect=expect, preset="imagenet", fields={"resize": 0}))
    assert "100.0% of labels are the owner's own" in found.model.proven
    remade(found.model, photographs)
    wrong = Path(found.model.expect).read_text().replace(",a", ",x").replace(",b", ",a").replace(",x", ",b")
    Path(found.model.expect).write_text(wrong)
    with pytest.raises(ExportError, match="it agrees with the owner's own predictions on"):
        remade(found.model, photographs)


def test_normalisation_that_was_left_outside_is_found(photographs: Path, tmp_path: Path) -> None:
    """Softmax inside, mean and deviation in the client: once accepted without a word, and served wrong."""
    found = adopted(Asked(saved(owners.probabilities(), tmp_path / "mine.onnx"), images=photographs))
    assert found.model.input.std == (0.229, 0.224, 0.225)


def test_near_chance_is_an_error_that_shows_the_table(photographs: Path, tmp_path: Path) -> None:
    path = saved(owners.logits(), tmp_path / "mine.onnx")
    (tmp_path / "classes.txt").write_text("d\nc\nb\na\n")
    with pytest.raises(ExportError, match=r"is near chance .*give --classes FILE.*\n  preprocessing .*\n  \w+, "):
        adopted(Asked(path, images=photographs, classes=("d", "c", "b", "a")))
    with pytest.raises(ExportError, match="--classes: expected 4 names, one a column, got 2: cat, dog"):
        adopted(Asked(path, images=photographs, classes=("cat", "dog")))
    with pytest.raises(ExportError, match="--classes: no class 'a', which is a folder of images; known: w, x, y, z"):
        adopted(Asked(path, images=photographs, classes=("w", "x", "y", "z")))


def test_a_number_of_classes_that_the_folders_do_not_have(photographs: Path, tmp_path: Path) -> None:
    path = saved(owners.column(False), tmp_path / "mine.onnx")
    with pytest.raises(ExportError, match=r"mine\.onnx: 2 classes, but .* has 4: a, b, c, d; give --classes FILE"):
        adopted(Asked(path, images=photographs))


# the program


def test_the_program_writes_a_recipe_that_can_be_read_and_made_again(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(owners.logits(), tmp_path / "mine.onnx")
    words = [
        str(path),
        "--images",
        str(photographs),
        "--name",
        "own",
        "--recipes",
        str(tmp_path),
        "--runs",
        str(tmp_path / "runs"),
    ]
    program.main(words)
    out, err = capsys.readouterr()
    assert out.strip() == str(tmp_path / "own.toml")
    assert "accuracy" in err
    recipe = recipes.read(tmp_path / "own.toml")
    assert recipe.tables["dataset"]["classes"] == ["a", "b", "c", "d"]
    assert recipe.architecture == "mine.onnx"
    assert "$(runs)/victim.onnx" in rules(recipe)
    first = (tmp_path / "runs/own/victim.onnx").read_bytes()
    program.main(["--recipe", str(tmp_path / "own.toml"), "--runs", str(tmp_path / "runs")])
    assert (tmp_path / "runs/own/victim.onnx").read_bytes() == first
    (tmp_path / "own.toml").write_text((tmp_path / "own.toml").read_text() + "# mine\n")
    with pytest.raises(SystemExit, match=r"own\.toml: there is such a recipe, with other content; remove it, or give"):
        program.main(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--name", "My Model"], "--name: expected lower-case letters, digits, - and _, got 'My Model'"),
        (["--preset", "imagnet"], "--preset: expected one of unit, imagenet, half, bytes, caffe, timm:NAME"),
        (["--preset", "keras:vgg17"], "--preset: expected keras: and one of .*vgg16, vgg19.*, got 'vgg17'"),
        (["--preset", "nowhere.json"], "--preset: nowhere.json: not a preprocessor_config.json that can be read"),
        (["--layout", "NHW"], "--layout: expected NCHW or NHWC for its 4 dimensions, got NHW"),
        (["--size", "9"], "--size: expected what it takes, 8 x 8, got 9 x 9"),
        (["--images", "nowhere"], "nowhere: no such folder"),
        (["--expect", "nowhere.csv"], "--expect: nowhere.csv: No such file"),
        (["--classes", "nowhere.txt"], "--classes: nowhere.txt: not a text file that can be read"),
        (["--gives", "logit"], r"expected two, 'logit' is of the second of two, got 4|ONNX Runtime cannot run it"),
    ],
)
def test_a_mistake_of_the_owner_s_is_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    path = saved(owners.logits(), tmp_path / "mine.onnx")
    with pytest.raises(SystemExit, match=message):
        program.main([str(path), "--recipes", str(tmp_path), "--runs", str(tmp_path / "runs"), *words])
    assert not (tmp_path / "runs").exists()
    assert not list(tmp_path.glob("*.toml"))


def test_a_preset_of_transformers_is_read(tmp_path: Path) -> None:
    from export.adopt.presets import preset

    config = {
        "do_resize": True,
        "size": {"shortest_edge": 256},
        "do_center_crop": True,
        "crop_size": 224,
        "resample": 3,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_flip_channel_order": True,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    found = preset(str(tmp_path / "preprocessor_config.json"), ModelInput(224))
    assert found == ModelInput(224, resize=256, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3, colour="BGR")


@pytest.mark.parametrize(
    ("name", "pixel", "expected"),
    [
        ("keras:vgg16", (0.2, 0.4, 0.6), (0.6 * 255 - 103.939, 0.4 * 255 - 116.779, 0.2 * 255 - 123.68)),
        ("keras:mobilenet_v2", (0.2, 0.4, 0.6), (-0.6, -0.2, 0.2)),
        ("keras:efficientnet", (0.2, 0.4, 0.6), (51, 102, 153)),
        ("keras:densenet121", (0.2, 0.4, 0.6), ((0.2 - 0.485) / 0.229, (0.4 - 0.456) / 0.224, (0.6 - 0.406) / 0.225)),
        ("caffe", (0.2, 0.4, 0.6), (0.6 * 255 - 103.939, 0.4 * 255 - 116.779, 0.2 * 255 - 123.68)),
    ],
)
def test_a_preset_is_its_library_s_arithmetic(name: str, pixel: tuple[float, ...], expected: tuple[float, ...]) -> None:
    """keras.applications' imagenet_utils.preprocess_input of one pixel, by its formulas."""
    from export.adopt.presets import preset

    model_ = preset(name, ModelInput(8))
    ordered = np.array(pixel[::-1] if model_.colour == "BGR" else pixel)
    np.testing.assert_allclose(ordered * model_.slopes() + model_.offsets(), expected, rtol=1e-6)


def test_the_graph_says_where_it_is_from(tmp_path: Path) -> None:
    found = adopted(Asked(saved(owners.logits(), tmp_path / "mine.onnx")))
    path = found.victim(tmp_path / "runs")
    facts = json.loads({each.key: each.value for each in onnx.load(path).metadata_props}["facts"])
    assert facts["adopted"]["file"] == "mine.onnx"
    assert str(tmp_path) not in json.dumps(facts)
    assert on_onnxruntime(path)(images(3))["probabilities"].shape == (3, CLASSES)
    assert [each.name for each in path.parent.iterdir()] == ["victim.onnx"]
