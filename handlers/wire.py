"""The wire format, both sides of it: no other module spells a key, a content type or an error body.

A request carries rows in one of four content types (CONTENT_TYPES): one picture; float32 little-endian
values, row after row; or JSON {"instances": [...]}, each instance nested lists C x H x W (H x W where C = 1)
or {"b64": file}. The answer is {"predictions": [{"label", "probabilities"}, ...]}, a row each, in order. A
row at fault is {"error": {"code", "message", "row"}} at its place; where every row is at fault, or the
request as a whole is, that object is the body and its status the request's. Where rows want a proof of work, either
body also has a `challenge`; what solves it comes back in the header SOLUTION.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from defenses.policy import Input, Policy
from handlers.errors import (
    NoRows,
    NotFinite,
    OutOfRange,
    RequestError,
    TooManyRows,
    Undecodable,
    UnsupportedContent,
    WrongShape,
)
from handlers.images import read_image, write_image

Body = bytes | bytearray
Images = NDArray[np.float32]
Challenge = Mapping[str, Any]  # as ALTCHA's libraries write and read it

JSON = "application/json"
RAW = "application/octet-stream"
PNG = "image/png"
JPEG = "image/jpeg"

# of a float32, read as an integer: numbers from 0 to 1 are in order, and whatever is no such number is above them
_ONE = 0x3F80_0000
_MINUS_ZERO = 0x8000_0000
# what a JSON text of numbers alone is made of, and what is left of it without that
_NUMBERS = b"0123456789.eE+-[], \t\r\n"
_AROUND = b'{"instancs":}'

SOLUTION = "Torchwarden-Solution"
# set by a gateway, where a policy names no other
PRINCIPAL = Policy.principal_header
# in every answer of ours: "ok", or the code of its error; by it a gateway distinguishes our 503 from TorchServe's
ANSWER = "Torchwarden-Answer"


class WireError(ValueError):
    """A body that is not what this wire format's server sends."""


class Accepts(NamedTuple):
    """What `decode` asks of a policy, as far as a client knows it: from `read_description`."""

    input: Input
    max_rows: int


Expects: TypeAlias = "Policy | Accepts"


@dataclass(frozen=True, eq=False)
class Rows:
    """A request's rows: the good ones as images (n,C,H,W) float32 in [0, 1], in order; the others' faults.

    errors: by the row's index. A request at fault as a whole has no images and one fault. paid: whether the request
    came with a proof of work for all its rows.
    """

    images: Images
    errors: dict[int, RequestError] = field(default_factory=dict)
    paid: bool = False

    @classmethod
    def refused(cls, error: RequestError, expects: Input) -> Rows:
        """A request of which nothing can be answered."""
        return cls(np.empty((0, *expects.shape), np.float32), {0: error})

    def as_refused(self, error: RequestError) -> Rows:
        """The same request with none of its rows to be answered."""
        return Rows(self.images[:0], {0: error})

    @property
    def digest(self) -> bytes:
        """SHA-256 of the images: the same for the same pixels, whatever content type brought them."""
        hasher = hashlib.sha256(str(self.images.shape).encode())
        hasher.update(np.ascontiguousarray(self.images, "<f4").data)
        return hasher.digest()

    @property
    def places(self) -> list[int]:
        """For each image, the index of its row in the request."""
        return [row for row in range(len(self.images) + len(self.errors)) if row not in self.errors]


