"""Every fault in turn, on the measurement's own servers: the archives each needs, and their order.

There are four servers: one for faults on a running server, one whose clock can be moved, one on a small disk, and one
for a hostile client, whose neighbours' latency nothing else may disturb. Starts that must be refused need none. The
clock has its own server because the library that moves clocks has locks that a killed process would keep.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assurance.faults import (
    clock_jumped,
    disk_full,
    frontend_killed,
    hostile_client,
    one_solution_twice,
    redis_failover,
    redis_gone,
    server_terminated,
    start_refused,
    store_full,
    waiting_worker_killed,
    worker_killed,
    worker_stalled,
)
from assurance.faults.clock import Clock
from assurance.faults.hostile_client import Pace
from assurance.faults.scene import Scene
from bench.redis_server import RedisServer
from loadtests.own_server import Instance, config, repack, running
from report.rows.faults import FaultRow

PLAIN, PAIR, SLOW, HASTY, LIMITED = "plain", "plain-pair", "plain-slow", "plain-hasty", "plain-limited"
OPEN, GUARDED = "plain-open", "plain-guarded"
GATED, GATED_PAIR, ON_REDIS = "gated", "gated-pair", "gated-redis"
# so that a worker is gathering its batch when it is struck
SLOW_MS = 1500
# of a challenge, where a policy does not say (defenses/work.py)
LIFETIME_S = 300.0


@dataclass(frozen=True)
class Subjects:
    """What is served: an archive without a gate, and one whose gate asks for work.

    benign, suspect: images (N, C, H, W) that its gate lets pass, and that it suspects. java: executable.
    """

    plain: Path
    gated: Path
    benign: NDArray[np.float32]
    suspect: NDArray[np.float32]
    java: Path


@dataclass(frozen=True)
class Effort:
    """How long things are looked at; see assurance.faults.scene.Scene."""

    clients: int = 12
    patience_s: float = 15.0
    settle_s: float = 2.0


def archives(subjects: Subjects, folder: Path, redis: RedisServer) -> dict[str, Path]:
    """The archives to be served, by model, copied to `folder` with the settings that their faults need."""

    def pair(config: dict[str, Any]) -> None:
        config.update(minWorkers=2, maxWorkers=2)

    def slow(config: dict[str, Any]) -> None:
        config.update(maxBatchDelay=SLOW_MS)

    def hasty(config: dict[str, Any]) -> None:
        config.update(responseTimeout=worker_stalled.TIMEOUT_S)

    def on_redis(config: dict[str, Any]) -> None:
        config["handler"]["store"] = redis.url

    made: tuple[tuple[str, Path, Callable[[dict[str, Any]], None]], ...] = (
        (PLAIN, subjects.plain, lambda config: None),
        (PAIR, subjects.plain, pair),
        (SLOW, subjects.plain, slow),
        (HASTY, subjects.plain, hasty),
        (GATED, subjects.gated, lambda config: None),
        (GATED_PAIR, subjects.gated, pair),
        (ON_REDIS, subjects.gated, on_redis),
    )
    return {model: repack(archive, folder / f"{model}.mar", change) for model, archive, change in made}


@dataclass(frozen=True)
class Stage:
    """All that a round on the first server needs."""

    scene: Scene
    redis: RedisServer

    def rows(self, run: int) -> Iterator[FaultRow]:
        """One round on the running server, which is stopped at its end."""
        scene, redis = self.scene, self.redis
        yield worker_killed.measure(scene, PLAIN, (PAIR, GATED), run=run)
        yield worker_killed.measure(scene, PAIR, (PLAIN, GATED), run=run)
        yield waiting_worker_killed.measure(scene, PLAIN, waiting_worker_killed.IDLE, run=run)
        yield waiting_worker_killed.measure(scene, SLOW, waiting_worker_killed.GATHERING, run=run)
        yield worker_stalled.measure(scene, HASTY, (PLAIN, GATED), run=run)
        yield one_solution_twice.measure(scene, GATED_PAIR, (PLAIN,), run=run)
        yield store_full.measure(scene, GATED, (PLAIN, ON_REDIS), run=run)
        yield redis_gone.measure(scene, redis, ON_REDIS, (PLAIN, GATED), redis_gone.KILLED, run=run)
        yield redis_gone.measure(scene, redis, ON_REDIS, (PLAIN, GATED), redis_gone.FROZEN, run=run)
        for case in redis_failover.CASES:
            yield redis_failover.measure(scene, redis, ON_REDIS, (PLAIN, GATED), case, run=run)
        yield frontend_killed.measure(scene, PLAIN, GATED, ON_REDIS, run=run)
        yield server_terminated.measure(scene, PLAIN, run=run)
        scene.served.start()
        yield server_terminated.drained(scene, PLAIN, run=run)


def with_a_clock(subjects: Subjects, run_folder: Path, effort: Effort, *, run: int) -> Iterator[FaultRow]:
    """The clock that jumps, on a server of its own."""
    lifetime = float(config(subjects.gated)["handler"]["gate"]["work"].get("lifetime", LIFETIME_S))
    with tempfile.TemporaryDirectory(prefix="torchwarden-") as folder:
        clock = Clock(Path(folder), subjects.java)
        made = (
            repack(subjects.plain, Path(folder) / f"{PLAIN}.mar", lambda config: None),
            repack(subjects.plain, Path(folder) / f"{LIMITED}.mar", _limited),
            repack(subjects.gated, Path(folder) / f"{GATED}.mar", lambda config: None),
        )
        with running(Instance("clock", run_folder, made, java=clock.java)) as instance:
            scene = Scene(instance, subjects.benign, subjects.suspect, **vars(effort))
            for case in (clock_jumped.AHEAD, clock_jumped.BEHIND):
                yield clock_jumped.measure(scene, clock, GATED, LIMITED, (PLAIN,), case, lifetime=lifetime, run=run)


def _limited(config: dict[str, Any]) -> None:
    """Takes so many rows in a window; a policy must allow a whole request."""
    config["handler"]["max_rows"] = min(config["handler"]["max_rows"], clock_jumped.ROWS)
    config["handler"]["limits"] = {"rows": clock_jumped.ROWS, "total": None, "window": clock_jumped.WINDOW_S}


def with_a_hostile_client(
    subjects: Subjects, run_folder: Path, effort: Effort, pace: Pace, *, run: int
) -> Iterator[FaultRow]:
    """A hostile client of a policy with a limit of rows; and of one without, for comparison."""
    with tempfile.TemporaryDirectory(prefix="torchwarden-") as folder:
        made = {
            model: repack(subjects.plain, Path(folder) / f"{model}.mar", change)
            for model, change in (
                (OPEN, hostile_client.unguarded),
                (GUARDED, hostile_client.guarded),
                (PLAIN, lambda config: None),
            )
        }
        with running(Instance("hostile", run_folder, tuple(made.values()))) as instance:
            scene = Scene(instance, subjects.benign, subjects.suspect, **vars(effort))
            most = instance.target.max_request_size
            dear = hostile_client.dearest(made[OPEN], subjects.benign, most_bytes=most)
            measured = [(GUARDED, size, "limit") for size in dear]
            # without a limit, one is enough to see what it is for
            measured.append((OPEN, hostile_client.SHORT, "no limit"))
            for model, size, word in measured:
                case, promised = f"{size}, {word}", model == GUARDED
                yield hostile_client.measure(scene, model, PLAIN, dear[size], case, pace, promised=promised, run=run)


def on_a_small_disk(subjects: Subjects, run_folder: Path, effort: Effort, *, run: int) -> Iterator[FaultRow]:
    """The full disk, where this user may mount a small one; else nothing."""
    with disk_full.mounted(run_folder / "disk") as possible:
        if not possible:
            return
        folder = run_folder / "disk"
        models = (subjects.plain, subjects.gated)
        with running(Instance("small", folder, tuple(archive.absolute() for archive in models))) as instance:
            scene = Scene(instance, subjects.benign, subjects.suspect, **vars(effort))
            yield disk_full.measure(scene, folder, subjects.gated.stem, (subjects.plain.stem,), run=run)


def refused(subjects: Subjects, run_folder: Path, *, run: int) -> Iterator[FaultRow]:
    """Every start that must be refused."""
    for case in start_refused.CASES:
        yield start_refused.measure(subjects.gated, run_folder, case, run=run)


@contextlib.contextmanager
def stage(subjects: Subjects, folder: Path, run_folder: Path, effort: Effort) -> Iterator[Callable[[], Stage]]:
    """Gives what starts the server of `Stage.rows`; whatever runs at the end is stopped. folder: for archives."""
    redis = RedisServer(folder)
    with contextlib.ExitStack() as cleaning:
        cleaning.callback(redis.close)
        redis.start()
        made = archives(subjects, folder, redis)
        instance = Instance("faults", run_folder, tuple(made.values()))
        cleaning.callback(instance.stop)

        def start() -> Stage:
            instance.start()
            scene = Scene(instance, subjects.benign, subjects.suspect, **vars(effort))
            return Stage(scene, redis)

        yield start
