"""The ledger: every picture that was sent and what came back, one line each, appended and never changed.

    ledger.jsonl    {"index", "phase", "place", "image_sha256", "answer_sha256", "status", "at", "ms", "kind", "final",
                     "row", "rows", "offset", "length", "salt"}
    answers.bin     the answers' bytes one after another; a line says where its own are
    asked.log       what was sent and is not in the ledger yet

`place` counts the pictures of a phase. An attack gives the same pictures for the same answers, so an attest that was
killed starts from its beginning and is answered from here until it asks something new. A picture that was sent, but
whose answer was not here when the process died, is in asked.log: it is entered as lost and not asked again. Lines are
handed to the system one by one, which a kill does not undo, and fsynced a batch at a time, for when the power fails.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import orjson

from attest.measured import ANSWERS, LEDGER

ASKED = "asked.log"
LOST = -1
KINDS = (
    "answered",
    "throttled",
    "challenged",
    "refused",
    "redirected",
    "failed",
    "dropped",
    "unread",
    "lost",
)


class LedgerError(RuntimeError):
    """A ledger that is damaged, or of another campaign than the one that is taken up."""


@dataclass(frozen=True)
class Entry:
    """One line. index: from 0. status: HTTP's, 0: no whole answer, LOST. at: when it was whole, ISO 8601, UTC. kind:
    one of KINDS. final: whether the picture is not sent again. row: the picture's own in a request of so many rows.
    offset, length: of the answer in answers.bin. salt: 32 random hexadecimal digits: the hash of a line stands in the
    proofs of others (attest/evidence/proofs.py), and must not be found by trying what the line may say."""

    index: int
    phase: str
    place: int
    image_sha256: str
    answer_sha256: str
    status: int
    at: str
    ms: float
    kind: str
    final: bool
    row: int
    rows: int
    offset: int
    length: int
    salt: str


class Ledger:
    """The ledger in `folder`, taken up where it is. Used from several threads; use as a context manager. lines, lost:
    how many there are, and how many of them are of the kind "lost".

    Raises LedgerError where its files do not belong together.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / LEDGER
        self._final: dict[tuple[str, int], Entry] = {}
        self._tries: Counter[tuple[str, int]] = Counter()
        self._counts: dict[str, int] = {}
        self._in_flight = 0
        self.lost = 0
        self._lock = threading.Lock()
        self.lines = 0
        end = self._take_up(folder / ANSWERS)
        self._out = self.path.open("ab", buffering=0)
        self._answers = (folder / ANSWERS).open("r+b" if (folder / ANSWERS).exists() else "w+b", buffering=0)
        self._answers.truncate(end)
        self._end = end
        self._asked = (folder / ASKED).open("a+b", buffering=0)
        self._write_off()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write everything down and close the files."""
        self.flush()
        for file in (self._out, self._answers, self._asked):
            file.close()

    def final(self, phase: str, place: int, image_sha256: str) -> Entry | None:
        """What became of a picture, None: it is still to be asked. Raises LedgerError where another was asked there."""
        found = self._final.get((phase, place))
        if found is not None and found.image_sha256 != image_sha256:
            raise LedgerError(
                f"{self.path}: line {found.index + 1}: expected the picture {image_sha256[:12]} at place {place} of "
                f"{phase}, got {found.image_sha256[:12]}: it is the ledger of another campaign (images, seeds or "
                "versions differ); move its folder away to begin anew"
            )
        return found

    def answer(self, entry: Entry) -> bytes:
        """The bytes of an answer. Raises LedgerError where they are no longer those."""
        body = os.pread(self._answers.fileno(), entry.length, entry.offset)
        if hashlib.sha256(body).hexdigest() != entry.answer_sha256:
            raise LedgerError(f"{self.path}: line {entry.index + 1}: its answer in {ANSWERS} is not the one it was")
        return body

    def asking(self, phase: str, places: Sequence[int], digests: Sequence[str]) -> None:
        """Note that pictures are about to be sent."""
        with self._lock:
            self._in_flight += 1
            tries = [self._tries[phase, place] for place in places]
            rows = zip(places, digests, tries, strict=True)
            self._asked.write("".join(f"{phase}\t{place}\t{digest}\t{done}\n" for place, digest, done in rows).encode())

    def record(
        self,
        phase: str,
        places: Sequence[int],
        digests: Sequence[str],
        body: bytes,
        *,
        status: int,
        kind: str,
        final: bool,
        ms: float,
    ) -> None:
        """The answer to what was last asked, a line for each of its pictures."""
        answer, at = hashlib.sha256(body).hexdigest(), datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        with self._lock:
            offset, self._end = self._end, self._end + len(body)
            # its bytes before the line that needs them
            _write(self._answers, body, offset)
            made = [
                Entry(
                    self.lines + row,
                    phase,
                    place,
                    digest,
                    answer,
                    status,
                    at,
                    ms,
                    kind,
                    final,
                    row,
                    len(places),
                    offset,
                    len(body),
                    secrets.token_hex(16),
                )
                for row, (place, digest) in enumerate(zip(places, digests, strict=True))
            ]
            self._out.write(b"".join(orjson.dumps(entry) + b"\n" for entry in made))
            for entry in made:
                self._know(entry)
            self._in_flight -= 1

    def flush(self) -> None:
        """Have it on the disk, and forget what was asked, unless something is being asked just now."""
        with self._lock:
            os.fsync(self._answers.fileno())
            os.fsync(self._out.fileno())
            if not self._in_flight:
                self._asked.truncate(0)

    def count(self, phase: str) -> int:
        """Places of a phase that are taken."""
        return self._counts.get(phase, 0)

    def entries(self) -> Iterator[Entry]:
        """Every line, in order."""
        with self.path.open("rb") as file:
            for line in file:
                yield Entry(**orjson.loads(line))

    def _know(self, entry: Entry) -> None:
        self.lines += 1
        self.lost += entry.kind == "lost"
        self._tries[entry.phase, entry.place] += 1
        self._counts[entry.phase] = max(self._counts.get(entry.phase, 0), entry.place + 1)
        if entry.final:
            self._final[entry.phase, entry.place] = entry

    def _take_up(self, answers: Path) -> int:
        """Read what is there, without a last line that was cut off; where the last answer ends."""
        if not self.path.exists():
            return 0
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)
        end = 0
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                entry = Entry(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise LedgerError(f"{self.path}: line {number}: not a line of a ledger ({error})") from None
            if entry.index != number - 1:
                raise LedgerError(f"{self.path}: line {number}: expected index {number - 1}, got {entry.index}")
            self._know(entry)
            end = max(end, entry.offset + entry.length)
        size = answers.stat().st_size if answers.exists() else 0
        if size < end:
            raise LedgerError(f"{answers}: expected at least {end} bytes, got {size}: answers are missing")
        return end

    def _write_off(self) -> None:
        """Enter as lost what was sent and not answered."""
        self._asked.seek(0)
        for line in self._asked.read().splitlines():
            words = line.decode().split("\t")
            # the last one may be cut off; then nothing was sent yet
            if len(words) == 4 and words[3].isdigit() and self._tries[words[0], int(words[1])] <= int(words[3]):
                self._in_flight += 1
                self.record(words[0], [int(words[1])], [words[2]], b"", status=LOST, kind="lost", final=True, ms=0.0)
        self.flush()


def _write(file: Any, body: bytes, offset: int) -> None:
    """All of it; the system may take a part at a time."""
    while body:
        written = os.pwrite(file.fileno(), body, offset)
        body, offset = body[written:], offset + written
