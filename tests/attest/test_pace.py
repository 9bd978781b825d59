from __future__ import annotations

import dataclasses

import pytest

from attest.target.pace import Pace, Stopped
from attest.target.table import Target
from tests.attest.service import table


class Clock:
    """Stands still until somebody sleeps."""

    now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def pace(clock: Clock, *, sent: int = 0, seconds: float | None = None, **changes: object) -> Pace:
    target = Target(**table("http://127.0.0.1:1/x", **changes))
    return Pace(target, sent=sent, seconds=seconds, clock=clock, sleep=clock.sleep)


def test_no_more_pictures_a_second_than_the_rate_after_a_pause_too() -> None:
    clock = Clock()
    slow, at = pace(clock, rate=4.0), []
    for count in (1, 2, 1, 1):
        slow.take(count)
        at.append(clock.now - 100)
    assert at == [0, 0.25, 0.75, 1.0]
    clock.now = 200
    slow.take(1)
    slow.take(1)
    assert clock.now == 200.25


def test_the_budget_is_never_passed_whatever_was_sent_before() -> None:
    limited = pace(Clock(), budget=10, sent=7)
    limited.take(3)
    with pytest.raises(Stopped, match="the budget of 10 queries is spent"):
        limited.take(1)
    assert limited.sent == 10


def test_a_service_is_left_alone_as_long_as_it_asks() -> None:
    clock = Clock()
    polite = pace(clock, rate=1000.0)
    polite.leave_alone(30)
    polite.leave_alone(10)  # within the 30
    polite.take(1)
    assert clock.now == 130
    assert polite.waited_s == pytest.approx(30)


def test_the_campaign_ends_in_time() -> None:
    clock = Clock()
    hurried = pace(clock, seconds=60, rate=1000.0)
    with pytest.raises(Stopped, match="asks to wait 61 s, longer than the campaign has left"):
        hurried.leave_alone(61)
    clock.now += 61
    with pytest.raises(Stopped, match="the time for the campaign is over"):
        hurried.take(1)
    assert hurried.sent == 0


def test_nothing_is_sent_once_the_owner_s_leave_has_ended() -> None:
    clock = Clock()
    target = Target(**table("http://127.0.0.1:1/x"))
    ended = dataclasses.replace(target)
    object.__setattr__(ended, "url", "https://shop.example.org/x")
    object.__setattr__(ended, "authorised_until", "2020-01-01")
    with pytest.raises(Stopped, match="the owner's leave ended on 2020-01-01"):
        Pace(ended, clock=clock, sleep=clock.sleep).take(1)
