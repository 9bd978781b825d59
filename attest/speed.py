"""What the harness itself costs a client that asks 500 rows a second: its share of one core's time and of the wall's.

    python -m attest.speed [--rows 10000] [--rate 500]
    python -m attest.speed --senders 4 [--connections 16]

A server in a process of its own answers at once. The same pictures are sent twice over the same wire at the same rate:
as a campaign sends them (paced, digested, written to the ledger, answers read by JMESPath), and as any client does, who
encodes each, sends it and parses the answer's JSON. The share is of the time that a client has for a picture:

    share = (CPU seconds of a picture in the campaign - those of a bare one) * rate

With --senders it measures instead how many pictures a second a campaign reaches that no rate holds back, sent by its
own process and by so many senders (attest/senders), one after the other. Server, senders, Locust's master and campaign
share the cores: more senders than cores are left gain nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import tomli_w
import torch

from attest.asking import Asking
from attest.ledger import Ledger
from attest.senders.wire import Senders
from attest.target import table
from attest.target.encoding import Encoded
from attest.target.pace import Pace
from attest.target.table import Target
from attest.target.wires import Wire, wire
from handlers.images import write_image
from zoo import datasets

PART = 64
MOST = 0.05
# a rate that nothing reaches
UNBOUNDED = 1e6
ANSWER = json.dumps({"predictions": [{"scores": [0.1] * 10}]}).encode()
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)


class AtOnce(asyncio.Protocol):
    """Ten numbers to any POST: no more of HTTP than our own clients need, so that the server is not what is timed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A new client."""
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._got = transport, b""

    def data_received(self, data: bytes) -> None:
        """Answer once the request is whole."""
        self._got += data
        head, end, body = self._got.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if end and length and len(body) >= int(length[1]):
            self._got = body[int(length[1]) :]
            self._transport.write(REPLY)


def serve(told: Connection) -> None:
    """Tell the port, and answer until the process ends."""

    async def forever() -> None:
        server = await asyncio.get_running_loop().create_server(AtOnce, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(forever())


@contextmanager
def served() -> Iterator[str]:
    """The url of a server in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=serve, args=(there,), daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/"
    finally:
        server.terminate()
        server.join()


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the wall, and of all of this process's processors."""
    started, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - used


def campaign(target: Target, images: torch.Tensor, folder: Path, sending: Wire) -> tuple[float, float]:
    """As a thief asks."""
    with Ledger(folder) as ledger, Asking(target, sending, Pace(target), ledger) as asking:
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


def reached(target: Target, images: torch.Tensor, senders: int) -> float:
    """Pictures a second that nothing but the machine holds back. senders: 0: the campaign's own process sends. Raises
    RuntimeError where one was not answered."""
    target = dataclasses.replace(target, rate=UNBOUNDED)
    with tempfile.TemporaryDirectory(prefix="attest-speed-") as name:
        folder = Path(name)
        if senders:
            path = folder / "speed.toml"
            # what is not said has the same value there
            said = {key: value for key, value in dataclasses.asdict(target).items() if value not in ("", (), {})}
            path.write_text(tomli_w.dumps({"target": said}))
            target = table.read(path)
            sending: Wire = Senders(target, path, here=senders, log=folder / "senders.log")
        else:
            sending = wire(target)
        seconds, _ = campaign(target, images, folder, sending)
        with Ledger(folder) as ledger:
            kinds = {entry.kind for entry in ledger.entries()}
    if kinds != {"answered"}:
        raise RuntimeError(f"expected every picture answered, got {', '.join(sorted(kinds))}: nothing was measured")
    return len(images) / seconds


def share(target: Target, images: torch.Tensor) -> float:
    """The harness's own share; prints what it comes of."""
    with tempfile.TemporaryDirectory(prefix="attest-speed-") as folder:
        seconds, used = campaign(target, images, Path(folder), wire(target))
    bare_seconds, bare_used = bare(target, images)
    found = (used - bare_used) / len(images) * target.rate
    print(f"campaign: {len(images) / seconds:.0f} rows/s, {used / seconds:.1%} of a core")
    print(f"bare:     {len(images) / bare_seconds:.0f} rows/s, {bare_used / bare_seconds:.1%} of a core")
    print(f"the harness's own share: {found:.1%} of the time (at most {MOST:.0%})")
    return found


def main() -> None:
    """Measure, print, and exit with 1 where the share is above MOST."""
    parser = argparse.ArgumentParser(prog="python -m attest.speed", description="the harness's own share")
    parser.add_argument("--rows", type=int, default=10_000, help="pictures to send (10000)")
    parser.add_argument("--rate", type=float, default=500.0, help="a second (500)")
    parser.add_argument("--senders", type=int, default=0, help="compare so many with one process, at any rate")
    parser.add_argument("--connections", type=int, default=4, help="open at once (4)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    crops = datasets.load("flower", "train").pixels
    images = crops.repeat(-(-options.rows // len(crops)), 1, 1, 1)[: options.rows]
    with served() as url:
        target = Target(
            url=url,
            send="picture",
            size=(28, 28),
            channels=1,
            classes=10,
            answer="predictions[0].scores",
            rate=options.rate,
            budget=2 * options.rows,
            connections=options.connections,
        ).whole()
        if not options.senders:
            raise SystemExit(share(target, images) > MOST)
        print(f"{options.connections} connections, {os.cpu_count()} cores")
        for senders in (0, options.senders):
            who = f"{senders} senders" if senders else "one process"
            print(f"{who}: {reached(target, images, senders):.0f} pictures/s")


if __name__ == "__main__":
    main()
