"""A program of ours in a process of its own, as its user runs it: how long it takes, and what it holds at most.

Of memory Linux keeps three counters that differ by what they say of a memory map. All are the process's alone; none of
our programs starts another.

    resident       VmHWM, the kernel's own peak: every page that is mapped and in memory, a file's pages, those of
                   libraries too, in full. What a map's pages weigh until they are handed back is in it, so it is the
                   one that a limit is held against
    proportional   Pss, in which a page that n processes map counts a nth; the largest of the samples
    anonymous      RssAnon, what no file stands behind, tensors above all; the largest of the samples

What the system caches of files is in none of them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zoo.files import CHECKOUT

# seconds between two samples; for Pss the kernel walks all pages, which would slow the program down if asked often
PACE, PACE_OF_PSS = 0.2, 5.0
# lines of a program that failed
SHOWN = 20
COUNTERS = {
    "status": {"VmHWM": "resident", "RssAnon": "anonymous"},
    "smaps_rollup": {"Pss": "proportional"},
}
LINE = re.compile(r"^(\w+):\s+(\d+) kB$", re.MULTILINE)
MB = 1_000_000


class ProgramError(RuntimeError):
    """A program of ours that failed."""


@dataclass(frozen=True)
class Ran:
    """seconds: from its start to its end. peak_mb: megabytes by the counters above; empty where no one counts them."""

    seconds: float
    peak_mb: Mapping[str, float]


def run(module: str, *words: object, log: Path) -> Ran:
    """`python -m module words` in the checkout; what it says goes to `log`. Raises ProgramError."""
    command = [sys.executable, "-m", module, *map(str, words)]
    peak: dict[str, float] = {}
    started = time.monotonic()
    with (
        log.open("wb") as file,
        subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=CHECKOUT) as process,
    ):
        try:
            walked = started
            while process.poll() is None:
                found = _counters(process.pid, "status")
                if time.monotonic() - walked > PACE_OF_PSS or "proportional" not in peak:
                    found |= _counters(process.pid, "smaps_rollup")
                    walked = time.monotonic()
                for name, value in found.items():
                    peak[name] = max(value, peak.get(name, 0.0))
                time.sleep(PACE)
        finally:
            process.kill()
    seconds = time.monotonic() - started
    if process.returncode:
        said = re.split(r"[\r\n]+", log.read_text("utf-8", "replace").strip())
        raise ProgramError("\n".join([f"{' '.join(command[1:3])}: exit code {process.returncode}", *said[-SHOWN:]]))
    return Ran(round(seconds, 2), {name: round(value, 1) for name, value in peak.items()})


def _counters(process: int, file: str) -> dict[str, float]:
    """Megabytes by counter of one of the process's files; none of a process that has just ended."""
    try:
        text = Path(f"/proc/{process}/{file}").read_text()
    except OSError:
        return {}
    return {COUNTERS[file][name]: int(kb) * 1024 / MB for name, kb in LINE.findall(text) if name in COUNTERS[file]}
