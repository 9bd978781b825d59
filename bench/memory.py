"""What a process that answers holds in memory, as Linux counts it (/proc/self/status)."""

from __future__ import annotations

import ctypes
import multiprocessing
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # a fresh process holds what its subject imports, and no more
    from bench.inprocess import Call, Images

# how often a process answers its images before it is read
PASSES = 2


class Answering(Protocol):
    """What can be put to work in a process of its own, and so can be pickled."""

    def answering(self) -> AbstractContextManager[Call]: ...


@dataclass(frozen=True)
class Memory:
    """Resident memory in MB. peak: the most since the process began; getrusage's is at least that of its parent.

    held: once everything is answered and what was freed is given back, without pages of files, such as a library's
    code, which come and go with the machine's load. A peak has all these, and the opening of a graph, when its file and
    its weights are both there.
    """

    peak: float
    held: float


def of_this_process(subject: Answering, images: Images, batch: int) -> Memory | None:
    """This process's, once it has answered `images`; None where no one counts it."""
    with subject.answering() as call:
        for _ in range(PASSES):
            for first in range(0, len(images), batch):
                call(images[first : first + batch])
        _give_back()
        status = Path("/proc/self/status")
        lines = status.read_text().splitlines() if status.exists() else []
    kb = {line.partition(":")[0]: line.split()[1] for line in lines if line.endswith(" kB")}
    if not {"VmHWM", "RssAnon"} <= kb.keys():
        return None
    return Memory(peak=int(kb["VmHWM"]) / 1024, held=int(kb["RssAnon"]) / 1024)


def _give_back() -> None:
    """Hand memory that was freed back to the system, where the C library can: glibc keeps it, others need not."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def of_a_fresh_process(subject: Answering, images: Images, batch: int) -> Memory | None:
    """That of a process that does nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(of_this_process, (subject, images, batch))
