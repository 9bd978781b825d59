"""kill -9 of TorchServe's Java process: its workers end by themselves, and the next start serves at once.

Connections under way are closed. The instance's own store ends with the process. The new store has a new life, so
solutions from before pay for nothing, spent or not. Redis outlives the process: spent solutions stay spent, and unspent
ones still pay.
"""

from __future__ import annotations

from time import perf_counter

import psutil

from assurance.faults.clients import Client
from assurance.faults.payers import ANSWERED, Payer, Solved, result_of, suspects
from assurance.faults.scene import Scene, no_wrong_answer
from loadtests.own_server import family, wait_for
from report.rows.bounds import Bound
from report.rows.faults import FaultRow

ORPHANS_S = 10.0
# loading models is what it takes: a restart without anything left over to clear away by hand
RESTART_S = 60.0


def measure(scene: Scene, model: str, gated: str, on_redis: str, *, run: int) -> FaultRow:
    """Kill Java under load and start it again. gated, on_redis: models whose gates ask for work, the second with the
    spent ones in Redis."""
    served = scene.served
    client = scene.client()
    pairs = {name: _pair(client, name, scene) for name in (gated, on_redis)}
    client.close()
    everyone = family(served.process)
    with scene.crowd(model) as crowd:
        scene.settle()
        struck_at = perf_counter()
        everyone[0].kill()
        gone = wait_for(lambda: not any(_runs(each) for each in everyone), seconds=4 * ORPHANS_S)
    started = served.start()
    again = scene.client()
    late = {
        name: [result_of(Payer(again, name, scene.suspect).spend(solved)) for solved in pair]
        for name, pair in pairs.items()
    }
    with scene.crowd(model) as after:
        scene.settle()
    again.close()
    struck = scene.impact(crowd, model, since=struck_at)
    new = scene.impact(after, model, since=struck_at)
    return FaultRow(
        "frontend_killed",
        "and started again",
        run,
        struck,
        new,
        bounds=(
            no_wrong_answer(struck),
            Bound("requests under way that were cut", struck.count("cut"), scene.clients),
            Bound("requests never answered", struck.count("lost"), 0),
            Bound("seconds until its workers had ended", gone, ORPHANS_S),
            Bound("seconds of the next start", started, RESTART_S),
            Bound("requests afterwards without the right answer", new.sent - new.right, 0),
            Bound("solutions that paid twice", sum(told_of[0] == ANSWERED for told_of in late.values()), 0),
            Bound("solutions from before that paid, own store", late[gated].count(ANSWERED), 0),
            Bound("unspent solutions that did not pay, Redis", float(late[on_redis][1] != ANSWERED), 0),
        ),
        facts={
            "own store: spent, unspent": ", ".join(late[gated]),
            "Redis: spent, unspent": ", ".join(late[on_redis]),
        },
    )


def _pair(client: Client, model: str, scene: Scene) -> tuple[Solved, Solved]:
    """A solution that is spent, and one that is not."""
    payer = Payer(client, model, suspects(client, model, scene.suspect, enough=2))
    spent, saved = payer.solved(), payer.solved()
    assert result_of(payer.spend(spent)) == ANSWERED, "the service is well"
    return spent, saved


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
