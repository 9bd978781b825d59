"""JSON that says one thing: no key twice in one object, no NaN.

`json.loads` keeps the last of two equal keys, other parsers the first: a file with both says one thing to us and
another to them, under one signature.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from attest.evidence.errors import EvidenceError


def loads(text: str | bytes, *, what: str) -> Any:
    """The value. what: whose text it is, for the message. Raises EvidenceError."""
    try:
        return json.loads(text, object_pairs_hook=_each_key_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise EvidenceError(f"{what}: not JSON ({error})") from None


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, _ in pairs if [each for each, _ in pairs].count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
