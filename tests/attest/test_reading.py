from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from attest.target.reading import Reader, Unread
from attest.target.table import SENDS, Target
from deploy.grpc_front.messages import message
from tests.attest.service import table

CLASSES = ("cat", "dog", "eel")


def reader(**changes: Any) -> Reader:
    send = changes.pop("send", "json")
    url = "grpc://127.0.0.1:1/m" if SENDS[send].grpc else "http://127.0.0.1:1/x"
    more = {"format": "float32", "field": "instances[]", "classes": CLASSES, "rows": 4, "size": (8, 8)}
    return Reader(Target(**{**table(url, send=send), **more, **changes}).whole())


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        ("scores", {"scores": [[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]]}),
        ("rows[].p", {"rows": [{"p": [0.1, 0.7, 0.2]}, {"p": [0.5, 0.2, 0.3]}]}),
        # the Open Inference Protocol's one list
        ("outputs[0].data", {"outputs": [{"data": [0.1, 0.7, 0.2, 0.5, 0.2, 0.3]}]}),
    ],
)
def test_numbers_of_all_rows(answer: str, content: object) -> None:
    read = reader(answer=answer).read(json.dumps(content).encode(), 2)
    assert read.labels.tolist() == [1, 0]
    np.testing.assert_allclose(read.probabilities, [[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]], rtol=1e-6)


def test_logits_become_probabilities() -> None:
    read = reader(answer="z", scale="logits").read(b'{"z": [0, 1.0986123, -1000]}', 1)
    assert read.probabilities is not None
    np.testing.assert_allclose(read.probabilities, [[0.25, 0.75, 0]], atol=1e-6)


@pytest.mark.parametrize(
    ("answer", "names", "content"),
    [
        ("@", "", [{"dog": 0.7, "eel": 0.2}, {"cat": 0.5}]),
        ("[].p", "[].n", [{"n": ["dog", "eel"], "p": [0.7, 0.2]}, {"n": ["cat"], "p": [0.5]}]),
    ],
)
def test_the_best_few_by_name(answer: str, names: str, content: object) -> None:
    read = reader(answer=answer, names=names, scale="top-k").read(json.dumps(content).encode(), 2)
    assert read.labels.tolist() == [1, 0]
    np.testing.assert_allclose(read.probabilities, [[0, 0.7, 0.2], [0.5, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize("body", [b'{"label": ["dog", "cat"]}', b'{"label": [1, 0]}'])
def test_labels_by_name_or_position(body: bytes) -> None:
    read = reader(answer="label", scale="label").read(body, 2)
    assert read.labels.tolist() == [1, 0]
    assert read.probabilities is None


def test_a_bare_word_is_a_label() -> None:
    assert reader(answer="@", scale="label").read(b"dog\n", 1).labels.tolist() == [1]


def test_the_service_s_offence_is_seen() -> None:
    flagging = reader(answer="p", flag="warning")
    assert flagging.read(b'{"p": [1, 0, 0], "warning": "odd"}', 1).flagged.all()
    assert not flagging.read(b'{"p": [1, 0, 0]}', 1).flagged.any()


@pytest.mark.parametrize("raw", [True, False])
def test_tensors_over_grpc(raw: bool) -> None:
    answered = message("ModelInferResponse")()
    tensor = answered.outputs.add(name="probabilities", datatype="FP32", shape=[1, 3])
    if raw:
        answered.raw_output_contents.append(np.float32([0.1, 0.7, 0.2]).tobytes())
    else:
        tensor.contents.fp32_contents.extend([0.1, 0.7, 0.2])
    read = reader(send="kserve-v2-grpc", answer="outputs[?name=='probabilities'].data[]").read(
        answered.SerializeToString(), 1
    )
    assert read.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("changes", "body", "said"),
    [
        ({"answer": "p"}, b"<html>", "expected JSON, got '<html>'"),
        ({"answer": "p"}, b'{"q": 1}', "nothing at 'p' in"),
        ({"answer": "p"}, b'{"p": [0.5, 0.5]}', "expected 1 x 3 numbers, got 2"),
        ({"answer": "p"}, b'{"p": [3, -1, 0]}', "expected probabilities from 0 to 1, got -1 to 3"),
        ({"answer": "p"}, b'{"p": ["a", "b", "c"]}', "could not convert string to float"),
        (
            {"answer": "p", "scale": "label"},
            b'{"p": 3}',
            "expected a class of the file, or a position below 3, got '3'",
        ),
        ({"answer": "p", "scale": "label"}, b'{"p": true}', "got 'True'"),
        ({"answer": "p", "scale": "top-k"}, b'{"p": [{"ant": 1.0}]}', "got 'ant'"),
        ({"answer": "p", "scale": "top-k"}, b'{"p": 0.5}', "expected 1 tables of numbers by name"),
    ],
)
def test_what_is_not_there_is_said(changes: dict[str, Any], body: bytes, said: str) -> None:
    with pytest.raises(Unread) as fault:
        reader(**changes).read(body, 1)
    assert said in str(fault.value)


def test_not_a_number_is_none() -> None:
    answered = message("ModelInferResponse")()
    answered.outputs.add(name="p", datatype="FP32", shape=[1, 3])
    answered.raw_output_contents.append(np.float32([np.nan, 1, 0]).tobytes())
    with pytest.raises(Unread, match="expected finite numbers"):
        reader(send="kserve-v2-grpc", answer="outputs[0].data").read(answered.SerializeToString(), 1)
