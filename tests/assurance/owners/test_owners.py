"""Owners' forms, small, by what measures them: real files, `export.adopt`, a real server, and the rows kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from assurance.owners import __main__ as measured
from assurance.owners import packages, timm_forms
from assurance.owners.brought import Brought, Form
from report.schema import read
from tests.export.adopt import owners

NAMES = ("a", "b", "c", "d")
PICTURES = 120
BESIDE = "its answers to an image depend on the images beside it"


def beside() -> onnx.ModelProto:
    """Logits less those of the whole batch."""
    nodes = [
        *owners.linear(),
        owners.node("ReduceMean", "logits", "mean", axes=[0], keepdims=1),
        helper.make_node("Sub", ["logits", "mean"], ["rest"]),
    ]
    return owners.model(nodes, ["n", *owners.SHAPE], [owners.value("rest", ["n", owners.CLASSES])])


def bring(folder: Path, *, made: Callable[[], onnx.ModelProto], wrong: int = 0) -> Brought:
    """A model, pictures of just its size, and the owner's labels, the first few of which it does not give."""
    given = owners.images(PICTURES)
    labels = owners.right(given).argmax(1)
    labels[:wrong] = (labels[:wrong] + 1) % len(NAMES)
    pictures = folder / "pictures"
    pictures.mkdir()
    expected = {}
    for row, (image, label) in enumerate(zip(given, labels, strict=True)):
        path = pictures / f"{row:03d}.png"
        Image.fromarray(np.rint(255 * image.transpose(1, 2, 0)).astype(np.uint8)).save(path)
        expected[path] = NAMES[label]
    return Brought(owners.saved(made(), folder / "mine.onnx"), ("--preset", "unit"), pictures, expected, NAMES)


SERVED = Form("Linear: served", "made here 1", partial(bring, made=owners.probabilities, wrong=1))
REFUSED = Form("Linear: refused", "made here 1", partial(bring, made=beside), BESIDE)


@pytest.mark.server
def test_a_form_is_served_and_held_against_its_owners_labels_and_a_refusal_is_kept_in_its_words(tmp_path: Path) -> None:
    output = tmp_path / "owners.json"
    measured.together([REFUSED, SERVED], tmp_path / "first", output)
    rows = {row.form: row for row in read(output).owners}
    served, refused = rows[SERVED.name], rows[REFUSED.name]
    assert (served.adopted, served.said, served.pictures, served.labels) == (True, "", PICTURES, len(NAMES))
    assert served.agreement == (PICTURES - 1) / PICTURES, "all but the one that the owner names otherwise"
    assert served.seconds > 0
    assert (refused.adopted, refused.pictures, refused.labels, refused.agreement) == (False, 0, 0, 0)
    assert BESIDE in refused.said
    assert "mine.onnx" in refused.said
    assert str(tmp_path) not in refused.said
    again = dataclasses.replace(REFUSED, source="made here 2")
    measured.together([again], tmp_path / "second", output)
    rows = {row.form: row for row in read(output).owners}
    assert rows[SERVED.name] == served, "a row replaces its like alone"
    assert rows[REFUSED.name].source == "made here 2"
    assert len(read(output).owners) == 2


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (dataclasses.replace(REFUSED, refused=""), rf"Linear: refused: export\.adopt ended with 1: .*{BESIDE}"),
        (dataclasses.replace(REFUSED, refused="of another kind"), rf"export\.adopt ended with 1: .*{BESIDE}"),
        (dataclasses.replace(SERVED, refused=BESIDE), r"Linear: served: export\.adopt ended with 0: "),
    ],
    ids=["refused", "refused otherwise", "adopted"],
)
def test_what_ends_otherwise_than_its_form_says_is_an_error_and_no_row(form: Form, words: str, tmp_path: Path) -> None:
    with pytest.raises(measured.ProgramError, match=f"(?s){words}"):
        measured.together([form], tmp_path / "work", tmp_path / "owners.json")
    assert not (tmp_path / "owners.json").exists()


def test_a_form_that_there_is_not_is_named_with_those_that_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["owners", "--only", "docorient", "resnet19"])
    with pytest.raises(SystemExit) as ended:
        measured.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "argument --only: invalid choice: 'resnet19'" in said
    assert "'docorient'" in said
    assert "'resnet18: state dict'" in said
    assert not list(tmp_path.iterdir()), "before anything is brought"


def test_every_form_has_a_name_and_a_folder_of_its_own() -> None:
    forms = [*packages.forms(), *timm_forms.forms()]
    assert len({form.name for form in forms}) == len(forms)
    assert len({measured.slug(form.name) for form in forms}) == len(forms)
    assert measured.slug("resnet18: ONNX bytes, channels last") == "resnet18-onnx-bytes-channels-last"


def test_what_an_owner_says_is_in_the_files_that_its_options_name(tmp_path: Path) -> None:
    brought = bring(tmp_path, made=owners.logits)
    words = brought.told(tmp_path)
    assert words[0] == str(tmp_path / "mine.onnx")
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options["--images"] == str(brought.images)
    assert Path(options["--classes"]).read_text() == "a\nb\nc\nd\n"
    lines = Path(options["--expect"]).read_text().splitlines()
    assert lines == [f"{path.name},{label}" for path, label in brought.expected.items()]
