"""The attack process: an attack in a process of its own, which sends its queries through a socket.

Locust's users share one thread, so a training step among them would stall them all. Here the attack proposes, learns
and trains as it would in process (evaluation.thefts.carry_out), and its oracle hands the images to Locust's process,
which asks the service (loadtests/users/campaign.py), and waits for the answers:

    attack process                          campaign
    {"say": "ready"}                 ->
                                     <-     {"say": "go"}           when the quiet stretch is over
    {"say": "ask"}, images           ->
                                     <-     {"say": "answers", "what": [...]}, one array for each named field of Answers
    ...
    {"say": "done"}                  ->     results lie in the attack's folder
    {"say": "failed", "why": ...}    ->     or this

Either end takes a closed socket for the end of the other. `Channel` is both ends' side of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import recipes
from attacks import registry
from attacks.clone import LABELS
from attacks.label_only import labels_only
from attacks.oracle import Answers, Ledger
from attacks.service import Service
from evaluation import tables
from evaluation.thefts import carry_out
from zoo import datasets
from zoo.images import size_of

LENGTH = struct.Struct("<I")
READINGS = (*LABELS, "both")


class Gone(Exception):  # noqa: N818 - an event, not a fault
    """The other end has closed the socket."""


class Channel:
    """Messages over a stream socket: a JSON object and any number of arrays, little-endian as numpy writes them.

    Only as blocking as its socket: one of gevent's lets other greenlets run while it waits.
    """

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream

    def send(self, message: Mapping[str, Any], *arrays: np.ndarray) -> None:
        """Send one message. Raises Gone."""
        shapes = [[array.dtype.str, array.shape] for array in arrays]
        header = json.dumps({**message, "arrays": shapes}).encode()
        try:
            self._stream.sendall(LENGTH.pack(len(header)) + header)
            for array in arrays:
                if array.size:
                    self._stream.sendall(np.ascontiguousarray(array).view(np.uint8).data)
        except OSError as error:
            raise Gone(f"the socket is closed ({type(error).__name__})") from error

    def receive(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        """The next message and its arrays. Raises Gone."""
        (length,) = LENGTH.unpack(self._exactly(LENGTH.size))
        message = json.loads(self._exactly(length))
        arrays = []
        for name, shape in message.pop("arrays"):
            kind = np.dtype(name)
            content = self._exactly(math.prod(shape) * kind.itemsize)
            arrays.append(np.frombuffer(content, kind).reshape(shape))
        return message, arrays

    def close(self) -> None:
        """Close the socket; the other end's next step raises Gone."""
        self._stream.close()

    def _exactly(self, count: int) -> bytearray:
        content = bytearray(count)
        view, got = memoryview(content), 0
        while got < count:
            try:
                more = self._stream.recv_into(view[got:])
            except OSError as error:
                raise Gone(f"the socket is closed ({type(error).__name__})") from error
            if not more:
                raise Gone("the socket is closed")
            got += more
        return content


def command(
    *,
    recipe: str,
    attack: str,
    labels: str,
    seed: int,
    budgets: Sequence[int],
    rows: int,
    outcome: Path,
    data: Path | None,
    socket_number: int,
    adaptive: str = "",
) -> list[str]:
    """The command line that starts an attack process; see `_options`."""
    words = [
        sys.executable,
        "-m",
        "loadtests.attack_process",
        "--recipe",
        recipe,
        "--attack",
        attack,
        "--labels",
        labels,
    ]
    words += ["--seed", str(seed), "--rows", str(rows), "--outcome", str(outcome), "--socket", str(socket_number)]
    words += ["--data", str(data)] if data else []
    words += ["--adaptive", adaptive] if adaptive else []
    return [*words, "--budgets", *map(str, budgets)]


def main() -> None:
    """Carry out the attack of the command line. Errors are reported through the socket, and the exit code is 1."""
    options = _options()
    torch.set_num_threads(1)  # the server and its other clients need the cores too
    stream = socket.socket(fileno=options.socket)
    stream.setblocking(True)
    channel = Channel(stream)
    try:
        _attack(options, channel)
    except Gone as error:
        sys.exit(f"loadtests.attack_process: {error}; the attack is not finished")
    except Exception as error:
        channel.send({"say": "failed", "why": f"{type(error).__name__}: {error}"})
        raise
    channel.send({"say": "done"})


def _attack(options: argparse.Namespace, channel: Channel) -> None:
    recipe = recipes.read(options.recipe)
    section = recipe.section("dataset", datasets.Data)
    test = section.load("test", options.data)
    channels, size = test.stored.shape[1], size_of(test.stored)
    budgets = tuple(sorted(options.budgets))
    config = dataclasses.replace(tables.parameters(recipe, options.attack), budget=budgets[-1])
    service, cloning = Service(channels, size, len(test.classes or section.classes)), tables.cloning(recipe)
    thief = registry.attack(options.attack).prepare(
        config, service, cloning=cloning, seed=options.seed, root=options.data
    )
    if options.adaptive:
        wrap = registry.form(options.adaptive).wrap
        thief = wrap(thief, service=service, cloning=cloning, seed=options.seed)

    def oracle(images: torch.Tensor) -> Answers:
        channel.send({"say": "ask"}, images.numpy())
        message, arrays = channel.receive()
        return Answers(**dict(zip(message["what"], map(torch.from_numpy, arrays), strict=True)))

    channel.send({"say": "ready"})
    channel.receive()
    carry_out(
        thief,
        Ledger(labels_only(oracle) if options.labels == "hard" else oracle, config.budget),
        rows=options.rows,
        budgets=budgets,
        questions=test.pixels,
        folder=options.outcome,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.attack_process", description="started by a Locust run")
    parser.add_argument("--recipe", required=True, help="as loadtests.attack takes it")
    parser.add_argument("--attack", required=True, help="a table [attacks.NAME]")
    parser.add_argument("--adaptive", default="", metavar="FORM", help="a form of attacks.registry (none)")
    parser.add_argument("--labels", choices=READINGS, required=True, help="what the attacker reads")
    parser.add_argument("--seed", type=int, required=True, help="of the attacker's choices")
    parser.add_argument("--budgets", type=int, nargs="+", required=True, help="charged images to stop at, for a look")
    parser.add_argument("--rows", type=int, required=True, help="images in one exchange, of all clients together")
    parser.add_argument("--outcome", type=Path, required=True, help="folder for the results")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    parser.add_argument("--socket", type=int, required=True, help="file descriptor of this end")
    return parser.parse_args()


if __name__ == "__main__":
    main()
