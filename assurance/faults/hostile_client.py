"""A client with one key sends 100 requests a second, each as expensive as possible: the impact on others' latencies.

Others come through the gateway as it does, each with its own key, to the same model and to a neighbour. Quiet and
hostile phases alternate, and each hostile one is compared with the quiet one before it, so that other load on the
machine affects both. The hostile client runs on the measured machine: latencies are too long rather than too short. The
most expensive request is measured before, in process (dear_requests.py): as many rows as allowed, each a file with as
much metadata as fits.

Two limits hold such a client back. The cost of answering is counted in rows, and only a policy knows what its rows are
worth: once its limit is reached, nobody reads what this client sends. The cost of carrying comes before any handler and
is the gateway's to limit: so many bytes a second in long bodies, and a large one beyond is not read to its end. A
policy without a limit is measured as well, and nothing is promised of it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assurance.faults.clients import Crowd, known
from assurance.faults.dear_requests import Priced, priced
from assurance.faults.figures import Outcome, impact
from assurance.faults.flood import Flood, Sent, send, warm
from assurance.faults.gateway import Gateway, fronting
from assurance.faults.scene import Scene, no_wrong_answer, unharmed
from report.rows.bounds import Bound
from report.rows.faults import RIGHT, FaultRow

RATE, CONNECTIONS = 100.0, 50
# of rows that a principal may ask in so many seconds: far more than any of the others asks, and a request of most rows
ROWS, WINDOW_S = 512, 5.0
# of one request, as a policy has it that does not say
REQUEST_ROWS = 256
# bytes, from where on the gateway counts a body among the long ones, and among the large ones
MIDDLE, LARGE = 100_000, 1_000_000
SHORT = "dearest below 100 kB"
# others: a key each, so that none of them reaches a limit
OTHERS = 4
GAP_S = 2.0
# median latency of others, to what it is without the hostile client
MOST = 1.25


@dataclass(frozen=True)
class Pace:
    """rounds: of a quiet and a hostile phase. phase_s: seconds of each, no less than the limit's window."""

    rounds: int = 10
    phase_s: float = 6.0


@dataclass(frozen=True)
class Phase:
    """When it was, and what the hostile client sent in it."""

    begun: float
    ended: float
    sent: Sent | None = None

    def median(self, outcomes: Sequence[Outcome]) -> float:
        """Milliseconds, of the right answers to requests that began in it."""
        return float(np.median([each.ms for each in outcomes if self.holds(each) and each.what == RIGHT] or [np.inf]))

    def holds(self, outcome: Outcome) -> bool:
        """Whether the request began in it."""
        return self.begun <= outcome.begun < self.ended


def guarded(config: dict[str, Any]) -> None:
    """A policy with a limit; its requests are of as many rows as one without a word of it takes."""
    unguarded(config)
    config["handler"]["limits"] = {"rows": ROWS, "total": None, "window": WINDOW_S}


def unguarded(config: dict[str, Any]) -> None:
    """A policy without a limit."""
    config["handler"]["max_rows"] = REQUEST_ROWS


def dearest(archive: Path, images: NDArray[np.float32], *, most_bytes: int) -> dict[str, Priced]:
    """The requests to send, by what they are: of all, and of those that the gateway lets through more often, the
    dearest to answer; and the longest that is not large, which is the dearest to carry."""
    middle, short = (priced(archive, images, most_bytes=size - 1) for size in (LARGE, MIDDLE))
    return {
        "dearest of all": priced(archive, images, most_bytes=most_bytes)[0],
        "dearest below 1 MB": middle[0],
        SHORT: short[0],
        "longest below 1 MB": max(middle, key=lambda each: len(each.request.body)),
    }


