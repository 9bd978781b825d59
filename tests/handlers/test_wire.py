"""Both sides of the wire: what a client encodes is what the handler decodes, and the other way round."""

from __future__ import annotations

import base64
import json
import tracemalloc
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from defenses.policy import Policy
from handlers import wire
from handlers.errors import (
    BadRequest,
    NoRows,
    NotFinite,
    OutOfRange,
    RequestError,
    TooManyRows,
    Undecodable,
    UnsupportedContent,
    WrongShape,
)
from handlers.forms import Classes
from tests.answers import encode_answers, encode_error
from tests.defenses.policies import FRESH, KEYED, routed, section
from tests.handlers.archives import gate

POLICY = Policy.parse(section())
CLASSES = Classes(("zero", "one", "two", "three"))
SHAPE = POLICY.input.shape
RGB = Policy.parse(section(input={"channels": 3, "height": 4, "width": 5}))


def batch(rows: int, policy: Policy = POLICY) -> np.ndarray:
    """8-bit pixels, which every content type carries exactly but JPEG."""
    drawn = np.random.default_rng(rows).integers(0, 256, (rows, *policy.input.shape))
    return (drawn / np.float32(255)).astype(np.float32)


@pytest.mark.parametrize("policy", [POLICY, RGB])
@pytest.mark.parametrize(("content_type", "rows"), [(wire.RAW, 5), (wire.JSON, 5), (wire.PNG, 1), (wire.RAW, 1)])
def test_what_a_client_encodes_is_decoded(policy: Policy, content_type: str, rows: int) -> None:
    images = batch(rows, policy)
    decoded = wire.decode(wire.encode_rows(images, content_type), content_type, expects=policy)
    assert decoded.images.dtype == np.float32
    assert decoded.errors == {}
    np.testing.assert_array_equal(decoded.images, images)


def test_a_jpeg_is_decoded_nearly() -> None:
    images = np.full((1, *SHAPE), 0.4, np.float32)
    decoded = wire.decode(wire.encode_rows(images, wire.JPEG), wire.JPEG, expects=POLICY)
    np.testing.assert_allclose(decoded.images, images, atol=2 / 255)


@given(images=arrays(np.float32, (2, *SHAPE), elements=st.floats(0, 1, width=32)))
def test_raw_and_json_carry_float32_exactly(images: np.ndarray) -> None:
    for content_type in (wire.RAW, wire.JSON):
        decoded = wire.decode(wire.encode_rows(images, content_type), content_type, expects=POLICY)
        np.testing.assert_array_equal(decoded.images, images)


def test_raw_rows_are_not_copied() -> None:
    body = bytearray(batch(3).tobytes())
    images = wire.decode(body, wire.RAW, expects=POLICY).images
    assert np.shares_memory(images, np.frombuffer(body, np.uint8))


@pytest.mark.parametrize("content_type", ["Application/Octet-Stream", " application/octet-stream ; charset=x"])
def test_content_types_are_compared_without_case_and_parameters(content_type: str) -> None:
    assert len(wire.decode(batch(2).tobytes(), content_type, expects=POLICY).images) == 2


@pytest.mark.parametrize("content_type", ["", "text/plain", "text/html", "multipart/form-data; boundary=x", ";"])
def test_a_body_that_is_none_of_them_is_refused_naming_what_is_accepted(content_type: str) -> None:
    accepted = "a picture, multipart/form-data of pictures, application/json or application/octet-stream"
    with pytest.raises(UnsupportedContent, match=f"expected {accepted}, got a body that is none$") as caught:
        wire.decode(b"x", content_type, expects=POLICY)
    assert (caught.value.status, caught.value.code) == (415, "unsupported_content_type")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b"", wire.RAW), (b"", wire.PNG), (b"", wire.JPEG), (b'{"instances": []}', wire.JSON)],
)
def test_no_rows_are_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(NoRows, match=r"expected .*, got (none|an empty body)") as caught:
        wire.decode(body, content_type, expects=POLICY)
    assert (caught.value.status, caught.value.code, caught.value.row) == (400, "no_rows", None)


@pytest.mark.parametrize("content_type", [wire.RAW, wire.JSON])
def test_too_many_rows_are_refused_and_the_most_allowed_are_not(content_type: str) -> None:
    assert len(wire.decode(wire.encode_rows(batch(16), content_type), content_type, expects=POLICY).images) == 16
    with pytest.raises(TooManyRows, match="expected at most 16 rows, got 17") as caught:
        wire.decode(wire.encode_rows(batch(17), content_type), content_type, expects=POLICY)
    assert (caught.value.status, caught.value.code) == (413, "too_many_rows")


