"""How a request reaches the target and what comes back: HTTP by deploy.direct's sessions, gRPC by a channel.

Nothing is followed elsewhere: a redirection is an answer like any other, and a secret never goes to a second host. The
environment's proxies, certificates and passwords play no part, and no cookie is kept: a thief would not. An answer is
read up to `most` bytes, within the target's timeout as a whole (attest/target/deadline.py).
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests
import urllib3

from attest.target.deadline import Deadline
from attest.target.encoding import Encoded
from attest.target.table import SENDS, Target
from deploy import direct

# bytes of an answer, and more for each of its numbers: what is longer fills the disk and says nothing
MOST, MOST_A_NUMBER = 2**20, 256
# no whole answer came
DROPPED = 0
CHUNK = 2**16
# gRPC's codes as HTTP spells them
CODES = {
    "RESOURCE_EXHAUSTED": 429,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "FAILED_PRECONDITION": 412,
}


@dataclass(frozen=True)
class Reply:
    """status: HTTP's, or DROPPED. body: the answer, or why there is none. ms: until it was whole. retry_after: seconds
    that the service asks to be left alone, None: it asks for none. location: of a redirection."""

    status: int
    body: bytes
    ms: float
    retry_after: float | None = None
    location: str = ""


class WireError(RuntimeError):
    """Nothing can be sent, or no more, for a reason of our own; the message says which."""


class Wire(Protocol):
    """Sends requests, from any thread."""

    def send(self, encoded: Encoded, headers: Mapping[str, str] | None = None) -> Reply:
        """The answer; nothing is raised for what the service or the network does. Raises WireError."""

    def close(self) -> None:
        """Give up the connections."""


def wire(target: Target) -> Wire:
    """The target's. Raises TargetError for a secret that is not in the environment."""
    return GrpcWire(target) if SENDS[target.send].grpc else HttpWire(target)


def most(target: Target) -> int:
    """Bytes of an answer that are read."""
    return MOST + MOST_A_NUMBER * target.rows * len(target.class_names)


class HttpWire:
    """As many sessions as requests were under way at once, each with a connection that is kept."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._secrets = target.secrets()
        self._most = most(target)
        self._deadline = Deadline(target.timeout)
        # those that nobody uses; the last one first, so that no more are open than are needed
        self._idle = deque[requests.Session]()

    def __repr__(self) -> str:
        return f"HttpWire({self._target.shown_url})"

    def send(self, encoded: Encoded, headers: Mapping[str, str] | None = None) -> Reply:
        """One POST."""
        sent = {"Content-Type": encoded.content_type, **self._secrets, **(headers or {})}
        session = self._session()
        started = time.perf_counter()
        try:
            with (
                self._deadline.within(session),
                session.post(
                    self._target.url,
                    data=encoded.body,
                    headers=sent,
                    timeout=self._target.timeout,
                    allow_redirects=False,
                    stream=True,
                ) as response,
            ):
                body = _whole(response, self._most)
        except (requests.RequestException, urllib3.exceptions.HTTPError, TimeoutError, OSError) as error:
            return Reply(DROPPED, _why(error).encode(), _since(started))
        finally:
            self._idle.append(session)
        found = response.headers
        return Reply(
            response.status_code,
            body,
            _since(started),
            _retry_after(found.get("Retry-After")),
            found.get("Location", ""),
        )

    def close(self) -> None:
        """Close the sessions."""
        while self._idle:
            self._idle.pop().close()
        self._deadline.close()

    def _session(self) -> requests.Session:
        try:
            return self._idle.pop()
        except IndexError:
            made = direct.session()
            # requests would read the whole of a redirection, and where it leads to, although it does not go there
            made.get_redirect_target = _nowhere  # type: ignore[method-assign]
            made.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
            self._deadline.mount(made)
            if self._target.cacert:
                made.verify = self._target.cacert
            return made


class GrpcWire:
    """One channel, which all threads share."""

    def __init__(self, target: Target) -> None:
        import grpc

        parts, self._timeout = urlsplit(target.url), target.timeout
        # gRPC's own resolver would ask the environment's proxy
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", most(target))]
        if parts.scheme == "grpcs":
            roots = Path(target.cacert).read_bytes() if target.cacert else None
            self._channel = grpc.secure_channel(parts.netloc, grpc.ssl_channel_credentials(roots), options=options)
        else:
            self._channel = grpc.insecure_channel(parts.netloc, options=options)
        self._call: Any = self._channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        self._secrets = {name.lower(): value for name, value in target.secrets().items()}

    def send(self, encoded: Encoded, headers: Mapping[str, str] | None = None) -> Reply:
        """One ModelInfer."""
        import grpc

        sent = {**self._secrets, **{name.lower(): value for name, value in (headers or {}).items()}}
        started = time.perf_counter()
        try:
            body: bytes = self._call(encoded.body, timeout=self._timeout, metadata=tuple(sent.items()))
        except grpc.RpcError as error:
            code = error.code().name
            return Reply(CODES.get(code, DROPPED), (error.details() or code).encode(), _since(started))
        return Reply(200, body, _since(started))

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def _why(error: Exception) -> str:
    """The kind of an error, and what is wrong with a certificate; nothing else of it, since it holds the url."""
    untrusted = re.search(r"certificate verify failed: [^(]*", str(error))
    return type(error).__name__ + (f": {untrusted[0].strip()}" if untrusted else "")


def _nowhere(resp: requests.Response) -> str | None:
    """Where a redirection leads to."""


def _whole(response: requests.Response, most: int) -> bytes:
    """The body. Raises OSError where it is too long."""
    parts: list[bytes] = []
    length = 0
    while True:
        part = response.raw.read1(CHUNK, decode_content=True)
        if not part:
            return b"".join(parts)
        parts.append(part)
        length += len(part)
        if length > most:
            raise OSError(f"expected at most {most} bytes")


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)


def _retry_after(value: str | None) -> float | None:
    """Seconds, of either form that HTTP has; None where it says nothing that can be understood."""
    if value is None:
        return None
    try:
        if value.strip().isdecimal():
            return float(value)
        wanted = parsedate_to_datetime(value)
        wanted = wanted if wanted.tzinfo else wanted.replace(tzinfo=timezone.utc)
        return max(0.0, (wanted - datetime.now(timezone.utc)).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None
