"""Clients that keep sending requests through a fault, one at a time, and record the outcome of each.

Threads, because they must survive the faults: a closed connection, a lost server, a response that
never comes. Between two requests a client pauses, so that the server has time to spare and what is measured is the
fault and not a queue. Each client has images of its own, whose answers it has seen before anything went wrong.
"""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from types import TracebackType
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from assurance.faults.figures import Outcome
from handlers import wire
from report.rows.faults import CUT, LOST, PAUSE_S, RIGHT, UNSENT, WRONG

# of a probability: batches differ, so sums are rounded differently
TOLERANCE = 1e-4
NOTHING: Mapping[str, str] = {}


class FaultError(RuntimeError):
    """The fault cannot be measured; the message says what was expected."""


@dataclass(frozen=True)
class Door:
    """Where clients ask. url: without a trailing slash. certificate: whom to trust where it is https."""

    url: str
    authorization: Mapping[str, str] = field(repr=False)
    certificate: Path | None = None

    def connection(self, patience_s: float) -> http.client.HTTPConnection:
        """A connection that is not yet made."""
        where = urlsplit(self.url)
        assert where.hostname is not None
        if self.certificate is None:
            return http.client.HTTPConnection(where.hostname, where.port, timeout=patience_s)
        trust = ssl.create_default_context(cafile=self.certificate)
        return http.client.HTTPSConnection(where.hostname, where.port, timeout=patience_s, context=trust)


@dataclass(frozen=True)
class Answer:
    """status: 0 where there was none, and `what` says why. seconds: until it was there."""

    status: int
    body: bytes
    what: str
    seconds: float


class Client:
    """One connection to a server, made again where it was lost. patience_s: how long it waits for an answer."""

    def __init__(self, door: Door, *, patience_s: float) -> None:
        self._door = door
        self._connection = door.connection(patience_s)

    def ask(self, model: str, image: NDArray[np.float32], solution: str | None = None) -> Answer:
        """The answer to one image (C, H, W)."""
        more = {} if solution is None else {wire.SOLUTION: solution}
        return self.post(model, wire.encode_rows(image[np.newaxis], wire.RAW), wire.RAW, more)

    def post(self, model: str, body: bytes, content_type: str, more: Mapping[str, str] = NOTHING) -> Answer:
        """The answer to a body of this content type. more: further headers."""
        headers = {**self._door.authorization, "Content-Type": content_type, **more}
        begun, what = perf_counter(), UNSENT
        try:
            if self._connection.sock is None:
                self._connection.connect()
            what = CUT
            self._connection.request("POST", f"/predictions/{model}", body, headers)
            response = self._connection.getresponse()
            content = response.read()
            return Answer(response.status, content, "", perf_counter() - begun)
        except TimeoutError:
            what = LOST
        except (OSError, http.client.HTTPException):
            pass
        self.close()
        return Answer(0, b"", what, perf_counter() - begun)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@dataclass(frozen=True, eq=False)
class Known:
    """Images (N, C, H, W) with the label and the probabilities that each got while all was well."""

    model: str
    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64] | None

    def judge(self, number: int, answer: Answer) -> str:
        """The outcome of a request with image `number`; see report.rows.faults."""
        if answer.status == 0:
            return answer.what
        if answer.status != 200:
            return refusal(answer)
        try:
            answers = wire.decode_answers(answer.body)
        except wire.WireError:
            return WRONG
        if answers.errors:
            return f"200 {next(iter(answers.errors.values())).code}"
        if answers.labels.tolist() != [self.labels[number]]:
            return WRONG
        if self.probabilities is None or answers.probabilities is None:
            return RIGHT if self.probabilities is answers.probabilities else WRONG
        return RIGHT if np.abs(answers.probabilities[0] - self.probabilities[number]).max() <= TOLERANCE else WRONG


def refusal(answer: Answer) -> str:
    """Status and code of an answer that is none, such as "503 store_failed"; TorchServe's own have no code."""
    try:
        return f"{answer.status} {wire.decode_error(answer.body).code}"
    except wire.WireError:
        return f"{answer.status} of TorchServe"


def known(door: Door, model: str, images: NDArray[np.float32]) -> Known:
    """What `images` get now. Raises FaultError where one of them is not answered."""
    client = Client(door, patience_s=30)
    labels, probabilities = [], []
    for image in images:
        answer = client.ask(model, image)
        if answer.status != 200:
            raise FaultError(f"{model}: expected an answer before the fault, got {answer.what or refusal(answer)}")
        answers = wire.decode_answers(answer.body)
        labels.append(answers.labels[0])
        probabilities.append(None if answers.probabilities is None else answers.probabilities[0])
    client.close()
    rows = [row for row in probabilities if row is not None]
    return Known(model, images, np.array(labels), np.stack(rows) if rows else None)


@dataclass
class Crowd:
    """`clients` threads for each of `asked`, running inside the context. Afterwards `outcomes` is complete: leaving it
    waits for requests under way, as long as the clients' patience. ended: when they began no more."""

    door: Door
    asked: Sequence[Known]
    clients: int
    patience_s: float
    outcomes: list[Outcome] = field(default_factory=list)
    ended: float = 0.0

    def __enter__(self) -> Crowd:
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep_asking, args=(known, number), daemon=True)
            for known in self.asked
            for number in range(self.clients)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self.ended = perf_counter()
        for thread in self._threads:
            thread.join(2 * self.patience_s)

    def of(self, *models: str) -> list[Outcome]:
        """The outcomes of these models' requests."""
        return [each for each in self.outcomes if each.model in models]

    def _keep_asking(self, known: Known, first: int) -> None:
        client = Client(self.door, patience_s=self.patience_s)
        number = first
        while not self._over.is_set():
            place = number % len(known.images)
            begun = perf_counter()
            answer = client.ask(known.model, known.images[place])
            # an append is one step for Python, so threads need no lock
            self.outcomes.append(Outcome(known.model, begun, perf_counter(), known.judge(place, answer)))
            number += self.clients
            self._over.wait(PAUSE_S)
        client.close()
