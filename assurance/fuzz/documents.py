"""JSON texts: what is not JSON, what is not an instance, and what is so much of either that it costs."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from random import Random
from typing import Any

import orjson

from assurance.fuzz import pictures
from assurance.fuzz.case import Case, Make, Subject, posted
from handlers import wire

KIND = "documents"
# what a number, a row or a whole instance may not be
STRANGERS: tuple[Any, ...] = (
    None,
    True,
    False,
    "",
    "0.5",
    "x" * 5000,
    "\x00",
    "\U0001f600",
    [],
    [[]],
    {},
    {"b64": None},
    {"b64": ""},
    {"b64": [0.5]},
    {"b64": "AAAA", "more": 1},
    {"B64": "AAAA"},
    -1,
    2,
    1e308,
    2**64 - 1,
    -(2**63),
    1.0000000000000002,
    -5e-324,
    5e-324,
    -0.0,
)
# as texts, since Python would not write them
NUMBERS = (
    *("1e400", "-1e400", "1e-400", "NaN", "Infinity", "-Infinity", "nan", "0x1", "01", "+1", ".5", "1.", "1e", "1e+"),
    *("-0", "-0.0", "0e0", "1E-7", "1.0000000000000000000001", "18446744073709551616", "true", "null", "1_0", "\u0663"),
    *("0.1.2", "1,2", "9" * 400, "0." + "3" * 5000, "1" + "0" * 300, "0." + "0" * 5000 + "1", "1e" + "9" * 1000, "--1"),
)


def _row(rng: Random, subject: Subject) -> list[Any]:
    image = rng.choice(subject.images)
    return list((image if subject.accepts.input.channels == 3 or rng.random() < 0.7 else image[0]).tolist())


def _rows(rng: Random, subject: Subject) -> list[Any]:
    return [_row(rng, subject) for _ in range(rng.randint(1, min(3, subject.accepts.max_rows)))]


def _text(rows: list[Any]) -> bytes:
    return orjson.dumps({"instances": rows})


def _case(idea: str, subject: Subject, body: bytes, content_type: str = wire.JSON) -> Case:
    return posted(KIND, idea, subject, content_type, body)


def _innermost(rng: Random, row: list[Any]) -> list[Any]:
    """One of a row's lists of numbers."""
    while isinstance(row[0], list):
        row = rng.choice(row)
    return row


def intact(rng: Random, subject: Subject) -> Case:
    """Good rows, written in another way: spaces, escapes, parameters of the content type."""
    rows = _rows(rng, subject)
    body = rng.choice(
        [
            _text(rows),
            json.dumps({"instances": rows}, indent=2).encode(),
            b" \r\n\t" * 500 + _text(rows) + b" \n" * 500,
            _text(rows).replace(b"instances", b"\\u0069nstances"),
        ]
    )
    return _case("intact", subject, body, rng.choice([wire.JSON, "Application/JSON; charset=utf-8"]))


def strangers(rng: Random, subject: Subject) -> Case:
    """Something else in place of a number, of a row of numbers, or of an instance."""
    rows = _rows(rng, subject)
    stranger = rng.choice(STRANGERS)
    at = rng.randrange(len(rows))
    depth = rng.choice(["number", "number", "line", "instance"])
    if depth == "instance":
        rows[at] = stranger
    elif depth == "line":
        lines = rows[at] if not isinstance(rows[at][0][0], list) else rng.choice(rows[at])
        lines[rng.randrange(len(lines))] = stranger
    else:
        line = _innermost(rng, rows[at])
        line[rng.randrange(len(line))] = stranger
    return _case(f"stranger-{depth}", subject, _text(rows))


def numbers(rng: Random, subject: Subject) -> Case:
    """Numbers that are none, or too large or too long."""
    rows = _rows(rng, subject)
    line = _innermost(rng, rng.choice(rows))
    line[rng.randrange(len(line))] = "@"
    return _case("number", subject, _text(rows).replace(b'"@"', rng.choice(NUMBERS).encode()))


def shapes(rng: Random, subject: Subject) -> Case:
    """Lists that are too long, too short, too deep or not deep enough."""
    rows = _rows(rng, subject)
    at = rng.randrange(len(rows))
    row = rows[at]
    act = rng.choice(["deeper", "flatter", "longer", "shorter", "ragged", "empty", "transposed"])
    changed: dict[str, Callable[[], Any]] = {
        "deeper": lambda: [row],
        "flatter": lambda: row[0],
        "longer": lambda: row + row,
        "shorter": lambda: row[:-1],
        "ragged": lambda: [*row[:-1], row[-1][:-1]],
        "empty": lambda: [[] for _ in row],
        "transposed": lambda: [list(line) for line in zip(*row, strict=True)],
    }
    rows[at] = changed[act]()
    return _case(f"shape-{act}", subject, _text(rows))


def deep(rng: Random, subject: Subject) -> Case:
    """Brackets to a great depth, closed or not."""
    depth = rng.choice([10, 65, 500, 1020, 1030, 5_000, 100_000])
    opening, closing = rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
    inner = rng.choice([b"", b"0.5", b"[]"]) if opening == b"[" else b"0"
    end = closing * depth if rng.random() < 0.7 else b""
    place = rng.choice([b'{"instances":[%s]}', b'{"instances":%s}', b"%s"])
    return _case("deep", subject, place % (opening * depth + inner + end))


