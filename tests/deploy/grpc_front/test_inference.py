"""What a call becomes is what the handler reads, and what the handler writes becomes the answer."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from grpc import StatusCode

from defenses.policy import Policy
from deploy.grpc_front import inference
from deploy.grpc_front.messages import message
from deploy.grpc_front.refusals import CODES, Refused, Reply, refusal
from handlers import errors, oip
from handlers.errors import RequestError, Undecodable
from handlers.forms import Answered, Classes
from handlers.rows import Rows
from tests.defenses.policies import section

POLICY = Policy.parse(section())
SHAPE = POLICY.input.shape
IMAGES = np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32)
LEVELS = np.random.default_rng(1).integers(0, 256, (2, *SHAPE)).astype(np.uint8)
FILES = [b"\x89PNG one", b"\xff\xd8two\x00"]
PACKED = b"".join(struct.pack("<I", len(each)) + each for each in FILES)


def request(name: str, datatype: str, shape: tuple[int, ...], raw: bytes | None = None, **contents: Any) -> Any:
    """A call with one input."""
    made = message("ModelInferRequest")(model_name="m", id="seven")
    given = made.inputs.add(name=name, datatype=datatype, shape=shape)
    if raw is None:
        given.contents.MergeFrom(message("InferTensorContents")(**contents))
    else:
        made.raw_input_contents.append(raw)
    return made


def read(call: Any) -> oip.Asked:
    """What the handler makes of the body."""
    asked = inference.asked(call)
    return oip.read(asked.body, {oip.LENGTH.lower(): str(asked.text)}, oip.Inference("m"), POLICY)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (request("images", "FP32", IMAGES.shape, IMAGES.tobytes()), IMAGES),
        (request("images", "FP32", IMAGES.shape, fp32_contents=IMAGES.ravel().tolist()), IMAGES),
        (request("images", "UINT8", LEVELS.shape, LEVELS.tobytes()), LEVELS / np.float32(255)),
        (request("images", "UINT8", LEVELS.shape, uint_contents=LEVELS.ravel().tolist()), LEVELS / np.float32(255)),
    ],
)
def test_tensors_reach_the_handler_raw_or_as_contents(call: Any, expected: np.ndarray) -> None:
    rows = read(call).rows
    assert isinstance(rows, Rows)
    np.testing.assert_array_equal(rows.images, expected)


@pytest.mark.parametrize(
    "call",
    [request("image", "BYTES", (2,), PACKED), request("image", "BYTES", (2,), bytes_contents=FILES)],
)
def test_pictures_reach_the_handler_as_they_are(call: Any) -> None:
    found = read(call)
    assert found.rows == FILES
    assert found.form.id == "seven"
    assert found.form.binary


def test_outputs_that_are_asked_for_are_binary_and_keep_their_parameters() -> None:
    call = request("image", "BYTES", (2,), PACKED)
    call.outputs.add(name="label")
    assert read(call).form.outputs == (("label", True),)
    call.outputs[0].parameters["classification"].int64_param = 3
    with pytest.raises(Undecodable, match="no classification"):
        read(call)


@pytest.mark.parametrize(
    ("call", "message_"),
    [
        (request("images", "INT32", (1, *SHAPE), int_contents=[1]), "FP32, UINT8 or BYTES"),
        (request("images", "FP32", (1, *SHAPE), fp32_contents=[1.0]), "80 bytes of FP32, got 4"),
        (message("ModelInferRequest")(model_name="m"), "one input"),
    ],
)
def test_what_no_model_takes_the_handler_refuses(call: Any, message_: str) -> None:
    with pytest.raises(RequestError, match=message_):
        read(call)


def test_what_cannot_be_written_is_refused_at_once() -> None:
    both = request("images", "FP32", (1, *SHAPE), fp32_contents=[1.0])
    both.raw_input_contents.append(b"1234")
    lacking = request("image", "BYTES", (2,), PACKED)
    lacking.raw_input_contents.append(b"another")
    for call in (both, lacking, request("images", "UINT8", (1, *SHAPE), uint_contents=[256])):
        with pytest.raises(Refused, match="expected") as refused:
            inference.asked(call)
        assert refused.value.code == StatusCode.INVALID_ARGUMENT


def reply(encoded: Any) -> Reply:
    return Reply(encoded.status, encoded.headers, encoded.body)


def test_an_answer_has_the_handlers_tensors() -> None:
    probabilities = np.array([[0.25, 0.5, 0.25], [0.125, 0.125, 0.75]], np.float32)
    answered = Answered(np.array([1, 2]), probabilities)
    form = oip.Inference("m", id="seven", binary=True)
    answer = inference.answer(reply(form.answers(answered, Classes(("cat", "dog", "emu")))))
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "1.0", "seven")
    facts = [(each.name, each.datatype, list(each.shape)) for each in answer.outputs]
    assert facts == [("probabilities", "FP32", [2, 3]), ("label", "INT64", [2]), ("name", "BYTES", [2])]
    raw = answer.raw_output_contents
    assert raw[0] == probabilities.tobytes()
    assert raw[1] == struct.pack("<2q", 1, 2)
    assert raw[2] == b"\x03\x00\x00\x00dog\x03\x00\x00\x00emu"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b'{"predictions": []}'),
        ({inference.LENGTH: "x"}, b"{}"),
        ({inference.LENGTH: "2"}, b"{}"),
        ({inference.LENGTH: "51"}, b'{"model_name":"m","model_version":"1","outputs":[]}more'),
    ],
)
def test_an_answer_of_another_protocol_is_an_error_of_ours(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(Refused, match="none of the Open Inference Protocol") as refused:
        inference.answer(Reply(200, headers, body))
    assert refused.value.code == StatusCode.INTERNAL


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.WrongShape("m"), StatusCode.INVALID_ARGUMENT),
        (errors.Rejected("m"), StatusCode.PERMISSION_DENIED),
        (errors.SpentSolution("m"), StatusCode.PERMISSION_DENIED),
        (errors.TooManyRows("m"), StatusCode.OUT_OF_RANGE),
        (errors.UnsupportedContent("m"), StatusCode.INVALID_ARGUMENT),
        (errors.Internal("m"), StatusCode.INTERNAL),
        (errors.StageFailed("m"), StatusCode.UNAVAILABLE),
    ],
)
def test_the_handlers_errors_have_their_codes_and_its_words(error: RequestError, code: StatusCode) -> None:
    refused = refusal(reply(oip.Inference("m").error(error)))
    assert (refused.code, refused.message) == (code, f"m ({error.code})")
    assert refused.metadata == ()


def test_every_status_of_the_handler_has_a_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RequestError)]
    statuses = {kind.status for kind in kinds if hasattr(kind, "status")}
    assert len(statuses) >= 7
    assert statuses <= set(CODES)


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (
            429,
            b'{"error": {"code": "busy", "message": "try later", "row": null}}',
            "RESOURCE_EXHAUSTED",
            "try later (busy)",
        ),
        (400, b'{"code": 400, "type": "InvalidKeyException", "message": "Token"}', "UNAUTHENTICATED", "Token"),
        (
            404,
            b'{"code": 404, "type": "ModelNotFoundException", "message": "x"}',
            "NOT_FOUND",
            "no such model is served",
        ),
        (503, b"", "UNAVAILABLE", "expected an answer, got status 503"),
        (418, b"[]", "UNKNOWN", "expected an answer, got status 418"),
        (500, b'{"error": []}', "INTERNAL", "expected an answer, got status 500"),
    ],
)
def test_others_errors_have_theirs(status: int, body: bytes, code: str, words: str) -> None:
    refused = refusal(Reply(status, {}, body))
    assert (refused.code.name, refused.message) == (code, words)


def test_what_a_client_needs_to_go_on_follows_the_status() -> None:
    headers = {"retry-after": "7", "torchwarden-challenge": "abc=", "server": "x"}
    refused = refusal(Reply(428, headers, b'{"error": "pay"}'))
    assert refused.code == StatusCode.FAILED_PRECONDITION
    assert dict(refused.metadata) == {"retry-after": "7", "torchwarden-challenge": "abc="}
