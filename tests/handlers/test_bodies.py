"""Every way in which clients send pictures: the same rows come of all of them, or words to act on."""

from __future__ import annotations

import base64
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
import pytest

from defenses.policy import Policy
from handlers import bodies, oip
from handlers.bodies import Message
from handlers.errors import (
    NoRows,
    NotFinite,
    RequestError,
    TooManyPixels,
    TooManyRows,
    Undecodable,
    UnsupportedContent,
    WrongShape,
)
from handlers.forms import PREDICTIONS, STOCK, TORCHSERVE, Answered, Classes
from handlers.images import write_image
from handlers.rows import Accepts, Rows
from pictures.geometry import Geometry
from tests.defenses.policies import section
from tests.pictures.corpus import MAKE

POLICY = Policy.parse(section())
SHAPE = POLICY.input.shape
FITTED = Accepts(Geometry(3, 8, 8, fit="crop", megapixels=0.002), 16)
CLASSES = Classes(("zero", "one", "two"))


def image(seed: int = 0) -> np.ndarray:
    levels = np.random.default_rng(seed).integers(0, 256, SHAPE)
    return (levels / np.float32(255)).astype(np.float32)


PNG = write_image(image(), "PNG")
TEXT = base64.b64encode(PNG).decode()
LINES = "\r\n".join(TEXT[start : start + 76] for start in range(0, len(TEXT), 76))
URL_SAFE = base64.urlsafe_b64encode(PNG).decode()


def read(message: Message, expects: Any = POLICY) -> Rows:
    form = bodies.form_of(message)
    return bodies.read([bodies.opened(message, form, expects)], expects.input)[0]


def sent(body: bytes, content_type: str | None = None, **headers: str) -> Message:
    stated = {} if content_type is None else {"content-type": content_type}
    return Message({**stated, **{name.replace("_", "-"): value for name, value in headers.items()}}, body, model="m")


def parts(*files: bytes) -> Message:
    headers = {"content-type": "multipart/form-data; boundary=abc"}
    return Message(headers, None, {f"file{number}": file for number, file in enumerate(files)})


def document(value: Any) -> bytes:
    return orjson.dumps(value)


