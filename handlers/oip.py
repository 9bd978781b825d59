"""The Open Inference Protocol, version 2, as KServe and Triton have it, with its binary tensor extension.

    POST /v2/models/NAME/infer
    {"inputs": [{"name", "shape", "datatype", "data"}], "outputs"?: [{"name"}], "id"?, "parameters"?}

One input: `images`, FP32 in [0, 1] or UINT8, (n,C,H,W); or `image`, BYTES (n), a picture's file each, in base64 in
JSON. Binary tensors follow the JSON text, whose length the header LENGTH has; BYTES are each behind its length, four
bytes, little-endian. Outputs: `probabilities` FP32 (n,K), where the policy shows them, `label` INT64 (n), `name` BYTES
(n), all of them unless some are named.

The protocol has no answer for a row: a request with one row at fault is answered with the row's error, and its status.
An error is {"error": "text"}; what a proof of work is asked with stands in the header CHALLENGE, in base64.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from handlers import numbers
from handlers.errors import RequestError, Undecodable, WrongShape
from handlers.forms import JSON, Answered, Challenge, Classes, Encoded
from handlers.rows import Expects, Rows, check_count
from pictures.formats import Body

LENGTH = "Inference-Header-Content-Length"
CHALLENGE = "Torchwarden-Challenge"
VERSION = "1.0"
BINARY = "application/octet-stream"
OUTPUTS = {"probabilities": "FP32", "label": "INT64", "name": "BYTES"}
# where a JSON text of this protocol says that it is one
HEAD = 4096
SPACE = 64
_LENGTH = LENGTH.lower()
# how a JSON text of an object begins, white space or a byte order mark before it included
_TEXT = frozenset(b"{ \t\n\r" + numbers.MARK[:1])
# numbers of a shape: a product of a million of them would take minutes
SIDES = 4
# of the client's own name for a request, which its answer repeats: answers have bounds too
LONGEST_ID = 1024


@dataclass(frozen=True)
class Inference:
    """What writes answers of the protocol. model: its name. id: the client's own of the request. outputs: the names of
    those that are wanted, and whether as binary; None: all, as `binary` has it."""

    model: str
    id: str | None = None
    outputs: tuple[tuple[str, bool], ...] | None = None
    binary: bool = False

    def answers(self, answered: Answered, classes: Classes) -> Encoded:
        """The tensors; or the foremost error, where a row is at fault."""
        if answered.foremost is not None:
            return self.error(answered.foremost, answered.challenge)
        found = {"label": answered.labels, "name": np.array([classes.names[row] for row in answered.labels.tolist()])}
        if answered.probabilities is not None:
            found = {"probabilities": answered.probabilities, **found}
        wanted = self.outputs if self.outputs is not None else tuple((name, self.binary) for name in found)
        for name, _ in wanted:
            if name not in found:
                return self.error(Undecodable(f"expected outputs of {', '.join(found)}; this policy has no {name!r}"))
        outputs, tail = [], []
        for name, binary in wanted:
            values = found[name]
            output: dict[str, Any] = {"name": name, "datatype": OUTPUTS[name], "shape": list(values.shape)}
            if binary:
                packed = _packed(values, OUTPUTS[name])
                tail.append(packed)
                output["parameters"] = {"binary_data_size": len(packed)}
            else:
                output["data"] = values.ravel().tolist()
            outputs.append(output)
        head = {"model_name": self.model, "model_version": VERSION, "outputs": outputs}
        if self.id is not None:
            head["id"] = self.id
        text = orjson.dumps(head)
        if not tail:
            return Encoded(HTTPStatus.OK, text)
        return Encoded(HTTPStatus.OK, b"".join((text, *tail)), BINARY, {LENGTH: str(len(text))})

    def error(self, error: RequestError, challenge: Challenge | None = None) -> Encoded:
        """A text, with the row that it is about."""
        place = "" if error.row is None else f"row {error.row}: "
        headers = {}
        if challenge is not None:
            headers[CHALLENGE] = base64.b64encode(orjson.dumps(challenge)).decode()
        text = f"{place}{error.message} ({error.code})"
        return Encoded(error.status, orjson.dumps({"error": text}), JSON, headers)


class Asked(NamedTuple):
    """rows: numbers that are read, or the pictures' files, as bytes or base64 text."""

    rows: Rows | Sequence[Body | str]
    form: Inference


def asked(headers: Mapping[str, str], body: Body) -> bool:
    """Whether a request is one of the protocol: its path is not among what a handler is told."""
    if _LENGTH in headers:
        return True
    if not body or body[0] not in _TEXT or bytes(body[:SPACE]).removeprefix(numbers.MARK).lstrip()[:1] != b"{":
        return False
    head = bytes(body[:HEAD])
    inputs, instances = head.find(b'"inputs"'), head.find(b'"instances"')
    return inputs >= 0 and (instances < 0 or inputs < instances)


