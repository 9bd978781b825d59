"""The gateway: TLS, who has a key, what may pass, and what it does about too much and too slow.

    --gateway                                           of the instance; a key is made for the test, and revoked
    --url https://HOST:PORT --cafile FILE --user FILE   any other; the last holds LOGIN:KEY, as `gateway add` prints it

No process list shows a key.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import ssl
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import requests

from assurance.selftest.checks import GATEWAY, Subject, absent, judged, shown
from assurance.selftest.service import SECONDS, Reply, Service, ServiceError
from deploy import direct
from handlers import wire
from report.rows.selftest import Finding

CHECKOUT = Path(__file__).resolve().parents[2]
CLIENT = "selftest"
TRANSPORT = "gateway-tls"
KEYS = "gateway-keys"
WAY = "gateway-way"
LIMITS = "gateway-limits"
SHARES = "gateway-shares"
# requests of one client that are begun at once
MOST_BEGUN = 400
# connections, and requests that each sends at once
CROWD, BURST = 12, 900
# without another answer, until there are none left
QUIET_S = 3.0
# longer than nginx waits for a client that stalls
STALLED_S = 25.0


@dataclass(frozen=True)
class Gateway:
    """A gateway as one of its clients has it. key: the client's."""

    url: str
    cafile: str | None
    user: str
    key: str = field(repr=False)

    @classmethod
    def read(cls, url: str, cafile: Path | None, user: Path) -> Gateway:
        """user: the file. Raises ServiceError where it holds no login and key."""
        try:
            login, colon, key = user.read_text("utf-8").strip().partition(":")
        except OSError as error:
            raise ServiceError(
                f"--user {user}: {error.strerror}; write there what `deploy.gateway add` prints"
            ) from error
        if not login or not colon or not key:
            raise ServiceError(
                f"--user {user}: expected LOGIN:KEY, as `deploy.gateway add` prints it, got another text"
            )
        return cls(url.rstrip("/"), None if cafile is None else str(cafile), login, key)

    @classmethod
    @contextlib.contextmanager
    def of(cls, instance: str, run_folder: Path) -> Iterator[Gateway]:
        """The instance's own, with a key that is good until the end of the block. Raises ServiceError."""
        record = run_folder / f"{instance}.gateway" / "gateway.json"
        try:
            facts = json.loads(record.read_text("utf-8"))
        except FileNotFoundError:
            raise ServiceError(f"{record}: no such file; is the gateway running? (make serve GATEWAY=1)") from None
        where = ["--instance", instance, "--run-folder", str(run_folder), "--secrets", facts["secrets"]]
        login, _, key = _keys("add", CLIENT, *where).strip().partition(":")
        try:
            yield cls(facts["url"], facts["certificate"], login, key)
        finally:
            _keys("revoke", login, *where)

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 443

    @property
    def session(self) -> requests.Session:
        """A client with the key, that trusts the certificate."""
        made = direct.session()
        made.verify = self.cafile or True
        made.auth = (self.user, self.key)
        return made

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.cafile)

    def ask(
        self,
        service: Service,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        auth: tuple[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request. auth: in place of the client's own; ("", "") for none."""
        with self.session as session:
            if auth is not None:
                session.auth = auth if any(auth) else None
            try:
                answer = session.request(method, f"{self.url}{path}", data=body, headers=headers, timeout=SECONDS)
            except requests.Timeout as error:
                raise ServiceError(f"no answer within {SECONDS:.0f} s from {self.url}") from error
            except requests.exceptions.SSLError as error:
                raise ServiceError(f"{self.url}: {error}; is --cafile its certificate's?") from error
            except requests.ConnectionError:
                return Reply(0)
            reply = Reply(answer.status_code, answer.content, dict(answer.headers))
        service.search("an answer of the gateway", reply.body + repr(reply.headers).encode())
        return reply


def _keys(*arguments: str) -> str:
    """What `python -m deploy.gateway` prints. Raises ServiceError."""
    command = [sys.executable, "-m", "deploy.gateway", *arguments]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServiceError(f"deploy.gateway {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def run(gateway: Gateway, subject: Subject) -> Iterator[Finding]:
    """All checks of the gateway, with one model behind it."""
    for check in (transport, keys, only_inference, headers, size, slow_clients, places, rate):
        try:
            yield from check(gateway, subject)
        except (ServiceError, OSError, requests.RequestException) as error:
            reason = f"the check broke off: {type(error).__name__}: {error}"
            yield judged(WAY, GATEWAY, check.__name__.replace("_", " "), "an answer to judge by", reason, ok=False)


def transport(gateway: Gateway, subject: Subject) -> Iterator[Finding]:
    """Which TLS is spoken, and that nothing is answered without it."""
    del subject
    versions = [("TLS 1.1", ssl.TLSVersion.TLSv1_1, False)]
    versions += [("TLS 1.2", ssl.TLSVersion.TLSv1_2, True), ("TLS 1.3", ssl.TLSVersion.TLSv1_3, True)]
    for name, version, wanted in versions:
        spoken = _spoken(gateway, version)
        yield judged(
            TRANSPORT,
            GATEWAY,
            f"a handshake of {name}",
            "accepted" if wanted else "refused",
            "accepted" if spoken else "refused",
            ok=spoken is wanted,
        )
    host, port = gateway.address
    try:
        with direct.session() as client:
            plain = client.get(f"http://{host}:{port}/", timeout=SECONDS)
        got, ok = f"{plain.status_code}", plain.status_code >= 400
    except requests.ConnectionError:
        got, ok = "connection cut", True
    yield judged(TRANSPORT, GATEWAY, "HTTP without TLS", "no answer but a refusal", got, ok=ok)


def _spoken(gateway: Gateway, version: ssl.TLSVersion) -> bool:
    context = gateway.context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the version that must be refused
        context.minimum_version = context.maximum_version = version
    # or this side would refuse the old version itself
    context.set_ciphers("ALL:@SECLEVEL=0")
    host, port = gateway.address
    try:
        with (
            socket.create_connection((host, port), timeout=SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except ssl.SSLCertVerificationError as error:
        raise ServiceError(f"{gateway.url}: {error}; is --cafile its certificate's?") from error
    except (ssl.SSLError, ConnectionError):
        return False


def keys(gateway: Gateway, subject: Subject) -> Iterator[Finding]:
    """No key, a wrong one, and TorchServe's own token, which is the gateway's alone."""
    path, body = subject.service.target.path(subject.name), wire.encode_rows(subject.good, wire.RAW)
    kind = {"Content-Type": wire.RAW}
    tries: list[tuple[str, tuple[str, str], dict[str, str]]] = [
        ("no key", ("", ""), {}),
        ("a wrong key", (gateway.user, "A" * 43), {}),
        ("another's name with the key", (f"{gateway.user}x", gateway.key), {}),
        ("TorchServe's token", ("", ""), subject.service.target.authorization),
    ]
    for sent, auth, more in tries:
        reply = gateway.ask(subject.service, "POST", path, body, auth=auth, headers={**kind, **more})
        yield judged(KEYS, GATEWAY, f"a prediction with {sent}", "401", shown(reply), ok=reply.status == 401)
    reply = gateway.ask(subject.service, "POST", path, body, headers=kind)
    yield judged(KEYS, GATEWAY, "a prediction with the key", "200", shown(reply), ok=reply.status == 200)


def only_inference(gateway: Gateway, subject: Subject) -> Iterator[Finding]:
    """TorchServe's other paths, and other methods on the one that may pass."""
    model = subject.name
    for method, path, expected in (
        ("GET", "/models", 404),
        ("POST", "/models?url=selftest-none.mar", 404),
        ("POST", "/workflows?url=selftest-none.war", 404),
        ("GET", "/metrics", 404),
        ("GET", "/api-description", 404),
        ("OPTIONS", "/", 405),
        ("POST", f"/explanations/{model}", 404),
        ("POST", f"/predictions/{model}/../../models", 404),
        ("GET", f"/predictions/{model}", 405),
        ("DELETE", f"/predictions/{model}", 405),
    ):
        reply = gateway.ask(subject.service, method, path)
        yield judged(WAY, GATEWAY, f"{method} {path}", str(expected), shown(reply), ok=reply.status == expected)


def headers(gateway: Gateway, subject: Subject) -> Iterator[Finding]:
    """Headers that are the gateway's own, or mean something to TorchServe: none gets through."""
    path, body = subject.service.target.path(subject.name), wire.encode_rows(subject.good, wire.RAW)
    principal = subject.served.get("principal_header", "Torchwarden-Principal")
    # the handler would refuse the first as no name, and answer the others otherwise than a row
    for sent, more in (
        ("a principal of the client's", {principal: "not a name"}),
        ("the header `describe`", {"describe": "True"}),
        ("the header `explain`", {"explain": "True"}),
        ("a request id and a path of the client's", {"X-Request-Id": "x", "url_path": "x"}),
    ):
        reply = gateway.ask(subject.service, "POST", path, body, headers={"Content-Type": wire.RAW, **more})
        got = shown(reply) if reply.status != 200 else f"200, {len(reply.answers)} rows answered"
        yield judged(WAY, GATEWAY, sent, "a row's answer", got, ok=reply.status == 200 and len(reply.answers) == 1)


def size(gateway: Gateway, subject: Subject) -> Iterator[Finding]:
    """A body that is too large, and one that does not say how large it is."""
    path = subject.service.target.path(subject.name)
    large = gateway.ask(
        subject.service,
        "POST",
        path,
        bytes(subject.service.target.max_request_size + 1),
        headers={"Content-Type": wire.RAW},
    )
    yield judged(LIMITS, GATEWAY, "a body of a byte too many", "413 or cut", shown(large), ok=large.status in (0, 413))
    body = wire.encode_rows(subject.good, wire.RAW)
    with gateway.session as session:
        try:
            answer = session.post(
                f"{gateway.url}{path}", data=iter([body]), headers={"Content-Type": wire.RAW}, timeout=SECONDS
            )
            chunks = Reply(answer.status_code, answer.content)
        except requests.ConnectionError:
            chunks = Reply(0)
    yield judged(LIMITS, GATEWAY, "a body in chunks", "411", shown(chunks), ok=chunks.status == 411)


def slow_clients(gateway: Gateway, subject: Subject) -> Iterator[Finding]:
    """A client that stalls within its head, and one within its body."""
    path = subject.service.target.path(subject.name)
    heads = {
        "half a head, then nothing": f"POST {path} HT",
        "a head without its body": (
            f"POST {path} HTTP/1.1\r\nHost: selftest\r\nContent-Type: {wire.RAW}\r\nContent-Length: 1000\r\n\r\n"
        ),
    }
    for sent, head in heads.items():
        seconds = _until_closed(gateway, head.encode())
        yield judged(
            LIMITS,
            GATEWAY,
            sent,
            f"cut off within {STALLED_S:.0f} s",
            "not cut off" if seconds is None else f"cut off after {seconds:.0f} s",
            ok=seconds is not None,
        )


def places(gateway: Gateway, subject: Subject) -> Iterator[Finding]:
    """Requests of one client that are begun and not ended: they may not hold all the places there are."""
    body = wire.encode_rows(subject.good, wire.RAW)
    path = subject.service.target.path(subject.name)
    basic = base64.b64encode(f"{gateway.user}:{gateway.key}".encode()).decode()
    head = f"POST {path} HTTP/1.1\r\nHost: selftest\r\nAuthorization: Basic {basic}\r\nContent-Length: 1000\r\n\r\n"
    host, port = gateway.address
    begun, refused = 0, False
    with contextlib.ExitStack() as stack:
        while begun < MOST_BEGUN and not refused:
            plain = stack.enter_context(socket.create_connection((host, port), timeout=SECONDS))
            tls = stack.enter_context(gateway.context().wrap_socket(plain, server_hostname=host))
            tls.sendall(head.encode())
            tls.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                refused = tls.recv(64).startswith(b"HTTP/1.1 429")
                break
            begun += 1
        held = gateway.ask(subject.service, "POST", path, body, headers={"Content-Type": wire.RAW})
    places = re.search(r"at most (\d+) requests at once from one address, (\d+) of one client", held.text)
    if places is not None and places[1] == places[2]:
        yield absent(SHARES, GATEWAY, "one client may hold all places (gateway_principal_share=100)")
        return
    share = "" if places is None else f", of {places[1]} places {places[2]}"
    yield judged(
        SHARES,
        GATEWAY,
        "requests of one client that are begun and not ended",
        "429, with places left for others",
        f"{shown(held)} after {begun} requests{share}",
        ok=refused and places is not None and begun <= int(places[2]) < int(places[1]),
    )


def _until_closed(gateway: Gateway, head: bytes) -> float | None:
    """Seconds until the gateway ends a connection that says no more than `head`; None where it goes on waiting."""
    host, port = gateway.address
    begun = time.monotonic()
    with (
        socket.create_connection((host, port), timeout=SECONDS) as plain,
        gateway.context().wrap_socket(plain, server_hostname=host) as tls,
    ):
        tls.sendall(head)
        tls.settimeout(STALLED_S)
        with contextlib.suppress(ConnectionError):
            try:
                while tls.recv(4096):
                    pass
            except TimeoutError:
                return None
    return time.monotonic() - begun


def rate(gateway: Gateway, subject: Subject) -> Iterator[Finding]:
    """More requests at once than one address may send, without a key: none of them reaches TorchServe."""
    path = subject.service.target.path(subject.name)
    request = f"POST {path} HTTP/1.1\r\nHost: selftest\r\nContent-Length: 0\r\n\r\n".encode()
    with ThreadPoolExecutor(CROWD) as pool:
        received = b"".join(pool.map(lambda _: _pipelined(gateway, request), range(CROWD)))
    answers = re.findall(rb"HTTP/1\.1 (\d{3})(.*?)\r\n\r\n", received, re.DOTALL)
    limited = [
        re.search(rb"\r\nRetry-After: (\d+)", head, re.IGNORECASE) for status, head in answers if status == b"429"
    ]
    yield judged(
        LIMITS,
        GATEWAY,
        f"{CROWD * BURST} requests at once from one address",
        "429 with Retry-After to some",
        f"429 to {len(limited)} of {len(answers)}, Retry-After with {sum(wait is not None for wait in limited)}",
        ok=bool(limited) and None not in limited,
    )


def _pipelined(gateway: Gateway, request: bytes) -> bytes:
    """What comes back for BURST requests that are sent before the first is answered."""
    host, port = gateway.address
    received = b""
    with (
        socket.create_connection((host, port), timeout=SECONDS) as plain,
        gateway.context().wrap_socket(plain, server_hostname=host) as tls,
        contextlib.suppress(ConnectionError, TimeoutError, ssl.SSLError),
    ):
        tls.sendall(request * BURST)
        tls.settimeout(QUIET_S)
        while more := tls.recv(1 << 16):
            received += more
    return received
