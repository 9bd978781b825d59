"""Rows that come as numbers: raw float32 values, and the nested lists of a JSON text."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from handlers.errors import NotFinite, OutOfRange, RequestError, TooManyRows, Undecodable, WrongShape
from handlers.forms import PREDICTIONS, Form
from handlers.rows import Expects, Images, Rows, check_count
from pictures.formats import Body
from pictures.geometry import Geometry

# of a float32, read as an integer: numbers from 0 to 1 are in order, and whatever is no such number is above them
_ONE = 0x3F80_0000
_MINUS_ZERO = 0x8000_0000
# of a length in a header
DIGITS = 18
# of UTF-8, which some clients write before a text
MARK = b"\xef\xbb\xbf"


def raw(body: Body | memoryview, expects: Expects, form: Form = PREDICTIONS) -> Rows:
    """float32 little-endian values, row after row.

    They are not copied: `images` is a view of `body` if every row is good and none holds a -0, which is read as the 0
    it equals: what is keyed by a row's bytes must not change where no pixel does. Raises WrongShape, NoRows,
    TooManyRows; the fault of a row stands in `errors`.
    """
    shape = expects.input.shape
    size = 4 * math.prod(shape)
    rows, rest = divmod(len(body), size)
    if rest:
        raise WrongShape(f"expected a multiple of {size} bytes, float32 {times(shape)} a row, got {len(body)}")
    check_count(rows, expects)
    return checked(np.frombuffer(body, "<u4").reshape(rows, *shape), form)


def checked(bits: NDArray[np.uint32], form: Form = PREDICTIONS) -> Rows:
    """Rows (n,C,H,W) of float32 values, each in [0, 1] or at fault."""
    good = bits.reshape(len(bits), -1).max(axis=1) <= _ONE
    if good.all():
        return Rows(bits.view("<f4"), form=form)
    bits = bits.copy()
    bits[bits == _MINUS_ZERO] = 0
    good = bits.max(axis=(1, 2, 3)) <= _ONE
    images = bits.view("<f4")
    errors = {row: fault(images[row].min(), images[row].max(), row=row) for row in np.flatnonzero(~good).tolist()}
    return Rows(images[good], errors, form=form)


def nested(instance: Any, expects: Geometry, *, plain: bool) -> Images:
    """One row of nested lists C x H x W (H x W where C = 1), as (C,H,W) float32. plain: there is nothing in the text
    but lists of numbers. Raises WrongShape, Undecodable, NotFinite, OutOfRange."""
    values = _numbers(instance, expects, plain=plain)
    lowest, highest = values.min(), values.max()
    if not (lowest >= 0 and highest <= 1):  # a NaN among them is both extremes
        raise fault(lowest, highest)
    return values.astype(np.float32).reshape(expects.shape) + np.float32(0)  # -0 + 0 = 0


def parsed(body: Body, expects: Expects, *, where: str = "") -> Any:
    """A JSON text, behind a byte order mark or not. where: that it was looked for, as a client is told. Raises
    TooManyRows, Undecodable."""
    _check_size(body, expects)
    try:
        return orjson.loads(body[len(MARK) :] if body.startswith(MARK) else body)
    except orjson.JSONDecodeError as error:
        raise Undecodable(f"expected JSON text{where}") from error


def _check_size(body: Body, expects: Expects) -> None:
    """Refuse a text of far more values than the rows that may come, before each becomes an object of fifty bytes.
    Raises TooManyRows."""
    most = 2 * expects.max_rows * math.prod(expects.input.shape)
    if len(body) > most and np.count_nonzero(np.frombuffer(body, np.uint8) == ord(",")) > most:
        raise TooManyRows(f"expected at most {expects.max_rows} rows, got more values than such rows have")


def _numbers(instance: Any, expects: Geometry, *, plain: bool) -> NDArray[np.float64]:
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
        raise WrongShape(f"expected {times(expects.shape)} numbers, got {times(shape) or 'one'}{deeper}")
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


def whole(text: str) -> int | None:
    """A length as a header states it; None for what is none, as thousands of digits are to Python."""
    return int(text) if len(text) <= DIGITS and text.isascii() and text.isdecimal() else None


def times(shape: tuple[int, ...]) -> str:
    """As people write it."""
    return " x ".join(map(str, shape))


def fault(lowest: Any, highest: Any, *, row: int | None = None) -> RequestError:
    """The fault of a row whose extremes are not within [0, 1]."""
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        return NotFinite("expected finite values, got NaN or infinity", row=row)
    return OutOfRange(f"expected values in [0, 1], got {lowest!s} to {highest!s}", row=row)
