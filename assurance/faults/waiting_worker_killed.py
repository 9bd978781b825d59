"""kill -9 of a worker that waits for requests, or for more of them: which requests are never answered, and how many.

TorchServe notices and replaces an idle worker at once. While it gathers a batch, for up to maxBatchDelay from the
batch's first request, it drops what it has gathered: those requests are neither answered nor queued again, and their
clients would wait for ever. So at most one batch is lost, in a window of milliseconds. A time-out, the client's or the
gateway's, is the remedy: the same request sent again is answered.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, sleep

from assurance.faults.clients import known
from assurance.faults.figures import Outcome, impact
from assurance.faults.scene import BACK_S, Scene, no_wrong_answer
from loadtests.own_server import batch_size
from report.rows.bounds import Bound
from report.rows.faults import CUT, LOST, RIGHT, FaultRow

IDLE, GATHERING = "nothing to do", "gathering a batch"
# after the batch's first request; far less than the maxBatchDelay of the archive that GATHERING is measured on
GATHERED_S = 0.3


def measure(scene: Scene, model: str, case: str, *, run: int) -> FaultRow:
    """Kill a model's worker before (IDLE) or after (GATHERING) so many requests came as make one batch less one; who
    is not answered asks once more."""
    served = scene.served
    batch = batch_size(served.archive(model))
    facts = known(scene.door, model, scene.benign)
    worker = served.workers(model)[0]

    def ask(number: int) -> list[Outcome]:
        client, outcomes = scene.client(), list[Outcome]()
        while len(outcomes) < 2 and not (outcomes and outcomes[-1].what == RIGHT):
            begun = perf_counter()
            answer = client.ask(model, scene.benign[number])
            outcomes.append(Outcome(model, begun, perf_counter(), facts.judge(number, answer)))
        client.close()
        return outcomes

    with ThreadPoolExecutor(batch - 1) as pool:
        if case == IDLE:
            struck_at = perf_counter()
            worker.kill()
        asked = [pool.submit(ask, number) for number in range(batch - 1)]
        if case == GATHERING:
            sleep(GATHERED_S)
            struck_at = perf_counter()
            worker.kill()
        outcomes = [each.result() for each in asked]
    struck = impact([each for one in outcomes for each in one], struck_at, perf_counter(), clients=batch - 1)
    again = [one[-1] for one in outcomes if len(one) > 1]
    return FaultRow(
        "waiting_worker_killed",
        case,
        run,
        struck,
        None,
        bounds=(
            no_wrong_answer(struck),
            Bound("requests without an answer", len(again), batch),
            Bound("requests without an answer when sent again", sum(each.what != RIGHT for each in again), 0),
            # sent again when patience had ended, by when another worker is there
            Bound("slowest answer, seconds", (struck.slowest_ms or float("inf")) / 1000, BACK_S),
        ),
        facts={
            "batch": float(batch),
            "never answered": float(struck.count(LOST, CUT)),
            "patience, seconds": scene.patience_s,
        },
    )
