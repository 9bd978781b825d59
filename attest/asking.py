"""A target as an oracle (attacks.oracle) whose every query is in the ledger, and is asked once.

A request that is throttled is sent again when the service allows it, one that wants a proof of work when that is done,
and no other. What comes back without an answer is a refused row for the attack, whatever the reason: a thief over HTTP
learns no more. The reasons are in the ledger.

    429, or 503 with Retry-After    throttled      2xx, and the answer is where it should be    answered
    428 with our challenge          challenged     2xx, and it is not                           unread
    3xx                             redirected     a status of REFUSALS                         refused
    no whole answer in time         dropped        any other                                    failed
    its sender is gone              lost
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import torch

from attacks.oracle import REFUSED, Answers
from attest.ledger import LOST, Entry, Ledger
from attest.target.encoding import Picture, encode, pictures
from attest.target.pace import FIRST_PAUSE_S, LONGEST_PAUSE_S, Pace, Stopped
from attest.target.reading import Read, Reader, Unread
from attest.target.table import Target
from attest.target.wires import DROPPED, Reply, Wire
from evaluation import payment
from handlers import wire as our_wire

# a request that is throttled so often is given up
TRIES = 8
# queries in a row without an answer through the service's fault, after which it is taken for gone
GONE = 64
# of one challenge
WORK_S = 30.0
# what says something of who asks, or of what is asked; that there is no such path, or no such method, is a fault
REFUSALS = (400, 401, 402, 403, 406, 409, 422, 423, 428, 429, 451)
FAULTS = ("failed", "dropped", "redirected", "unread")


class Asking:
    """Asks `target` over `wire` within `pace`, and writes `ledger`. Use it as a context manager, which closes the wire.

    classes: their order (attest.target.reading). progress: called with the pictures of every request that was sent.
    """

    def __init__(
        self,
        target: Target,
        wire: Wire,
        pace: Pace,
        ledger: Ledger,
        *,
        classes: Sequence[str] = (),
        progress: Callable[[int], object] = lambda pictures: None,
    ) -> None:
        self.target, self.pace, self.ledger = target, pace, ledger
        self._progress = progress
        self._wire = wire
        self.reader = Reader(target, classes)
        self._threads = ThreadPoolExecutor(target.connections, thread_name_prefix="attest")
        self._silent = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._wire.close()

    def phase(self, name: str) -> Callable[[torch.Tensor], Answers]:
        """An oracle for a part of the campaign, from that part's first picture on. Its calls raise Stopped."""
        place = 0

        def oracle(images: torch.Tensor) -> Answers:
            nonlocal place
            first, place = place, place + len(images)
            return self.ask(name, first, images)

        return oracle

    def ask(self, phase: str, first: int, images: torch.Tensor) -> Answers:
        """Answers for images float32 (N, C, H, W) in [0, 1] at the places `first` and following of a phase; from the
        ledger, where it has them. Raises Stopped, when all that was sent is written down."""
        asked = pictures(self.target, images.numpy())
        found = [self.ledger.final(phase, first + row, picture.sha256) for row, picture in enumerate(asked)]
        read = [None if entry is None else self._from_ledger(entry) for entry in found]
        missing = [row for row, entry in enumerate(found) if entry is None]
        groups = iter([missing[at : at + self.target.rows] for at in range(0, len(missing), self.target.rows)])
        taking = threading.Lock()

        def send() -> None:
            """What is left, group by group: a thread each, not a task each, which would cost as much as a query."""
            while True:
                with taking:
                    rows = next(groups, None)
                if rows is None:
                    return
                places, some = [first + row for row in rows], [asked[row] for row in rows]
                answered = self.request(phase, places, some)
                for place, row in enumerate(rows):
                    read[row] = None if answered is None else (answered, place)

        sending = [self._threads.submit(send) for _ in range(min(self.target.connections, len(missing)))]
        wait(sending)
        if sending:
            self.ledger.flush()
        for each in sending:
            each.result()
        return _answers(read, self.reader.columns)

    def request(self, phase: str, places: Sequence[int], asked: Sequence[Picture]) -> Read | None:
        """Send at most `target.rows` pictures until it is final; what the answer says, None: it is none. Raises
        Stopped, and WireError: then they are in the ledger as lost when it is taken up."""
        encoded, digests = encode(self.target, asked), [picture.sha256 for picture in asked]
        solution: dict[str, str] = {}
        for number in range(1, TRIES + 1):
            if self._silent >= GONE:
                raise Stopped(f"the service gave no answer to the last {GONE} queries")
            self.pace.take(len(asked))
            self.ledger.asking(phase, places, digests)
            reply = self._wire.send(encoded, solution)
            kind, read = judged(reply, self.reader, len(asked))
            final = kind not in ("throttled", "challenged") or number == TRIES
            self.ledger.record(
                phase, places, digests, reply.body, status=reply.status, kind=kind, final=final, ms=reply.ms
            )
            self._progress(len(asked))
            if kind != "lost":  # which says nothing of the service
                with self._lock:
                    self._silent = self._silent + len(asked) if kind in FAULTS else 0
            if final:
                return read
            if kind == "throttled":
                pause = min(FIRST_PAUSE_S * 2 ** (number - 1), LONGEST_PAUSE_S)
                self.pace.leave_alone(pause if reply.retry_after is None else reply.retry_after)
            else:
                solution = self._solved(reply)
        raise AssertionError("the last try is final")

    def _solved(self, reply: Reply) -> dict[str, str]:
        """The header that pays; none where the work takes too long, and the answer will be a refusal."""
        challenge = our_wire.decode_challenge(reply.body)
        assert challenge is not None, "a challenged reply has one"
        paid = payment.solve(challenge, seconds=WORK_S)
        return {} if paid is None else {our_wire.SOLUTION: paid.solution}

    def _from_ledger(self, entry: Entry) -> tuple[Read, int] | None:
        """What an answer said of its picture, and in which row; None where there was none."""
        if entry.kind != "answered":
            return None
        return self.reader.read(self.ledger.answer(entry), entry.rows), entry.row

    def flagged(self, entry: Entry) -> bool:
        """Whether the service took offence at a picture, as the target's `flag` says."""
        read = self._from_ledger(entry)
        return read is not None and bool(read[0].flagged[read[1]])

    def label(self, entry: Entry) -> int:
        """The label that a picture was given, REFUSED where it got no answer."""
        read = self._from_ledger(entry)
        return REFUSED if read is None else int(read[0].labels[read[1]])


