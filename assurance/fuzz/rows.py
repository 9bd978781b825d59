"""Raw float32 rows: numbers that are none, numbers at the edge, and lengths that are no number of rows."""

from __future__ import annotations

from random import Random

import numpy as np
from numpy.typing import NDArray

from assurance.fuzz.case import Case, Make, Subject, posted
from handlers import wire

KIND = "rows"
# by name: the bits of a float32
BITS = {
    "nan": 0x7FC00000,
    "signalling-nan": 0x7FA00000,
    "negative-nan": 0xFFC00001,
    "infinity": 0x7F800000,
    "minus-infinity": 0xFF800000,
    "minus-zero": 0x80000000,
    "denormal": 0x00000001,
    "largest-denormal": 0x007FFFFF,
    "minus-denormal": 0x80000001,
    "just-above-one": 0x3F800001,
    "just-below-one": 0x3F7FFFFF,
    "largest": 0x7F7FFFFF,
    "minus-one": 0xBF800000,
}


def _some(rng: Random, subject: Subject, most: int = 4) -> NDArray[np.float32]:
    """A few honest rows, in any order."""
    count = rng.randint(1, min(most, subject.accepts.max_rows))
    return subject.images[[rng.randrange(len(subject.images)) for _ in range(count)]].copy()


def _case(idea: str, subject: Subject, body: bytes) -> Case:
    return posted(KIND, idea, subject, wire.RAW, body)


def special_values(rng: Random, subject: Subject) -> Case:
    """Special numbers at some places of some rows."""
    bits = _some(rng, subject).view(np.uint32)
    name = rng.choice(list(BITS))
    for _ in range(rng.choice([1, 1, 2, 20, bits.size])):
        bits.flat[rng.randrange(bits.size)] = BITS[name]
    return _case(f"values-{name}", subject, bits.tobytes())


def nothing_else(rng: Random, subject: Subject) -> Case:
    """Rows of one special number."""
    bits = _some(rng, subject).view(np.uint32)
    name = rng.choice(list(BITS))
    bits[...] = BITS[name]
    return _case(f"all-{name}", subject, bits.tobytes())


def any_bits(rng: Random, subject: Subject) -> Case:
    """Rows of random bits, or with some random bits."""
    data = bytearray(_some(rng, subject).tobytes())
    if rng.random() < 0.5:
        return _case("random-bits", subject, rng.randbytes(len(data)))
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return _case("flipped-bits", subject, bytes(data))


def other_numbers(rng: Random, subject: Subject) -> Case:
    """The same numbers in another form: byte order, width, scale."""
    rows = _some(rng, subject)
    forms = {
        "big-endian": rows.astype(">f4").tobytes(),
        "float64": rows.astype("<f8").tobytes(),
        "float16": rows.astype("<f2").tobytes(),
        "bytes": np.rint(rows * 255).astype(np.uint8).tobytes(),
        "255": (rows * 255).tobytes(),
        "centred": (rows * 2 - 1).tobytes(),
    }
    name = rng.choice(list(forms))
    return _case(f"form-{name}", subject, forms[name])


def counts(rng: Random, subject: Subject) -> Case:
    """None, the most, one more, twice as many rows."""
    most = subject.accepts.max_rows
    count = rng.choice([0, 1, most, most + 1, 2 * most])
    return _case(f"count-{'most' if count == most else count}", subject, subject.images[:1].repeat(count, 0).tobytes())


def lengths(rng: Random, subject: Subject) -> Case:
    """A few bytes too few or too many."""
    data = _some(rng, subject).tobytes()
    by = rng.choice([-4, -3, -2, -1, 1, 2, 3, 4, 7, -len(data) + 1])
    return _case("length", subject, data[:by] if by < 0 else data + rng.randbytes(by))


def tiny_or_empty(rng: Random, subject: Subject) -> Case:
    """A handful of bytes."""
    return _case("tiny", subject, rng.randbytes(rng.randint(0, 5)))


IDEAS: tuple[Make, ...] = (
    special_values,
    special_values,
    nothing_else,
    any_bits,
    other_numbers,
    counts,
    lengths,
    tiny_or_empty,
)
