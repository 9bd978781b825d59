"""Processes of tests, that no failed assertion leaves running."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psutil


@contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process, killed with its children where it still runs when the block ends, however that ends.

    Popen's own context waits for it instead: for ever, where an assertion failed before the process was asked to end.
    """
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                family = [psutil.Process(process.pid)]
                family += family[0].children(recursive=True)
                for each in family:
                    each.kill()
                process.wait()
