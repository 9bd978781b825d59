"""Is the server alive, and ready? Checked every few seconds; a health request gets the last result.

A question never reaches TorchServe: health requests of strangers must not become load. Each model is checked in a
separate thread, because one that hangs would make the others' answers stale.

    alive   Java runs, and each model's queue gave some answer within `silent` seconds; a server that started less than
            `starting` seconds ago may owe its first one. What is not alive is to be restarted.
    ready   alive or not, what was last seen is fresh: every worker READY and the golden prediction right. A model that
            is busy, over a limit or with a full queue, stays what it was: to take it out would only load the others.

TorchServe's own answers do not serve: /ping is "Healthy" without a model, /v2/health/* are constants.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import requests

from deploy import archive, readiness
from deploy.archive import Archive
from deploy.errors import NotReadyError, RefusedError
from deploy.instance import Instance, Record

RIGHT, BUSY, WRONG, NONE = "right", "busy", "wrong", "none"
OUTCOMES = (RIGHT, BUSY, WRONG, NONE)
# TorchServe's words for a full queue, and for a model without workers; which one it is, the workers tell
FULL = b"has no worker to serve inference request"


@dataclass(frozen=True)
class Timing:
    """Seconds: between two looks; to wait for an answer; without any answer until a server counts as dead; and from
    its start until it must have given its first."""

    every: float = 5.0
    answer: float = 5.0
    silent: float = 60.0
    starting: float = 300.0

    def __post_init__(self) -> None:
        for name, seconds in vars(self).items():
            if not seconds > 0:
                raise RefusedError(f"{name}: expected more than 0 seconds, got {seconds:g}")

    @property
    def fresh(self) -> float:
        """How old a look may be: one asks for the workers, then for the prediction, and the next one is due."""
        return 2 * (self.every + self.answer)


@dataclass(frozen=True)
class Look:
    """What was seen of one model. at: on the monotonic clock. outcome: of OUTCOMES; "none" is no answer, or no worker
    that could give one. why: what is wrong, for the operator. seconds: until the answer came."""

    at: float
    workers: readiness.Workers
    outcome: str
    why: str | None = None
    seconds: float | None = None


@dataclass
class Model:
    """A model that is served and what was seen of it: the last look, how the last conclusive looks ended, when it last
    answered."""

    archive: Archive
    look: Look | None = None
    right: bool = True
    answered: float | None = None
    outcomes: Counter[str] = field(default_factory=Counter)

    def saw(self, look: Look) -> None:
        """Take a look in."""
        self.look = look
        self.outcomes[look.outcome] += 1
        if look.outcome != NONE:
            self.answered = look.at
        if look.outcome in (RIGHT, WRONG):
            self.right = look.outcome == RIGHT

    def ready(self, now: float, timing: Timing) -> bool:
        """Whether it is ready at `now` on the monotonic clock."""
        look = self.look
        return (
            look is not None
            and now - look.at <= timing.fresh
            and look.workers.enough
            and look.outcome != NONE
            and self.right
        )


class Watch:
    """Looks at one instance, whichever process serves it at the moment. Safe to ask from any thread."""

    def __init__(self, instance: Instance, timing: Timing) -> None:
        self.timing = timing
        self._instance = instance
        self._lock = threading.Lock()
        self._served: tuple[int, float] | None = None
        self._begun = 0.0
        self._looked = 0.0
        self._models: dict[str, Model] = {}
        self._running: dict[str, threading.Thread] = {}

    def run(self, stop: threading.Event) -> None:
        """Look until `stop` is set."""
        while not stop.is_set():
            self.look()
            stop.wait(self.timing.every)

    def look(self) -> list[threading.Thread]:
        """Begin to look at every model that is not being looked at; the threads that do."""
        record = _record(self._instance)
        process = None if record is None else record.process()
        with self._lock:
            self._looked = time.monotonic()
            if record is None or process is None:
                self._forget(None)
                return []
            if (record.pid, record.started) != self._served:
                self._forget(record)
            begun = []
            for model in self._models.values():
                running = self._running.get(model.archive.name)
                if running is None or not running.is_alive():
                    thread = threading.Thread(target=self._see, args=(record, model), daemon=True)
                    self._running[model.archive.name] = thread
                    begun.append(thread)
        for thread in begun:
            thread.start()
        return begun

    def live(self) -> bool:
        """Whether the process runs and answers, or may still be starting."""
        with self._lock:
            now = time.monotonic()
            if self._served is None or now - self._looked > self.timing.fresh:
                return False
            return all(self._answers(model, now) for model in self._models.values())

    def ready(self, name: str | None = None) -> bool:
        """Whether a model, or every one of at least one, is ready. Raises KeyError for an unknown name."""
        with self._lock:
            models = list(self._models.values()) if name is None else [self._models[name]]
            now = time.monotonic()
            served = self._served is not None
            return served and bool(models) and all(model.ready(now, self.timing) for model in models)

    def versions(self) -> dict[str, str]:
        """The models that ought to be served, with their versions."""
        with self._lock:
            return {name: model.archive.version for name, model in self._models.items()}

    def seen(self) -> list[tuple[Archive, Look | None, Mapping[str, int]]]:
        """Each model's archive, the last look at it, and the number of looks by outcome."""
        with self._lock:
            return [(model.archive, model.look, Counter(model.outcomes)) for model in self._models.values()]

    def expiries(self) -> dict[str, float]:
        """When each of TorchServe's tokens ends, seconds since the epoch; nothing where they cannot be read."""
        return expiries(self._instance.key_file)

    def _forget(self, record: Record | None) -> None:
        """Another process serves, or none: what was seen holds no more, what was counted does."""
        self._served = None if record is None else (record.pid, record.started)
        if record is not None:
            self._begun = time.monotonic() - max(0.0, time.time() - record.started)
        counted = {name: model.outcomes for name, model in self._models.items()}
        self._models = {
            served.name: Model(served, outcomes=counted.get(served.name, Counter()))
            for served in _expected(self._instance)
        }

    def _answers(self, model: Model, now: float) -> bool:
        if model.answered is None:
            return now - self._begun <= self.timing.starting
        return now - model.answered <= self.timing.silent

    def _see(self, record: Record, model: Model) -> None:
        look = see(record, model.archive, seconds=self.timing.answer)
        # where another process has taken over meanwhile, this model is in no table any more
        with self._lock:
            model.saw(look)