def decode(body: Body, content_type: str, *, expects: Expects) -> Rows:
    """A request's rows, checked against the geometry and max_rows of the policy `expects`.

    Raw values are not copied: `images` is a view of `body` if every row is good and none holds a -0, which is read as
    the 0 it equals: what is keyed by a row's bytes must not change where no pixel does. Raises UnsupportedContent,
    TooManyRows, NoRows, and Undecodable or WrongShape where rows cannot be separated; the fault of a row
    does not raise but stands in `errors`.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in _DECODERS:
        raise UnsupportedContent(f"expected a Content-Type of {', '.join(CONTENT_TYPES)}")
    return _DECODERS[media_type](body, expects)


def _decode_image(body: Body, expects: Expects) -> Rows:
    if not body:
        raise NoRows("expected a picture, got an empty body")
    return _gather([body], lambda data: read_image(data, expects.input), expects.input)


def _decode_raw(body: Body, expects: Expects) -> Rows:
    shape = expects.input.shape
    size = 4 * math.prod(shape)
    rows, rest = divmod(len(body), size)
    if rest:
        raise WrongShape(f"expected a multiple of {size} bytes, float32 {_times(shape)} a row, got {len(body)}")
    _check_count(rows, expects)
    bits = np.frombuffer(body, "<u4").reshape(rows, *shape)
    good = bits.max(axis=(1, 2, 3)) <= _ONE
    if good.all():
        return Rows(bits.view("<f4"))
    bits = bits.copy()
    bits[bits == _MINUS_ZERO] = 0
    good = bits.max(axis=(1, 2, 3)) <= _ONE
    images = bits.view("<f4")
    errors = {row: _fault(images[row].min(), images[row].max(), row=row) for row in np.flatnonzero(~good).tolist()}
    return Rows(images[good], errors)


def _decode_json(body: Body, expects: Expects) -> Rows:
    _check_size(body, expects)
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Undecodable("expected JSON text") from error
    if not isinstance(request, dict) or request.keys() != {"instances"} or not isinstance(request["instances"], list):
        raise Undecodable('expected {"instances": [...]} and no other key')
    _check_count(len(request["instances"]), expects)
    plain = body.translate(None, _NUMBERS) == _AROUND
    return _gather(request["instances"], lambda each: _read_instance(each, expects.input, plain=plain), expects.input)


def _check_size(body: Body, expects: Expects) -> None:
    """Refuse a text of far more values than the rows that may come, before each becomes an object of fifty bytes."""
    most = 2 * expects.max_rows * math.prod(expects.input.shape)
    if len(body) > most and np.count_nonzero(np.frombuffer(body, np.uint8) == ord(",")) > most:
        raise TooManyRows(f"expected at most {expects.max_rows} rows, got more values than such rows have")


def _check_count(rows: int, expects: Expects) -> None:
    if rows == 0:
        raise NoRows("expected at least one row, got none")
    if rows > expects.max_rows:
        raise TooManyRows(f"expected at most {expects.max_rows} rows, got {rows}")


def _gather(instances: list[Any], read: Callable[[Any], Images], expects: Input) -> Rows:
    """Read each instance to a row; one that cannot be read answers for itself."""
    images = np.empty((len(instances), *expects.shape), np.float32)
    errors: dict[int, RequestError] = {}
    good = 0
    for row, instance in enumerate(instances):
        try:
            images[good] = read(instance)
            good += 1
        except RequestError as error:
            error.row = row
            errors[row] = error
    return Rows(images[:good], errors)


def _read_instance(instance: Any, expects: Input, *, plain: bool) -> Images:
    """One JSON instance as (C,H,W) float32. plain: there is nothing in the text but lists of numbers."""
    if isinstance(instance, dict):
        if instance.keys() != {"b64"} or not isinstance(instance["b64"], str):
            raise Undecodable('expected nested lists of numbers or {"b64": a PNG or JPEG file} and no other key')
        try:
            data = base64.b64decode(instance["b64"], validate=True)
        except ValueError as error:
            raise Undecodable("b64: expected base64 text") from error
        return read_image(data, expects)
    values = _numbers(instance, expects, plain=plain)
    lowest, highest = values.min(), values.max()
    if not _in_range(lowest, highest):
        raise _fault(lowest, highest)
    return values.astype(np.float32).reshape(expects.shape) + np.float32(0)  # -0 + 0 = 0


def _numbers(instance: Any, expects: Input, *, plain: bool) -> NDArray[np.float64]:
    """The numbers of nested lists, in order. NumPy is shown numbers alone: at every place of an array that holds a
    text it would make room for the longest."""
    shape = _lengths(instance)
    gray = (1,) if expects.channels == 1 and len(shape) == 2 else ()
    level = [instance]
    if (*gray, *shape) == expects.shape:
        for length in shape:
            if set(map(type, level)) != {list} or set(map(len, level)) != {length}:
                raise WrongShape("expected nested lists of equal lengths")
            level = list(chain.from_iterable(level))
    elif shape or type(instance) in (int, float):
        deeper = " or deeper" if len(shape) > len(expects.shape) else ""
        raise WrongShape(f"expected {_times(expects.shape)} numbers, got {_times(shape) or 'one'}{deeper}")
    if not plain and not set(map(type, level)) <= {int, float}:  # a bool is an int, but not of that type
        raise Undecodable("expected numbers in nested lists")
    try:
        return np.array(level, np.float64)
    except ValueError as error:  # in a plain text, lists among the numbers
        raise Undecodable("expected numbers in nested lists") from error


def _lengths(instance: Any) -> tuple[int, ...]:
    """Of the first list on each level: the shape, if the others are like it. Not further down than an image has."""
    lengths: list[int] = []
    while isinstance(instance, list) and len(lengths) < 4:
        lengths.append(len(instance))
        instance = instance[0] if instance else None
    return tuple(lengths)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _in_range(lowest: Any, highest: Any) -> bool:
    """Whether values with these extremes lie in [0, 1]; a NaN among them is both extremes and does not."""
    return bool(lowest >= 0 and highest <= 1)


def _fault(lowest: Any, highest: Any, *, row: int | None = None) -> RequestError:
    """The fault of a row whose extremes are not within [0, 1]."""
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        return NotFinite("expected finite values, got NaN or infinity", row=row)
    return OutOfRange(f"expected values in [0, 1], got {lowest!s} to {highest!s}", row=row)


_DECODERS: dict[str, Callable[[Body, Expects], Rows]] = {
    PNG: _decode_image,
    JPEG: _decode_image,
    RAW: _decode_raw,
    JSON: _decode_json,
}
CONTENT_TYPES = tuple(_DECODERS)


def encode_answers(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32] | None,
    errors: Mapping[int, RequestError],
    challenge: Challenge | None = None,
) -> bytes:
    """The body of a 200: labels (n,) and probabilities (n,K) or None of the good rows, the others' errors.

    errors: by the row's index. challenge: of the rows that want a proof of work. Probabilities are written in the
    shortest form that reads back to the same float32.
    """
    if probabilities is None:
        good: Iterable[dict[str, object]] = ({"label": label} for label in labels.tolist())
    else:
        pairs = zip(labels.tolist(), np.ascontiguousarray(probabilities), strict=True)
        good = ({"label": label, "probabilities": row} for label, row in pairs)
    answers = iter(good)
    count = len(labels) + len(errors)
    predictions = [_error(errors[row]) if row in errors else next(answers) for row in range(count)]
    return orjson.dumps({"predictions": predictions, **_with_challenge(challenge)}, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_error(error: RequestError, challenge: Challenge | None = None) -> bytes:
    """The body of an answer that is not a 200."""
    return orjson.dumps({**_error(error), **_with_challenge(challenge)})


def _with_challenge(challenge: Challenge | None) -> dict[str, Challenge]:
    return {} if challenge is None else {"challenge": challenge}


def _error(error: RequestError) -> dict[str, object]:
    return {"error": {"code": error.code, "message": error.message, "row": error.row}}


def describe(policy: Policy) -> dict[str, object]:
    """What anyone may know of a policy. How rows are routed and judged, and by what key, is left out."""
    return {
        "recipe": policy.recipe,
        "policy": policy.policy,
        "backend": policy.backend,
        "input": {
            "channels": policy.input.channels,
            "height": policy.input.height,
            "width": policy.input.width,
        },
        "class_names": list(policy.class_names),
        "response": {"rule": policy.response.rule, **policy.response.options},
        "gate": None if policy.gate is None else policy.gate.action,
        "max_rows": policy.max_rows,
        "limits": None if policy.limits is None else {"rows": policy.limits.rows, "window": policy.limits.window},
        "content_types": list(CONTENT_TYPES),
    }


def read_description(facts: Mapping[str, Any]) -> Accepts:
    """What a client can know beforehand of `decode`: client's side of `describe`. Raises WireError."""
    try:
        return Accepts(Input(**facts["input"]), int(facts["max_rows"]))
    except (ValueError, TypeError, LookupError) as error:
        raise WireError(f"expected a description with input and max_rows, got {str(facts)[:200]!a}") from error


