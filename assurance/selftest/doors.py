"""Who may do what: tokens, the management address, archives that would be loaded over HTTP, files that others can read.

Nothing here would harm a service whose doors are open: what is asked for does not exist.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil

from assurance.selftest.checks import SERVER, Subject, judged, shown, untried
from assurance.selftest.service import Reply, Service
from handlers import wire
from report.rows.selftest import Finding

CONTROL = "closed-server"
# TorchServe's word for a token that is missing or wrong
NO_TOKEN = 400
OFF, NOT_ALLOWED = 405, 404
NOBODY = "selftest-none"


def tokens(subject: Subject) -> Iterator[Finding]:
    """Inference with the token for management, and with the right token in other forms than TorchServe's own."""
    service, body = subject.service, wire.encode_rows(subject.good, wire.RAW)
    keys = service.keys
    for sent, authorization in (
        ("no token", ""),
        ("a wrong token", "Bearer AAAAAAAA"),
        ("the token for management", f"Bearer {keys['management']}"),
        ("the token without its scheme", keys["inference"]),
    ):
        reply = service.ask(
            subject.name, body, wire.RAW, principal=service.principal("token"), authorization=authorization
        )
        yield _refused(f"a prediction with {sent}", reply, NO_TOKEN)


def management(service: Service) -> Iterator[Finding]:
    """The management address, with tokens that are not for it."""
    for sent, key in (("no token", None), ("the token for inference", service.keys["inference"])):
        yield _refused(f"GET /models with {sent}", service.manage("GET", "models", key=key), NO_TOKEN)


def model_api(service: Service) -> Iterator[Finding]:
    """Archives by name, and their removal, with the token for management."""
    key = service.keys["management"]
    yield _refused("POST /models, an archive by name", service.manage("POST", f"models?url={NOBODY}.mar", key=key), OFF)
    yield _refused("DELETE /models", service.manage("DELETE", f"models/{NOBODY}", key=key), OFF)


def remote_code(service: Service) -> Iterator[Finding]:
    """Archives and workflows from a URL, with the token for management: the URL must not even be asked for."""
    key = service.keys["management"]
    with _listener() as (url, asked):
        for path, status in ((f"models?url={url}/x.mar", OFF), (f"workflows?url={url}/x.war", NOT_ALLOWED)):
            before = len(asked)
            reply = service.manage("POST", path, key=key)
            fetched = len(asked) > before
            yield judged(
                CONTROL,
                SERVER,
                f"POST /{path.partition('?')[0]}, a URL",
                f"{status}, and the URL is not asked for",
                f"{reply.status}, {'asked for' if fetched else 'not asked for'}",
                ok=reply.status == status and not fetched,
            )


def loopback(service: Service) -> Iterator[Finding]:
    """Where the server listens: nothing but a gateway on the same machine may talk to it."""
    try:
        connections = psutil.Process(service.facts["pid"]).net_connections("inet")
    except (psutil.AccessDenied, psutil.NoSuchProcess) as error:
        yield untried(CONTROL, SERVER, f"listening addresses cannot be read: {type(error).__name__}")
        return
    addresses = sorted({each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN})
    inside = all(address.removeprefix("::ffff:").startswith("127.") or address == "::1" for address in addresses)
    yield judged(
        CONTROL,
        SERVER,
        "a look at listening addresses",
        "loopback alone",
        ", ".join(addresses) or "none",
        ok=inside and bool(addresses),
    )


def private_files(service: Service) -> Iterator[Finding]:
    """Modes of the files that hold secrets, or who asked for what."""
    named = {"key_file.json": Path(service.facts["key_file"]), "server.json": service.folder / "server.json"}
    if os.environ.get("TORCHWARDEN_KEY_FILE"):
        named["the key's file"] = Path(os.environ["TORCHWARDEN_KEY_FILE"])
    named |= {path.name: path for path in service.audit_files}
    for name, path in named.items():
        mode = path.stat().st_mode & 0o777
        yield judged(
            "private-key", SERVER, f"a look at {name}", "its owner's alone", f"mode {mode:04o}", ok=not mode & 0o077
        )


def _refused(sent: str, reply: Reply, status: int) -> Finding:
    return judged(CONTROL, SERVER, sent, str(status), shown(reply), ok=reply.status == status)


@contextlib.contextmanager
def _listener() -> Iterator[tuple[str, list[str]]]:
    """A server on loopback that has nothing; its URL, and the paths that it was asked for."""
    asked: list[str] = []

    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815  # http.server's name

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing is printed."""

    with HTTPServer(("127.0.0.1", 0), Nothing) as server:
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()
