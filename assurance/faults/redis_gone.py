"""Lost Redis, killed or frozen, and back: clients that must pay get 503 meanwhile, and nobody is answered unpaid.

A killed Redis refuses connections, so the response comes at once. A Redis that is frozen, or behind a network that
swallows packets, blocks a worker until its time-out, and with it everything else that the worker would answer; then the
worker does not ask it for some seconds (handlers/store.py). A Redis that comes back empty begins a new life: solutions
from before pay for nothing, spent or not.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from assurance.faults.clients import Answer
from assurance.faults.payers import ANSWERED, Payer, result_of, suspects
from assurance.faults.scene import BACK_S, Scene, no_wrong_answer, unharmed
from bench.redis_server import RedisServer
from loadtests.own_server import wait_for
from report.rows.bounds import Bound
from report.rows.faults import FaultRow

KILLED, FROZEN = "killed", "frozen"
STORE_FAILED = "503 store_failed"
TRIES = 8  # at once: a batch of rows that all want the store
# of an answer: a worker that asks a frozen Redis waits for its time-out, once, and so do all of its batch
SLOWEST_S = {KILLED: 1.0, FROZEN: 4.0}
NEIGHBOURS_GAP_S = 2.0


def measure(
    scene: Scene, redis: RedisServer, model: str, neighbours: tuple[str, ...], case: str, *, run: int
) -> FaultRow:
    """Take away under load the Redis of a model whose gate asks for work, and bring it back."""
    client = scene.client()
    payer = Payer(client, model, suspects(client, model, scene.suspect, enough=TRIES))
    images = [payer.image() for _ in range(TRIES)]
    spent, saved = payer.solved(), payer.solved()
    assert result_of(payer.spend(spent)) == ANSWERED, "Redis is well"

    def ask(image: NDArray[np.float32]) -> Answer:
        with contextlib.closing(scene.client()) as one:
            return one.ask(model, image)

    with ThreadPoolExecutor(TRIES) as pool, scene.crowd(model, *neighbours) as crowd:
        scene.settle()
        struck_at = perf_counter()
        redis.kill() if case == KILLED else redis.freeze()
        refused = [payer.spend(saved), *pool.map(ask, images)]
        scene.settle()
        redis.start() if case == KILLED else redis.thaw()
        given_at = perf_counter()
        wait_for(lambda: payer.pays() == ANSWERED, seconds=60)
        back_s = perf_counter() - given_at
        late = [result_of(payer.spend(each)) for each in (spent, saved, saved)]
        scene.settle()
    client.close()
    struck = scene.impact(crowd, model, since=struck_at)
    neighbours_impact = scene.impact(crowd, *neighbours, since=struck_at)
    codes = Counter(map(result_of, refused))
    return FaultRow(
        "redis_gone",
        case,
        run,
        struck,
        neighbours_impact,
        bounds=(
            no_wrong_answer(struck),
            Bound("suspected rows without 503 store_failed", len(refused) - codes[STORE_FAILED], 0),
            Bound("slowest of these answers, seconds", max(each.seconds for each in refused), SLOWEST_S[case]),
            Bound("other requests of the model without the right answer", struck.sent - struck.right, 0),
            Bound("slowest of their answers, seconds", (struck.slowest_ms or float("inf")) / 1000, SLOWEST_S[case]),
            *unharmed(neighbours_impact, gap_s=NEIGHBOURS_GAP_S),
            Bound("seconds from its return to the next paid answer", back_s, BACK_S),
            Bound("solutions that paid twice", (late[0] == ANSWERED) + (late[2] == ANSWERED), 0),
        ),
        facts={
            "unspent solution afterwards": late[1],
            "slowest 503, s": round(max(each.seconds for each in refused), 3),
        },
    )
