"""What is compared of servers: golden answers, rounds that go on, and one server for moments."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from attest.examples import servers
from attest.examples.servers import PeerError
from bench.overhttp import Serving
from bench.peers import command, table, unit
from bench.peers.command import Kept
from bench.peers.table import Dialect, Entry, Floats, Model, Running
from bench.peers.unit import Effort, Golden, Sample
from handlers import oip, wire
from loadtests.target import Target
from report.rows.peers import FLOAT32, INT8

MOMENTS = Effort(warm_s=0.2, single_s=0.2, many_s=0.2)
SAMPLE = Sample(p50_ms=2.0, p99_ms=3.0, single_per_s=400.0, rows_per_s=900.0, memory_mb=200.0, checked=40, apart=1e-7)


def classifier(folder: Path) -> Path:
    """images (N,1,4,4) -> probabilities (N,3)."""
    weights = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["rows", 1, 4, 4])
    probabilities = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", 3])
    graph = helper.make_graph(nodes, "g", [images], [probabilities], [numpy_helper.from_array(weights, "weights")])
    path = folder / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def pictures(count: int = 40) -> Floats:
    """Of whole levels, as a file has them."""
    levels = np.random.default_rng(1).integers(0, 256, size=(count, 1, 4, 4))
    return (levels / 255).astype(np.float32)


def model(folder: Path, file: str = FLOAT32) -> Model:
    return Model("tiny", file, classifier(folder), folder / "none.mar")


def test_golden_pictures_are_told_apart_by_their_answers(tmp_path: Path) -> None:
    candidates = np.repeat(pictures(), 2, axis=0)
    golden = unit.in_process(classifier(tmp_path), candidates)
    assert golden.pictures.shape == (32, 1, 4, 4)
    assert golden.answers.sum(1) == pytest.approx(np.ones(32), abs=1e-6)
    between = np.abs(golden.answers[:, None] - golden.answers[None]).max(2)[~np.eye(32, dtype=bool)]
    assert between.min() > unit.APART
    with pytest.raises(PeerError, match=r"expected 32 pictures .* of 40 found 1: a server that answers anything"):
        unit.in_process(classifier(tmp_path), np.repeat(pictures(1), 40, axis=0))


def running(read: str = "scores") -> Running:
    """One whose answers are judged and which nobody asks."""
    return Running(Target("", (), 0, token=""), [], table.named(read), psutil.Process())


def answer(probabilities: list[float]) -> bytes:
    return json.dumps({"scores": probabilities}).encode()


def test_answers_are_judged_by_the_file_s_own() -> None:
    golden = Golden(np.zeros((2, 1, 4, 4), np.float32), np.float32([[0.5, 0.5], [0.25, 0.75]]))
    right = [(0, answer([0.5, 0.5])), (1, answer([0.25005, 0.74995])), (0, answer([0.5, 0.5]))]
    count, apart = unit.judge(running(), golden, right)
    assert (count, apart) == (3, pytest.approx(5e-5, abs=1e-7))
    for wrong, message in (
        (answer([0.2502, 0.7498]), r"picture 1: expected probabilities within 0.0001 of .*0.25.*0.75.*, got .*0.2502"),
        (answer([0.5, 0.5]), "picture 1: expected probabilities"),
        (answer([0.25, 0.75, 0.0]), "picture 1: expected probabilities"),
        (answer([float("nan"), 0.75]), "picture 1: expected"),
        (b'{"error": "busy"}', "picture 1: expected 2 probabilities, got"),
        (b"", "picture 1: expected 2 probabilities, got"),
    ):
        with pytest.raises(PeerError, match=message):
            unit.judge(running(), golden, [*right, (1, wrong)])


def test_every_form_carries_the_same_pixels() -> None:
    picture = pictures(1)[0]
    levels = (picture * 255).round().astype(np.uint8)
    alone, _ = table.file_itself(picture)
    packed = base64.b64decode(json.loads(table.base64_in_json(picture)[0])["image"])
    assert alone == packed
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(alone))), levels[0])
    body, headers = table.tensor_of_bytes(picture)
    length = int(headers[oip.LENGTH])
    (tensor,) = json.loads(body[:length])["inputs"]
    assert (tensor["datatype"], tensor["shape"]) == ("UINT8", [1, 1, 4, 4])
    assert body[length:] == levels.tobytes()


def test_free_ports_lie_in_a_row() -> None:
    first = table.free_ports(3)
    with contextlib.ExitStack() as held:
        for port in range(first, first + 3):
            held.enter_context(socket.socket()).bind(("127.0.0.1", port))


def entry(name: str, started: list[str]) -> Entry:
    """A server that does not start, and says when it is asked to."""

    @contextlib.contextmanager
    def start(entry: Entry, model: Model, pictures: Floats) -> Iterator[Running]:
        started.append(f"{entry.name} {model.file}")
        raise PeerError("it ended; the last line of its log: no such option")
        yield

    return Entry(name, "1.0", "PNG", Serving(2, 1, 16, 2), "nothing", start)


def test_a_round_that_is_done_is_not_measured_again_and_a_failure_says_why(tmp_path: Path) -> None:
    started: list[str] = []
    golden = Golden(pictures(1), np.float32([[1, 0, 0]]))
    models = {model(tmp_path, file): golden for file in (FLOAT32, INT8)}
    entries = [entry("good", started), entry("bad", started)]
    kept = Kept(tmp_path / "rounds", {"commit": "one"})
    for each in models:
        for number in range(2):
            kept.add((entries[0], each), number, dataclasses.replace(SAMPLE, rows_per_s=900.0 + number))
    kept.add((entries[1], next(iter(models))), 0, SAMPLE)
    rows = command.in_rounds(entries, models, MOMENTS, rounds=2, kept=Kept(tmp_path / "rounds", {"commit": "one"}))
    # the first round of "bad float32" was kept, its second fails; "bad int8" fails in its first and is left alone
    assert started == ["bad int8", "bad float32"]
    assert [(row.server, row.file, row.rate_rounds) for row in rows] == [
        ("good", FLOAT32, (900.0, 901.0)),
        ("bad", FLOAT32, ()),
        ("good", INT8, (900.0, 901.0)),
        ("bad", INT8, ()),
    ]
    assert (rows[0].checked, rows[0].apart, rows[0].why) == (80, 1e-7, None)
    assert rows[1].why == rows[3].why == "it ended; the last line of its log: no such option"


def test_a_reason_names_no_folder_of_the_machine() -> None:
    said = "no file /root/.cache/one/digits.sock, 'http://127.0.0.1:80/a/b' and \"/tmp/x.onnx\""
    assert command.without_folders(said) == "no file digits.sock, 'http://127.0.0.1:80/a/b' and \"x.onnx\""


def test_rounds_of_another_state_are_forgotten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = (entry("good", []), model(tmp_path))
    Kept(tmp_path / "rounds", {"commit": "one"}).add(part, 0, SAMPLE)
    assert Kept(tmp_path / "rounds", {"commit": "one"}).read(part, 0) == SAMPLE
    assert capsys.readouterr().out == ""
    assert Kept(tmp_path / "rounds", {"commit": "two"}).read(part, 0) is None
    assert "measured by other code or settings; measured again" in capsys.readouterr().out


def test_a_server_that_ends_is_named_with_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "VENVS", tmp_path)
    monkeypatch.setattr(table, "ATTEMPTS", 1)
    start = table.theirs(servers.FASTAPI, Dialect("/predict", wire.PNG, table.file_itself, table.named("scores")))
    broken = dataclasses.replace(model(tmp_path), graph=tmp_path / "absent.onnx")
    served = Entry("FastAPI", "", "PNG", Serving(1, 1, 1, 0), "", start)
    with (
        pytest.raises(PeerError, match=r"it ended; the last line of its log: .*absent.onnx"),
        start(served, broken, pictures(1)),
    ):
        raise AssertionError("it has no model")


@pytest.mark.server
def test_fastapi_is_started_checked_timed_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "VENVS", tmp_path)
    monkeypatch.setattr(unit, "MANY", 4)
    monkeypatch.delenv("EXAMPLE_KEY", raising=False)
    start = table.theirs(servers.FASTAPI, Dialect("/predict", wire.PNG, table.file_itself, table.named("scores")))
    served = Entry("FastAPI", "", "PNG", Serving(2, 1, 1, 0), "", start)
    tiny = model(tmp_path)
    golden = unit.in_process(tiny.graph, pictures())
    sample = unit.measured(served, tiny, golden, MOMENTS)
    assert sample.checked > 32
    assert sample.apart <= 1e-6
    assert sample.p50_ms <= sample.p99_ms
    assert min(sample.single_per_s, sample.rows_per_s) > 0
    # two processes with ONNX Runtime
    assert sample.memory_mb > 40
    assert not [each for each in psutil.Process(os.getpid()).children() if "fastapi_server" in " ".join(each.cmdline())]
    with pytest.raises(PeerError, match="picture 0: expected probabilities within"):
        unit.measured(served, tiny, dataclasses.replace(golden, answers=golden.answers[::-1]), MOMENTS)
