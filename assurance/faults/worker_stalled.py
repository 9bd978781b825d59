"""A worker that hangs longer than responseTimeout: TorchServe kills it and starts another one.

SIGSTOP stands for a graph that never returns or a disk that does not answer. The model is silent until responseTimeout
has passed, counted from the batch that the worker has. Then that batch gets an error, and the next worker answers the
queue. Other models are unaffected but for the processor time of the new worker's start. responseTimeout is thus the
longest silence of a model with one worker, and belongs near the slowest batch.
"""

from __future__ import annotations

from time import perf_counter

from assurance.faults.scene import BACK_S, Scene, no_wrong_answer, unanswered, unharmed
from loadtests.own_server import batch_size, config, wait_for
from report.rows.bounds import Bound
from report.rows.faults import CUT, LOST, FaultRow

NEIGHBOURS_GAP_S = 2.0
# of the archive that this is measured on, seconds: less than clients' patience, so that each gets the outcome of its
# request
TIMEOUT_S = 4


def measure(scene: Scene, model: str, neighbours: tuple[str, ...], *, run: int) -> FaultRow:
    """Stop a model's only worker under load, and leave the rest to TorchServe."""
    served = scene.served
    (worker,) = served.workers(model)
    archive = served.archive(model)
    batch, timeout = batch_size(archive), float(config(archive)["responseTimeout"])
    most = timeout + BACK_S
    with scene.crowd(model, *neighbours) as crowd:
        scene.settle()
        struck_at = perf_counter()
        worker.suspend()
        killed = wait_for(lambda: not worker.is_running(), seconds=4 * most)
        ready = wait_for(lambda: len(served.workers(model)) == 1, seconds=4 * most)
        ready_at = perf_counter()
        scene.settle()
    struck = scene.impact(crowd, model, since=struck_at)
    neighbours_impact = scene.impact(crowd, *neighbours, since=struck_at)
    return FaultRow(
        "worker_stalled",
        "one worker",
        run,
        struck,
        neighbours_impact,
        bounds=(
            no_wrong_answer(struck),
            Bound("requests without an answer", unanswered(struck), batch),
            Bound("seconds until the worker was killed", killed, most),
            Bound("seconds until its model has a worker again", ready and ready_at - struck_at, most),
            Bound("seconds until requests are answered again", struck.back_s, most),
            Bound("longest time without an answer, seconds", struck.gap_s, most),
            *unharmed(neighbours_impact, gap_s=NEIGHBOURS_GAP_S),
        ),
        facts={
            "responseTimeout, s": timeout,
            "batch": float(batch),
            "answered with an error": float(unanswered(struck) - struck.count(LOST, CUT)),
            "never answered": float(struck.count(LOST, CUT)),
        },
    )
