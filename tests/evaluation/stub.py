"""A loopback server around real archives: the handler's own code behind Python's http.server in place of TorchServe.

It imitates what TorchServe does before our code runs: the token (its own 400), the limit of a body (413, nothing in
it, connection closed), and the files that `make serve` leaves for clients.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

from evaluation.oracles import InProcessOracle
from handlers import wire
from handlers.errors import RateLimited
from handlers.forms import Classes
from tests.answers import encode_answers, encode_error

TOKEN = "c2VjcmV0"
LIMIT = 4_000_000

CLASSES = Classes(tuple(map(str, range(10))))


class Stub:
    """Serves archives by model name; `instance` under `run_folder` is what loadtests.target reads.

    queries: requests that reached our code. lie: from now on, name another label than the argmax. turned_away:
    principals whose next request is over a limit, for one second. thieves_wait_s: for each answer, so that a theft
    takes long enough for benign users to ask meanwhile.
    """

    def __init__(self, archives: Mapping[str, Path], run_folder: Path, *, instance: str = "default") -> None:
        self.oracles = {model: InProcessOracle(path) for model, path in archives.items()}
        self.run_folder = run_folder
        self.queries = 0
        self.lie = False
        self.turned_away: set[str] = set()
        self.thieves_wait_s = 0.0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        folder = run_folder / instance
        folder.mkdir(parents=True)
        keys = folder / "key_file.json"
        keys.write_text(json.dumps({"inference": {"key": TOKEN, "expiration time": "2099"}}))
        record = {"inference": self.url, "models": list(archives), "key_file": str(keys)}
        (folder / "server.json").write_text(json.dumps(record))
        (folder / "config.properties").write_text(f"job_queue_size=100\nmax_request_size={LIMIT}\n")

    def __enter__(self) -> Stub:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for oracle in self.oracles.values():
            oracle.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # header and body in one packet: two would wait for each other, 40 ms a request (Nagle, delayed ACK)
            wbufsize = 1 << 16

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                if length > LIMIT:
                    self._reply(413, b"", close=True)
                    return
                body = self.rfile.read(length)
                if self.headers["Authorization"] != f"Bearer {TOKEN}":
                    self._reply(400, b'{"code": 400, "type": "InvalidKeyException", "message": "Token ..."}')
                    return
                principal = self.headers[wire.PRINCIPAL]
                if principal in stub.turned_away:
                    stub.turned_away.remove(principal)
                    self._reply(429, encode_error(RateLimited("enough", limit="principal", seconds=1)), wait=1)
                    return
                if (principal or "").startswith("thief"):
                    time.sleep(stub.thieves_wait_s)
                stub.queries += 1
                protocol = self.path.startswith("/v2/")
                model = self.path.split("/")[3] if protocol else self.path.removeprefix("/predictions/")
                reply = stub.oracles[model].reply(body, dict(self.headers.items()))
                lie = stub.lie and reply.status == 200 and not protocol
                self._reply(int(reply.status), lying(reply.body) if lie else reply.body, more=reply.encoded.headers)

            def _reply(
                self, status: int, body: bytes, *, close: bool = False, wait: int = 0, more: Mapping[str, str] = {}
            ) -> None:
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                if wait:
                    self.send_header("Retry-After", str(wait))
                if close:
                    self.send_header("Connection", "close")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Keep quiet."""

        return Handler


def lying(body: bytes) -> bytes:
    """The same answers with every label changed."""
    labels, probabilities, _ = wire.decode_answers(body)
    return encode_answers((labels + 1) % 10, probabilities, {}, classes=CLASSES)
