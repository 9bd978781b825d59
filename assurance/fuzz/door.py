"""Raw sockets to a server or its gateway: every byte goes out as it is, and what comes back is read to its end.

A library for clients would mend what is to be broken here.
"""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

from assurance.fuzz.case import AUTHORIZATION, HOST, Case
from loadtests.target import TargetError

# until there must be an answer to a whole request; and how long one waits for the answer to another
DEADLINE = 30.0
PATIENCE = 0.4
# how long one looks for a second answer that nobody asked for
LINGER = 0.02
ANSWERED, CUT, SILENT, GARBLED = "answered", "cut", "silent", "garbled"


class Reply(NamedTuple):
    """What came back. how: ANSWERED, CUT (closed without an answer), SILENT (nothing in time) or GARBLED (no HTTP).

    more: bytes behind the answer.
    """

    how: str
    status: int = 0
    headers: dict[str, str] = {}  # noqa: RUF012  # never changed
    body: bytes = b""
    more: bytes = b""


class UnreadableError(ValueError):
    """What came is no HTTP answer."""


@dataclass(frozen=True)
class Door:
    """Where requests are sent. authorization: the header's value; context: of TLS, or None."""

    host: str
    port: int
    authorization: bytes = field(repr=False)
    context: ssl.SSLContext | None = None

    @classmethod
    def at(cls, url: str, authorization: str, cafile: str | None = None) -> Door:
        """A door at http://host:port or https://host:port. Raises TargetError on another URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise TargetError(f"expected a URL http://HOST:PORT or https://HOST:PORT, got {url!r}")
        context = ssl.create_default_context(cafile=cafile) if parts.scheme == "https" else None
        port = parts.port or (443 if context else 80)
        return cls(parts.hostname, port, authorization.encode(), context)

    def ask(self, case: Case) -> Reply:
        """Send a case and read the answer."""
        places = {HOST: f"{self.host}:{self.port}".encode(), AUTHORIZATION: self.authorization}
        message = case.message
        for place, value in places.items():
            message = message.replace(place, value)
        deadline = time.monotonic() + (DEADLINE if case.complete else PATIENCE)
        try:
            with self._connection(DEADLINE) as connection:
                _send(connection, message, case)
                return _read(connection, case.method, max(deadline, time.monotonic() + PATIENCE))
        except TimeoutError:
            return Reply(SILENT)
        except OSError:
            return Reply(CUT)

    def _connection(self, timeout: float) -> socket.socket:
        plain = socket.create_connection((self.host, self.port), timeout=timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return plain if self.context is None else self.context.wrap_socket(plain, server_hostname=self.host)


def _send(connection: socket.socket, data: bytes, case: Case) -> None:
    """All of it, or as much as the other side takes before it closes; it may have answered by then."""
    try:
        for size in case.pieces:
            connection.sendall(data[:size])
            data = data[size:]
            time.sleep(case.pause)
        connection.sendall(data)
        if case.half:
            socket.socket.shutdown(connection, socket.SHUT_WR)  # of TLS too, whose own would end the reading as well
    except OSError:
        return


def _read(connection: socket.socket, method: bytes, deadline: float) -> Reply:
    data = b""

    def more() -> None:
        nonlocal data
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        came = connection.recv(1 << 16)
        if not came:
            raise ConnectionResetError
        data += came

    try:
        while True:
            while b"\r\n\r\n" not in data:
                more()
            head, _, data = data.partition(b"\r\n\r\n")
            status, headers = _parsed(head)
            if status >= 200:
                break
        size = 0 if method == b"HEAD" or status in (204, 304) else _size(headers)
        if size is None:
            body, data = _to_the_end(connection, data, deadline), b""
            return Reply(ANSWERED, status, headers, body)
        while len(data) < size:
            more()
    except UnreadableError:
        return Reply(GARBLED, body=data[:200])
    except ConnectionError:
        return Reply(GARBLED, body=data[:200]) if data else Reply(CUT)
    return Reply(ANSWERED, status, headers, data[:size], data[size:] + _lingering(connection))


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if not first.startswith("HTTP/1.") or len(words) < 2 or not words[1].isdigit():
        raise UnreadableError(first)
    pairs = (line.partition(":") for line in lines)
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


def _size(headers: dict[str, str]) -> int | None:
    """Of the body; None where the end of the connection ends it."""
    if "content-length" not in headers:
        return None
    if not headers["content-length"].isdigit():
        raise UnreadableError("content-length")
    return int(headers["content-length"])


def _to_the_end(connection: socket.socket, data: bytes, deadline: float) -> bytes:
    while time.monotonic() < deadline:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            came = connection.recv(1 << 16)
        except OSError:
            return data
        if not came:
            return data
        data += came
    return data


def _lingering(connection: socket.socket) -> bytes:
    try:
        connection.settimeout(LINGER)
        return connection.recv(1 << 16)
    except OSError:
        return b""
