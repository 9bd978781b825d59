"""No space for the store: spent solutions cannot be recorded, so no solution is accepted, and other requests go on.

RLIMIT_FSIZE of each worker, lowered to nothing while it runs, makes every write to a file fail, the store's and the
audit log's, without a disk to fill; disk_full.py fills one. A refused solution is not spent: when space returns it
pays, once.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from time import perf_counter

import psutil

from assurance.faults.payers import ANSWERED, Payer, result_of, suspects
from assurance.faults.scene import BACK_S, Scene, no_wrong_answer, unharmed
from loadtests.own_server import Instance, wait_for
from report.rows.bounds import Bound
from report.rows.faults import FaultRow

STORE_FAILED = "503 store_failed"
TRIES = 6
GAP_S = 2.0


def measure(scene: Scene, model: str, neighbours: tuple[str, ...], *, run: int) -> FaultRow:
    """Take the space away under load from a model whose gate asks for work, and give it back."""
    served = scene.served
    with no_space(served, model) as space:
        return watch(scene, model, neighbours, space, fault="store_full", case="no write succeeds", run=run)


class Space:
    """What workers may write, taken away and given back."""

    def take(self) -> None:
        """From now on writes fail."""
        raise NotImplementedError

    def give(self) -> None:
        """From now on they succeed again."""
        raise NotImplementedError


class Limit(Space):
    """RLIMIT_FSIZE of some processes."""

    def __init__(self, processes: list[psutil.Process]) -> None:
        self._before = [(process, process.rlimit(psutil.RLIMIT_FSIZE)) for process in processes]

    def take(self) -> None:
        for process, (_, hard) in self._before:
            process.rlimit(psutil.RLIMIT_FSIZE, (0, hard))

    def give(self) -> None:
        for process, before in self._before:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.rlimit(psutil.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def no_space(served: Instance, model: str) -> Iterator[Limit]:
    """The limit of a model's workers, lifted at the end whatever happens."""
    limit = Limit(served.workers(model))
    try:
        yield limit
    finally:
        limit.give()


def watch(
    scene: Scene, model: str, neighbours: tuple[str, ...], space: Space, *, fault: str, case: str, run: int
) -> FaultRow:
    """What payers and others get without space, and when it has returned."""
    served = scene.served
    client = scene.client()
    payer = Payer(client, model, suspects(client, model, scene.suspect, enough=2 * TRIES))
    workers = served.workers(model)
    audit = served.metric("torchwarden_audit_total", event="failed")
    saved = [payer.solved() for _ in range(TRIES)]
    with scene.crowd(model, *neighbours) as crowd:
        scene.settle()
        struck_at = perf_counter()
        space.take()
        paid = Counter(result_of(payer.spend(solved)) for solved in saved)
        asked = Counter(result_of(client.ask(model, payer.image())) for _ in range(TRIES))
        scene.settle()
        space.give()
        given_at = perf_counter()
        back = wait_for(lambda: payer.pays() == ANSWERED, seconds=60)
        back_s = None if back is None else perf_counter() - given_at
        scene.settle()
        after = Counter(result_of(payer.spend(solved)) for solved in saved)
        again = Counter(result_of(payer.spend(solved)) for solved in saved)
    client.close()
    struck = scene.impact(crowd, model, since=struck_at)
    neighbours_impact = scene.impact(crowd, *neighbours, since=struck_at)
    return FaultRow(
        fault,
        case,
        run,
        struck,
        neighbours_impact,
        bounds=(
            no_wrong_answer(struck),
            Bound("solutions without 503 store_failed", TRIES - paid[STORE_FAILED], 0),
            Bound("suspected rows answered unpaid", asked[ANSWERED], 0),
            Bound("other requests of the model without the right answer", struck.sent - struck.right, 0),
            Bound("their longest time without an answer, seconds", struck.gap_s, GAP_S),
            *unharmed(neighbours_impact, gap_s=GAP_S),
            Bound("seconds from space to the next paid answer", back_s, BACK_S),
            Bound("solutions lost though they were never spent", TRIES - after[ANSWERED], 0),
            Bound("solutions that paid twice", again[ANSWERED], 0),
            Bound("workers that died", len(set(workers) - set(served.workers(model))), 0),
        ),
        facts={
            **{f"solutions told {what}": float(count) for what, count in sorted(paid.items())},
            **{f"suspected rows told {what}": float(count) for what, count in sorted(asked.items())},
            "audit lines counted as failed": served.metric("torchwarden_audit_total", event="failed") - audit,
        },
    )
