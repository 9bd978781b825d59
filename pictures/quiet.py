"""Warnings off while pictures are read, in however many threads.

Pillow's warnings repeat what a file holds, and Python keeps each for good. `warnings.catch_warnings` changes what all
threads share: of two that overlap, the later one to leave would put back what the other had changed. So the first to
enter changes it, and the last to leave puts it back.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside: list[warnings.catch_warnings[None]] = []  # the one of who came first, once for each that is inside


@contextmanager
def quiet() -> Iterator[None]:
    """No warning is shown or kept."""
    with _lock:
        if not _inside:
            _inside.append(warnings.catch_warnings())
            _inside[0].__enter__()
            warnings.simplefilter("ignore")
        else:
            _inside.append(_inside[0])
    try:
        yield
    finally:
        with _lock:
            first = _inside.pop()
            if not _inside:
                first.__exit__(None, None, None)
