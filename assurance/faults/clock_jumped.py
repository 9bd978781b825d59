"""The clock jumps past the expiry of challenges, and back: no solution pays twice, and the service goes on.

Forward, challenges expire early and their clients ask for new ones. Backward is the dangerous way: a store forgets a
spent solution some time after its expiry, so a clock that was ahead has made it forget solutions that the clock, set
right again, takes for good. A limit of rows begins anew at a jump; what must not be is a client locked out by rows that
were counted in what is now the future.
"""

from __future__ import annotations

from time import perf_counter

from assurance.faults.clock import Clock
from assurance.faults.payers import ANSWERED, Payer, suspects, told
from assurance.faults.scene import BACK_S, Scene, no_wrong_answer, unharmed
from loadtests.own_server import wait_for
from report.rows.bounds import Bound
from report.rows.faults import FaultRow

GAP_S = 2.0
# past a challenge's lifetime, by more than a store remembers a solution after its expiry (handlers/store.py: GRACE_S)
PAST_S = 300.0
EXPIRED = "403 solution_expired"
LIMITED = "429 rate_limited"
# so many rows in so many seconds, at the model that is limited
ROWS, WINDOW_S = 40, 20.0


def measure(
    scene: Scene, clock: Clock, model: str, limited: str, neighbours: tuple[str, ...], *, lifetime: float, run: int
) -> FaultRow:
    """Move the clock under load. lifetime: seconds, of the challenges of the model. limited: one that answers ROWS rows
    in WINDOW_S."""
    client = scene.client()

    def fill() -> int:
        """Rows that are answered until the limit is reached, or many more."""
        for number in range(2 * ROWS):
            if told(client.ask(limited, scene.benign[number % len(scene.benign)])) == LIMITED:
                return number
        return 2 * ROWS

    def answered_again() -> float | None:
        return wait_for(lambda: told(client.ask(limited, scene.benign[0])) == ANSWERED, seconds=4 * WINDOW_S)

    payer = Payer(client, model, suspects(client, model, scene.suspect, enough=5))
    with scene.crowd(model, *neighbours) as crowd:
        scene.settle()
        spent, saved = payer.solved(), payer.solved()
        assert told(payer.spend(spent)) == ANSWERED, "the clock is right"
        filled = [fill()]
        struck_at = perf_counter()
        clock.jump(lifetime + PAST_S)
        try:
            ahead = {"saved": told(payer.spend(saved)), "new": told(payer.spend(late := payer.solved()))}
            locked_out = [answered_again()]
            filled.append(1 + fill())
        finally:
            clock.jump(0)
        given_at = perf_counter()
        twice = [told(payer.spend(each)) for each in (spent, late)]
        unspent = told(payer.spend(saved))
        twice.append(told(payer.spend(saved)))
        wait_for(lambda: payer.pays() == ANSWERED, seconds=60)
        back_s = perf_counter() - given_at
        locked_out.append(answered_again())
        scene.settle()
    client.close()
    struck = scene.felt(crowd, model, since=struck_at)
    beside = scene.felt(crowd, *neighbours, since=struck_at)
    return FaultRow(
        "clock_jumped",
        "forward and back",
        run,
        struck,
        beside,
        bounds=(
            no_wrong_answer(struck),
            Bound("solutions not refused as expired, ahead", float(ahead["saved"] != EXPIRED), 0),
            Bound("new solutions that did not pay, ahead", float(ahead["new"] != ANSWERED), 0),
            Bound("solutions that paid twice, back", twice.count(ANSWERED), 0),
            Bound("seconds until a new solution pays, back", back_s, BACK_S),
            Bound("rows beyond the limit", max(filled) - ROWS, 0),
            Bound("seconds until the limit lets rows pass, ahead", locked_out[0], WINDOW_S / 4),
            Bound("seconds until the limit lets rows pass, back", locked_out[1], WINDOW_S),
            Bound("other requests of the model without the right answer", struck.sent - struck.right, 0),
            Bound("their longest time without an answer, seconds", struck.gap_s, GAP_S),
            *unharmed(beside, gap_s=GAP_S),
        ),
        facts={
            "jump, s": lifetime + PAST_S,
            "spent solution, back": twice[0],
            "solution spent ahead, back": twice[1],
            "unspent solution, back": unspent,
        },
    )
