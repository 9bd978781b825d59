"""A clock that can be moved, for a server and all its workers: Java is started under libfaketime (Debian: faketime).

The library stands between a program and the C library's clock and reads the shift from a file, once a second: each
time it is asked would take more of the processor than the service does.
The monotonic clock, by which time-outs and latencies are measured, is left alone, as it is when an operator or NTP sets
a real machine's clock. Java hands its environment to the workers, and so the library.
"""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from assurance.faults.clients import FaultError
from report.atomic import write_text

CACHED_S = 1
PLACES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1")


class Clock:
    """java: what to start in place of the Java at `java`; it lies in `folder`, like the shift."""

    def __init__(self, folder: Path, java: Path) -> None:
        self._shift = folder / "shift"
        self._shift.write_text("+0s\n")
        self.java = folder / "java"
        settings = {
            "LD_PRELOAD": library(),
            "FAKETIME_TIMESTAMP_FILE": self._shift,
            "FAKETIME_CACHE_DURATION": CACHED_S,
            "FAKETIME_DONT_FAKE_MONOTONIC": 1,
        }
        words = [f"{name}={shlex.quote(str(value))}" for name, value in settings.items()]
        self.java.write_text(f'#!/bin/sh\nexport {" ".join(words)}\nexec {shlex.quote(str(java))} "$@"\n')
        self.java.chmod(0o755)

    def jump(self, seconds: float) -> None:
        """The clock is so far from the real one when this returns."""
        write_text(self._shift, f"{seconds:+.0f}s\n")
        time.sleep(2 * CACHED_S + 0.2)  # the library counts its second in whole seconds


def library() -> Path:
    """libfaketime, where Debian puts it. Raises FaultError."""
    for pattern in PLACES:
        for found in sorted(Path("/").glob(pattern.lstrip("/"))):
            return found
    raise FaultError("libfaketime is not installed: `apt-get install faketime`")
