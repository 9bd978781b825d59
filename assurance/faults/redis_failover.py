"""Redis fails over and back: a replica is promoted and gets the address, and the old primary returns to it.

A replica may have missed the last spent solutions, so its promotion begins a new life: solutions from before pay for
nothing, spent or not (handlers/store.py). A primary that was killed comes back empty, which is a new life again. One
that was only disconnected comes back with its life and memory, and unspent solutions of that life pay, once. If it was
made a replica meanwhile and is promoted again, it is the same process with another's memory: one more new life.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from assurance.faults.payers import ANSWERED, Payer, Solved, result_of, suspects
from assurance.faults.scene import BACK_S, Scene, no_wrong_answer, unharmed
from bench.redis_server import RedisServer, free_port, replica_of
from loadtests.own_server import wait_for
from report.rows.bounds import Bound
from report.rows.faults import FaultRow

KILLED, CUT_OFF = "primary killed", "primary cut off"
NEIGHBOURS_GAP_S = 2.0


def _promoted(primary: RedisServer, replica: RedisServer) -> None:
    primary.kill()
    replica.promote()
    replica.move(primary.port)


def _back_empty(primary: RedisServer, replica: RedisServer) -> None:
    replica.kill()
    primary.start()


def _promoted_beside(primary: RedisServer, replica: RedisServer) -> None:
    replica.promote()
    _swapped(primary, replica)


def _back_as_it_was(primary: RedisServer, replica: RedisServer) -> None:
    _swapped(replica, primary)


def _back_with_the_other_s_memory(primary: RedisServer, replica: RedisServer) -> None:
    primary.follow(replica)
    primary.promote()


def _swapped(old: RedisServer, new: RedisServer) -> None:
    """The address of `old` is now that of `new`; both live."""
    address = old.port
    old.move(free_port())
    new.move(address)


# each begins with a primary and its replica, and ends with the primary at its address
CASES: Mapping[str, tuple[Callable[[RedisServer, RedisServer], None], ...]] = {
    KILLED: (_promoted, _back_empty),
    CUT_OFF: (_promoted_beside, _back_as_it_was, _back_with_the_other_s_memory),
}


@dataclass
class Purse:
    """All solutions of a payer, and how often each has paid."""

    payer: Payer
    paid: Counter[Solved] = field(default_factory=Counter)

    def fill(self) -> Solved:
        """Two more: one that is spent at once, and the one returned, which is not."""
        spent, saved = self.payer.solved(), self.payer.solved()
        self.paid[saved] = 0
        assert self.spend(spent) == ANSWERED, "Redis is well"
        return saved

    def spend(self, solved: Solved) -> str:
        """Try one, which need not be the first time."""
        got = result_of(self.payer.spend(solved))
        self.paid[solved] += got == ANSWERED
        return got

    def spend_all(self) -> None:
        """Try every one twice."""
        for solved in [*self.paid, *self.paid]:
            self.spend(solved)


def measure(
    scene: Scene, primary: RedisServer, model: str, neighbours: tuple[str, ...], case: str, *, run: int
) -> FaultRow:
    """Under load, put a replica in the place of the Redis of a model whose gate asks for work, and the primary back."""
    client = scene.client()
    payer = Payer(client, model, suspects(client, model, scene.suspect, enough=2))
    back_s: list[float | None] = []
    first_life: list[str] = []
    with tempfile.TemporaryDirectory(prefix="torchwarden-") as folder, replica_of(primary, Path(folder)) as replica:
        purse = Purse(payer)
        saved = purse.fill()
        with scene.crowd(model, *neighbours) as crowd:
            scene.settle()
            struck_at = perf_counter()
            for step in CASES[case]:
                moved_at = perf_counter()
                step(primary, replica)
                back = wait_for(lambda: payer.pays() == ANSWERED, seconds=60)
                back_s.append(None if back is None else perf_counter() - moved_at)
                if back is None:
                    break
                first_life.append(purse.spend(saved))
                purse.spend_all()
                purse.fill()
            scene.settle()
    client.close()
    struck = scene.impact(crowd, model, since=struck_at)
    neighbours_impact = scene.impact(crowd, *neighbours, since=struck_at)
    return FaultRow(
        "redis_failover",
        case,
        run,
        struck,
        neighbours_impact,
        bounds=(
            no_wrong_answer(struck),
            Bound("other requests of the model without the right answer", struck.sent - struck.right, 0),
            *unharmed(neighbours_impact, gap_s=NEIGHBOURS_GAP_S),
            Bound("seconds from a change of Redis to the next paid answer", _worst(back_s), BACK_S),
            Bound("solutions that paid twice", sum(times > 1 for times in purse.paid.values()), 0),
        ),
        facts={
            "solutions tried after each change": float(len(purse.paid)),
            "the first life's unspent one, after each change": ", ".join(first_life),
        },
    )


def _worst(seconds: list[float | None]) -> float | None:
    """The longest; None where one never ended."""
    ended = [each for each in seconds if each is not None]
    return max(ended) if len(ended) == len(seconds) else None