def read(body: Body, headers: Mapping[str, str], form: Inference, expects: Expects) -> Asked:
    """A request's input, and the form that its answer is to have. Raises Undecodable, WrongShape, NoRows, TooManyRows;
    the fault of a row of numbers stands in its Rows."""
    text, tail = _halves(body, headers)
    stated = f" in the first {len(text)} bytes, as {LENGTH} says" if _LENGTH in headers else ""
    request = numbers.parsed(text, expects, where=stated)
    form = _wanted(request, form)
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Undecodable("expected one input, `images` or `image`")
    kind, shape = inputs[0].get("datatype"), inputs[0].get("shape")
    if not isinstance(shape, list) or not 1 <= len(shape) <= SIDES or not all(map(_is_side, shape)):
        raise Undecodable(f"expected an input's shape, a list of 1 to {SIDES} whole numbers")
    values = _values(inputs[0], tail)
    if kind == "BYTES":
        return Asked(_files(values, shape, expects), form)
    if kind not in ("FP32", "UINT8"):
        raise Undecodable("expected an input of FP32, UINT8 or BYTES")
    return Asked(_images(values, kind, shape, expects, form), form)


def _is_side(side: Any) -> bool:
    return type(side) is int and side >= 0


def _halves(body: Body, headers: Mapping[str, str]) -> tuple[Body, memoryview]:
    stated = headers.get(_LENGTH)
    if stated is None:
        return body, memoryview(b"")
    length = numbers.whole(stated)
    if length is None or length > len(body):
        raise Undecodable(f"expected a {LENGTH} of at most the body's {len(body)} bytes")
    return body[:length], memoryview(body)[length:]


def _wanted(request: Any, form: Inference) -> Inference:
    """The form with what a request says of its answer."""
    if not isinstance(request, dict):
        raise Undecodable('expected {"inputs": [...]}')
    identifier = request.get("id")
    if identifier is not None and not (isinstance(identifier, str) and len(identifier) <= LONGEST_ID):
        raise Undecodable(f"expected a text of at most {LONGEST_ID} characters as id")
    binary = _parameters(request).get("binary_data_output") is True
    form = replace(form, id=identifier, binary=binary)
    outputs = request.get("outputs")
    if not outputs:
        return form
    if not isinstance(outputs, list) or not all(
        isinstance(each, dict) and each.get("name") in tuple(OUTPUTS) for each in outputs
    ):
        raise Undecodable(f"expected outputs of {', '.join(OUTPUTS)}")
    if any("classification" in _parameters(each) for each in outputs):
        raise Undecodable("expected no classification of outputs; ask for `label` and `name`")
    named = {each["name"]: _parameters(each).get("binary_data", binary) is True for each in outputs}
    return replace(form, outputs=tuple(named.items()))


def _parameters(table: Mapping[str, Any]) -> Mapping[str, Any]:
    found = table.get("parameters")
    return found if isinstance(found, dict) else {}


def _values(given: Mapping[str, Any], tail: memoryview) -> memoryview | list[Any]:
    """A tensor's values: bytes behind the text, or what stands in it."""
    size = _parameters(given).get("binary_data_size")
    if size is None:
        if not isinstance(given.get("data"), list):
            raise Undecodable("expected an input's data, a list")
        if len(tail):
            raise Undecodable("expected no bytes behind the JSON text, its input has its data")
        return list(given["data"])
    if "data" in given or type(size) is not int or size != len(tail):
        raise Undecodable(f"expected a binary_data_size of the {len(tail)} bytes that follow, and no data")
    return tail


def _files(values: memoryview | list[Any], shape: list[int], expects: Expects) -> Sequence[Body | str]:
    count = math.prod(shape)
    if shape not in ([count], [count, 1]):
        raise WrongShape("expected an input of BYTES (n) or (n, 1), a picture a row")
    check_count(count, expects)
    if isinstance(values, memoryview):
        return list(_cut(values, count))
    flat = [each[0] if isinstance(each, list) and len(each) == 1 else each for each in values]
    if len(flat) != count or not all(isinstance(each, str) for each in flat):
        raise Undecodable(f"expected {count} texts, a picture in base64 each")
    return flat


def _cut(values: memoryview, count: int) -> Iterable[bytes]:
    """Texts behind their lengths."""
    place = 0
    for _ in range(count):
        if place + 4 > len(values):
            raise Undecodable("expected each picture behind its length, four bytes, little-endian")
        (length,) = struct.unpack_from("<I", values, place)
        if place + 4 + length > len(values):
            raise Undecodable("expected each picture behind its length, four bytes, little-endian")
        yield bytes(values[place + 4 : place + 4 + length])
        place += 4 + length
    if place != len(values):
        raise Undecodable("expected no bytes behind the pictures")


