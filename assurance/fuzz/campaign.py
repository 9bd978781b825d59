"""A run: cases by the thousand from several senders at once, honest neighbours among them, workers watched."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from assurance.fuzz import kinds
from assurance.fuzz.case import Case, Subject, save
from assurance.fuzz.door import Door, Reply
from assurance.fuzz.frontend import mended
from assurance.fuzz.judge import FRONT_END, Verdict, judge, label
from assurance.fuzz.neighbours import Honest, Neighbour
from assurance.fuzz.reference import ReferenceFailedError, expected
from assurance.fuzz.shrink import shrunk
from assurance.fuzz.workers import Workers, memory_mb

# requests under way at a time: few enough never to fill a queue (job_queue_size), enough to fill a batch
SENDERS, NEIGHBOURS = 6, 3
# share of the cases after which memory is that of a worker which has met everything
WARM = 0.2
# a limit's 429 is no end: the case is sent again, so often
AGAIN = 5


@dataclass
class Tally:
    """What came of the cases. endings: by kind and label; ideas: by kind and idea. findings: what must not be, one for
    each kind of it; front_end: the same where TorchServe answers before our code."""

    endings: Counter[tuple[str, str]] = field(default_factory=Counter)
    ideas: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    front_end: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Campaign:
    """What is attacked, and where failing cases are kept. direct: no gateway stands before TorchServe, so what is known
    of it is no news; through a gateway it is."""

    door: Door
    subjects: Sequence[Subject]
    workers: Workers
    known: Sequence[Honest]
    kept: Path
    direct: bool = True

    def verdict(self, case: Case) -> Verdict:
        """Send one case and judge how it ends."""
        reply = self._ask(case)
        try:
            return judge(case, reply, lambda: self._expected(case), self._subject(case).names)
        except ReferenceFailedError as error:
            return Verdict(label(reply), f"an honest request next to it failed: {error}")

    def run(self, cases: int, seed: int, *, quiet: bool = False) -> dict[str, Any]:
        """Send that many cases; the section of the results file."""
        started = time.monotonic()
        models = [subject.model for subject in self.subjects]
        before = pids = self.workers.pids(models)
        memory = {"before": memory_mb(before)}
        tally, lock, numbers = Tally(), threading.Lock(), itertools.count()
        restarts: list[str] = []
        neighbours = [Neighbour(self.door, self.known, number) for number in range(NEIGHBOURS)]
        for neighbour in neighbours:
            neighbour.start()
        bar = tqdm(total=cases, unit="case", disable=quiet or None)

        def send() -> None:
            for number in numbers:
                if number >= cases:
                    return
                self._one(number, seed, tally, lock)
                with lock:
                    bar.update()

        with ThreadPoolExecutor(SENDERS) as pool:
            senders = [pool.submit(send) for _ in range(SENDERS)]
            while not all(sender.done() for sender in senders):
                time.sleep(0.5)
                now, done = self.workers.pids(models), tally.endings.total()
                if now != pids:
                    restarts.append(f"about case {done}: {pids} became {now}")
                    pids = now
                if done >= WARM * cases and "warm" not in memory:
                    memory["warm"] = memory_mb(now)
            for sender in senders:
                sender.result()
        bar.close()
        for neighbour in neighbours:
            neighbour.leave()
        after = self.workers.pids(models)
        if after != pids:
            restarts.append(f"at the end: {pids} became {after}")
        memory["after"] = memory_mb(after)
        wrong = [each for neighbour in neighbours for each in neighbour.wrong]
        return {
            "cases": cases,
            "seconds": round(time.monotonic() - started, 1),
            "kinds": _nested(tally.endings),
            "ideas": _nested(tally.ideas),
            "findings": list(tally.findings.values()),
            "front_end": list(tally.front_end.values()),
            "neighbours": {
                "asked": sum(neighbour.asked for neighbour in neighbours),
                "wrong": len(wrong),
                "examples": wrong[:5],
            },
            "workers": {"count": sum(map(len, before.values())) - 1, "restarts": restarts, "memory_mb": memory},
        }

    def _one(self, number: int, seed: int, tally: Tally, lock: threading.Lock) -> None:
        case = kinds.case(number, seed, self.subjects)
        verdict = self.verdict(case)
        with lock:
            tally.endings[case.kind, verdict.label] += 1
            tally.ideas[case.kind, case.idea] += 1
        if verdict.complaint is None:
            return
        mends = mended(case, verdict) if self.direct else None
        where = tally.findings if verdict.whose != FRONT_END or mends is None else tally.front_end
        with lock:
            found = where.get((case.idea, verdict.label))
            if found is not None:
                found["cases"] += 1
                return
            found = where[case.idea, verdict.label] = {
                "kind": case.kind,
                "idea": case.idea,
                "ending": verdict.label,
                "complaint": verdict.complaint,
                "whose": verdict.whose,
                "mended_by": mends,
                "first": number,
                "cases": 1,
            }
        if where is tally.findings:
            smaller = shrunk(case, lambda tried: self._fails_alike(tried, verdict))
            save(smaller, self.kept / f"{seed}-{number}.json", complaint=verdict.complaint, ending=verdict.label)

    def _fails_alike(self, case: Case, verdict: Verdict) -> bool:
        other = self.verdict(case)
        return other.complaint is not None and (other.label, other.whose) == (verdict.label, verdict.whose)

    def _ask(self, case: Case) -> Reply:
        reply = self.door.ask(case)
        for _ in range(AGAIN):
            if reply.status != 429:
                break
            time.sleep(min(float(reply.headers.get("retry-after", "1")), 5.0))
            reply = self.door.ask(case)
        return reply

    def _expected(self, case: Case) -> Any:
        assert case.seen is not None
        return expected(self.door, self._subject(case), case.seen)

    def _subject(self, case: Case) -> Subject:
        return next(subject for subject in self.subjects if subject.model == case.model)


def _nested(counter: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (outer, inner), count in sorted(counter.items()):
        found.setdefault(outer, {})[inner] = count
    return found