def test_a_length_that_is_no_number_of_rows_is_refused() -> None:
    with pytest.raises(WrongShape, match=r"expected a multiple of 80 bytes, float32 1 x 4 x 5 a row, got 81"):
        wire.decode(bytes(81), wire.RAW, expects=POLICY)


BAD_VALUES = {
    float("nan"): (NotFinite, "expected finite values, got NaN or infinity"),
    float("inf"): (NotFinite, "expected finite values"),
    float("-inf"): (NotFinite, "expected finite values"),
    1.5: (OutOfRange, r"expected values in \[0, 1\], got .* to 1.5"),
    -0.25: (OutOfRange, r"expected values in \[0, 1\], got -0.25 to"),
}


@pytest.mark.parametrize("value", BAD_VALUES)
def test_a_raw_row_with_a_bad_value_answers_for_itself(value: float) -> None:
    images = batch(5)
    images[[1, 4], 0, 2, 3] = value
    decoded = wire.decode(images.tobytes(), wire.RAW, expects=POLICY)
    kind, message = BAD_VALUES[value]
    assert list(decoded.errors) == [1, 4]
    assert decoded.places == [0, 2, 3]
    np.testing.assert_array_equal(decoded.images, images[[0, 2, 3]])
    for row, error in decoded.errors.items():
        assert (type(error), error.row) == (kind, row)
        with pytest.raises(kind, match=message):
            raise error


def test_a_minus_zero_is_the_zero_it_equals() -> None:
    images = batch(3)
    images[:, 0, 0] = 0
    signed = images.copy()
    signed[1, 0, 0] = -0.0
    for content_type in (wire.RAW, wire.JSON):
        plain = wire.decode(wire.encode_rows(images, content_type), content_type, expects=POLICY)
        decoded = wire.decode(wire.encode_rows(signed, content_type), content_type, expects=POLICY)
        assert decoded.errors == {}
        assert decoded.images.tobytes() == plain.images.tobytes()
        assert decoded.digest == plain.digest


def test_the_smallest_and_the_largest_numbers_are_taken_as_they_are() -> None:
    images = batch(1)
    images.flat[:4] = [1.0, np.nextafter(np.float32(1), np.float32(0)), 1e-45, 0.0]
    np.testing.assert_array_equal(wire.decode(images.tobytes(), wire.RAW, expects=POLICY).images, images)
    images.flat[0] = np.nextafter(np.float32(1), np.float32(2))
    fault = wire.decode(images.tobytes(), wire.RAW, expects=POLICY).errors[0]
    assert (fault.code, fault.message) == ("out_of_range", "expected values in [0, 1], got 0.0 to 1.0000001")


def test_a_signalling_nan_is_a_nan() -> None:
    body = bytearray(batch(2).tobytes())
    body[80:84] = (0x7FA00000).to_bytes(4, "little")
    decoded = wire.decode(body, wire.RAW, expects=POLICY)
    assert {row: error.code for row, error in decoded.errors.items()} == {1: "not_finite"}


def png(image: np.ndarray) -> str:
    return base64.b64encode(wire.encode_rows(image[np.newaxis], wire.PNG)).decode()


def test_json_rows_of_every_kind_stand_side_by_side() -> None:
    images = batch(3)
    ones = np.ones(SHAPE, int)
    instances = [images[0].tolist(), images[1][0].tolist(), {"b64": png(images[2])}, ones.tolist()]
    decoded = wire.decode(json.dumps({"instances": instances}).encode(), wire.JSON, expects=POLICY)
    assert decoded.errors == {}
    np.testing.assert_array_equal(decoded.images, [*images, ones])


def test_a_long_text_among_numbers_takes_no_room_at_every_place() -> None:
    row: list[Any] = ["a" * 1_000_000, *[0] * 500]
    tracemalloc.start()
    try:
        decoded = wire.decode(orjson.dumps({"instances": [row, [[0.5] * 5] * 4]}), wire.JSON, expects=POLICY)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoded.errors[0].code == "wrong_shape"
    assert decoded.places == [1]
    assert peak < 200_000_000  # two gigabytes, were there room