def measure(
    scene: Scene, model: str, neighbour: str, dear: Priced, case: str, pace: Pace, *, promised: bool, run: int
) -> FaultRow:
    """Others ask the same model and a neighbour, through the gateway, while one client sends `dear` to the model.

    promised: whether others are promised a latency; else the impact is reported and nothing promised but right answers.
    """
    request = dear.request
    with fronting(scene.served) as gateway, _in_a_process() as pool:
        flood = Flood(gateway.another("hostile"), model, request.content_type, request.body, RATE, CONNECTIONS)
        with _others(scene, gateway, (model, neighbour)) as crowds:
            scene.settle()
            # the first round is Java's, to get warm
            phases = [_phase(each, pool, pace) for _ in range(1 + pace.rounds) for each in (None, flood)][2:]
    seen = {name: [each for crowd in crowds for each in crowd.of(name)] for name in (model, neighbour)}
    since, until = phases[1].begun, phases[-1].ended
    struck, neighbours_impact = (impact(each, since, until, clients=OTHERS) for each in seen.values())
    slower, aside = (ratios(phases, each) for each in seen.values())
    promises = (
        Bound("median latency of the same model's others, to a quiet time's", median(slower), MOST),
        Bound("median latency of the neighbour's clients, to a quiet time's", median(aside), MOST),
        Bound("others' requests without the right answer", struck.sent - struck.right, 0),
        *unharmed(neighbours_impact, gap_s=GAP_S),
    )
    return FaultRow(
        "hostile_client",
        case,
        run,
        struck,
        neighbours_impact,
        bounds=(no_wrong_answer(struck), *(promises if promised else ())),
        facts={
            "request": f"{request.name}, {request.rows} rows, {len(request.body)} bytes",
            "of a core in process, ms": round(1000 * dear.seconds, 1),
            "seconds of a phase": pace.phase_s,
            "same model's others, median ms quiet": round(_middle(phases[::2], seen[model]), 2),
            "same model's others, median ms hostile": round(_middle(phases[1::2], seen[model]), 2),
            "same model's others, ratios": spread(slower),
            "neighbour's clients, ratios": spread(aside),
            **_sent(phases),
        },
    )


def _sent(phases: Sequence[Phase]) -> dict[str, float | str | None]:
    """What the hostile client sent, and the outcomes."""
    sent = [phase.sent for phase in phases if phase.sent is not None]
    total = sum((Counter(each.responses) for each in sent), Counter[str]())
    return {
        "hostile requests a second": round(median(each.per_second for each in sent), 1),
        "hostile client's own share of a core": round(median(each.cpu for each in sent), 2),
        "hostile requests": ", ".join(f"{count} {what}" for what, count in sorted(total.items())),
    }


def ratios(phases: Sequence[Phase], outcomes: Sequence[Outcome]) -> list[float]:
    """Of each hostile phase, its median latency to that of the quiet one before it."""
    return [
        loud.median(outcomes) / quiet.median(outcomes) for quiet, loud in zip(phases[::2], phases[1::2], strict=True)
    ]


def spread(values: Sequence[float]) -> str:
    """Median, range and n."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f}, n = {len(values)})"


def _middle(phases: Sequence[Phase], outcomes: Sequence[Outcome]) -> float:
    return median(phase.median(outcomes) for phase in phases)


def _phase(flood: Flood | None, pool: ProcessPoolExecutor, pace: Pace) -> Phase:
    """A quiet phase, or one with a flood; what is still under way then belongs to nobody's latency."""
    begun = perf_counter()
    if flood is None:
        time.sleep(pace.phase_s)
        return Phase(begun, perf_counter())
    sending = pool.submit(send, flood, pace.phase_s)
    time.sleep(pace.phase_s)
    ended = perf_counter()
    return Phase(begun, ended, sending.result())


@contextlib.contextmanager
def _others(scene: Scene, gateway: Gateway, models: tuple[str, ...]) -> Iterator[list[Crowd]]:
    """OTHERS clients of each model, each a principal of its own, who keep asking."""
    doors = {model: [gateway.another(f"{model}.{number}") for number in range(OTHERS)] for model in models}
    asked = {model: known(doors[model][0], model, scene.benign) for model in models}
    crowds = [Crowd(door, [asked[model]], 1, scene.patience_s) for model in models for door in doors[model]]
    with contextlib.ExitStack() as running:
        yield [running.enter_context(crowd) for crowd in crowds]


@contextlib.contextmanager
def _in_a_process() -> Iterator[ProcessPoolExecutor]:
    """One process, which has imported what it needs."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(warm).result()
        yield pool
