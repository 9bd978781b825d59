"""A closed-loop HTTP client that costs the measured server little: each connection asks again once it is answered.

Requests are made beforehand and sent as they are; an answer is read as far as its status and its length. It takes a
core a few tens of microseconds a request, where Locust's FastHttpUser takes several times that: on a machine that
client and server share, the difference would be counted as the server's. Locust stays the load test's tool, which
judges every answer; what is timed here has been compared with the in-process answers before.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter, process_time
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from loadtests.target import Target

ANSWER_S = 30.0
OK = (200,)
END_OF_HEAD = b"\r\n\r\n"


class ClientError(RuntimeError):
    """A request that was not answered, or with another status than was expected."""


@dataclass(frozen=True, eq=False)
class Driven:
    """What a drive saw: latencies (n,) float64 in ms, in order of arrival; its length; the client's own CPU seconds;
    how many answers had which status; of those that were kept, which request each answers, and its body."""

    latencies_ms: NDArray[np.float64]
    seconds: float
    cpu_seconds: float
    statuses: Mapping[int, int]
    kept: Sequence[tuple[int, bytes]] = ()


def request(
    server: Target, model: str, body: bytes, content_type: str, *, path: str | None = None, **headers: str
) -> bytes:
    """One prediction request as it goes over the wire, token included. path: another name of the model's predictions.
    Raises TargetError on an unknown model."""
    head = [
        f"POST {path or server.path(model)} HTTP/1.1",
        f"Host: {urlsplit(server.inference).netloc}",
        *(f"{name}: {value}" for name, value in {**server.authorization, **headers}.items()),
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def drive(
    server: Target,
    requests: Sequence[bytes],
    *,
    clients: int,
    seconds: float,
    trust: ssl.SSLContext | None = None,
    expected: Collection[int] = OK,
    every: int | None = None,
) -> Driven:
    """Send `requests` round-robin from `clients` connections for so long; answers have an `expected` status. trust: of
    connections over TLS. every: each so many answers one is kept, to be judged afterwards. Raises ClientError."""
    latencies: list[float] = []
    kept: list[tuple[int, bytes]] = []
    statuses: Counter[int] = Counter()
    with _connections(server, clients, trust) as ready:
        cpu, begun = process_time(), perf_counter()
        sent: dict[socket.socket, tuple[float, int]] = {}
        turn = 0
        for key in ready.get_map().values():
            turn = _send(key.data, requests, turn, sent)
        while sent:
            answerable = ready.select(ANSWER_S)
            if not answerable:
                raise ClientError(f"no answer from {server.inference} for {ANSWER_S:g} s; see the instance's log")
            for key, _ in answerable:
                status, body = _receive(key.data, expected)
                now = perf_counter()
                statuses[status] += 1
                since, place = sent.pop(key.data)
                latencies.append(1000 * (now - since))
                if every and len(latencies) % every == 0:
                    kept.append((place, body))
                if now - begun < seconds:
                    turn = _send(key.data, requests, turn, sent)
        return Driven(np.array(latencies), perf_counter() - begun, process_time() - cpu, statuses, kept)


def ask(server: Target, message: bytes) -> bytes:
    """The body of the answer to one request. Raises ClientError."""
    with _connections(server, 1) as ready:
        (key,) = ready.get_map().values()
        key.data.sendall(message)
        return _receive(key.data, OK)[1]


@contextlib.contextmanager
def _connections(server: Target, clients: int, trust: ssl.SSLContext | None = None) -> Iterator[selectors.BaseSelector]:
    where = urlsplit(server.inference)
    assert where.hostname is not None
    with contextlib.ExitStack() as opened:
        ready = opened.enter_context(selectors.DefaultSelector())
        for _ in range(clients):
            connection = opened.enter_context(socket.create_connection((where.hostname, where.port), ANSWER_S))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if trust is not None:
                connection = opened.enter_context(trust.wrap_socket(connection, server_hostname=where.hostname))
            ready.register(connection, selectors.EVENT_READ, data=connection)
        yield ready


def _send(
    connection: socket.socket, requests: Sequence[bytes], turn: int, sent: dict[socket.socket, tuple[float, int]]
) -> int:
    place = turn % len(requests)
    sent[connection] = perf_counter(), place
    connection.sendall(requests[place])
    return turn + 1


def _receive(connection: socket.socket, expected: Collection[int]) -> tuple[int, bytes]:
    """One whole answer's status, which is as expected, and its body."""
    data = connection.recv(65536)
    while (end := data.find(END_OF_HEAD)) < 0:
        data += _more(connection)
    head = data[:end].lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    while len(data) < end + len(END_OF_HEAD) + length:
        data += _more(connection)
    status = int(head.partition(b" ")[2].partition(b" ")[0])
    if status not in expected:
        raise ClientError(f"expected status {' or '.join(map(str, expected))}, got {data[:300]!a}")
    return status, data[end + len(END_OF_HEAD) :]


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ClientError("the server closed the connection in the middle of an answer")
    return data