def test_far_more_values_than_rows_may_have_are_refused_before_they_are_read() -> None:
    body = b'{"instances":[' + b"[]," * 1_000_000 + b"[]]}"
    tracemalloc.start()
    try:
        with pytest.raises(TooManyRows, match="expected at most 16 rows, got more values than such rows have"):
            wire.decode(body, wire.JSON, expects=POLICY)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(body)
    texts = json.dumps({"instances": [{"b64": "," * 2000}]}).encode()
    with pytest.raises(TooManyRows):
        wire.decode(texts, wire.JSON, expects=POLICY)


def test_flat_rows_are_for_gray_alone() -> None:
    body = json.dumps({"instances": [batch(1)[0][0].tolist()]}).encode()
    error = wire.decode(body, wire.JSON, expects=RGB).errors[0]
    assert (error.code, error.message) == ("wrong_shape", "expected 3 x 4 x 5 numbers, got 4 x 5")


BAD_INSTANCES: list[tuple[Any, type[RequestError], str]] = [
    ([[0.5] * 5] * 3, WrongShape, "expected 1 x 4 x 5 numbers, got 3 x 5"),
    ([[[[0.5] * 5] * 4]], WrongShape, "expected 1 x 4 x 5 numbers, got 1 x 1 x 4 x 5"),
    (0.5, WrongShape, "expected 1 x 4 x 5 numbers, got one"),
    ([], WrongShape, "expected 1 x 4 x 5 numbers, got 0"),
    ([[0.5] * 5] * 3 + [[0.5] * 4], WrongShape, "expected nested lists of equal lengths"),
    ([[0.5] * 5] * 3 + [0.5], WrongShape, "expected nested lists of equal lengths"),
    (orjson.loads("[" * 70 + "]" * 70), WrongShape, "expected 1 x 4 x 5 numbers, got 1 x 1 x 1 x 1 or deeper"),
    ([["0.5"] * 5] * 4, Undecodable, "expected numbers in nested lists"),
    ([[None] * 5] * 4, Undecodable, "expected numbers in nested lists"),
    ([[True] * 5] * 4, Undecodable, "expected numbers in nested lists"),
    ([[0.5, True, 0.5, 0.5, 0.5]] * 4, Undecodable, "expected numbers in nested lists"),
    ([[{}] * 5] * 4, Undecodable, "expected numbers in nested lists"),
    ([[0.5, [], 0.5, 0.5, 0.5]] * 4, Undecodable, "expected numbers in nested lists"),
    ([[0.5, [0.5], 0.5, 0.5, 0.5]] * 4, Undecodable, "expected numbers in nested lists"),
    (None, Undecodable, "expected numbers in nested lists"),
    ("image", Undecodable, "expected numbers in nested lists"),
    ([[1.5] * 5] * 4, OutOfRange, "got 1.5 to 1.5"),
    ([[1e300] * 5] * 4, OutOfRange, r"got 1e\+300 to"),
    ([[1.0000000001] * 5] * 4, OutOfRange, r"got 1\.0000000001 to"),
    ([[2**64 - 1] * 5] * 4, OutOfRange, "expected values in"),
    ({"b64": "!"}, Undecodable, "b64: expected base64 text"),
    ({"b64": "\xe9"}, Undecodable, "b64: expected base64 text"),
    ({"b64": "QUJD"}, Undecodable, r"expected a picture \(PNG, JPEG, .*\), got what begins as none of them"),
    ({"b64": 3}, Undecodable, "expected nested lists of numbers or"),
    ({"b64": "QUJD", "also": 1}, Undecodable, "expected nested lists of numbers or"),
    ({}, Undecodable, "expected nested lists of numbers or"),
]