def many(rng: Random, subject: Subject) -> Case:
    """A hundred thousand instances, or one of as many things."""
    thing = rng.choice(["0", "0.1", "[]", "{}", '""', '"ab"', "null", "[[[]]]", '{"b64":""}', "true"])
    count = rng.choice([subject.accepts.max_rows, subject.accepts.max_rows + 1, 5_000, 100_000])
    place = rng.choice(['{"instances":[%s]}', '{"instances":[[%s]]}'])
    return _case("many", subject, (place % ",".join([thing] * count)).encode())


def long_texts(rng: Random, subject: Subject) -> Case:
    """A long text among many numbers: as a fixed-width array it would take gigabytes."""
    text = rng.choice(["a", "\u00e9", "\\", "\U0001f600"]) * rng.choice([1_000, 100_000, 1_000_000])
    row = [text, *[0] * rng.choice([0, 100, 5_000])]
    place: list[Any] = rng.choice([[row], [[[row]]], [text], [{"b64": text}], [{text: "AAAA"}]])
    return _case("long-text", subject, _text(place))


def broken_base64(rng: Random, subject: Subject) -> Case:
    """Base64 that is not, or that is of another alphabet."""
    text = base64.b64encode(pictures.either(rng, subject)).decode()
    at = rng.randrange(len(text))
    changed = rng.choice(
        [
            text[:at],
            text.rstrip("=") + "=" * rng.randint(0, 4),
            text.replace("+", "-").replace("/", "_"),
            text[:at] + "\n" + text[at:],
            text[:at] + rng.choice("\0!é\u2028=") + text[at:],
            f"data:image/png;base64,{text}",
            text * 2,
            "=" * 1000,
        ]
    )
    return _case("base64", subject, _text([{"b64": changed}, *_rows(rng, subject)]))


def mixed(rng: Random, subject: Subject) -> Case:
    """Good rows next to bad ones: each gets its own response."""
    rows: list[Any] = []
    for _ in range(min(subject.accepts.max_rows, rng.randint(2, 6))):
        file = {"b64": base64.b64encode(pictures.either(rng, subject)).decode()}
        rows.append(rng.choice([_row(rng, subject), file, rng.choice(STRANGERS), [[0.5]]]))
    return _case("mixed", subject, _text(rows))


def keys(rng: Random, subject: Subject) -> Case:
    """Other keys, keys twice, other things than an object."""
    rows = _text(_rows(rng, subject))[len(b'{"instances":') : -1]
    forms = [
        b'{"instances":%s,"instances":[]}',
        b'{"instances":[],"instances":%s}',
        b'{"instances":%s,"debug":true}',
        b'{"inputs":%s}',
        b'{"Instances":%s}',
        b'{"instances\\u0000":%s}',
        b'{"__proto__":{},"instances":%s}',
        b'{"instances":{"0":%s}}',
        b"%s",
        b'[{"instances":%s}]',
    ]
    scalars = [
        b"null",
        b"true",
        b"0",
        b'"instances"',
        b"{}",
        b"[]",
        b"",
        b" ",
        b'{"instances":null}',
        b'{"instances":"a"}',
    ]
    return _case("keys", subject, rng.choice([form % rows for form in forms] + scalars))


def encodings(rng: Random, subject: Subject) -> Case:
    """UTF-8 with a mark, UTF-16 and UTF-32, Latin-1, surrogates, zero bytes."""
    text = _text(_rows(rng, subject)).decode()
    bodies = {
        "mark": b"\xef\xbb\xbf" + text.encode(),
        "utf-16": text.encode("utf-16"),
        "utf-16-le": text.encode("utf-16-le"),
        "utf-32": text.encode("utf-32"),
        "latin-1": '{"instances":["é"]}'.encode("latin-1"),
        "surrogate": b'{"instances":["\\ud800"]}',
        "surrogate-bytes": b'{"instances":["\xed\xa0\x80"]}',
        "overlong": b'{"instances":["\xc0\xaf"]}',
        "zero": text.encode().replace(b",", b",\0", 1),
        "zero-end": text.encode() + b"\0",
        "escape": b'{"instances":["\\x41\\u12"]}',
    }
    name = rng.choice(list(bodies))
    charset = rng.choice(["", "; charset=utf-16", "; charset=latin-1", "; charset=nonsense"])
    return _case(f"encoding-{name}", subject, bodies[name], wire.JSON + charset)


def damaged(rng: Random, subject: Subject) -> Case:
    """A good text cut short, with bits flipped, with something behind it, or with a comma too many."""
    body = _text(_rows(rng, subject))
    act = rng.choice(["cut", "flip", "behind", "comma", "comment", "quote", "double"])
    at = rng.randrange(len(body))
    changed = {
        "cut": body[:at],
        "flip": body[:at] + bytes([body[at] ^ 1 << rng.randrange(8)]) + body[at + 1 :],
        "behind": body + rng.choice([b"}", b"x", b"\x00", b"[]", b"\x1a"]),
        "comma": body[:-2] + b",]}",
        "comment": b"/* a */" + body,
        "quote": body.replace(b'"', b"'"),
        "double": body + body,
    }
    return _case(f"damaged-{act}", subject, changed[act])


IDEAS: tuple[Make, ...] = (
    intact,
    strangers,
    strangers,
    numbers,
    shapes,
    deep,
    many,
    long_texts,
    broken_base64,
    mixed,
    keys,
    encodings,
    damaged,
)
