"""kill -9 of a busy worker: the batch it had is lost, and its model is back in seconds.

TorchServe answers a dead worker's batch with an error and keeps its queue. Other models, and a second worker of the
same model, are unaffected but for the processor time of the new worker's start. Requests of a batch that was being
gathered for the dead worker get no answer at all: see waiting_worker_killed.py.
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