@pytest.mark.parametrize(("instance", "kind", "message"), BAD_INSTANCES)
def test_a_bad_json_row_answers_for_itself(instance: Any, kind: type[RequestError], message: str) -> None:
    good = batch(2)
    body = orjson.dumps({"instances": [good[0].tolist(), instance, good[1].tolist()]})
    decoded = wire.decode(body, wire.JSON, expects=POLICY)
    np.testing.assert_array_equal(decoded.images, good)
    assert decoded.places == [0, 2]
    with pytest.raises(kind, match=message) as caught:
        raise decoded.errors[1]
    assert (caught.value.row, caught.value.status) == (1, 400)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "expected JSON text"),
        (b'{"instances": [NaN]}', "expected JSON text"),
        (b'{"instances": [1e999]}', "expected JSON text"),
        (b"\xff\xfe", "expected JSON text"),
        (b"[" * 5000, "expected JSON text"),
        (b"[]", r'expected \{"instances": \[\.\.\.\]\} and no other key'),
        (b'{"instances": {}}', "and no other key"),
        (b'{"instances": [[0]], "debug": true}', "and no other key"),
        (b'{"inputs": [[0]]}', "expected one input, `images` or `image`"),
        (b'{"b64": "QUJD", "also": 1}', "and no other key"),
    ],
)
def test_a_json_body_of_another_form_is_refused_as_a_whole(body: bytes, message: str) -> None:
    with pytest.raises(Undecodable, match=message) as caught:
        wire.decode(body, wire.JSON, expects=POLICY)
    assert caught.value.row is None


@given(data=st.binary(max_size=300), content_type=st.sampled_from(wire.CONTENT_TYPES))
def test_no_body_raises_anything_but_our_errors(data: bytes, content_type: str) -> None:
    check_decode(data, content_type)


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["b64", "data", "x"]), inner, max_size=2)
    ),
)


@given(instances=st.lists(JSON_VALUES, max_size=4))
def test_no_json_raises_anything_but_our_errors(instances: list[Any]) -> None:
    finite = json.dumps({"instances": instances}).replace("Infinity", "1")
    check_decode(finite.encode(), wire.JSON)


def check_decode(body: bytes, content_type: str) -> None:
    try:
        decoded = wire.decode(body, content_type, expects=POLICY)
    except (BadRequest, TooManyRows, UnsupportedContent):
        return
    assert decoded.images.shape[1:] == SHAPE
    assert ((decoded.images >= 0) & (decoded.images <= 1)).all()
    assert len(decoded.places) == len(decoded.images)


def test_answers_are_written_as_the_contract_says() -> None:
    labels = np.array([2, 0])
    probabilities = np.array([[0.1, 0.2, 0.7], [1, 0, 0]], np.float32)
    errors: dict[int, RequestError] = {1: NotFinite("expected finite values", row=1)}
    body = encode_answers(labels, probabilities, errors, classes=CLASSES)
    assert body == (
        b'{"predictions":[{"label":2,"name":"two","probabilities":[0.1,0.2,0.7]},'
        b'{"error":{"code":"not_finite","message":"expected finite values","row":1}},'
        b'{"label":0,"name":"zero","probabilities":[1.0,0.0,0.0]}]}'
    )
    hidden = encode_answers(labels, None, {}, classes=CLASSES)
    assert hidden == b'{"predictions":[{"label":2,"name":"two"},{"label":0,"name":"zero"}]}'
    assert encode_error(UnsupportedContent("expected another")) == (
        b'{"error":{"code":"unsupported_content_type","message":"expected another","row":null}}'
    )


@given(probabilities=arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32)))
def test_a_client_reads_the_float32_that_was_written(probabilities: np.ndarray) -> None:
    labels = probabilities.argmax(1)
    decoded = wire.decode_answers(encode_answers(labels, probabilities, {}, classes=CLASSES))
    assert decoded.labels.tolist() == labels.tolist()
    assert decoded.errors == {}
    assert decoded.probabilities is not None
    assert decoded.probabilities.dtype == np.float32
    np.testing.assert_array_equal(decoded.probabilities, probabilities)


def test_a_client_reads_faults_at_their_place() -> None:
    errors: dict[int, RequestError] = {0: Undecodable("broken", row=0), 2: OutOfRange("too large", row=2)}
    labels, probabilities, faults = wire.decode_answers(
        encode_answers(np.array([1]), np.array([[0.25, 0.75]], np.float32), errors, classes=CLASSES)
    )
    assert labels.tolist() == [-1, 1, -1]
    np.testing.assert_array_equal(probabilities, np.array([[np.nan] * 2, [0.25, 0.75], [np.nan] * 2]))
    assert faults == {0: ("undecodable", "broken", 0), 2: ("out_of_range", "too large", 2)}
    assert wire.decode_answers(encode_answers(np.array([1]), None, errors, classes=CLASSES)).probabilities is None
    assert wire.decode_error(encode_error(NoRows("none"))) == ("no_rows", "none", None)


