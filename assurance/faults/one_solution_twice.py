"""One solution in many requests at once, to two workers and in one batch: it pays for one of them.

All workers share the store, which checks a solution and records it in one step. So neither the worker of a request nor
its neighbours in a batch matter. All others get 403 solution_spent, and other clients notice nothing.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import perf_counter

from assurance.faults.clients import Client
from assurance.faults.payers import ANSWERED, Payer, Solved, result_of, suspects
from assurance.faults.scene import Scene, no_wrong_answer, unharmed
from loadtests.own_server import batch_size
from report.rows.bounds import Bound
from report.rows.faults import FaultRow

SPENT = "403 solution_spent"
ROUNDS = 50
IMAGES = 10
GAP_S = 2.0


def measure(scene: Scene, model: str, neighbours: tuple[str, ...], *, run: int) -> FaultRow:
    """Send each solution as often at once as two batches hold, to a model whose gate asks for work."""
    served = scene.served
    workers = served.workers(model)
    batch = batch_size(served.archive(model))
    at_once = len(workers) * batch
    with contextlib.ExitStack() as cleaning:
        bringing = [cleaning.enter_context(contextlib.closing(scene.client())) for _ in range(at_once)]
        pool = cleaning.enter_context(ThreadPoolExecutor(at_once))
        payer = Payer(bringing[0], model, suspects(bringing[0], model, scene.suspect, enough=IMAGES))
        before = {worker.pid: sum(worker.cpu_times()[:2]) for worker in workers}
        with scene.crowd(model, *neighbours) as crowd:
            scene.settle()
            struck_at = perf_counter()
            rounds = [_brought(payer.solved(), model, bringing, pool) for _ in range(ROUNDS)]
            scene.settle()
    idle = [worker for worker in served.workers(model) if sum(worker.cpu_times()[:2]) <= before.get(worker.pid, 0.0)]
    struck = scene.impact(crowd, model, since=struck_at)
    neighbours_impact = scene.impact(crowd, *neighbours, since=struck_at)
    paid = [each[ANSWERED] for each in rounds]
    return FaultRow(
        "one_solution_twice",
        "two workers",
        run,
        struck,
        neighbours_impact,
        bounds=(
            no_wrong_answer(struck),
            Bound("rounds in which a solution paid twice", sum(count > 1 for count in paid), 0),
            Bound("rounds in which it paid for nothing", sum(count < 1 for count in paid), 0),
            Bound(
                "others without 403 solution_spent",
                sum(at_once - each[ANSWERED] - each[SPENT] for each in rounds),
                0,
            ),
            Bound("workers that took no part", len(idle), 0),
            Bound("other requests of the model without the right answer", struck.sent - struck.right, 0),
            Bound("their longest time without an answer, seconds", struck.gap_s, GAP_S),
            *unharmed(neighbours_impact, gap_s=GAP_S),
        ),
        facts={
            "rounds": float(ROUNDS),
            "requests a round": float(at_once),
            "workers": float(len(workers)),
            "batch": float(batch),
            "refused as spent": float(sum(each[SPENT] for each in rounds)),
        },
    )


def _brought(solved: Solved, model: str, clients: list[Client], pool: ThreadPoolExecutor) -> Counter[str]:
    """The outcome of each client that sends the solution, all at once."""
    together = Barrier(len(clients))

    def bring(client: Client) -> str:
        together.wait()
        return result_of(client.ask(model, solved.image, solved.solution))

    return Counter(pool.map(bring, clients))
