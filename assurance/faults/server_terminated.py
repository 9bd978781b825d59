"""A stop under load: SIGTERM to TorchServe alone, and the gateway's stop before it.

TorchServe does not drain: it drops whatever is under way. The gateway does: it takes no new request, those under way
finish, and then the server behind it can be stopped. Clients that come meanwhile find no server, and have sent nothing.
"""

from __future__ import annotations

from time import perf_counter

from assurance.faults.gateway import fronting
from assurance.faults.scene import Scene, no_wrong_answer
from loadtests.own_server import family, wait_for
from report.rows.bounds import Bound
from report.rows.faults import CUT, LOST, UNSENT, FaultRow

# python -m deploy.server waits so long before it kills (deploy/shutdown.py), and a service manager longer
ENDED_S = 15.0


def drained(scene: Scene, model: str, *, run: int) -> FaultRow:
    """Stop the gateway under load, then the server, which is not running afterwards."""
    served = scene.served
    with fronting(served) as gateway, scene.crowd(model, door=gateway.door) as crowd:
        scene.settle()
        struck_at = perf_counter()
        gateway.stop()
        stopped = perf_counter() - struck_at
        served.stop()
        scene.settle()
    struck = scene.impact(crowd, model, since=struck_at)
    return FaultRow(
        "server_terminated",
        "behind the gateway",
        run,
        struck,
        None,
        bounds=(
            no_wrong_answer(struck),
            Bound("requests that were sent and not answered", struck.sent - struck.right - struck.count(UNSENT), 0),
            Bound("seconds until the gateway had stopped", stopped, ENDED_S),
        ),
        facts={"answered since": float(struck.right), "found no server": float(struck.count(UNSENT))},
    )


def measure(scene: Scene, model: str, *, run: int) -> FaultRow:
    """Stop the server under load, as `python -m deploy.server stop` does. It is not running afterwards."""
    served = scene.served
    everyone = family(served.process)
    with scene.crowd(model) as crowd:
        scene.settle()
        struck_at = perf_counter()
        everyone[0].terminate()
        ended = wait_for(lambda: not any(each.is_running() for each in everyone), seconds=4 * ENDED_S)
        scene.settle()
    served.stop()
    struck = scene.impact(crowd, model, since=struck_at)
    lost = struck.count(CUT, LOST)
    return FaultRow(
        "server_terminated",
        "without a gateway",
        run,
        struck,
        None,
        bounds=(
            no_wrong_answer(struck),
            Bound("requests under way without an answer", lost, scene.clients),
            Bound("seconds until every process had ended", ended, ENDED_S),
        ),
        facts={"cut off": float(struck.count(CUT)), "found no server": float(struck.count(UNSENT))},
    )
