"""One Locust run as a child process: its command line, its log, its summary, its verdict.

A child, because Locust patches the standard library of the process it runs in, and training or measuring in it
would stall its users.

It obeys no settings of the machine: Locust would read LOCUST_* variables, ~/.locust.conf, and locust.conf and
pyproject.toml of the folder that it runs in. So it has no such variables, and an empty folder for both. Relative paths
on its command line begin where its parent runs (`--working-folder`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluation.oracles import CHECKOUT

STOP_TIMEOUT_S = 10


class TrafficError(RuntimeError):
    """A run that broke a threshold or did not get to its end; one line for each reason."""


def run(
    users: Mapping[str, int], options: Mapping[str, object], *, summary: Path, seconds: float | None = None
) -> dict[str, Any]:
    """Run users (class name -> how many) headless and return the summary they left at `summary`.

    options: loadtests.users.plan's, by name; None is left out. seconds: how long; None: until a user ends the run.
    Locust's own output goes next to the summary, with the suffix .log. Raises TrafficError.
    """
    summary.unlink(missing_ok=True)
    summary.parent.mkdir(parents=True, exist_ok=True)
    log = summary.with_suffix(".log")
    words = command(users, {**options, "summary": summary}, seconds=seconds)
    with log.open("wb") as output, undisturbed() as where:
        done = subprocess.run(words, stdout=output, stderr=subprocess.STDOUT, check=False, **where)
    if not summary.exists():
        lines = log.read_text("utf-8", "replace").strip().splitlines()
        raise TrafficError(f"locust ended with {done.returncode} before its run began; {log}: {''.join(lines[-1:])}")
    result: dict[str, Any] = json.loads(summary.read_text("utf-8"))
    if result["broken"]:
        raise TrafficError("\n".join(result["broken"]) + f"\nsee {summary} and {log}")
    if done.returncode:
        raise TrafficError(f"locust ended with {done.returncode}; see {log}")
    return result


def command(users: Mapping[str, int], options: Mapping[str, object], *, seconds: float | None) -> Sequence[str]:
    """The command line of a run. No secret is on it: users read the token from its file."""
    words = headless("loadtests/locustfile.py", users=sum(users.values()), stop_timeout_s=STOP_TIMEOUT_S)
    if seconds is not None:
        words += ["--run-time", f"{seconds:.0f}s"]
    for name, value in options.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    fixed = [json.dumps({"user_class_name": name, "fixed_count": count}) for name, count in users.items() if count]
    return [*words, "--config-users", *fixed, "--", *(name for name, count in users.items() if count)]


def headless(locustfile: str, *, users: int, stop_timeout_s: int) -> list[str]:
    """The beginning of a command line: so many users at once. stop_timeout_s: for requests under way at the end."""
    return [
        *(sys.executable, "-m", "locust", "--locustfile", str(CHECKOUT / locustfile)),
        *("--headless", "--only-summary", "--stop-timeout", str(stop_timeout_s)),
        *("--users", str(users), "--spawn-rate", str(users)),
        *("--working-folder", str(Path.cwd())),
    ]


@contextmanager
def undisturbed() -> Iterator[dict[str, Any]]:
    """How subprocess starts Locust where nobody's settings are read: its environment and its working folder."""
    with tempfile.TemporaryDirectory(prefix="locust-") as empty:
        yield {"env": {**environment(), "HOME": empty}, "cwd": empty}


def environment() -> dict[str, str]:
    """Ours without settings of Locust, in which a child process finds the checkout's modules wherever it runs."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    return {**ours, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])}
