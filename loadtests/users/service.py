"""What every user has in common: how a request is sent, paid for, judged by its answer, and counted."""

# mypy: disable-error-code="misc"
# (it does not follow locust's imports)

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import gevent
from locust import FastHttpUser
from locust.runners import WorkerRunner

from evaluation import payment
from evaluation.payment import Challenge, Paid
from handlers import oip, wire
from handlers.wire import WireError
from loadtests.tally import Kind
from loadtests.users.plan import Plan

PROTOCOL = "open-inference"
"""What a request of the Open Inference Protocol is called, in place of a content type."""

OVER = "torchwarden_over"
"""A worker's message to its master: the run is over, and why if something went wrong."""

Judge = Callable[[int, bytes], Any]
"""Looks at status and body; raises WireError where the answer is not what the user was promised."""


@dataclass
class Verdict:
    """What a judge found out besides whether the response is as promised; see loadtests.tally.Record."""

    rejected: bool = False
    right: int | None = None
    hashes: int = 0


class Sent(NamedTuple):
    """The outcome of a request: its status, 0 where no answer came at all, its body, the seconds after which the
    service wants to be asked again, and the challenge that it asks to solve."""

    status: int
    body: bytes
    wait: int
    challenge: Challenge | None = None


def end(runner: Any, why: str | None = None) -> None:
    """End the run of which `runner` is a part; `why`, where a worker has to report an error to its master."""
    if isinstance(runner, WorkerRunner):
        runner.send_message(OVER, why)
    else:
        # in a greenlet of its own: stopping waits for users, and a user that waited for itself would wait for ever
        gevent.spawn(runner.quit)


class ServiceUser(FastHttpUser):
    """A client of one model. TorchServe may never answer, hence the explicit limits (seconds)."""

    abstract = True
    connection_timeout = 5.0
    network_timeout = 30.0

    @property
    def plan(self) -> Plan:
        """What this run's users share."""
        plan: Plan = self.environment.plan
        return plan

    def headers(self, content_type: str, principal: str) -> dict[str, str]:
        """Of a request: the token, the content type, and the principal that a gateway would name."""
        return {**self.plan.target.authorization, "Content-Type": content_type, wire.PRINCIPAL: principal}

    def end_run(self) -> None:
        """Stop all users, this one included, on the other workers too."""
        end(self.environment.runner)

    def ask(
        self, kind: Kind, body: bytes, headers: Mapping[str, str], judge: Judge, verdict: Verdict | None = None
    ) -> None:
        """Send one request and count it, as a failure if `judge` raises; where its answer asks for a proof of work, pay
        and send it again, and let `judge` see the answer to that. verdict: what `judge` fills in, if it does."""
        verdict = verdict or Verdict()

        challenge = self.send(kind, body, headers, judge, verdict, unless_asked=True).challenge
        paid = None if challenge is None else self.pay(challenge)
        if paid is not None:
            verdict.hashes = paid.attempts
            self.send(kind, body, {**headers, wire.SOLUTION: paid.solution}, judge, verdict)

    def affordable(self, challenge: Challenge | None) -> bool:
        """Whether there is a challenge that the user would solve."""
        return payment.affordable(challenge, self.plan.limits.most_hashes)

    def pay(self, challenge: Challenge) -> Paid | None:
        """Solve a challenge; other users go on meanwhile, slower. None where it is too expensive, or expired first."""
        if not self.affordable(challenge):
            return None
        paid: Paid | None = gevent.get_hub().threadpool.apply(payment.solve, (challenge,))
        return paid

    def send(
        self,
        kind: Kind,
        body: bytes,
        headers: Mapping[str, str],
        judge: Judge,
        verdict: Verdict,
        *,
        unless_asked: bool = False,
    ) -> Sent:
        """Send one request and count it, as a failure if `judge` raises. unless_asked: an answer with a challenge that
        the user would solve is not judged."""
        protocol = kind.what == PROTOCOL
        path = self.plan.target.inference_path if protocol else self.plan.target.path
        with self.client.post(
            path(kind.model),
            data=body,
            headers=dict(headers),
            name=f"{kind.role} {kind.model} {kind.what} x{kind.rows}",
            context={"kind": kind, "verdict": verdict},
            catch_response=True,
        ) as response:
            status, content = int(response.status_code), bytes(response.content or b"")
            answered = response.headers or {}
            wait = int(answered.get("Retry-After", 0))
            challenge = oip.decode_challenge(answered) if protocol else wire.decode_challenge(content)
            try:
                if not (unless_asked and self.affordable(challenge)):
                    judge(status, content)
            except WireError as error:
                response.failure(str(error))
            else:
                response.success()
        return Sent(status, content, wait, challenge)
