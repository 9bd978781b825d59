"""A deadline for a whole answer over HTTP: from the first byte that is sent to the last one that comes.

A socket's timeout begins anew with every byte, so a service that sends one now and then (of its handshake, its headers,
`100 Continue` without end) would keep a client for ever. So one thread looks after all requests under way and shuts
down the connection of one that is late. What its reader then makes of the cut is not to be trusted: whoever was late is
told so at the end.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

# looked after so often, as a share of the timeout
OFTEN = 1 / 8


class Deadline:
    """Of `seconds` for every request inside `within`. Close it at the end."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # both by the session's id
        self._under_way: dict[int, float] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="deadline", daemon=True)
        self._thread.start()

    def mount(self, session: requests.Session) -> None:
        """Have the connection of a session looked after, which sends one request at a time."""
        adapter = HTTPAdapter()
        adapter.poolmanager.pool_classes_by_scheme = {
            scheme: type("Pool", (pool,), {"ConnectionCls": self._held(connection, id(session))})
            for scheme, pool, connection in (
                ("http", HTTPConnectionPool, HTTPConnection),
                ("https", HTTPSConnectionPool, HTTPSConnection),
            )
        }
        for scheme in ("http://", "https://"):
            session.mount(scheme, adapter)

    @contextmanager
    def within(self, session: requests.Session) -> Iterator[None]:
        """One request of a session that is mounted. Raises TimeoutError at its end where that was too late."""
        me, end = id(session), time.monotonic() + self._seconds
        with self._lock:
            self._under_way[me] = end
        try:
            yield
        finally:
            with self._lock:
                del self._under_way[me]
        if time.monotonic() > end:
            raise TimeoutError

    def close(self) -> None:
        """End the thread that watches."""
        self._over.set()
        self._thread.join()
        for held in self._sockets.values():
            held.close()

    def _held(self, connection: type[HTTPConnection], session: int) -> type[HTTPConnection]:
        """The class, with a second handle on each socket, which outlives its being wrapped by TLS."""
        hold = self._hold

        class Held(connection):  # type: ignore[misc, valid-type]
            def _new_conn(self) -> Any:
                made = super()._new_conn()
                hold(session, made.dup())
                return made

        return Held

    def _hold(self, session: int, held: socket.socket) -> None:
        with self._lock:
            before = self._sockets.get(session)
            self._sockets[session] = held
        if before is not None:
            before.close()

    def _watch(self) -> None:
        while not self._over.wait(self._seconds * OFTEN):
            with self._lock:
                now = time.monotonic()
                late = [session for session, end in self._under_way.items() if now > end and session in self._sockets]
                for session in late:
                    _cut(self._sockets[session])


def _cut(held: socket.socket) -> None:
    with suppress(OSError):  # the other end was first
        held.shutdown(socket.SHUT_RDWR)
