"""What the harness itself costs a client that asks 500 rows a second: its share of one core's time and of the wall's.

    python -m attest.speed [--rows 10000] [--rate 500]

A server in a process of its own answers at once. The same pictures are sent twice over the same wire at the same rate:
as a campaign sends them (paced, digested, written to the ledger, answers read by JMESPath), and as any client does, who
encodes each, sends it and parses the answer's JSON. The share is of the time that a client has for a picture:

    share = (CPU seconds of a picture in the campaign - those of a bare one) * rate
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from attest.asking import Asking
from attest.ledger import Ledger
from attest.target.encoding import Encoded
from attest.target.pace import Pace
from attest.target.table import Target
from attest.target.wires import wire
from handlers.images import write_image
from zoo import datasets

PART = 64
MOST = 0.05
ANSWER = json.dumps({"predictions": [{"scores": [0.1] * 10}]}).encode()


class AtOnce(BaseHTTPRequestHandler):
    """Ten numbers to any POST."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Read it, and answer."""
        self.rfile.read(int(self.headers["Content-Length"]))
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(ANSWER)}\r\n\r\n".encode()
        self.wfile.write(head + ANSWER)

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""


def serve(told: Connection) -> None:
    """Tell the port, and answer until the process ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), AtOnce)
    told.send(server.server_port)
    server.serve_forever()


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the wall, and of all of this process's processors."""
    started, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - used


def campaign(target: Target, images: torch.Tensor, folder: Path) -> tuple[float, float]:
    """As a thief asks."""
    with Ledger(folder) as ledger, Asking(target, wire(target), Pace(target), ledger) as asking:
        oracle = asking.phase("thief:speed")
        return timed(lambda: [oracle(part) for part in images.split(PART)])


def bare(target: Target, images: torch.Tensor) -> tuple[float, float]:
    """The same requests, over the same wire, by as many threads, at the same rate, and nothing else."""
    pace, sending, pixels = Pace(target), wire(target), images.numpy()

    def send(row: int) -> None:
        pace.take(1)
        picture = write_image(pixels[row], target.format)
        json.loads(sending.send(Encoded(picture, f"image/{target.format}")).body)

    with ThreadPoolExecutor(target.connections) as threads:
        found = timed(lambda: list(threads.map(send, range(len(images)))))
    sending.close()
    return found


def main() -> None:
    """Measure, print, and exit with 1 where the share is above MOST."""
    parser = argparse.ArgumentParser(prog="python -m attest.speed", description="the harness's own share")
    parser.add_argument("--rows", type=int, default=10_000, help="pictures to send (10000)")
    parser.add_argument("--rate", type=float, default=500.0, help="a second (500)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    crops = datasets.load("flower", "train").pixels
    images = crops.repeat(-(-options.rows // len(crops)), 1, 1, 1)[: options.rows]
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=serve, args=(there,), daemon=True)
    server.start()
    target = Target(
        url=f"http://127.0.0.1:{here.recv()}/",
        send="picture",
        size=(28, 28),
        channels=1,
        classes=10,
        answer="predictions[0].scores",
        rate=options.rate,
        budget=2 * options.rows,
    ).whole()
    try:
        with tempfile.TemporaryDirectory(prefix="attest-speed-") as folder:
            seconds, used = campaign(target, images, Path(folder))
        bare_seconds, bare_used = bare(target, images)
    finally:
        server.terminate()
    share = (used - bare_used) / options.rows * options.rate
    print(f"campaign: {options.rows / seconds:.0f} rows/s, {used / seconds:.1%} of a core")
    print(f"bare:     {options.rows / bare_seconds:.0f} rows/s, {bare_used / bare_seconds:.1%} of a core")
    print(f"the harness's own share: {share:.1%} of the time (at most {MOST:.0%})")
    raise SystemExit(share > MOST)


if __name__ == "__main__":
    main()
