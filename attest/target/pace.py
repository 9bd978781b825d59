"""The hard limits of a campaign: pictures a second, pictures in all, the owner's leave, the hour it has to end.

Every request waits here before it is sent, from whichever thread. Slots are handed out one after another, n pictures
taking n / rate seconds, so no second holds more than `rate` pictures and no pause is made up for. A service that asked
to be left alone (429, Retry-After) is left alone by all threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import date, datetime, timezone

from attest.target.table import Target

# of a 429 that names no time: doubled from one to the next
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0


class Stopped(Exception):  # noqa: N818 - an event, not a fault
    """The campaign may not or cannot go on; nothing was sent. The message says why."""


class Spent(Stopped):
    """The budget is spent: the campaign's own end."""


class Pace:
    """sent: pictures so far. waited_s: while the service asked to be left alone. seconds: until the campaign has to
    end, None: whenever. clock, sleep: seconds."""

    def __init__(
        self,
        target: Target,
        *,
        sent: int = 0,
        seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.sent = sent
        self.waited_s = 0.0
        self._target = target
        # read once: every picture asks
        self._last_day = None if target.loopback else date.fromisoformat(target.authorised_until)
        self._clock, self._sleep = clock, sleep
        self._end = None if seconds is None else clock() + seconds
        self._free = clock()
        self._lock = threading.Lock()

    def take(self, pictures: int) -> None:
        """Wait for a slot, and count. Raises Stopped."""
        with self._lock:
            self.check()
            if self.sent + pictures > self._target.budget:
                raise Spent(f"the budget of {self._target.budget} queries is spent")
            start = max(self._free, self._clock())
            if self._end is not None and start > self._end:
                raise Stopped("the time for the campaign is over")
            self._free = start + pictures / self._target.rate
            self.sent += pictures
        self._sleep(max(0.0, start - self._clock()))

    def check(self) -> None:
        """Raises Stopped where the owner's leave or the time is over."""
        if self._last_day is not None and datetime.now(timezone.utc).date() > self._last_day:
            raise Stopped(f"the owner's leave ended on {self._target.authorised_until}")
        if self._end is not None and self._clock() > self._end:
            raise Stopped("the time for the campaign is over")

    def leave_alone(self, seconds: float) -> None:
        """Let so many seconds pass before anything else is sent. Raises Stopped where that is after the end."""
        with self._lock:
            now = self._clock()
            until = now + seconds
            if self._end is not None and until > self._end:
                raise Stopped(f"the service asks to wait {seconds:.0f} s, longer than the campaign has left")
            if until > self._free:
                self.waited_s += until - max(now, self._free)
                self._free = until
