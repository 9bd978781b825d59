"""The Open Inference Protocol: good requests in every form, lengths that lie, shapes that overflow, types, depth."""

from __future__ import annotations

import base64
import json
import struct
from random import Random
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from assurance.fuzz import pictures
from assurance.fuzz.case import Case, Make, Seen, Subject, head, usual
from handlers import wire
from handlers.oip import LENGTH

KIND = "inference"
KINDS = ("FP32", "UINT8", "BYTES")
# what stands where something else is wanted
STRANGERS: tuple[Any, ...] = (None, True, 0, -1, 1.5, 2**63, "", "FP32", "x" * 5000, [], [[]], [None], {}, {"a": 1})
NUMBERS = ("1e400", "NaN", "-1", "2", "1e308", "256", "-0.0", "18446744073709551616", '"0"', "null", "true", "[]", "{}")


def path(subject: Subject) -> bytes:
    return b"/v2/models/" + subject.model.encode() + b"/infer"


def _asked(idea: str, subject: Subject, body: bytes, length: str | None = None, content_type: str = wire.JSON) -> Case:
    """A request at the protocol's path. length: of its JSON text, as the header states it."""
    stated = () if length is None else ((LENGTH.lower(), length),)
    headers = usual(content_type, len(body))
    headers += [(LENGTH.encode(), length.encode("latin-1"))] if length is not None else []
    return Case(
        KIND,
        idea,
        subject.model,
        head(headers, path(subject)),
        body,
        seen=Seen(content_type, body, stated),
        refusable=len(body) > subject.most_bytes,
    )


def _rows(rng: Random, subject: Subject) -> NDArray[np.float32]:
    count = rng.randint(1, min(3, subject.accepts.max_rows))
    return np.stack([rng.choice(subject.images) for _ in range(count)])


def _tensor(rng: Random, subject: Subject, kind: str) -> tuple[dict[str, Any], bytes]:
    """An honest input, and its values as bytes. Its values as JSON stand under `data`."""
    rows = _rows(rng, subject)
    levels = np.rint(rows * 255).astype(np.uint8)
    if kind == "BYTES":
        files = [pictures.either(rng, subject) for _ in rows]
        texts: Any = [base64.b64encode(file).decode() for file in files]
        packed = b"".join(struct.pack("<I", len(file)) + file for file in files)
        shape = rng.choice([[len(rows)], [len(rows), 1]])
        data = [[text] for text in texts] if len(shape) == 2 and rng.random() < 0.5 else texts
        return {"name": "image", "datatype": kind, "shape": shape, "data": data}, packed
    values: NDArray[Any] = rows if kind == "FP32" else levels
    nested = values.tolist() if rng.random() < 0.5 else values.ravel().tolist()
    return {"name": "images", "datatype": kind, "shape": list(rows.shape), "data": nested}, values.tobytes()


def _binary(tensor: dict[str, Any], size: Any) -> dict[str, Any]:
    """The same input with its values behind the text."""
    return {
        **{name: value for name, value in tensor.items() if name != "data"},
        "parameters": {"binary_data_size": size},
    }


def _wanted(rng: Random) -> dict[str, Any]:
    """What a request may say of its answer, but for probabilities, which not every policy has."""
    outputs = [{"name": "label", "parameters": {"binary_data": rng.random() < 0.5}}, {"name": "name"}]
    return rng.choice([{}, {}, {"parameters": {"binary_data_output": True}}, {"outputs": outputs}, {"id": "a"}])


def intact(rng: Random, subject: Subject) -> Case:
    """Good requests: each datatype, in JSON and binary, with all outputs or some."""
    tensor, packed = _tensor(rng, subject, rng.choice(KINDS))
    if rng.random() < 0.5:
        return _asked("intact", subject, orjson.dumps({"inputs": [tensor], **_wanted(rng)}))
    text = orjson.dumps({"inputs": [_binary(tensor, len(packed))], **_wanted(rng)})
    return _asked("intact-binary", subject, text + packed, str(len(text)), rng.choice([wire.RAW, wire.JSON]))


def lying_length(rng: Random, subject: Subject) -> Case:
    """A length of the JSON text that is not its own: beyond the body, within the text, no number."""
    tensor, packed = _tensor(rng, subject, rng.choice(KINDS))
    text = orjson.dumps({"inputs": [_binary(tensor, len(packed))]})
    size = len(text)
    length = rng.choice(
        [
            *(
                str(each)
                for each in (0, 1, size - 1, size + 1, size + len(packed), size + len(packed) + 1, 2**31, 2**64)
            ),
            *(
                "-1",
                "",
                "abc",
                f"+{size}",
                f"{size}.0",
                f"0x{size:x}",
                f"{size}, {size}",
                "9" * 5000,
                "0" * 5000 + str(size),
            ),
            *("\xb2", "1e3", f"00{size}"),
        ]
    )
    return _asked("lying-length", subject, text + packed, length, wire.RAW)


def lying_size(rng: Random, subject: Subject) -> Case:
    """Binary tensors whose size is not their own, or whose pictures' lengths are not."""
    tensor, packed = _tensor(rng, subject, rng.choice(KINDS))
    size = rng.choice([*STRANGERS, len(packed) - 1, len(packed) + 1, 2**31, 2**62, -len(packed)])
    if rng.random() < 0.5:
        size = len(packed)
        act = rng.choice(["cut", "more", "first"])
        first = struct.pack("<I", rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, len(packed)]))
        packed = {"cut": packed[: rng.randrange(len(packed))], "more": packed + b"x", "first": first + packed[4:]}[act]
        size = rng.choice([size, len(packed)])
    text = orjson.dumps({"inputs": [_binary(tensor, size)]})
    return _asked("lying-size", subject, text + packed, str(len(text)), wire.RAW)


