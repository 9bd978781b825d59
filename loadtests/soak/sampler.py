"""What the server's processes hold while it is asked: memory, processor, threads, open files, and what is written.

Read from outside every few seconds: Java, each of its workers, TorchServe's queue, the instance's folders. PSS is a
process's memory with shared pages divided among those who share them, so that processes add up.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

import psutil
import requests

from loadtests.own_server import Instance
from report.rows.soak import JAVA, Process, Sample

MIB = 2**20
QUEUE, REQUESTS = "ts_queue_latency_microseconds", "ts_inference_requests_total"


class Sampler:
    """Samples an instance from a thread, every `every` seconds inside the context; times are of the monotonic clock.
    on_sample: called with each sample."""

    def __init__(self, served: Instance, *, every: float, on_sample: Callable[[Sample], object]) -> None:
        self._served = served
        self._every = every
        self._on_sample = on_sample
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples: list[Sample] = []

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._every):
            # a server that has died is found by its clients; the samples just end
            with contextlib.suppress(psutil.Error, requests.RequestException, OSError):
                sample = take(self._served, time.monotonic())
                self.samples.append(sample)
                self._on_sample(sample)


def take(served: Instance, at: float) -> Sample:
    """One sample."""
    java = served.process
    workers = sorted(java.children(), key=lambda each: each.pid)
    queue, asked = _queue(served)
    return Sample(
        at=round(at, 2),
        processes=(
            _process(JAVA, java),
            *(_process(f"worker {number}", worker) for number, worker in enumerate(workers)),
        ),
        queue_s=queue,
        requests=asked,
        state_mb=_size(served.folder.glob("state/*")),
        logs_mb=_size(served.folder.glob("logs/*")),
        # next to the folder: it outlives the run
        audit_mb=_size(served.run_folder.glob(f"{served.name}.audit.*")),
    )


def _process(name: str, process: psutil.Process) -> Process:
    with process.oneshot():
        memory, times = process.memory_full_info(), process.cpu_times()
        return Process(
            name=name,
            pid=process.pid,
            rss_mb=round(memory.rss / MIB, 2),
            pss_mb=round(memory.pss / MIB, 2),
            cpu_s=round(times.user + times.system, 2),
            threads=process.num_threads(),
            files=process.num_fds(),
        )


def _queue(served: Instance) -> tuple[float, float]:
    """Seconds in TorchServe's queues, and requests, of all models so far."""
    totals = {QUEUE: 0.0, REQUESTS: 0.0}
    for each in served.metrics():
        if each.name in totals:
            totals[each.name] += each.value
    return totals[QUEUE] / 1e6, totals[REQUESTS]


def _size(files: Iterable[Path]) -> float:
    """MB of some files, one that goes away meanwhile aside."""
    total = 0
    for path in files:
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return round(total / MIB, 3)
