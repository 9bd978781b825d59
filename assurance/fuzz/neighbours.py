"""Honest requests in the same batches as the hostile ones: their answers are known and must not change."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from assurance.fuzz import inference, multipart
from assurance.fuzz.case import Case, Subject, posted
from assurance.fuzz.door import ANSWERED, Door
from assurance.fuzz.reference import Row, agrees, asked, expected
from handlers import wire

# images of each subject whose answers are known
KNOWN = 8


class NotSteadyError(RuntimeError):
    """A policy that answers the same request in two ways: nothing can be said of its neighbours."""


class Honest(NamedTuple):
    """A request and what its rows must get."""

    case: Case
    rows: list[Row]
    names: tuple[str, ...] = ()


def known(door: Door, subjects: Sequence[Subject]) -> list[Honest]:
    """Requests with their answers, taken while nobody else asks. Raises NotSteadyError, ReferenceFailedError."""
    found = []
    for subject in subjects:
        images = subject.images[:KNOWN]
        answers = [asked(door, subject, images[row : row + 1])[0] for row in range(len(images))]
        again = [asked(door, subject, images[row : row + 1])[0] for row in range(len(images))]
        if not all(one.like(other) for one, other in zip(answers, again, strict=True)):
            raise NotSteadyError(
                f"{subject.model} answers the same request in two ways (fresh noise, or rows over a limit); "
                "expected policies that do not, name others with --policies"
            )
        for row, answer in enumerate(answers):
            one = images[row : row + 1]
            for content_type in (wire.RAW, wire.JSON, wire.PNG):
                body = wire.encode_rows(one, content_type)
                case = posted("neighbours", content_type, subject, content_type, body)
                assert case.seen is not None
                rows = [answer] if content_type != wire.PNG else expected(door, subject, case.seen)  # may be resized
                found.append(Honest(case, rows))
            cases = (inference.honest(one, subject), multipart.honest(one, subject))
            found += [Honest(case, expected(door, subject, case.seen), subject.names) for case in cases if case.seen]
        few = posted("neighbours", "rows", subject, wire.RAW, wire.encode_rows(images[:3], wire.RAW))
        found.append(Honest(few, answers[:3]))
    return found


class Neighbour(threading.Thread):
    """Asks one known request after the other until it is stopped.

    asked: how many so far; wrong: what was wrong with those that were not answered as they must.
    """

    def __init__(self, door: Door, requests: Sequence[Honest], seed: int) -> None:
        super().__init__(name=f"neighbour-{seed}", daemon=True)
        self._door = door
        self._requests = requests
        self._rng = Random(seed)
        self._leave = threading.Event()
        self.asked = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        """Ask."""
        while not self._leave.is_set():
            request = self._rng.choice(self._requests)
            complaint = self._complaint(request)
            self.asked += 1
            if complaint is not None:
                self.wrong.append(f"{request.case.model}, {request.case.idea}: {complaint}")

    def leave(self) -> None:
        """Stop after the request under way."""
        self._leave.set()
        self.join()

    def _complaint(self, request: Honest) -> str | None:
        reply = self._door.ask(request.case)
        if reply.how != ANSWERED:
            return reply.how
        try:
            return agrees(reply, request.rows, request.case.seen, request.names)
        except wire.WireError as error:
            return f"status {reply.status}: {error}"