class Fault(NamedTuple):
    """An error as a client reads it; row is None where the whole request was refused."""

    code: str
    message: str
    row: int | None


class Decoded(NamedTuple):
    """What a client reads, row by row.

    labels: (n,) int64, -1 at a fault. probabilities: (n,K) float32, NaN at a fault, or None: not shown.
    """

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32] | None
    errors: dict[int, Fault]


def encode_rows(images: Images, content_type: str) -> bytes:
    """The body that asks for `images` (n,C,H,W) float32 in [0, 1]: client's side of `decode`.

    Pictures carry one row and round it to 8 bits (JPEG further); the other two keep float32 exactly.
    Raises ValueError on an unknown content type and on several rows in a picture.
    """
    if content_type == RAW:
        return np.ascontiguousarray(images, "<f4").tobytes()
    if content_type == JSON:
        return orjson.dumps({"instances": np.ascontiguousarray(images)}, option=orjson.OPT_SERIALIZE_NUMPY)
    if content_type not in (PNG, JPEG):
        raise ValueError(f"expected a content type of {', '.join(CONTENT_TYPES)}, got {content_type!r}")
    if len(images) != 1:
        raise ValueError(f"{content_type} carries one row, got {len(images)}")
    return write_image(images[0], content_type.removeprefix("image/"))