def test_a_client_reads_the_challenge_next_to_answers_and_errors() -> None:
    challenge = {"parameters": {"nonce": "00"}, "signature": "ab"}
    labels, shown = np.array([1]), np.array([[0.25, 0.75]], np.float32)
    for body in (
        encode_answers(labels, shown, {0: NoRows("none", row=0)}, challenge, classes=CLASSES),
        encode_error(NoRows("none"), challenge),
    ):
        assert wire.decode_challenge(body) == challenge
    assert wire.decode_answers(encode_answers(labels, shown, {}, challenge, classes=CLASSES)).labels.tolist() == [1]
    assert wire.decode_error(encode_error(NoRows("none"), challenge)) == ("no_rows", "none", None)
    for body in (encode_answers(labels, shown, {}, classes=CLASSES), encode_error(NoRows("none"))):
        assert b"challenge" not in body
        assert wire.decode_challenge(body) is None
    for other in (b"", b"[]", b"7", b'{"challenge": 7}'):
        assert wire.decode_challenge(other) is None


def test_a_digest_is_of_pixels_and_shape() -> None:
    images = np.arange(16, dtype=np.float32).reshape(2, 2, 2, 2) / 16
    digest = wire.Rows(images).digest
    assert digest == wire.Rows(images.copy()).digest == wire.Rows(images[::-1][::-1]).digest
    changed = images.copy()
    changed[1, 1, 1, 1] = np.nextafter(changed[1, 1, 1, 1], np.float32(1))
    others = [images[:1], images[::-1], images.reshape(2, 1, 4, 2), images.reshape(4, 1, 2, 2), changed]
    assert len({digest, *(wire.Rows(other).digest for other in others)}) == 6


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"predictions": 1}', b'{"predictions": [1]}', b"\n[METRICS]"])
def test_another_servers_body_is_not_taken_for_an_answer(body: bytes) -> None:
    with pytest.raises(wire.WireError, match=r'expected \{"predictions": \[\.\.\.\]\}, got b'):
        wire.decode_answers(body)
    with pytest.raises(wire.WireError, match=r'expected \{"error": \{\.\.\.\}\}, got b'):
        wire.decode_error(body)


def test_a_client_cannot_put_several_rows_into_a_picture_or_invent_a_content_type() -> None:
    with pytest.raises(ValueError, match="image/png carries one row, got 2"):
        wire.encode_rows(batch(2), wire.PNG)
    with pytest.raises(ValueError, match=r"expected a content type of image/png, .*, got 'text/csv'"):
        wire.encode_rows(batch(2), "text/csv")


@pytest.mark.parametrize("perturb", [None, FRESH, KEYED])
def test_a_description_holds_the_public_facts_and_no_other(perturb: dict[str, Any] | None) -> None:
    described = wire.describe(Policy.parse(routed(response={"rule": "top_k", "k": 2}, perturb=perturb)))
    assert described == {
        "recipe": "digits",
        "policy": "edm",
        "backend": "onnxruntime",
        "input": {"channels": 1, "height": 4, "width": 5, "fit": "exact"},
        "class_names": ["zero", "one", "two"],
        "response": {"rule": "top_k", "k": 2},
        "gate": None,
        "max_rows": 16,
        "limits": None,
        "content_types": list(wire.CONTENT_TYPES),
    }


def test_a_description_says_how_much_one_principal_may_ask() -> None:
    limited = wire.describe(Policy.parse(section(limits={"rows": 20, "total": 50, "window": 60})))
    assert limited == {**wire.describe(Policy.parse(section())), "limits": {"rows": 20, "window": 60}}


@pytest.mark.parametrize("action", ["observe", "reject", "proof-of-work"])
def test_a_description_says_that_there_is_a_gate_and_no_more_of_it(action: str) -> None:
    plain = wire.describe(Policy.parse(routed()))
    gated = wire.describe(Policy.parse(routed(gate=gate(action))))
    assert gated == {**plain, "gate": action}


def test_a_client_reads_of_a_description_what_a_body_must_be() -> None:
    accepts = wire.read_description(json.loads(orjson.dumps(wire.describe(POLICY))))
    assert accepts == (POLICY.input, POLICY.max_rows)
    images = batch(2)
    np.testing.assert_array_equal(wire.decode(images.tobytes(), wire.RAW, expects=accepts).images, images)
    for facts in ({}, {"input": {"channels": 2}, "max_rows": 3}, {"input": None, "max_rows": 3}):
        with pytest.raises(wire.WireError, match="expected a description with input and max_rows"):
            wire.read_description(facts)
