"""Is the server ready: is every expected model's every worker READY, and its golden prediction right?

TorchServe's /ping answers "Healthy" before any model is loaded, while workers die in turn, and with no
models.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import requests

from deploy import direct, serverlog
from deploy.archive import Archive
from deploy.errors import NotReadyError
from deploy.instance import Instance, Record

# Between the probabilities of a golden prediction now and at export: one graph on another machine or backend.
TOLERANCE = 1e-3
POLL_SECONDS = 0.2
ANSWER_SECONDS = 10.0
# what a probe calls itself where rows are counted by who asks
PRINCIPAL = "readiness"
LIMITED = 429


@dataclass(frozen=True)
class Workers:
    """The states of one model's workers; `states` is None where the server does not listen yet."""

    model: str
    expected: int
    states: tuple[str, ...] | None

    @property
    def ready(self) -> int:
        """How many say READY."""
        return (self.states or ()).count("READY")

    @property
    def enough(self) -> bool:
        """Whether as many say READY as the archive starts with."""
        return self.ready >= self.expected

    def __str__(self) -> str:
        return f"{self.model} {self.ready}/{self.expected}"


class Server:
    """A client of one instance. Owns its connections: use it as a context manager. seconds: to wait for an answer."""

    def __init__(self, record: Record, *, seconds: float = ANSWER_SECONDS) -> None:
        self._record = record
        self._seconds = seconds
        self._session = direct.session()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def workers(self, archive: Archive) -> Workers:
        """The workers of a model now. Raises `NotReadyError` where the server runs without that model."""
        try:
            answer = self._session.get(
                f"{self._record.management}/models/{archive.name}",
                headers=self._authorization("management"),
                timeout=self._seconds,
            )
        # The tokens' file is written, and the ports are opened, some time after Java has started.
        except (requests.RequestException, OSError, ValueError):
            return Workers(archive.name, archive.workers, None)
        # Java registers the models before it listens, so a model it does not know by then it could not read.
        if answer.status_code == 404:
            raise NotReadyError(f"TorchServe did not accept {archive.path}")
        if answer.status_code != 200:
            return Workers(archive.name, archive.workers, None)
        states = tuple(worker["status"] for model in answer.json() for worker in model["workers"])
        return Workers(archive.name, archive.workers, states)

    def golden(self, archive: Archive) -> str | None:
        """Ask for the archive's golden prediction: None where nothing is wrong with the answer, else what is."""
        try:
            answer = self.ask(archive)
        except (requests.RequestException, OSError, ValueError) as error:
            return no_answer(error)
        return judge(archive, answer.status_code, answer.content)

    def ask(self, archive: Archive) -> requests.Response:
        """The answer to the archive's golden image. Raises `requests.RequestException`, and `OSError` or `ValueError`
        where the tokens cannot be read."""
        return self._session.post(
            f"{self._record.inference}/predictions/{archive.name}",
            data=archive.image,
            headers=self._authorization("inference")
            | {"Content-Type": "application/octet-stream", archive.principal_header: PRINCIPAL},
            timeout=self._seconds,
        )

    def _authorization(self, kind: str) -> dict[str, str]:
        keys = json.loads(Path(self._record.key_file).read_text(encoding="utf-8"))
        return {"Authorization": f"Bearer {keys[kind]['key']}"}


def judge(archive: Archive, status: int, body: bytes) -> str | None:
    """None where this is a right answer to the golden image, else what is wrong with it.

    Right: status 200, and the label is the argmax of an accepted row; where all probabilities return as the
    member gave them, they also lie within 1e-3 of that row. A refusal because of a limit (429) is the policy's
    right answer too: who is busy is not broken.
    """
    if status == LIMITED:
        return None
    if status != 200:
        return f"expected status 200, got {status}: {body[:300]!r}"
    try:
        answer = json.loads(body)["predictions"][0]
        label, probabilities = answer["label"], answer.get("probabilities")
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"expected a prediction with a label, got {body[:300]!r}"
    labels = [max(range(len(row)), key=row.__getitem__) for row in archive.accepted]
    if label not in labels:
        return f"expected label {' or '.join(map(str, sorted(set(labels))))}, got {label!r}"
    rows = [row for row, accepted in zip(archive.accepted, labels, strict=True) if accepted == label]
    if archive.exact and not any(_near(row, probabilities) for row in rows):
        return f"expected probabilities within {TOLERANCE} of those at export, got {probabilities!r:.300}"
    return None


def no_answer(error: Exception) -> str:
    """What is said of a golden prediction that did not come."""
    return f"no answer ({type(error).__name__}: {error})"


def wait(
    process: Popen[bytes],
    server: Server,
    archives: Sequence[Archive],
    *,
    instance: Instance,
    seconds: float,
    say: Callable[[str], None],
) -> None:
    """Return when every model is ready, with a line to `say` at each step.

    Raises `NotReadyError`, with the last useful lines of the log, where Java ends, a model's worker fails
    to load twice, so many seconds pass, or a golden prediction is wrong.
    """
    begun, shown = time.monotonic(), ""
    while True:
        found = _look(process, server, archives, instance)
        line = ", ".join(map(str, found))
        if line != shown:
            say(f"workers ready: {line} ({time.monotonic() - begun:.1f} s)")
            shown = line
        if all(workers.enough for workers in found):
            break
        if time.monotonic() - begun > seconds:
            raise _failure(f"not ready after {seconds:g} s: {line}", serverlog.tail(instance.log))
        time.sleep(POLL_SECONDS)
    for archive in archives:
        wrong = server.golden(archive)
        if wrong is not None:
            raise _failure(f"golden prediction of {archive.name}: {wrong}", serverlog.tail(instance.log))
    say(f"golden predictions right: {', '.join(archive.name for archive in archives)}")


def _look(process: Popen[bytes], server: Server, archives: Sequence[Archive], instance: Instance) -> list[Workers]:
    if process.poll() is not None:
        raise _failure(
            f"TorchServe ended with exit code {process.returncode} before it was ready",
            serverlog.tail(instance.console, instance.log),
        )
    model = serverlog.hopeless(instance.log)
    if model is not None:
        raise _failure(f"model {model} does not load", serverlog.last_words(instance.log, model))
    try:
        return [server.workers(archive) for archive in archives]
    except NotReadyError as error:
        raise _failure(str(error), serverlog.tail(instance.console, instance.log)) from error


def _near(row: Sequence[float], probabilities: Any) -> bool:
    if not isinstance(probabilities, list) or len(probabilities) != len(row):
        return False
    return all(
        isinstance(got, int | float) and abs(got - want) <= TOLERANCE
        for want, got in zip(row, probabilities, strict=True)
    )


def _failure(message: str, lines: Sequence[str]) -> NotReadyError:
    return NotReadyError("\n".join([message, *(f"    {line}" for line in lines)]))
