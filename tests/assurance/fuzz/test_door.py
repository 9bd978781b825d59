"""What comes back is read as it is: by a server of a few bytes, on a real socket."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from assurance.fuzz import door as doors
from assurance.fuzz.case import AUTHORIZATION, HOST, Case
from assurance.fuzz.door import ANSWERED, CUT, GARBLED, SILENT, Door
from loadtests.target import TargetError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nhi"
CASE = Case("kind", "idea", "model", b"POST / HTTP/1.1\r\nHost: %s\r\nA: %s\r\n\r\n" % (HOST, AUTHORIZATION), b"body")


@contextmanager
def serving(answer: bytes, *, wait: float = 0.0) -> Iterator[tuple[Door, list[bytes]]]:
    """A server that takes one request, up to its last four bytes "body", and then says `answer` and closes."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)
    got: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            data = b""
            connection.settimeout(5)
            while b"body" not in data:
                data += connection.recv(1000)
            got.append(data)
            time.sleep(wait)
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Door("127.0.0.1", listener.getsockname()[1], b"Bearer x"), got
    finally:
        thread.join()
        listener.close()


def test_an_answer_is_read_to_its_end_and_the_places_are_filled() -> None:
    with serving(OK) as (door, got):
        reply = door.ask(CASE)
    assert (reply.how, reply.status, reply.body, reply.more) == (ANSWERED, 200, b"hi", b"")
    assert reply.headers == {"content-length": "2", "x-a": "b"}
    assert got == [b"POST / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nA: Bearer x\r\n\r\nbody" % door.port]


def test_a_second_answer_is_seen() -> None:
    with serving(OK + OK) as (door, _):
        assert door.ask(CASE).more == OK


def test_what_is_said_before_an_answer_is_none() -> None:
    with serving(b"HTTP/1.1 100 Continue\r\n\r\n" + OK) as (door, _):
        assert door.ask(CASE).status == 200


def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    with serving(b"HTTP/1.1 400 Bad\r\nConnection: close\r\n\r\nall of it") as (door, _):
        assert door.ask(CASE).body == b"all of it"


def test_the_answer_to_head_has_no_body() -> None:
    case = Case("kind", "idea", "model", CASE.head.replace(b"POST", b"HEAD"), b"body")
    with serving(OK[:-2]) as (door, _):
        assert door.ask(case).how == ANSWERED


@pytest.mark.parametrize(
    ("answer", "how"),
    [
        (b"", CUT),
        (b"nonsense\r\n\r\n", GARBLED),
        (b"HTTP/1.1 abc\r\n\r\n", GARBLED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nless", GARBLED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", GARBLED),
    ],
)
def test_what_is_no_answer_is_distinguished(answer: bytes, how: str) -> None:
    with serving(answer) as (door, _):
        assert door.ask(CASE).how == how


def test_silence_is_distinguished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "DEADLINE", 0.2)
    monkeypatch.setattr(doors, "PATIENCE", 0.1)
    with serving(OK, wait=0.6) as (door, _):
        assert door.ask(CASE).how == SILENT


def test_pieces_go_out_one_after_the_other() -> None:
    case = Case("kind", "idea", "model", CASE.head, b"body", pieces=(3, 5), pause=0.05)
    with serving(OK) as (door, got):
        started = time.monotonic()
        assert door.ask(case).status == 200
    assert time.monotonic() - started >= 0.1
    assert got[0].endswith(b"\r\n\r\nbody")


def test_a_url_is_http_or_https() -> None:
    assert Door.at("http://127.0.0.1:80", "x").context is None
    assert Door.at("https://localhost", "x").port == 443
    for url in ("ftp://a", "127.0.0.1:80", ""):
        with pytest.raises(TargetError, match="expected a URL http://HOST:PORT or https://HOST:PORT, got"):
            Door.at(url, "x")
    assert "secret" not in repr(Door.at("http://a", "secret"))
