"""TorchServe's log read for a reason: which model cannot be loaded, and its worker's output.

Lines are laid out by log4j2.xml: time, level, [thread], logger - text. A worker's thread is
W-<n>-<model>_<version>, with -stdout or -stderr for what its Python process prints; a Java stack trace
follows its line without the layout.
"""

from __future__ import annotations

import re
from pathlib import Path

LINE = re.compile(r"\S+ (?P<level>[A-Z]+) +\[(?P<thread>[^\]]*)\] (?P<logger>\S+) - (?P<text>.*)")
WORKER = re.compile(r"W-\d+-(?P<model>.+)_[^_]+?(-stdout|-stderr)?")
# What a worker's process logs each time it starts.
GREETING = re.compile(
    r"s_name_part0=|Listening on |Successfully loaded .*metrics|\[PID\]|Torch worker started|Python runtime: "
    r"|Connection accepted: |model_name: |model_load_event_loop"
)
FAILED = re.compile(r"Backend worker process died\.|Auto recovery failed again")
NEWEST = 40


def hopeless(log: Path) -> str | None:
    """The first model that will not load, or None. TorchServe itself would try for maxRetryTimeoutInSec.

    A handler that raised would raise again: once is enough. A process that ended without a word may have been
    killed, and gets the second try that TorchServe gives it.
    """
    for line in _lines(log):
        found = LINE.fullmatch(line)
        worker = WORKER.fullmatch(found["thread"]) if found else None
        if found and worker and FAILED.match(found["text"]):
            return worker["model"]
    return None


def last_words(log: Path, model: str) -> list[str]:
    """What a model's worker said in its last attempt to load: the handler's traceback where it raised."""
    attempt: list[str] = []
    for line in _lines(log):
        found = LINE.fullmatch(line)
        worker = WORKER.fullmatch(found["thread"]) if found else None
        if found is None or worker is None or worker["model"] != model:
            continue
        if found["text"].startswith("s_name_part0="):
            attempt = []
        elif not GREETING.match(found["text"]):
            attempt.append(found["text"])
    # After the handler's own traceback comes that of TorchServe's loop, which holds no more than "500".
    raised = any(text.startswith("Failed to load model") for text in attempt)
    died = next((i for i, text in enumerate(attempt) if text.startswith("Backend worker process died")), None)
    return (attempt[:died] if raised else attempt)[-NEWEST:]


def tail(*logs: Path) -> list[str]:
    """The newest lines of some logs together, without the workers' greetings."""
    lines = [line for log in logs for line in _lines(log)]
    return [line for line in lines if not ((found := LINE.fullmatch(line)) and GREETING.match(found["text"]))][-NEWEST:]


def _lines(log: Path) -> list[str]:
    try:
        return log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
