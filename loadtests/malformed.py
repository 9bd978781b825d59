"""Bad requests, each with the status and the reason that its sender must get.

CASES is the list. To add one: a function that makes the request from one good row, and a line with the stated answer.
`code` is None where TorchServe answers before our code runs; status 0 (the connection was closed) is allowed only where
the server stops reading.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from handlers import wire

Row = NDArray[np.float32]


@dataclass(frozen=True)
class Request:
    """What is sent: body, content type, further headers, and which token: "right", "wrong" or "none"."""

    body: bytes
    content_type: str
    headers: dict[str, str] = field(default_factory=dict)
    token: str = "right"


@dataclass(frozen=True)
class Case:
    """One kind of bad request. make: from a good row (1, C, H, W) and the server's limit of a body in bytes."""

    name: str
    make: Callable[[Row, int], Request]
    statuses: tuple[int, ...]
    code: str | None


def _raw(row: Row) -> Request:
    return Request(wire.encode_rows(row, wire.RAW), wire.RAW)


def truncated_png(row: Row, limit: int) -> Request:
    """The first half of a PNG file."""
    picture = wire.encode_rows(row, wire.PNG)
    return Request(picture[: len(picture) // 2], wire.PNG)


def two_frames(row: Row, limit: int) -> Request:
    """A picture that says it is the first of two."""
    picture = wire.encode_rows(row, wire.PNG)
    frames = b"acTL" + (2).to_bytes(4, "big") + bytes(4)
    chunk = (8).to_bytes(4, "big") + frames + zlib.crc32(frames).to_bytes(4, "big")
    return Request(picture[:33] + chunk + picture[33:], wire.PNG)


def wrong_shape(row: Row, limit: int) -> Request:
    """Raw values, one short of a row."""
    return Request(wire.encode_rows(row, wire.RAW)[:-4], wire.RAW)


def not_a_number(row: Row, limit: int) -> Request:
    """Raw values with one NaN among them."""
    bad = row.copy()
    bad.flat[bad.size // 2] = np.nan
    return _raw(bad)


def out_of_range(row: Row, limit: int) -> Request:
    """Pixels in [0, 255], the commonest mistake."""
    return _raw(row * 255)


def too_many_rows(row: Row, limit: int) -> Request:
    """More rows than any policy may allow (65,536)."""
    return Request(b'{"instances": [' + b"0," * 70_000 + b"0]}", wire.JSON)


def broken_json(row: Row, limit: int) -> Request:
    """JSON that ends too early."""
    return Request(wire.encode_rows(row, wire.JSON)[:-3], wire.JSON)


def deep_json(row: Row, limit: int) -> Request:
    """Brackets nested deeper than a parser's stack."""
    return Request(b'{"instances": ' + b"[" * 100_000, wire.JSON)


def long_text(row: Row, limit: int) -> Request:
    """A long text among numbers: an array that holds both would have room for it at every place, 75 GB in all."""
    return Request(b'{"instances": [["' + b"a" * 1_000_000 + b'"' + b",0" * 20_000 + b"]]}", wire.JSON)


def not_a_number_but_true(row: Row, limit: int) -> Request:
    """One pixel is `true`, which Python takes for a 1."""
    return Request(wire.encode_rows(row * 0, wire.JSON).replace(b"0.0", b"true", 1), wire.JSON)


def padded_jpeg(row: Row, limit: int) -> Request:
    """A good picture with a megabyte of padding before its first segment: seconds of a worker, byte by byte."""
    picture = wire.encode_rows(row, wire.JPEG)
    return Request(picture[:2] + b"\xff" * 1_000_000 + picture[2:], wire.JPEG)


def many_chunks(row: Row, limit: int) -> Request:
    """A good picture with ten thousand empty texts behind its header."""
    picture = wire.encode_rows(row, wire.PNG)
    text = b"\0\0\0\0tEXt" + zlib.crc32(b"tEXt").to_bytes(4, "big")
    return Request(picture[:33] + text * 10_000 + picture[33:], wire.PNG)


def unknown_content_type(row: Row, limit: int) -> Request:
    """A good row under a content type that nobody offered."""
    return Request(wire.encode_rows(row, wire.RAW), "application/x-pickle")


def huge_body(row: Row, limit: int) -> Request:
    """One byte more than the server reads."""
    return Request(bytes(limit + 1), wire.RAW)


def no_token(row: Row, limit: int) -> Request:
    """A good row without a token."""
    return Request(wire.encode_rows(row, wire.RAW), wire.RAW, token="none")


def wrong_token(row: Row, limit: int) -> Request:
    """A good row with somebody else's token."""
    return Request(wire.encode_rows(row, wire.RAW), wire.RAW, token="wrong")


def describe_header(row: Row, limit: int) -> Request:
    """A good row with the header by which TorchServe's own handlers are made to fail whole batches: it must be
    answered as if the header were not there."""
    return Request(wire.encode_rows(row, wire.RAW), wire.RAW, headers={"describe": "True"})


CASES = (
    Case("truncated-png", truncated_png, (400,), "undecodable"),
    Case("two-frames-png", two_frames, (400,), "unsupported_image"),
    Case("wrong-shape", wrong_shape, (400,), "wrong_shape"),
    Case("nan", not_a_number, (400,), "not_finite"),
    Case("out-of-range", out_of_range, (400,), "out_of_range"),
    Case("too-many-rows", too_many_rows, (413,), "too_many_rows"),
    Case("broken-json", broken_json, (400,), "undecodable"),
    Case("deep-json", deep_json, (400,), "undecodable"),
    Case("long-text", long_text, (400,), "wrong_shape"),
    Case("true-in-json", not_a_number_but_true, (400,), "undecodable"),
    Case("padded-jpeg", padded_jpeg, (400,), "unsupported_image"),
    Case("many-chunks", many_chunks, (400,), "unsupported_image"),
    Case("unknown-content-type", unknown_content_type, (415,), "unsupported_content_type"),
    Case("huge-body", huge_body, (413, 0), None),
    Case("no-token", no_token, (400,), None),
    Case("wrong-token", wrong_token, (400,), None),
    Case("describe-header", describe_header, (200,), None),
)
