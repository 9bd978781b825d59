"""The clock of a live server jumps past the expiry of challenges, either way, and is set right: no solution pays twice.

Ahead, challenges expire early and their clients ask for new ones. Setting the clock back is the dangerous way: a store
forgets a spent solution some time after its expiry. So a clock that was ahead makes it forget solutions that are valid
again once the clock is set right. A store cannot distinguish this from a clock that was right and is wrong now, so in
both cases it accepts none from before. A limit of rows starts over at a jump. It must not lock out a client because of
rows counted in what is now the future.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from assurance.faults.clients import Client
from assurance.faults.clock import Clock
from assurance.faults.payers import ANSWERED, Payer, result_of, suspects
from assurance.faults.scene import BACK_S, Scene, no_wrong_answer, unharmed
from loadtests.own_server import wait_for
from report.rows.bounds import Bound
from report.rows.faults import FaultRow

AHEAD, BEHIND = "forward and back", "back and forward"
WHERE = {AHEAD: "ahead", BEHIND: "behind"}
GAP_S = 2.0
# past a challenge's lifetime, by more than a store remembers a solution after its expiry (handlers/store.py: GRACE_S)
PAST_S = 300.0
EXPIRED = "403 solution_expired"
LIMITED = "429 rate_limited"
# so many rows in so many seconds, at the model that is limited
ROWS, WINDOW_S = 40, 20.0


@dataclass(frozen=True)
class Allowance:
    """A client of a model that answers ROWS rows in WINDOW_S."""

    client: Client
    model: str
    scene: Scene

    def used_up(self) -> int:
        """Rows that are answered until the limit is reached, or many more."""
        return next((number for number in range(2 * ROWS) if self._asked(number) == LIMITED), 2 * ROWS)

    def back_after(self) -> float | None:
        """Seconds until a row is answered, which is one of the next ROWS; None where that takes too long."""
        return wait_for(lambda: self._asked(0) == ANSWERED, seconds=4 * WINDOW_S)

    def _asked(self, number: int) -> str:
        return result_of(self.client.ask(self.model, self.scene.benign[number % len(self.scene.benign)]))


@dataclass(frozen=True)
class Seen:
    """What a client met, while the clock was away and when it was set right.

    struck_at: when the clock was moved. new: the result of a solution whose challenge was given while it was away.
    unspent: of one that was saved from before, away and set right. twice_away, twice: of those that had been spent by
    then: from before, (saved and) given away; set right the saved one last. filled: rows that were answered until the
    limit was reached, before the jump and away. locked_out: seconds until it let rows pass, away and set right. back_s:
    seconds until a new solution paid, set right.
    """

    struck_at: float
    new: str
    unspent: tuple[str, str]
    twice_away: tuple[str, ...]
    twice: tuple[str, ...]
    filled: tuple[int, int]
    locked_out: tuple[float | None, float | None]
    back_s: float


def measure(
    scene: Scene,
    clock: Clock,
    model: str,
    limited: str,
    neighbours: tuple[str, ...],
    case: str,
    *,
    lifetime: float,
    run: int,
) -> FaultRow:
    """Move the clock under load, and back. lifetime: seconds, of the challenges of the model. limited: one that answers
    ROWS rows in WINDOW_S."""
    client = scene.client()
    allowance = Allowance(client, limited, scene)
    payer = Payer(client, model, suspects(client, model, scene.suspect, enough=5))
    jump = (lifetime + PAST_S) * (1 if case == AHEAD else -1)
    with scene.crowd(model, *neighbours) as crowd:
        scene.settle()
        seen = jumped(clock, jump, payer, allowance)
        scene.settle()
    client.close()
    struck = scene.impact(crowd, model, since=seen.struck_at)
    others = scene.impact(crowd, *neighbours, since=seen.struck_at)
    return FaultRow(
        "clock_jumped",
        case,
        run,
        struck,
        others,
        bounds=(
            no_wrong_answer(struck),
            *bounds(seen, case),
            Bound("other requests of the model without the right answer", struck.sent - struck.right, 0),
            Bound("their longest time without an answer, seconds", struck.gap_s, GAP_S),
            *unharmed(others, gap_s=GAP_S),
        ),
        facts={"jump, s": jump, **facts(seen, WHERE[case])},
    )


def jumped(clock: Clock, jump: float, payer: Payer, allowance: Allowance) -> Seen:
    """Move the clock by `jump` seconds, and back."""
    spent, saved = payer.solved(), payer.solved()
    assert result_of(payer.spend(spent)) == ANSWERED, "the clock is right"
    filled = allowance.used_up()
    struck_at = perf_counter()
    clock.jump(jump)
    try:
        unspent = result_of(payer.spend(saved))
        twice_away = [result_of(payer.spend(each)) for each in (spent, saved)]
        new = result_of(payer.spend(late := payer.solved()))
        twice_away.append(result_of(payer.spend(late)))
        locked_out = allowance.back_after()
        filled_away = 1 + allowance.used_up()
    finally:
        clock.jump(0)
    given_at = perf_counter()
    twice = [result_of(payer.spend(each)) for each in (spent, late)]
    unspent_right = result_of(payer.spend(saved))
    twice.append(result_of(payer.spend(saved)))
    wait_for(lambda: payer.pays() == ANSWERED, seconds=60)
    back_s = perf_counter() - given_at
    return Seen(
        struck_at,
        new,
        (unspent, unspent_right),
        tuple(twice_away),
        tuple(twice),
        (filled, filled_away),
        (locked_out, allowance.back_after()),
        back_s,
    )


def bounds(seen: Seen, case: str) -> tuple[Bound, ...]:
    """Of what the client met."""
    where = WHERE[case]
    expired = Bound("solutions not refused as expired, ahead", float(seen.unspent[0] != EXPIRED), 0)
    return (
        *((expired,) if case == AHEAD else ()),
        Bound(f"solutions that paid twice, {where}", seen.twice_away.count(ANSWERED), 0),
        Bound(f"new solutions that did not pay, {where}", float(seen.new != ANSWERED), 0),
        Bound("solutions that paid twice, set right", seen.twice.count(ANSWERED), 0),
        Bound("solutions saved from before that paid twice", max(0, seen.unspent.count(ANSWERED) - 1), 0),
        Bound("seconds until a new solution pays, set right", seen.back_s, BACK_S),
        Bound("rows beyond the limit", max(seen.filled) - ROWS, 0),
        Bound(f"seconds until the limit lets rows pass, {where}", seen.locked_out[0], WINDOW_S / 4),
        Bound("seconds until the limit lets rows pass, set right", seen.locked_out[1], WINDOW_S),
    )


def facts(seen: Seen, where: str) -> dict[str, str | float]:
    """The results that the bounds count."""
    return {
        f"spent solution, {where}": seen.twice_away[0],
        f"unspent solution, {where}": seen.unspent[0],
        "spent solution, set right": seen.twice[0],
        f"solution spent {where}, set right": seen.twice[1],
        "unspent solution, set right": seen.unspent[1],
    }
