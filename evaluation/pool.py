"""Independent jobs over the cores: one thread each on a CPU (two threads on one small network lose more than they
gain), one after another where there is a GPU."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")


def spread(
    work: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int | None = None
) -> Iterator[tuple[Job, Result]]:
    """(job, work(job)) of every job, in the order in which they are done, each done in a process of its own.

    work and the jobs are pickled; put the longest first, so that the cores finish together. workers: processes; by
    default one for each core, or one where there is a GPU; 0: this one, in turn. What `work` raises ends the rest.
    """
    if workers == 0:
        for job in jobs:
            yield job, work(job)
        return
    if workers is None:
        workers = 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0))
    # spawn: a forked child would inherit the locks of this process's threads
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        running = {pool.submit(work, job): job for job in jobs}
        for future in concurrent.futures.as_completed(running):
            yield running[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
