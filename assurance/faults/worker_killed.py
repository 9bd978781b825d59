"""kill -9 of a worker that is busy: lost are the answers it was working on, and its model is back in seconds.

TorchServe answers the batch that a dead worker had with an error; what waits in the queue waits on. Other models, and a
second worker of the same model, notice nothing but the processor that a starting worker takes. Requests of a batch that
was just being gathered for it get no answer at all: waiting_worker_killed.py.
"""

from __future__ import annotations

from time import perf_counter

from assurance.faults.scene import BACK_S, Scene, no_wrong_answer, unanswered, unharmed
from loadtests.own_server import batch_size, wait_for
from report.rows.bounds import Bound
from report.rows.faults import CUT, LOST, FaultRow

NEIGHBOURS_GAP_S = 2.0
RESTARTED_S = 60.0


def measure(scene: Scene, model: str, neighbours: tuple[str, ...], *, run: int) -> FaultRow:
    """Kill one of a model's workers under load."""
    served = scene.served
    before = served.workers(model)
    batch = batch_size(served.archive(model))
    with scene.crowd(model, *neighbours) as crowd:
        scene.settle()
        struck_at = perf_counter()
        before[0].kill()
        wait_for(lambda: len(served.workers(model)) < len(before), seconds=1)
        restarted = wait_for(lambda: len(served.workers(model)) == len(before), seconds=RESTARTED_S)
        restarted_at = perf_counter()
        scene.settle()
    struck = scene.impact(crowd, model, since=struck_at)
    neighbours_impact = scene.impact(crowd, *neighbours, since=struck_at)
    return FaultRow(
        "worker_killed",
        "one worker" if len(before) == 1 else "one of two workers",
        run,
        struck,
        neighbours_impact,
        bounds=(
            no_wrong_answer(struck),
            # a worker has one batch at a time: sent to it, or being gathered for it
            Bound("requests without an answer", unanswered(struck), batch),
            Bound("seconds until requests are answered again", struck.back_s, BACK_S),
            Bound("seconds until as many workers are ready", restarted and restarted_at - struck_at, RESTARTED_S),
            *unharmed(neighbours_impact, gap_s=NEIGHBOURS_GAP_S),
        ),
        facts={
            "batch": float(batch),
            "answered with an error": float(unanswered(struck) - struck.count(LOST, CUT)),
            "never answered": float(struck.count(LOST, CUT)),
        },
    )
