"""A smaller case that fails in the same way: fewer header lines, then less of the body, in a few dozen tries.

A try that is never answered takes as long as patience does, so that tries alone are no bound: time is another.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from assurance.fuzz.case import Case

TRIES = 60
SECONDS = 20.0


def shrunk(case: Case, still: Callable[[Case], bool], tries: int = TRIES, seconds: float = SECONDS) -> Case:
    """The smallest case found for which `still` holds; it holds for `case`. No try begins later than `seconds` on."""
    left, until = tries, time.monotonic() + seconds

    def better(tried: Case) -> bool:
        nonlocal left
        left = left - 1 if time.monotonic() < until else -1
        return left >= 0 and still(tried)

    first, *lines = case.head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    for line in list(lines):
        if line.lower().startswith(b"authorization:"):
            continue  # without it everything fails, and alike
        fewer = [each for each in lines if each is not line]
        tried = replace(case, head=b"\r\n".join([first, *fewer]) + b"\r\n\r\n")
        if case.head.endswith(b"\r\n\r\n") and better(tried):
            case, lines = tried, fewer
    size = len(case.body) // 2
    while size and left > 0:
        start = 0
        while start < len(case.body) and left > 0:
            tried = with_body(case, case.body[:start] + case.body[start + size :])
            if better(tried):
                case = tried
            else:
                start += size
        size //= 2
    return case


def with_body(case: Case, body: bytes) -> Case:
    """The case with another body, and its length and what the handler sees of it changed with it where they were the
    body's own."""
    header = b"Content-Length: %d\r\n"
    head = case.head.replace(header % len(case.body), header % len(body))
    seen = case.seen
    if seen is not None and seen.body == case.body:
        seen = seen._replace(body=body)
    return replace(case, head=head, body=body, seen=seen)
