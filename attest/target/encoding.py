"""Pictures to the body of a request, in the way that the target takes them.

A picture's digest is of its own bytes as they were sent: of the PNG or JPEG file, or of its numbers. It does not depend
on the pictures beside it, nor on what is put round them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson
from numpy.typing import NDArray
from urllib3.filepost import encode_multipart_formdata

from attest.target.table import PICTURES, SENDS, Target
from deploy.grpc_front.messages import message
from handlers.images import write_image

OCTETS, JSON, PROTOBUF = "application/octet-stream", "application/json", "application/grpc"
BOUNDARY = "torchwarden-attest"
DATATYPES = {"float32": "FP32", "uint8": "UINT8"}


@dataclass(frozen=True)
class Picture:
    """One picture as it is sent: its own bytes, and their SHA-256."""

    data: bytes
    sha256: str


@dataclass(frozen=True)
class Encoded:
    """One request."""

    body: bytes
    content_type: str


def pictures(target: Target, images: NDArray[np.float32]) -> list[Picture]:
    """Images float32 (n, C, H, W) in [0, 1], each as the target takes it. A file has 8 bits a channel, and JPEG changes
    more."""
    rows = [own_bytes(target, image) for image in images]
    return [Picture(row, hashlib.sha256(row).hexdigest()) for row in rows]


def encode(target: Target, asked: Sequence[Picture]) -> Encoded:
    """The request for one picture up to `target.rows` of them."""
    body, content_type = _WAYS[target.send](target, [picture.data for picture in asked])
    return Encoded(body, content_type)


def own_bytes(target: Target, image: NDArray[np.float32]) -> bytes:
    """One picture (C, H, W): its file, or its numbers in C order, little-endian."""
    if target.format in PICTURES:
        return write_image(image, target.format)
    return _numbers(target, image).tobytes()


def _numbers(target: Target, image: NDArray[np.float32]) -> NDArray[Any]:
    if target.format == "uint8":
        values: NDArray[Any] = np.rint(image * 255).astype(np.uint8)
    else:
        mean = np.asarray(target.mean or 0.0, np.float32).reshape(-1, 1, 1)
        std = np.asarray(target.std or 1.0, np.float32).reshape(-1, 1, 1)
        values = ((image - mean) / std).astype("<f4")
    return np.ascontiguousarray(values.transpose(1, 2, 0) if target.layout == "NHWC" else values)


def _shape(target: Target) -> tuple[int, int, int]:
    height, width = target.size
    return (height, width, target.channels) if target.layout == "NHWC" else (target.channels, height, width)


def _array(target: Target, rows: list[bytes]) -> NDArray[Any]:
    """The rows' numbers again, (n, ...) in the target's layout."""
    kind = np.uint8 if target.format == "uint8" else np.dtype("<f4")
    return np.frombuffer(b"".join(rows), kind).reshape(len(rows), *_shape(target))


def _multipart(target: Target, rows: list[bytes]) -> tuple[bytes, str]:
    part = (f"picture.{target.format}", rows[0], f"image/{target.format}")
    return encode_multipart_formdata({target.field: part}, boundary=BOUNDARY)


def _picture(target: Target, rows: list[bytes]) -> tuple[bytes, str]:
    return rows[0], f"image/{target.format}"


def _float32(target: Target, rows: list[bytes]) -> tuple[bytes, str]:
    return b"".join(rows), OCTETS


def _base64(target: Target, rows: list[bytes]) -> tuple[bytes, str]:
    return orjson.dumps(placed(target.field, [base64.b64encode(row).decode() for row in rows])), JSON


def _json(target: Target, rows: list[bytes]) -> tuple[bytes, str]:
    return orjson.dumps(placed(target.field, list(_array(target, rows))), option=orjson.OPT_SERIALIZE_NUMPY), JSON


def placed(place: str, values: list[Any]) -> Any:
    """JSON with the values at a place: "image.b64" holds the one value, "instances[].b64" a list with one entry for
    each."""
    before, several, after = place.partition("[]")
    inner = [_nested(after.strip("."), value) for value in values] if several else values[0]
    return _nested(before.strip("."), inner)


def _nested(place: str, value: Any) -> Any:
    for key in reversed(place.split(".") if place else []):
        value = {key: value}
    return value


def _instances(target: Target, rows: list[bytes]) -> tuple[bytes, str]:
    if target.format in PICTURES:
        instances: Any = [_nested(target.field, base64.b64encode(row).decode()) for row in rows]
    else:
        instances = _array(target, rows)
    return orjson.dumps({"instances": instances}, option=orjson.OPT_SERIALIZE_NUMPY), JSON


def _tensor(target: Target, rows: list[bytes]) -> tuple[str, list[int]]:
    """Datatype and shape of the one input of the Open Inference Protocol."""
    if target.format in PICTURES:
        return "BYTES", [len(rows)]
    return DATATYPES[target.format], [len(rows), *_shape(target)]


def _inference(target: Target, rows: list[bytes]) -> tuple[bytes, str]:
    datatype, shape = _tensor(target, rows)
    if target.format in PICTURES:
        data: Any = [base64.b64encode(row).decode() for row in rows]
    else:
        data = _array(target, rows).ravel()
    one = {"name": target.field, "datatype": datatype, "shape": shape, "data": data}
    return orjson.dumps({"inputs": [one]}, option=orjson.OPT_SERIALIZE_NUMPY), JSON


def _inference_grpc(target: Target, rows: list[bytes]) -> tuple[bytes, str]:
    datatype, shape = _tensor(target, rows)
    asked = message("ModelInferRequest")(model_name=urlsplit(target.url).path.strip("/"))
    asked.inputs.add(name=target.field, datatype=datatype, shape=shape)
    # of BYTES every element goes behind its length, four bytes little-endian
    counted = datatype == "BYTES"
    asked.raw_input_contents.append(b"".join(len(row).to_bytes(4, "little") + row if counted else row for row in rows))
    body: bytes = asked.SerializeToString()
    return body, PROTOBUF


_WAYS = {
    "multipart": _multipart,
    "picture": _picture,
    "float32": _float32,
    "json-b64": _base64,
    "json": _json,
    "kserve-v1": _instances,
    "tf-serving": _instances,
    "kserve-v2": _inference,
    "kserve-v2-grpc": _inference_grpc,
    "torchserve": _multipart,
}
assert set(_WAYS) == set(SENDS)