FORMS = {
    "no type, as curl -T sends it": sent(PNG),
    "an empty type": sent(PNG, ""),
    "image/png": sent(PNG, "image/png"),
    "image/jpg, and it is a PNG": sent(PNG, "image/jpg"),
    "image/jpeg, and it is a PNG": sent(PNG, "image/jpeg"),
    "image/*": sent(PNG, "image/*"),
    "text/plain": sent(PNG, "text/plain"),
    "octet-stream, as curl --data-binary and browsers send files": sent(PNG, "application/octet-stream"),
    "a form's type, as curl -d sends it through a gateway": sent(PNG, "application/x-www-form-urlencoded"),
    "json's type": sent(PNG, "application/json"),
    "one part": parts(PNG),
    "instances b64": sent(document({"instances": [{"b64": TEXT}]}), "application/json"),
    "instances b64, no type": sent(document({"instances": [{"b64": TEXT}]})),
    "instances b64, text/plain": sent(document({"instances": [{"b64": TEXT}]}), "text/plain"),
    "instances b64, another json": sent(document({"instances": [{"b64": TEXT}]}), "application/vnd.x+json"),
    "instances data": sent(document({"instances": [{"data": TEXT}]}), "application/json"),
    "instances image_bytes b64": sent(document({"instances": [{"image_bytes": {"b64": TEXT}}]}), "application/json"),
    "instances image_bytes": sent(document({"instances": [{"image_bytes": TEXT}]}), "application/json"),
    "data alone": sent(document({"data": TEXT}), "application/json"),
    "b64 alone": sent(document({"b64": TEXT}), "application/json"),
    "in lines": sent(document({"instances": [{"b64": LINES}]}), "application/json"),
    "with a newline at the end": sent(document({"data": TEXT + "\n"}), "application/json"),
    "url-safe": sent(document({"instances": [{"b64": URL_SAFE}]}), "application/json"),
    "without padding": sent(document({"instances": [{"b64": URL_SAFE.rstrip("=")}]}), "application/json"),
    "a data URL": sent(document({"instances": [{"b64": f"data:image/png;base64,{TEXT}"}]}), "application/json"),
    "a byte order mark": sent(b"\xef\xbb\xbf" + document({"instances": [{"b64": TEXT}]}), "application/json"),
    "white space before": sent(b"\n  " + document({"instances": [{"b64": TEXT}]})),
    "raw": sent(image().tobytes(), "application/octet-stream"),
    "raw without a type": sent(image().tobytes()),
    "numbers": sent(document({"instances": [image().tolist()]}), "application/json"),
    "identity": sent(PNG, "image/png", content_encoding="identity"),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_brings_the_same_pixels(name: str) -> None:
    rows = read(FORMS[name])
    assert rows.errors == {}
    np.testing.assert_array_equal(rows.images, image()[np.newaxis])


@pytest.mark.parametrize("name", [name for name, make in MAKE.items() if not make().refused])
def test_a_picture_is_known_by_its_first_bytes_in_each_of_these(name: str) -> None:
    data = MAKE[name]().data
    expects = Accepts(Geometry(3, 8, 8, fit="stretch"), 4)
    alone = read(sent(data, "image/png"), expects).images
    text = base64.b64encode(data).decode()
    for message in (sent(data), parts(data), sent(document({"instances": [{"b64": text}]}))):
        np.testing.assert_array_equal(read(message, expects).images, alone)


REFUSED = {
    "gzip": (sent(PNG, "image/png", content_encoding="gzip"), UnsupportedContent, "expected no Content-Encoding; send"),
    "brotli": (sent(b"{}", content_encoding="br"), UnsupportedContent, "expected no Content-Encoding"),
    "a form that TorchServe has parsed": (
        Message({"content-type": "application/x-www-form-urlencoded"}, None, {"%89PNG": b""}),
        UnsupportedContent,
        "with curl, send a file by -T FILE",
    ),
    "nothing": (sent(b""), NoRows, "got an empty body"),
    "html": (sent(b"<html>", "text/html"), UnsupportedContent, "got a body that is none"),
    "raw of another length": (sent(b"\0" * 7, "application/octet-stream"), WrongShape, "expected a multiple of 80"),
    "no type, another length": (sent(b"\0" * 7), UnsupportedContent, "got a body that is none"),
    "several keys": (sent(document({"data": TEXT, "more": 1})), Undecodable, "and no other key"),
    "too many parts": (parts(*[PNG] * 17), TooManyRows, "expected at most 16 rows, got 17"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_what_to_do(name: str) -> None:
    message, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        read(message)


BAD_TEXTS = {
    "data:image/png,abc": "expected a data URL with ;base64",
    "data:image/png;base64": "expected a data URL with ;base64",
    "é": r"expected base64 text: letters, digits, \+ and /, or - and _, padded with =",
    "a": "expected base64 text",
    "ab$d": "expected base64 text",
}


@pytest.mark.parametrize("text", BAD_TEXTS)
def test_a_text_that_is_none_answers_for_its_row(text: str) -> None:
    rows = read(sent(document({"instances": [{"b64": text}, {"b64": TEXT}]}), "application/json"))
    with pytest.raises(Undecodable, match=BAD_TEXTS[text]):
        raise rows.errors[0]
    assert len(rows.images) == 1


def test_parts_are_rows_in_their_order_each_for_itself() -> None:
    rows = read(parts(write_image(image(1), "PNG"), b"no picture", write_image(image(2), "PNG")))
    np.testing.assert_array_equal(rows.images, np.stack([image(1), image(2)]))
    assert rows.places == [0, 2]
    assert rows.errors[1].code == "undecodable"


def test_parts_of_one_name_are_missed_by_their_length() -> None:
    """TorchServe keeps the last of them, and nobody would know."""
    boundary = "-" * 24 + "0123456789abcdef"

    def asked(kept: dict[str, bytes], length: int) -> Message:
        headers = {"content-type": f"multipart/form-data; boundary={boundary}", "content-length": str(length)}
        return Message(headers, None, kept)

    large = PNG + bytes(2000)
    around = len(f'--{boundary}\r\nContent-Disposition: form-data; name="data"; filename="{"x" * 255}"\r\n\r\n\r\n')
    end = len(f"--{boundary}--\r\n")
    assert len(read(asked({"data": large}, len(large) + around + end)).images) == 1
    with pytest.raises(Undecodable, match="expected each part under a name of its own"):
        read(asked({"data": large}, 2 * (len(large) + around) + end))
    assert len(read(asked({"a": large, "b": large}, 2 * (len(large) + around) + end)).images) == 2


def test_a_length_of_thousands_of_digits_is_no_fault_of_ours() -> None:
    headers = {"content-type": "multipart/form-data; boundary=abc", "content-length": "0" * 4500 + "99"}
    assert len(read(Message(headers, None, {"a": PNG})).images) == 1


def test_a_shape_of_a_million_sides_takes_no_time() -> None:
    """Its product, a number of megabits, took minutes."""
    large = Accepts(Geometry(3, 512, 512, fit="crop"), 32)
    message = sent(document(inputs("BYTES", [2**62] * 200_000, [TEXT])))
    started = time.process_time()
    with pytest.raises(Undecodable, match="1 to 4 whole numbers"):
        read(message, large)
    assert time.process_time() - started < 1


def test_pictures_of_one_request_are_bounded_by_what_they_cost() -> None:
    """A few pixels that are resized to many are many; one that is refused takes no room of the others."""
    strip = write_image(np.zeros((3, 1, 24), np.float32), "PNG")  # 8 x 192 pixels, of which 8 x 8 are seen
    rows = read(parts(*[strip] * 7), FITTED)
    assert sorted(rows.errors) == [5, 6]
    assert rows.errors[5].code == "too_many_pixels"
    too_long = write_image(np.zeros((3, 1, 1900), np.float32), "PNG")
    rows = read(parts(too_long, *[strip] * 5), FITTED)
    assert sorted(rows.errors) == [0]
    assert "times as long as it is wide" in rows.errors[0].message


def test_pictures_of_one_request_are_bounded_together() -> None:
    """Each is small enough, and a hundred of them would take a worker's time."""
    picture = write_image(np.zeros((3, 40, 40), np.float32), "PNG")
    assert read(parts(*[picture] * 5), FITTED).errors == {}
    rows = read(parts(*[picture] * 7), FITTED)
    assert sorted(rows.errors) == [5, 6]
    assert all(isinstance(error, TooManyPixels) for error in rows.errors.values())
    assert rows.errors[5].message == "expected pictures of 0.008 megapixels together; send fewer in a request"


def test_pictures_of_several_requests_are_read_side_by_side_in_order() -> None:
    messages = [parts(write_image(image(1), "PNG"), write_image(image(2), "PNG")), sent(PNG), FORMS["numbers"]]
    opened = [bodies.opened(message, bodies.form_of(message), POLICY) for message in messages]
    with ThreadPoolExecutor(4) as pool:
        rows = bodies.read(opened, POLICY.input, pool.map)
    np.testing.assert_array_equal(rows[0].images, np.stack([image(1), image(2)]))
    for each in rows[1:]:
        np.testing.assert_array_equal(each.images, image()[np.newaxis])


def test_the_form_of_the_answer_is_asked_for() -> None:
    assert bodies.form_of(sent(PNG)) is PREDICTIONS
    assert bodies.form_of(sent(PNG, accept="*/*")) is PREDICTIONS
    assert bodies.form_of(sent(PNG, accept=f"text/html, {TORCHSERVE.upper()}")) is STOCK
    assert bodies.form_of(sent(b'{"inputs": []}')) == oip.Inference("m")
    assert bodies.form_of(sent(b'{"instances": [], "inputs": 1}')) is PREDICTIONS
    assert bodies.form_of(sent(b"\0\0", inference_header_content_length="1")) == oip.Inference("m")


LABELS = np.array([1, 2])
SHOWN = np.array([[0.25, 0.5, 0.25], [0, 0.25, 0.75]], np.float32)
FAULT: dict[int, RequestError] = {1: NotFinite("expected finite values", row=1)}


def test_torchserves_form_maps_names_to_probabilities_the_likeliest_first() -> None:
    one = STOCK.answers(Answered(LABELS[:1], SHOWN[:1]), CLASSES)
    assert one.body == b'{"one":0.5,"zero":0.25,"two":0.25}'
    several = STOCK.answers(Answered(LABELS, SHOWN, FAULT, FAULT[1], {"signature": "x"}), CLASSES)
    first, second, third = orjson.loads(several.body)
    assert list(first) == ["one", "zero", "two"]
    assert second == {
        "error": {"code": "not_finite", "message": "expected finite values", "row": 1},
        "challenge": {"signature": "x"},
    }
    assert third == {"two": 0.75, "one": 0.25, "zero": 0.0}
    assert STOCK.answers(Answered(LABELS[:1], None), CLASSES).body == b'{"one":1.0}'
    many = Classes(tuple(map(str, range(9))))
    shown = np.linspace(0, 1, 9, dtype=np.float32)[np.newaxis]
    assert list(orjson.loads(STOCK.answers(Answered(np.array([8]), shown), many).body)) == ["8", "7", "6", "5", "4"]


def test_a_top_k_rule_shows_what_it_shows_by_name() -> None:
    shown = PREDICTIONS.answers(Answered(LABELS, SHOWN), Classes(CLASSES.names, top_k=2)).body
    assert [each["top_k"] for each in orjson.loads(shown)["predictions"]] == [
        {"one": 0.5, "zero": 0.25},
        {"two": 0.75, "one": 0.25},
    ]


# --- the Open Inference Protocol


def inputs(kind: str, shape: list[int], data: Any = None, **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"name": "images", "datatype": kind, "shape": shape}
    return {"inputs": [given if data is None else {**given, "data": data}], **more}


def binary(request: dict[str, Any], tail: bytes, size: int | None = None) -> Message:
    request["inputs"][0]["parameters"] = {"binary_data_size": len(tail) if size is None else size}
    text = document(request)
    return sent(text + tail, "application/octet-stream", inference_header_content_length=str(len(text)))


LEVELS = np.rint(image() * 255).astype(np.uint8)
PACKED = struct.pack("<I", len(PNG)) + PNG
INFERENCES = {
    "floats, nested": sent(document(inputs("FP32", [1, *SHAPE], [image().tolist()]))),
    "floats, behind a byte order mark": sent(
        b"\xef\xbb\xbf" + document(inputs("FP32", [1, *SHAPE], [image().tolist()]))
    ),
    "floats, flat": sent(document(inputs("FP32", [1, *SHAPE], image().ravel().tolist()))),
    "floats, binary": binary(inputs("FP32", [1, *SHAPE]), image().tobytes()),
    "bytes, flat": sent(document(inputs("UINT8", [1, *SHAPE], LEVELS.ravel().tolist()))),
    "bytes, binary": binary(inputs("UINT8", [1, *SHAPE]), LEVELS.tobytes()),
    "a picture": sent(document(inputs("BYTES", [1], [TEXT]))),
    "a picture of two dimensions": sent(document(inputs("BYTES", [1, 1], [[TEXT]]))),
    "a picture, binary": binary(inputs("BYTES", [1]), PACKED),
}


@pytest.mark.parametrize("name", INFERENCES)
def test_every_tensor_brings_the_same_pixels(name: str) -> None:
    rows = read(INFERENCES[name])
    assert rows.errors == {}
    np.testing.assert_array_equal(rows.images, image()[np.newaxis])
    assert isinstance(rows.form, oip.Inference)


BAD_INFERENCES = {
    "no input": (sent(b'{"inputs": []}'), Undecodable, "expected one input"),
    "two": (sent(document({"inputs": [{}, {}]})), Undecodable, "expected one input"),
    "no shape": (sent(document({"inputs": [{"datatype": "FP32", "data": []}]})), Undecodable, "an input's shape"),
    "negative": (sent(document(inputs("FP32", [-1, *SHAPE], []))), Undecodable, "an input's shape"),
    "truth": (sent(document(inputs("FP32", [True, *SHAPE], []))), Undecodable, "an input's shape"),
    "another kind": (sent(document(inputs("FP64", [1, *SHAPE], [0]))), Undecodable, "FP32, UINT8 or BYTES"),
    "another shape": (sent(document(inputs("FP32", [1, 4, 5], [0]))), WrongShape, r"expected FP32 \(n, 1, 4, 5\)"),
    "no row": (sent(document(inputs("FP32", [0, *SHAPE], []))), NoRows, "at least one row"),
    "many rows": (sent(document(inputs("FP32", [17, *SHAPE], [0]))), TooManyRows, "at most 16 rows, got 17"),
    "endless": (binary(inputs("BYTES", [2**60]), PACKED), TooManyRows, "at most 16 rows"),
    "few values": (sent(document(inputs("FP32", [1, *SHAPE], [0.5]))), WrongShape, "expected 20 numbers"),
    "texts": (sent(document(inputs("FP32", [1, *SHAPE], ["0"] * 20))), Undecodable, "expected numbers"),
    "deep": (
        sent(b'{"inputs": [{"datatype": "FP32", "shape": [1,1,4,5], "data": ' + b"[" * 90 + b"]" * 90 + b"}]}"),
        WrongShape,
        "expected 20 numbers",
    ),
    "levels beyond": (sent(document(inputs("UINT8", [1, *SHAPE], [256] * 20))), Undecodable, "from 0 to 255"),
    "no data": (sent(document(inputs("FP32", [1, *SHAPE]))), Undecodable, "an input's data, a list"),
    "a length that lies": (binary(inputs("FP32", [1, *SHAPE]), image().tobytes(), 8), Undecodable, "of the 80 bytes"),
    "a length below 0": (binary(inputs("FP32", [1, *SHAPE]), image().tobytes(), -80), Undecodable, "of the 80 bytes"),
    "cut short": (binary(inputs("FP32", [1, *SHAPE]), image().tobytes()[:-1]), WrongShape, "80 bytes of FP32, got 79"),
    "a picture that is longer": (
        binary(inputs("BYTES", [1]), struct.pack("<I", 2**32 - 1) + PNG),
        Undecodable,
        "behind its length",
    ),
    "a picture and more": (binary(inputs("BYTES", [1]), PACKED + b"x"), Undecodable, "no bytes behind the pictures"),
    "half a length": (binary(inputs("BYTES", [2]), PACKED + b"\1\0"), Undecodable, "behind its length"),
    "a header beyond the body": (
        sent(b'{"inputs": []}', inference_header_content_length="99"),
        Undecodable,
        "at most the body's 14 bytes",
    ),
    "a header of words": (
        sent(b'{"inputs": []}', inference_header_content_length="-1"),
        Undecodable,
        "at most the body's",
    ),
    "a header within the text": (
        sent(b'{"inputs": []}', inference_header_content_length="3"),
        Undecodable,
        "expected JSON text",
    ),
    "bytes behind": (
        sent(
            document(inputs("FP32", [1, *SHAPE], [0])) + b"xx",
            inference_header_content_length=str(len(document(inputs("FP32", [1, *SHAPE], [0])))),
        ),
        Undecodable,
        "no bytes behind the JSON text",
    ),
    "an output that is none": (
        sent(document(inputs("FP32", [1, *SHAPE], [0], outputs=[{"name": "logits"}]))),
        Undecodable,
        "outputs of prob",
    ),
    "classification": (
        sent(
            document(inputs("FP32", [1, *SHAPE], [0], outputs=[{"name": "label", "parameters": {"classification": 3}}]))
        ),
        Undecodable,
        "ask for `label` and `name`",
    ),
    "an id of numbers": (sent(document(inputs("FP32", [1, *SHAPE], [0], id=7))), Undecodable, "a text of at most 1024"),
    "a long id": (
        sent(document(inputs("FP32", [1, *SHAPE], [0], id="x" * 1025))),
        Undecodable,
        "a text of at most 1024",
    ),
    "an output that is a list": (
        sent(document(inputs("FP32", [1, *SHAPE], [0], outputs=[{"name": []}]))),
        Undecodable,
        "outputs of prob",
    ),
    "a shape of many sides": (sent(document(inputs("BYTES", [1] * 5, [TEXT]))), Undecodable, "a list of 1 to 4 whole"),
    "a header of thousands of digits": (
        sent(b'{"inputs": []}', inference_header_content_length="0" * 4500 + "7"),
        Undecodable,
        "at most the body's",
    ),
    "a header of other digits": (
        sent(b'{"inputs": []}', inference_header_content_length="\u0663"),
        Undecodable,
        "at most the body's",
    ),
}


@pytest.mark.parametrize("name", BAD_INFERENCES)
def test_a_request_of_the_protocol_that_is_wrong_says_how(name: str) -> None:
    message, kind, words = BAD_INFERENCES[name]
    with pytest.raises(kind, match=words):
        read(message)


def test_floats_that_are_none_are_a_rows_fault() -> None:
    for values in ([2.0] * 20, [1e300] * 20):
        rows = read(sent(document(inputs("FP32", [1, *SHAPE], values))))
        assert list(rows.errors) == [0]
    rows = read(binary(inputs("FP32", [2, *SHAPE]), np.stack([image() * np.float32("nan"), image()]).tobytes()))
    assert (list(rows.errors), len(rows.images)) == ([0], 1)


def test_an_answer_of_the_protocol_has_all_outputs_or_those_that_are_asked_for() -> None:
    answered = Answered(LABELS, SHOWN)
    whole = orjson.loads(oip.Inference("m", id="7").answers(answered, CLASSES).body)
    assert whole == {
        "model_name": "m",
        "model_version": "1.0",
        "id": "7",
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [2, 3], "data": SHOWN.ravel().tolist()},
            {"name": "label", "datatype": "INT64", "shape": [2], "data": [1, 2]},
            {"name": "name", "datatype": "BYTES", "shape": [2], "data": ["one", "two"]},
        ],
    }
    hidden = orjson.loads(oip.Inference("m").answers(Answered(LABELS, None), CLASSES).body)
    assert [each["name"] for each in hidden["outputs"]] == ["label", "name"]
    asked = oip.Inference("m", outputs=(("probabilities", False),))
    refused = asked.answers(Answered(LABELS, None), CLASSES)
    assert refused.status == 400
    assert orjson.loads(refused.body)["error"].startswith("expected outputs of label, name; this policy has no")


def test_binary_outputs_stand_behind_the_text() -> None:
    asked = oip.Inference("m", outputs=(("probabilities", True), ("label", False), ("name", True)))
    encoded = asked.answers(Answered(LABELS, SHOWN), CLASSES)
    length = int(encoded.headers["Inference-Header-Content-Length"])
    text, tail = orjson.loads(encoded.body[:length]), encoded.body[length:]
    assert encoded.content_type == "application/octet-stream"
    assert [each.get("parameters") for each in text["outputs"]] == [
        {"binary_data_size": 24},
        None,
        {"binary_data_size": 14},
    ]
    np.testing.assert_array_equal(np.frombuffer(tail[:24], "<f4"), SHOWN.ravel())
    assert tail[24:] == b"\3\0\0\0one\3\0\0\0two"


def test_one_row_at_fault_is_the_requests_error_in_the_protocol() -> None:
    encoded = oip.Inference("m").answers(Answered(LABELS, SHOWN, FAULT, FAULT[1], {"signature": "x"}), CLASSES)
    assert encoded.status == 400
    assert orjson.loads(encoded.body) == {"error": "row 1: expected finite values (not_finite)"}
    assert orjson.loads(base64.b64decode(encoded.headers["Torchwarden-Challenge"])) == {"signature": "x"}


def test_both_sides_of_the_protocol_understand_each_other() -> None:
    body, headers = oip.encode_rows(np.stack([image(1), image(2)]))
    rows = read(Message({name.lower(): value for name, value in headers.items()}, body, model="m"))
    np.testing.assert_array_equal(rows.images, np.stack([image(1), image(2)]))
    for shown in (SHOWN, None):
        labels, probabilities = oip.decode_answers(oip.Inference("m").answers(Answered(LABELS, shown), CLASSES).body)
        np.testing.assert_array_equal(labels, LABELS)
        assert (probabilities is None) is (shown is None)
        np.testing.assert_array_equal(SHOWN if probabilities is None else probabilities, SHOWN)
    refused = oip.Inference("m").error(FAULT[1], {"signature": "x"})
    assert oip.code_of(refused.body) == "not_finite"
    assert oip.decode_challenge(refused.headers) == {"signature": "x"}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"outputs": 1}', b'{"outputs": [{"name": "label"}]}', b"\n"])
def test_another_servers_answer_is_none_of_the_protocol(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected|unexpected|input|char|label"):
        oip.decode_answers(body)
    assert oip.code_of(body) == ""
    assert oip.decode_challenge({"Torchwarden-Challenge": body.decode()}) is None
