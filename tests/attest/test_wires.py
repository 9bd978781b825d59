"""What a service may send that no HTTP library was made for: each is a reply, none an exception or an endless wait."""

from __future__ import annotations

import gzip
import itertools
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from attest.target import wires
from attest.target.encoding import Encoded
from attest.target.table import Target
from attest.target.wires import DROPPED, Reply
from tests.attest.service import table

ASKED = Encoded(b"picture", "image/png")
TIMEOUT = 0.5
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def whole(connection: socket.socket) -> bytes:
    """A request to its end: a server that hangs up on bytes it has not read resets the connection, answer and all."""
    asked = b""
    while part := connection.recv(2**16):
        asked += part
        headers, ended, body = asked.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)^content-length: (\d+)", headers, re.MULTILINE)
        if ended and len(body) >= (int(length[1]) if length else 0):
            break
    return asked


@contextmanager
def raw(say: Callable[[], Iterable[bytes]], seen: list[bytes] | None = None) -> Iterator[str]:
    """A server that says to every request, and to nothing else, what `say` yields, and hangs up; its address."""
    over = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                asked = whole(connection)
                if seen is not None:
                    seen.append(asked)
                for part in say():
                    if over.is_set():
                        return
                    connection.sendall(part)
            except OSError:
                pass

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/x"
        finally:
            over.set()
            listening.shutdown(socket.SHUT_RDWR)


def sent(url: str, times: int = 1, **changes: Any) -> list[Reply]:
    sending = wires.wire(Target(**table(url, timeout=TIMEOUT, **changes)).whole())
    try:
        return [sending.send(ASKED) for _ in range(times)]
    finally:
        sending.close()


def slowly(parts: Iterable[bytes]) -> Iterator[bytes]:
    for part in parts:
        time.sleep(TIMEOUT / 10)
        yield part


NEVER_ENDING: dict[str, Callable[[], Iterable[bytes]]] = {
    "a status line byte by byte": lambda: slowly(itertools.repeat(b"H")),
    "headers byte by byte": lambda: slowly(itertools.chain([b"HTTP/1.1 200 OK\r\nX: "], itertools.repeat(b"x"))),
    "100 Continue for ever": lambda: slowly(itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n")),
    "a body byte by byte": lambda: slowly(itertools.chain([b"HTTP/1.1 200 OK\r\n\r\n"], itertools.repeat(b"1"))),
    "a redirection's body": lambda: slowly(
        itertools.chain([b"HTTP/1.1 302 F\r\nLocation: http://127.0.0.1:1/\r\n\r\n"], itertools.repeat(b"1"))
    ),
    "a whole body, and no end": lambda: slowly(
        itertools.chain([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"], itertools.repeat(b"1\r\n1\r\n"))
    ),
    "nothing": lambda: slowly(itertools.repeat(b"")),
}


@pytest.mark.parametrize("what", NEVER_ENDING)
def test_the_timeout_is_of_the_whole_answer(what: str) -> None:
    started = time.monotonic()
    with raw(NEVER_ENDING[what]) as url:
        (reply,) = sent(url)
    assert reply.status == DROPPED
    assert time.monotonic() - started < 3 * TIMEOUT


def test_a_late_answer_spoils_none_that_follows() -> None:
    late = iter([True, False, True, False])

    def say() -> Iterator[bytes]:
        yield from slowly([OK[:9]] * 30) if next(late) else [OK]

    with raw(say) as url:
        assert [reply.status for reply in sent(url, times=4)] == [DROPPED, 200, DROPPED, 200]


STRANGE: dict[str, tuple[bytes, int]] = {
    "a redirection to no address": (b"HTTP/1.1 302 F\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n", 302),
    "a redirection to bytes": (b"HTTP/1.1 302 F\r\nLocation: \xff\xfe\r\nContent-Length: 0\r\n\r\n", 302),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", DROPPED),
    "a status in words": (b"HTTP/1.1 fine OK\r\n\r\n", DROPPED),
    "a length in words": (b"HTTP/1.1 200 OK\r\nContent-Length: some\r\n\r\n{}", 200),
    "less than was said": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", DROPPED),
    "headers without end": (b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 1000 + b"\r\n{}", DROPPED),
    "broken gzip": (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", DROPPED),
    "gzip": (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"{}"), 200),
    "a broken chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{}", DROPPED),
    "far too much": (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 2**21, DROPPED),
    "far too much, packed": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b" " * 2**26),
        DROPPED,
    ),
    "an hour that is none": (
        b"HTTP/1.1 429 T\r\nRetry-After: Wed, 21 Oct 2015 07:28:00 +9999999999\r\nContent-Length: 0\r\n\r\n",
        429,
    ),
}


@pytest.mark.parametrize("what", STRANGE)
def test_what_is_no_answer_is_a_reply_all_the_same(what: str) -> None:
    said, status = STRANGE[what]
    with raw(lambda: [said]) as url:
        (reply,) = sent(url)
    assert reply.status == status, reply


def test_an_answer_may_be_as_long_as_its_numbers() -> None:
    """16 rows of a thousand classes, seventeen digits each, are read; the same for ten classes are not."""
    body = b"[" + b"0.01234567890123456," * 100_000 + b"0]"
    said = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with raw(lambda: [said]) as url:
        assert sent(url)[0].status == DROPPED
        many = {"send": "float32", "format": "float32", "rows": 16, "classes": 1000}
        assert sent(url, **many)[0].status == 200


def test_a_pause_without_end_is_one() -> None:
    said = b"HTTP/1.1 429 T\r\nRetry-After: " + b"9" * 400 + b"\r\nContent-Length: 0\r\n\r\n"
    with raw(lambda: [said]) as url:
        (reply,) = sent(url)
    assert reply.retry_after == float("inf")


def test_no_cookie_is_sent_back() -> None:
    seen: list[bytes] = []
    said = b"HTTP/1.1 200 OK\r\nSet-Cookie: seen=1; Path=/\r\nContent-Length: 2\r\n\r\n{}"
    with raw(lambda: [said], seen) as url:
        assert [reply.status for reply in sent(url, times=2)] == [200, 200]
    assert len(seen) == 2
    assert all(b"cookie" not in each.lower() for each in seen)
