"""The wire format, for what asks and for what answers without a server: no other room spells a key, a header or a type.

A request carries pictures or numbers (handlers/bodies.py says in which ways), its answer is written in the form that it
asks for (handlers/forms.py, handlers/oip.py). What solves a challenge comes in the header SOLUTION.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from defenses.policy import Policy
from handlers import bodies, oip
from handlers.bodies import RAW, Message
from handlers.forms import JSON
from handlers.images import write_image
from handlers.rows import Accepts, Expects, Images, Rows
from pictures.formats import Body
from pictures.geometry import Geometry

__all__ = [
    "ANSWER",
    "CONTENT_TYPES",
    "JPEG",
    "JSON",
    "PNG",
    "PRINCIPAL",
    "RAW",
    "SOLUTION",
    "Accepts",
    "Decoded",
    "Fault",
    "Message",
    "Rows",
    "WireError",
    "decode",
    "decode_answers",
    "decode_challenge",
    "decode_error",
    "decode_inference",
    "decode_inference_error",
    "decode_message",
    "decode_stock",
    "describe",
    "encode_rows",
    "read_description",
]

PNG = "image/png"
JPEG = "image/jpeg"
# what a description names: others are recognised as well (handlers/bodies.py)
CONTENT_TYPES = (PNG, JPEG, "image/webp", "image/bmp", "image/tiff", "image/gif", RAW, JSON, bodies.PARTS)

# of a geometry that takes pictures of one size
EXACT = ("channels", "height", "width", "fit")

SOLUTION = "Torchwarden-Solution"
# set by a gateway, where a policy names no other
PRINCIPAL = Policy.principal_header
# in every answer of ours: "ok", or the code of its error; by it a gateway distinguishes our 503 from TorchServe's
ANSWER = "Torchwarden-Answer"


class WireError(ValueError):
    """A body that is not what this wire format's server sends."""


def decode(body: Body, content_type: str, *, expects: Expects) -> Rows:
    """One request's rows, as the server reads them. Raises RequestError for a request at fault as a whole; the fault of
    a row stands in `errors`."""
    return decode_message(Message({"content-type": content_type}, body), expects=expects)


def decode_message(message: Message, *, expects: Expects) -> Rows:
    """The same of a request with other headers, or in parts."""
    opened = bodies.opened(message, bodies.form_of(message), expects)
    return bodies.read([opened], expects.input)[0]


def describe(policy: Policy) -> dict[str, object]:
    """What anyone may know of a policy. How rows are routed and judged, and by what key, is left out."""
    return {
        "recipe": policy.recipe,
        "policy": policy.policy,
        "backend": policy.backend,
        "input": _shown(policy.input),
        "class_names": list(policy.class_names),
        "response": {"rule": policy.response.rule, **policy.response.options},
        "gate": None if policy.gate is None else policy.gate.action,
        "max_rows": policy.max_rows,
        "limits": None if policy.limits is None else {"rows": policy.limits.rows, "window": policy.limits.window},
        "content_types": list(CONTENT_TYPES),
    }


def _shown(geometry: Geometry) -> dict[str, object]:
    """The fields of a geometry that mean anything: a picture of one exact size is not fitted."""
    fields = asdict(geometry)
    return {name: fields[name] for name in EXACT} if geometry.fit == "exact" else fields


def read_description(facts: Mapping[str, Any]) -> Accepts:
    """What a client can know beforehand of `decode`: client's side of `describe`. Raises WireError."""
    try:
        return Accepts(Geometry(**facts["input"]), int(facts["max_rows"]))
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
        raise ValueError(f"expected a content type of {', '.join((PNG, JPEG, RAW, JSON))}, got {content_type!r}")
    if len(images) != 1:
        raise ValueError(f"{content_type} carries one row, got {len(images)}")
    return write_image(images[0], content_type.removeprefix("image/"))


def decode_answers(body: Body) -> Decoded:
    """The content of a 200: client's side of handlers/forms.py. Raises WireError."""
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
    """The content of an answer that is not a 200: client's side of handlers/forms.py.

    Raises WireError, also on the errors that TorchServe itself writes: a token, a queue that is full.
    """
    try:
        return _read_fault(orjson.loads(body))
    except (ValueError, TypeError, LookupError) as error:
        raise WireError(f'expected {{"error": {{...}}}}, got {bytes(body[:200])!a}') from error


def decode_stock(body: Body, names: Sequence[str]) -> Decoded:
    """The content of a 200 in TorchServe's own form, by the model's class names; 0 for what it does not show. Raises
    WireError."""
    try:
        answer = orjson.loads(body)
        rows = answer if isinstance(answer, list) else [answer]
        errors = {row: _read_fault(each) for row, each in enumerate(rows) if isinstance(each.get("error"), dict)}
        shown = np.zeros((len(rows), len(names)), np.float32)
        for row, each in enumerate(rows):
            if row in errors:
                shown[row] = np.nan
                continue
            for name, probability in each.items():
                shown[row, names.index(name)] = probability
        labels = [-1 if row in errors else names.index(next(iter(each))) for row, each in enumerate(rows)]
        return Decoded(np.array(labels, np.int64), shown, errors)
    except (ValueError, TypeError, LookupError, AttributeError, StopIteration) as error:
        raise WireError(f"expected classes by name, got {bytes(body[:200])!a}") from error


def decode_inference(body: Body, headers: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """The outputs of a 200 of the Open Inference Protocol, by name. headers: by their lower-case names. Raises
    WireError."""
    try:
        return oip.outputs(body, headers)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise WireError(f'expected {{"outputs": [...]}}, got {bytes(body[:200])!a}') from error


def decode_inference_error(body: Body) -> Fault:
    """The content of an answer of the Open Inference Protocol that is not a 200. Raises WireError."""
    try:
        text = orjson.loads(body)["error"]
        message, _, code = text.removesuffix(")").rpartition(" (")
        return Fault(code, message, None)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise WireError(f'expected {{"error": "text (code)"}}, got {bytes(body[:200])!a}') from error


def decode_challenge(body: Body) -> dict[str, Any] | None:
    """The challenge in any answer, None where there is none."""
    try:
        challenge = orjson.loads(body).get("challenge")
    except (ValueError, AttributeError):
        return None
    return challenge if isinstance(challenge, dict) else None


def _read_fault(answer: Any) -> Fault:
    fault = answer["error"]
    return Fault(fault["code"], fault["message"], fault["row"])