def shapes(rng: Random, subject: Subject) -> Case:
    """Shapes that overflow, of no row, of many sides, of other things than numbers."""
    tensor, packed = _tensor(rng, subject, rng.choice(KINDS))
    own = list(tensor["shape"])
    side = rng.choice([0, 2**15, 2**16, 2**31, 2**32 + 1, 2**62, 2**63 - 1, -1, 1.0, "1", None, True, [1]])
    at = rng.randrange(len(own))
    tensor["shape"] = rng.choice(
        [
            [*own[:at], side, *own[at + 1 :]],
            [side] * len(own),
            [2**32] * 4,
            own[1:],
            [*own, 1],
            [1, *own],
            own[::-1],
            [1] * rng.choice([5, 1000, 100_000]),
            [2**62] * rng.choice([2, 3, 50_000]),
            [],
            own[0],
            None,
        ]
    )
    if rng.random() < 0.5:
        return _asked("shape", subject, orjson.dumps({"inputs": [tensor]}))
    text = orjson.dumps({"inputs": [_binary(tensor, len(packed))]})
    return _asked("shape-binary", subject, text + packed, str(len(text)), wire.RAW)


def strangers(rng: Random, subject: Subject) -> Case:
    """Something else in place of any part of a request; keys left out, or more of them."""
    tensor, _ = _tensor(rng, subject, rng.choice(KINDS))
    request: dict[str, Any] = {"id": "a", "inputs": [tensor], "outputs": [{"name": "label"}], "parameters": {}}
    stranger = rng.choice(STRANGERS)
    place = rng.choice(["id", "inputs", "outputs", "parameters", "tensor", "output", "input", "two", "drop", "long-id"])
    if place == "tensor":
        tensor[rng.choice([*tensor, "parameters"])] = stranger
    elif place == "output":
        request["outputs"] = [{"name": stranger, "parameters": rng.choice(STRANGERS)}]
    elif place == "input":
        request["inputs"] = [stranger]
    elif place == "two":
        request["inputs"] = [tensor] * rng.choice([0, 2, 500])
    elif place == "drop":
        del tensor[rng.choice(list(tensor))]
    elif place == "long-id":
        request["id"] = "\U0001f600" * rng.choice([1024, 1025, 100_000])
    else:
        request[place] = stranger
    return _asked(f"stranger-{place}", subject, orjson.dumps(request))


def datatypes(rng: Random, subject: Subject) -> Case:
    """Datatypes that are not read, or not those of the values."""
    tensor, packed = _tensor(rng, subject, rng.choice(KINDS))
    tensor["datatype"] = rng.choice([*KINDS, "FP16", "FP64", "INT8", "INT64", "BOOL", "BF16", "fp32", "", "BYTES "])
    if rng.random() < 0.5:
        return _asked("datatype", subject, orjson.dumps({"inputs": [tensor]}))
    text = orjson.dumps({"inputs": [_binary(tensor, len(packed))]})
    return _asked("datatype-binary", subject, text + packed, str(len(text)), wire.RAW)


def values(rng: Random, subject: Subject) -> Case:
    """Numbers that are none, or beyond what a datatype holds."""
    tensor, _ = _tensor(rng, subject, rng.choice(("FP32", "UINT8")))
    flat = np.array(tensor["data"]).ravel().tolist()
    flat[rng.randrange(len(flat))] = "@"
    text = orjson.dumps({"inputs": [{**tensor, "data": flat}]})
    return _asked("value", subject, text.replace(b'"@"', rng.choice(NUMBERS).encode()))


def deep(rng: Random, subject: Subject) -> Case:
    """Data in a great depth, closed or not; a hundred thousand values, or as many texts."""
    tensor, _ = _tensor(rng, subject, rng.choice(KINDS))
    depth = rng.choice([5, 65, 1000, 1030, 100_000])
    many = rng.choice(["0", "[]", '""', "{}", "0.5"])
    data = rng.choice(
        [
            "[" * depth + "]" * depth,
            "[" * depth,
            '{"a":' * depth,
            "[" + ",".join([many] * rng.choice([5_000, 100_000])) + "]",
        ]
    )
    text = json.dumps({"inputs": [{**tensor, "data": "@"}]}).replace('"@"', data)
    return _asked("deep", subject, text.encode())


def damaged(rng: Random, subject: Subject) -> Case:
    """A good request cut short or with bits flipped, its length as it was."""
    tensor, packed = _tensor(rng, subject, rng.choice(KINDS))
    text = orjson.dumps({"inputs": [_binary(tensor, len(packed))]})
    body = bytearray(text + packed)
    for _ in range(rng.choice([1, 4, 32])):
        body[rng.randrange(rng.choice([len(text), len(body)]))] ^= 1 << rng.randrange(8)
    return _asked(
        "damaged", subject, bytes(body[: rng.choice([len(body), rng.randrange(1, len(body))])]), str(len(text))
    )


def honest(images: NDArray[np.float32], subject: Subject) -> Case:
    """A row of floats, in JSON."""
    tensor = {"name": "images", "datatype": "FP32", "shape": list(images.shape), "data": images.ravel().tolist()}
    return _asked("honest", subject, orjson.dumps({"inputs": [tensor]}))


IDEAS: tuple[Make, ...] = (
    intact,
    intact,
    lying_length,
    lying_size,
    lying_size,
    shapes,
    shapes,
    strangers,
    strangers,
    datatypes,
    values,
    deep,
    damaged,
)
