from __future__ import annotations

import base64
import hashlib
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attest.target.encoding import encode, pictures
from attest.target.table import SENDS, Target
from deploy.grpc_front.messages import message
from tests.attest.service import table

SHAPE = (3, 8, 10)


def target(send: str, **changes: Any) -> Target:
    url = "grpc://127.0.0.1:1/m" if SENDS[send].grpc else "http://127.0.0.1:1/x"
    fields = table(url, send=send, size=(8, 10), channels=3, **changes)
    return Target(**fields).whole()


@pytest.fixture
def images() -> np.ndarray:
    return (np.random.default_rng(0).integers(0, 256, (2, *SHAPE)) / 255).astype(np.float32)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png))).transpose(2, 0, 1)


def body(which: Target, images: np.ndarray) -> bytes:
    return encode(which, pictures(which, images)).body


def test_a_picture_is_its_file_and_its_digest_of_it(images: np.ndarray) -> None:
    which = target("picture")
    (asked,) = pictures(which, images[:1])
    sent = encode(which, [asked])
    assert sent.content_type == "image/png"
    np.testing.assert_array_equal(pixels(sent.body), np.rint(images[0] * 255))
    assert asked.sha256 == hashlib.sha256(sent.body).hexdigest()


@pytest.mark.parametrize(("send", "name"), [("multipart", "file"), ("torchserve", "data")])
def test_a_form_has_the_file_in_the_named_part(images: np.ndarray, send: str, name: str) -> None:
    from email.parser import BytesParser

    which = target(send)
    sent = encode(which, pictures(which, images[:1]))
    form = BytesParser().parsebytes(f"Content-Type: {sent.content_type}\r\n\r\n".encode() + sent.body)
    (part,) = form.get_payload()
    assert part.get_param("name", header="content-disposition") == name
    np.testing.assert_array_equal(pixels(part.get_payload(decode=True)), np.rint(images[0] * 255))


def test_raw_numbers_are_little_endian_and_normalised_by_channel(images: np.ndarray) -> None:
    which = target("float32", format="float32", rows=2, layout="NHWC", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    wanted = (images - np.array([0.1, 0.2, 0.3], np.float32).reshape(3, 1, 1)) / np.float32([1, 2, 4]).reshape(3, 1, 1)
    np.testing.assert_allclose(
        np.frombuffer(body(which, images), "<f4").reshape(2, 8, 10, 3), wanted.transpose(0, 2, 3, 1), rtol=1e-6
    )


def test_base64_lies_in_the_named_place(images: np.ndarray) -> None:
    one = json.loads(body(target("json-b64", field="inputs.image.b64"), images[:1]))
    np.testing.assert_array_equal(pixels(base64.b64decode(one["inputs"]["image"]["b64"])), np.rint(images[0] * 255))
    two = json.loads(body(target("json-b64", field="instances[].b64", rows=2), images))
    assert len(two["instances"]) == 2
    np.testing.assert_array_equal(pixels(base64.b64decode(two["instances"][1]["b64"])), np.rint(images[1] * 255))


@pytest.mark.parametrize("send", ["kserve-v1", "tf-serving"])
def test_instances_are_numbers_or_files(images: np.ndarray, send: str) -> None:
    numbers = json.loads(body(target(send, format="uint8", rows=2), images))["instances"]
    np.testing.assert_array_equal(numbers, np.rint(images * 255))
    files = json.loads(body(target(send), images[:1]))["instances"]
    np.testing.assert_array_equal(pixels(base64.b64decode(files[0]["b64"])), np.rint(images[0] * 255))


def test_the_open_inference_protocol_over_http(images: np.ndarray) -> None:
    (one,) = json.loads(body(target("kserve-v2", format="float32", rows=2), images))["inputs"]
    assert (one["name"], one["datatype"], one["shape"]) == ("images", "FP32", [2, *SHAPE])
    np.testing.assert_array_equal(np.array(one["data"], np.float32), images.ravel())


def test_the_open_inference_protocol_over_grpc(images: np.ndarray) -> None:
    asked = message("ModelInferRequest").FromString(body(target("kserve-v2-grpc", format="float32", rows=2), images))
    assert (asked.model_name, asked.inputs[0].datatype, list(asked.inputs[0].shape)) == ("m", "FP32", [2, *SHAPE])
    np.testing.assert_array_equal(np.frombuffer(asked.raw_input_contents[0], "<f4"), images.ravel())
    file = message("ModelInferRequest").FromString(body(target("kserve-v2-grpc"), images[:1])).raw_input_contents[0]
    assert int.from_bytes(file[:4], "little") == len(file) - 4
    np.testing.assert_array_equal(pixels(file[4:]), np.rint(images[0] * 255))


def test_a_digest_does_not_depend_on_the_rows_beside_it(images: np.ndarray) -> None:
    which = target("float32", format="float32", rows=2)
    both = pictures(which, images)
    assert [picture.sha256 for picture in both] == [pictures(which, images[row : row + 1])[0].sha256 for row in (0, 1)]
