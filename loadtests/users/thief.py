"""The attacker as traffic: one client of the run's campaign, which sends what its turn is and hands the answers over.

Nothing is learnt here: Locust's users share one thread, and a training step would stall all of them
(loadtests/users/campaign.py). A client over its limit waits for its Retry-After: it is a principal of its own.
"""

# mypy: disable-error-code="untyped-decorator"
# (it does not follow locust's imports)

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import ClassVar

import gevent
from locust import constant, task
from locust.exception import StopUser

from evaluation.oracles import HttpOracle, OracleError
from evaluation.payment import Challenge, Paid
from handlers import wire
from handlers.errors import RateLimited
from loadtests.tally import Kind
from loadtests.users.campaign import Campaign
from loadtests.users.service import ServiceUser, Verdict


class ThiefUser(ServiceUser):
    """One client; all of a process work for one attack, on the run's first model. Their number is --clients."""

    wait_time = constant(0)
    fixed_count = 1
    numbers: ClassVar = itertools.count()

    def on_start(self) -> None:
        """Join the campaign; the first client begins it."""
        plan, theft = self.plan, self.plan.theft
        assert theft is not None, "a plan for attackers has a theft"
        if self.environment.campaign is None:
            self.environment.campaign = Campaign(plan, theft, self.end_run)
        self.campaign: Campaign = self.environment.campaign
        self.number = next(self.numbers) % theft.clients
        self.kind = Kind("thief", plan.models[0], theft.attack, theft.rows)
        self.oracle = HttpOracle(self._post, rows=theft.rows, solver=self._pay)
        self.hashes = 0  # that the next request took to pay for

    @task
    def step(self) -> None:
        """One request, if there is one to send."""
        part = self.campaign.part(self.number)
        if part is not None:
            try:
                part.answers.set(self.oracle(part.images))
            except OracleError as error:
                part.answers.set_exception(error)
        elif self.campaign.over:
            raise StopUser

    def _pay(self, challenge: Challenge) -> Paid | None:
        paid = self.pay(challenge)
        self.hashes = 0 if paid is None else paid.attempts
        return paid

    def _post(self, body: bytes, content_type: str, more: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        headers = {**self.headers(content_type, f"thief-{self.number}"), **(more or {})}

        def judge(status: int, answer: bytes) -> None:
            if status != 200:
                # a refusal is the defense's right, and decode_error proves that it is one of ours
                wire.decode_error(answer)

        verdict, self.hashes = Verdict(hashes=self.hashes), 0
        sent = self.send(self.kind, body, headers, judge, verdict)
        while sent.status == RateLimited.status:
            gevent.sleep(max(1, sent.wait))
            sent = self.send(self.kind, body, headers, judge, verdict)
        return sent.status, sent.body