def see(record: Record, served: Archive, *, seconds: float) -> Look:
    """Look at one model: its workers, and its golden prediction where a worker is READY."""
    with readiness.Server(record, seconds=seconds) as server:
        try:
            workers = server.workers(served)
        except NotReadyError as error:
            none = readiness.Workers(served.name, served.workers, ())
            return Look(time.monotonic(), none, NONE, str(error))
        if not workers.ready:
            return Look(time.monotonic(), workers, NONE, "no worker is READY")
        asked = time.monotonic()
        try:
            answer = server.ask(served)
        except (requests.RequestException, OSError, ValueError) as error:
            return Look(time.monotonic(), workers, NONE, readiness.no_answer(error))
    now = time.monotonic()
    if answer.status_code == readiness.LIMITED:
        return Look(now, workers, BUSY, "over a limit of rows", now - asked)
    if answer.status_code == 503 and FULL in answer.content:
        return Look(now, workers, BUSY, "its queue is full", now - asked)
    wrong = readiness.judge(served, answer.status_code, answer.content)
    return Look(now, workers, RIGHT if wrong is None else WRONG, wrong, now - asked)


def expiries(key_file: Path) -> dict[str, float]:
    """When each token of a key file ends, seconds since the epoch. The API token never does."""
    try:
        keys = json.loads(key_file.read_text(encoding="utf-8"))
        return {
            kind: datetime.fromisoformat(key["expiration time"][:19]).replace(tzinfo=timezone.utc).timestamp()
            for kind, key in keys.items()
            if "expiration time" in key
        }
    # Java writes the file some time after it has started, and again when a token is renewed.
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def _record(instance: Instance) -> Record | None:
    try:
        return instance.record()
    except (OSError, ValueError, TypeError):
        return None


def _expected(instance: Instance) -> list[Archive]:
    try:
        return archive.recall(instance.expected)
    except (OSError, ValueError, TypeError, LookupError):
        return []
