"""Stop an instance: not until its processes have ended and its ports are free is it stopped.

TorchServe does not drain: requests under way are dropped at SIGTERM. A gateway that stops sending first does.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import psutil

from deploy import ports, settings
from deploy.errors import DeployError
from deploy.instance import Instance

# Java takes two to three seconds to close its connections; workers notice within two that it has gone.
TERM_SECONDS = 15.0
KILL_SECONDS = 5.0


def stop(instance: Instance) -> int | None:
    """Stop the instance and remove what it leaves but its logs; the pid that ended, or None if none ran.

    Raises `DeployError` where a process outlives SIGKILL or a port stays taken.
    """
    record = instance.record()
    process = record.process() if record else None
    if process is not None:
        left = _end(process)
        if left:
            raise DeployError(f"these processes of instance {instance.name} outlived SIGKILL: {left}")
        busy = ports.wait_free(ports.read(settings.read(instance.config)), seconds=KILL_SECONDS)
        if busy:
            raise DeployError(
                f"instance {instance.name} has ended, but something else holds "
                f"{', '.join(f'{endpoint.host}:{endpoint.port}' for endpoint in busy)}"
            )
    instance.clear()
    return process.pid if process else None


def _end(process: psutil.Process) -> list[int]:
    family = [process]
    with contextlib.suppress(psutil.NoSuchProcess):
        family += process.children(recursive=True)
        process.terminate()
    family = outlasting(family, TERM_SECONDS)
    for survivor in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            survivor.kill()
    return [survivor.pid for survivor in outlasting(family, KILL_SECONDS)]


def outlasting(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until all have ended; those that still run after so many seconds."""
    deadline = time.monotonic() + seconds
    running = [process for process in processes if runs(process)]
    while running and time.monotonic() < deadline:
        time.sleep(0.05)
        running = [process for process in running if runs(process)]
    return running


def runs(process: psutil.Process) -> bool:
    """Whether a process has not ended. A zombie has; a container's pid 1 may never read its exit code."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
