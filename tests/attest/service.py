"""A real HTTP server for attests: digits by their nearest class mean, no training, and every way to misbehave."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo import datasets

KEY = "sesame-4711"
SHARPNESS = 40.0


class Means:
    """p_k proportional to exp(-SHARPNESS |x - mean_k|^2 / pixels): float32 (1,28,28) in [0, 1] to float32 (10,)."""

    def __init__(self) -> None:
        train = datasets.load("digits", "train")
        assert train.labels is not None
        flat = train.pixels.flatten(1)
        self.means = np.stack([flat[train.labels == kind].mean(dim=0).numpy() for kind in range(10)])

    def __call__(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = -SHARPNESS * ((self.means - pixels.ravel()) ** 2).mean(axis=1)
        powers = np.exp(scores - scores.max())
        return np.asarray(powers / powers.sum(), np.float32)


Reply = tuple[int, Mapping[str, str], bytes]
Answer = Callable[["Service", NDArray[np.float32]], Reply]


def honest(service: Service, pixels: NDArray[np.float32]) -> Reply:
    return scores(service.model(pixels))


def scores(values: NDArray[np.float32]) -> Reply:
    return 200, {}, json.dumps({"predictions": [{"scores": values.tolist()}]}).encode()


class Service:
    """Serves POST of a PNG. answer: what it says to pixels, so that a test can be dishonest. seen: SHA-256 of every
    picture in the order of arrival; number: in `answer`, the place of its request among them, from 1; headers: of the
    last request."""

    def __init__(self, answer: Answer = honest, model: Means | None = None) -> None:
        self.model = model or Means()
        self.answer = answer
        self.seen: list[str] = []
        self.headers: Mapping[str, str] = {}
        self.times: list[float] = []
        self._arriving, self._own = threading.Lock(), threading.local()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.url = f"http://127.0.0.1:{self._server.server_port}/classify"

    def __enter__(self) -> Service:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def number(self) -> int:
        number: int = self._own.number
        return number

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.headers = dict(self.headers)
                with service._arriving:
                    service.seen.append(hashlib.sha256(body).hexdigest())
                    service.times.append(time.monotonic())
                    service._own.number = len(service.seen)
                pixels = np.asarray(Image.open(io.BytesIO(body)), np.float32)[None] / 255
                status, headers, content = service.answer(service, pixels)
                if status == 0:  # gone in the middle of an answer
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: Any) -> None:
                pass

        return Handler


def table(url: str, **changes: Any) -> dict[str, Any]:
    """What a target file says of a Service."""
    return {
        "url": url,
        "send": "picture",
        "size": [28, 28],
        "channels": 1,
        "answer": "predictions[0].scores",
        "classes": 10,
        "rate": 5000.0,
        "budget": 400,
        "price_per_1000": 2.0,
        **changes,
    }