def judged(reply: Reply, reader: Reader, rows: int) -> tuple[str, Read | None]:
    """What a reply is, as the head of this file says, and what it says of so many rows."""
    status = reply.status
    if status == DROPPED:
        return "dropped", None
    if status == LOST:
        return "lost", None
    if status == 429 or (status == 503 and reply.retry_after is not None):
        return "throttled", None
    if status == 428 and our_wire.decode_challenge(reply.body) is not None:
        return "challenged", None
    if 300 <= status < 400:
        return "redirected", None
    if not 200 <= status < 300:
        return ("refused" if status in REFUSALS else "failed"), None
    try:
        return "answered", reader.read(reply.body, rows)
    except Unread:
        return "unread", None


def _answers(read: Sequence[tuple[Read, int] | None], columns: int) -> Answers:
    """Row by row, each from the answer that it came in. columns: of the probabilities, 0: the service tells none. NaN
    where there was no answer, or the numbers were withheld from it."""
    labels, shown = np.full(len(read), REFUSED, np.int64), np.full((len(read), columns), np.nan, np.float32)
    for row, each in enumerate(read):
        if each is None:
            continue
        answered, place = each
        labels[row] = answered.labels[place]
        if answered.probabilities is not None:
            shown[row] = answered.probabilities[place]
    return Answers(torch.from_numpy(labels), torch.from_numpy(shown) if columns else None)
