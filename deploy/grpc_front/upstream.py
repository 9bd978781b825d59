"""Whom the front asks over HTTP: the gateway or TorchServe for answers, `python -m deploy.health` for what is ready."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType

import aiohttp
from grpc import StatusCode

from deploy.grpc_front.refusals import Refused, Reply

UNIX = "unix:"
CONNECT_SECONDS = 2.0
HEALTH_SECONDS = 5.0
LOST = "the model could not be asked, or its answer was lost; try again later"
# what aiohttp says of itself
OWN = ("User-Agent", "Accept", "Accept-Encoding")


class Upstream:
    """to: http://HOST:PORT, or unix:PATH. health: http://HOST:PORT each. Made and used inside a running loop."""

    def __init__(self, to: str, health: Sequence[str]) -> None:
        unix = to.startswith(UNIX)
        self._to = "http://localhost" if unix else to
        self._health = health
        # A connection that is kept may be closed by the other side just as it is used again, and a POST is sent once.
        connector = (
            aiohttp.UnixConnector(to.removeprefix(UNIX), force_close=True, limit=0)
            if unix
            else aiohttp.TCPConnector(force_close=True, limit=0)
        )
        # How long an answer may take is the client's matter, and that of whoever is asked.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        self._asking = aiohttp.ClientSession(connector=connector, timeout=timeout, skip_auto_headers=OWN)
        self._looking = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
            timeout=aiohttp.ClientTimeout(total=HEALTH_SECONDS),
        )

    async def __aenter__(self) -> Upstream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._asking.close()
        await self._looking.close()

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """The answer of whoever serves models. Raises `Refused` where none came."""
        try:
            async with self._asking.post(self._to + path, data=body, headers=headers) as answer:
                return Reply(answer.status, answer.headers, await answer.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Refused(StatusCode.UNAVAILABLE, LOST) from error

    async def look(self, path: str) -> Reply:
        """What health says: of the first server where it is so, since a request finds its way to one that answers; else
        of the last. Raises `Refused` where nobody says anything."""
        last = None
        for server in self._health:
            try:
                async with self._looking.get(server + path) as answer:
                    last = Reply(answer.status, answer.headers, await answer.read())
            except (aiohttp.ClientError, TimeoutError):
                continue
            if last.status == 200:
                return last
        if last is None:
            raise Refused(StatusCode.UNAVAILABLE, "python -m deploy.health, which knows what is ready, does not answer")
        return last