def decode_answers(body: Body) -> Decoded:
    """The content of a 200: client's side of `encode_answers`. Raises WireError."""
    try:
        predictions = orjson.loads(body)["predictions"]
        errors = {row: _read_fault(each) for row, each in enumerate(predictions) if "error" in each}
        labels = np.array([each.get("label", -1) for each in predictions], np.int64)
        shown = [each.get("probabilities") for each in predictions]
        classes = max((len(row) for row in shown if row is not None), default=0)
        if not classes:
            return Decoded(labels, None, errors)
        unknown = [float("nan")] * classes
        return Decoded(labels, np.array([unknown if row is None else row for row in shown], np.float32), errors)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise WireError(f'expected {{"predictions": [...]}}, got {bytes(body[:200])!a}') from error


def decode_error(body: Body) -> Fault:
    """The content of an answer that is not a 200: client's side of `encode_error`.

    Raises WireError, also on the errors that TorchServe itself writes: a token, a queue that is full.
    """
    try:
        return _read_fault(orjson.loads(body))
    except (ValueError, TypeError, LookupError) as error:
        raise WireError(f'expected {{"error": {{...}}}}, got {bytes(body[:200])!a}') from error


def decode_challenge(body: Body) -> dict[str, Any] | None:
    """The challenge in any answer, None where there is none: client's side of either encoder."""
    try:
        challenge = orjson.loads(body).get("challenge")
    except (ValueError, AttributeError):
        return None
    return challenge if isinstance(challenge, dict) else None


def _read_fault(answer: Any) -> Fault:
    fault = answer["error"]
    return Fault(fault["code"], fault["message"], fault["row"])