def _images(values: memoryview | list[Any], kind: str, shape: list[int], expects: Expects, form: Inference) -> Rows:
    if tuple(shape[1:]) != expects.input.shape:
        raise WrongShape(f"expected {kind} (n, {', '.join(map(str, expects.input.shape))}), got another shape")
    check_count(shape[0], expects)
    size = math.prod(shape)
    if isinstance(values, memoryview):
        width = 4 if kind == "FP32" else 1
        if len(values) != width * size:
            raise WrongShape(f"expected {width * size} bytes of {kind}, got {len(values)}")
        if kind == "FP32":
            # behind a text of any length they stand at any place: a copy is aligned
            return numbers.raw(bytes(values), expects, form)
        levels = np.frombuffer(values, np.uint8)
    else:
        flat = _flat(values, size)
        if kind == "FP32":
            with np.errstate(over="ignore"):  # what becomes infinite is refused as that
                values_ = np.array(flat, np.float64).astype("<f4").reshape(shape)
            return numbers.checked(values_.view("<u4"), form)
        if not all(type(each) is int and 0 <= each <= 255 for each in flat):
            raise Undecodable("expected whole numbers from 0 to 255")
        levels = np.array(flat, np.uint8)
    return Rows(levels.reshape(shape).astype(np.float32) / np.float32(255), form=form)


def _flat(values: list[Any], size: int) -> list[int | float]:
    """Numbers, in nested lists or not."""
    level = values
    while level and isinstance(level[0], list) and len(level) <= size:
        if set(map(type, level)) != {list}:
            break
        level = [each for part in level for each in part]
    if len(level) != size:
        raise WrongShape(f"expected {size} numbers, got others")
    if not set(map(type, level)) <= {int, float}:
        raise Undecodable("expected numbers")
    return level


def outputs(body: Body, headers: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Client's side of `Inference.answers`: the tensors by name. Raises ValueError, TypeError, LookupError."""
    length = int(headers.get(LENGTH.lower(), len(body)))
    found, tail = {}, memoryview(body)[length:]
    for output in orjson.loads(body[:length])["outputs"]:
        kind, shape = output["datatype"], output["shape"]
        if "data" in output:
            values: NDArray[Any] = np.array(output["data"], {"FP32": np.float32, "INT64": np.int64, "BYTES": str}[kind])
        else:
            size = output["parameters"]["binary_data_size"]
            packed, tail = tail[:size], tail[size:]
            if kind == "BYTES":
                values = np.array([each.decode() for each in _cut(packed, math.prod(shape))])
            else:
                values = np.frombuffer(packed, "<f4" if kind == "FP32" else "<i8")
        found[output["name"]] = values.reshape(shape)
    if len(tail):
        raise ValueError("bytes behind the tensors")
    return found


def _packed(values: NDArray[Any], kind: str) -> bytes:
    if kind == "BYTES":
        return b"".join(struct.pack("<I", len(each)) + each for each in (name.encode() for name in values.tolist()))
    return np.ascontiguousarray(values, "<f4" if kind == "FP32" else "<i8").tobytes()


def encode_rows(images: NDArray[np.float32]) -> tuple[bytes, dict[str, str]]:
    """The body that asks for `images` (n,C,H,W) in [0, 1], binary, and the header that it needs: client's side."""
    tensor = np.ascontiguousarray(images, "<f4").tobytes()
    given = {"name": "images", "datatype": "FP32", "shape": list(images.shape)}
    text = orjson.dumps({"inputs": [{**given, "parameters": {"binary_data_size": len(tensor)}}]})
    return text + tensor, {LENGTH: str(len(text))}


def decode_answers(body: Body) -> tuple[NDArray[np.int64], NDArray[np.float32] | None]:
    """Labels (n,) and probabilities (n,K), or None, of an answer whose outputs stand in its JSON text: client's side.
    Raises ValueError."""
    try:
        tensors = outputs(body, {})
        return tensors["label"], tensors.get("probabilities")
    except (TypeError, LookupError) as error:
        raise ValueError(f'expected {{"outputs": [...]}}, got {bytes(body[:200])!a}') from error


def code_of(body: Body) -> str:
    """The code of an error, which stands behind its text; "" where there is none: client's side."""
    try:
        text = orjson.loads(body)["error"]
    except (ValueError, TypeError, LookupError):
        return ""
    return text.rpartition(" (")[2].removesuffix(")") if isinstance(text, str) else ""


def decode_challenge(headers: Mapping[str, str]) -> dict[str, Any] | None:
    """The challenge that comes with an error, None where there is none: client's side."""
    sent = headers.get(CHALLENGE)
    if not sent:
        return None
    try:
        challenge = orjson.loads(base64.b64decode(sent, validate=True))
    except ValueError:
        return None
    return challenge if isinstance(challenge, dict) else None
