"""One client that sends one request at a constant rate, whatever the outcome: an open loop, in its own process, so
that Python's one lock does not add its cost to the others' latencies."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter, process_time

from assurance.faults.clients import Client, Door
from assurance.faults.payers import result_of

# for an answer; longer than the gateway lets anybody wait
PATIENCE_S = 70.0


@dataclass(frozen=True)
class Flood:
    """What is sent, how often a second, and over how many connections."""

    door: Door
    model: str
    content_type: str
    body: bytes = field(repr=False)
    rate: float
    connections: int


@dataclass(frozen=True)
class Sent:
    """The result: requests by response, requests a second, and the client's own share of a core."""

    responses: Mapping[str, int]
    per_second: float
    cpu: float


def warm() -> None:
    """Nothing: a process that did it has imported this module."""


def send(flood: Flood, seconds: float) -> Sent:
    """Send requests, each when it is due, or as soon after that as a connection is free, for so long."""
    begun, worked = perf_counter(), process_time()
    numbers = itertools.count()  # of the requests; next() is one step for Python, so threads need no lock

    def keep_sending(_: int) -> Counter[str]:
        client, seen = Client(flood.door, patience_s=PATIENCE_S), Counter[str]()
        while (due := next(numbers) / flood.rate) < seconds:
            time.sleep(max(0.0, begun + due - perf_counter()))
            if perf_counter() - begun > seconds:
                break
            seen[result_of(client.post(flood.model, flood.body, flood.content_type))] += 1
        client.close()
        return seen

    with ThreadPoolExecutor(flood.connections) as pool:
        seen = sum(pool.map(keep_sending, range(flood.connections)), Counter[str]())
    taken = perf_counter() - begun
    return Sent(dict(seen), seen.total() / taken, (process_time() - worked) / taken)
