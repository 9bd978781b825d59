"""What is left is what fails."""

from __future__ import annotations

from loadtests.fuzz.case import Case, Seen, head
from loadtests.fuzz.shrink import shrunk

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
