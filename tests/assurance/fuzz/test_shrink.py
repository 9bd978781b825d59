"""What is left is what fails."""

from __future__ import annotations

import time

from assurance.fuzz.case import Case, Seen, head
from assurance.fuzz.shrink import shrunk

BODY = b"a" * 500 + b"needle" + b"b" * 400
HEAD = head(
    [(b"Host", b"h"), (b"Authorization", b"t"), (b"X-Bad", b"1"), (b"Content-Length", b"%d" % len(BODY))], b"/", b"POST"
)
CASE = Case("kind", "idea", "model", HEAD, BODY, seen=Seen("text/plain", BODY))


def test_lines_and_bytes_that_do_not_matter_go() -> None:
    asked = 0

    def fails(case: Case) -> bool:
        nonlocal asked
        asked += 1
        assert b"Content-Length: %d\r\n" % len(case.body) in case.head or b"Content-Length" not in case.head
        return b"X-Bad" in case.head and b"needle" in case.body

    smaller = shrunk(CASE, fails)
    assert fails(smaller)
    assert b"Host" not in smaller.head
    assert b"Authorization" in smaller.head, "without it everything fails"
    assert len(smaller.body) < 100
    assert smaller.seen == Seen("text/plain", smaller.body)
    assert asked <= 61


def test_what_cannot_be_smaller_stays() -> None:
    assert shrunk(CASE, lambda case: False) == CASE


def test_tries_that_take_long_end_with_the_time_that_there_is() -> None:
    tried: list[float] = []

    def slow(case: Case) -> bool:
        tried.append(time.monotonic())
        time.sleep(0.05)
        return False

    begun = time.monotonic()
    assert shrunk(CASE, slow, seconds=0.2) == CASE
    assert 1 <= len(tried) <= 5
    assert max(tried) - begun <= 0.25
