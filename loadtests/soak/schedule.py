"""When each request of a soak is due, and what it is: a closed-loop ramp first, or an open loop of constant rate.

In the open loop request k is due at start + k / rate, whatever became of those before it. Any free user takes the next
one; where all are busy it is sent late, and its latency still counts from when it was due, so that a service which
stalls cannot hide the requests that would have come meanwhile (coordinated omission). In the ramp a level's users ask
again as soon as they are answered, and the level's throughput is what the service can do for so many.

Every fifth request is an attacker's (for a share of 0.2), and the policies take turns within each role.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BENIGN, THIEF = "benign", "thief"


@dataclass(frozen=True)
class Due:
    """One request: when it is due, in seconds from the start (None: at once), whose it is, its number among that
    role's, and the number of the model it asks."""

    at: float | None
    role: str
    number: int
    model: int


@dataclass(frozen=True)
class Level:
    """So many users ask back to back, from `begins` to `ends` seconds after the start."""

    users: int
    begins: float
    ends: float


class Mix:
    """Deals out requests: `thieving`, a share in [0, 1), of them the attacker's, evenly spread."""

    def __init__(self, thieving: float, models: int) -> None:
        if not 0 <= thieving < 1:
            raise ValueError(f"thieving: expected a share in [0, 1), got {thieving}")
        self._thieving = thieving
        self._models = models
        self._dealt = {BENIGN: 0, THIEF: 0}

    def next(self, at: float | None) -> Due:
        """The next request, due at `at`."""
        total = sum(self._dealt.values()) + 1
        # integer parts, so that the share holds at every moment and not only on average
        role = THIEF if int(total * self._thieving + 1e-9) > self._dealt[THIEF] else BENIGN
        number = self._dealt[role]
        self._dealt[role] += 1
        return Due(at, role, number, number % self._models)


class Open:
    """The open loop: `rate` requests a second for `seconds`."""

    def __init__(self, mix: Mix, *, rate: float, seconds: float) -> None:
        self._mix = mix
        self._rate = rate
        self._count = int(rate * seconds)
        self._next = 0

    def take(self, user: int, now: float) -> Due | None:
        """The next request, whichever user takes it; None when there are no more."""
        del user, now
        if self._next >= self._count:
            return None
        due = self._mix.next(self._next / self._rate)
        self._next += 1
        return due


class Ramp:
    """The closed loop: level after level."""

    def __init__(self, mix: Mix, levels: Sequence[Level]) -> None:
        self._mix = mix
        self._levels = levels

    def take(self, user: int, now: float) -> Due | float | None:
        """A request for a user who is of the level now; else the seconds until one may be, or None after the last."""
        for level in self._levels:
            if now < level.ends:
                if now < level.begins:
                    return level.begins - now
                return self._mix.next(None) if user < level.users else level.ends - now
        return None


def levels(users: Sequence[int], *, warm_s: float, level_s: float) -> tuple[Level, ...]:
    """The most users for `warm_s`, so that Java has compiled what it runs; then each number of users for `level_s`."""
    out = [Level(max(users), 0.0, warm_s)]
    for count in users:
        out.append(Level(count, out[-1].ends, out[-1].ends + level_s))
    return tuple(out)
