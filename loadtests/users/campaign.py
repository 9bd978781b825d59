"""A campaign: one attack, whose queries many clients send in turn.

It lives in Locust's process, the attack in its own (loadtests/attack_process.py).

The attack's images come through a socket, many requests' worth at a time, are diluted, split into requests and dealt to
the clients round-robin; the attack receives all answers at once, in the order in which it asked. So what is asked does
not depend on how many clients ask it.

Before the attack begins the run's benign users have a quiet stretch for themselves, with which the report compares.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gevent
import numpy as np
import torch
from gevent import subprocess
from gevent.event import AsyncResult
from gevent.queue import Empty, Queue

from attacks.oracle import Answers, joined
from evaluation.oracles import OracleError
from loadtests import attack_process, locust_run
from loadtests.attack_process import Channel, Gone
from loadtests.tally import Attack
from loadtests.users.dilution import Dilution
from loadtests.users.plan import Plan, Theft
from zoo import datasets

UNFINISHED = "thief: the run ended before the attack did"
PATIENCE_S = 0.5


class AttackProcessError(RuntimeError):
    """The attack process failed or went away."""


@dataclass(frozen=True)
class Part:
    """One request to be sent: images (n, C, H, W), and where its Answers or its error go."""

    images: torch.Tensor
    answers: Any = field(default_factory=AsyncResult)


class Campaign:
    """The attack that `theft` describes, among `plan`'s users. `end` is called when it is over, whatever the outcome.

    over: whether clients may go home.
    """

    def __init__(self, plan: Plan, theft: Theft, end: Callable[[], None]) -> None:
        benign = plan.recipe.section("dataset", datasets.Data).load("train", plan.data) if theft.dilution else None
        self.over = False
        self._plan = plan
        self._theft = theft
        self._end = end
        self._dilution = Dilution(
            theft.dilution,
            benign.pixels if benign else None,
            generator=torch.Generator().manual_seed(theft.seed),
        )
        self._waiting: list[Any] = [Queue() for _ in range(theft.clients)]
        self._next = 0
        self._process: Any = None
        self._channel: Channel | None = None
        self._driver = gevent.spawn(self._drive)

    def part(self, client: int) -> Part | None:
        """The next request of a client; None where there was none for a while."""
        try:
            found: Part = self._waiting[client].get(timeout=PATIENCE_S)
        except Empty:
            return None
        return found

    def close(self) -> None:
        """End the attack's process, if it still runs."""
        self._driver.kill()
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _drive(self) -> None:
        tally = self._plan.tally
        tally.attack = Attack(self._plan.models[0], self._theft.clients, self._theft.dilution)
        tally.errors.append(UNFINISHED)
        try:
            self._attack(self._start(), tally.attack)
        except (OracleError, AttackProcessError) as error:
            tally.errors.append(f"thief: {error}")
        except Gone:
            code = self._process.wait()
            tally.errors.append(f"thief: the attack process ended with {code}; it said why in this run's log")
        else:
            tally.errors.remove(UNFINISHED)
        tally.attack.ended = time.time()
        self.over = True
        self._end()

    def _start(self) -> Channel:
        """Start the attack's process and return this end of the socket to it."""
        plan, theft = self._plan, self._theft
        ours, its = socket.socketpair()
        words = attack_process.command(
            recipe=plan.recipe.spec,
            attack=theft.attack,
            adaptive=theft.adaptive,
            labels=theft.labels,
            seed=theft.seed,
            budgets=theft.budgets,
            rows=max(1, theft.clients * theft.rows * (100 - theft.dilution) // 100),
            outcome=theft.outcome,
            data=plan.data,
            socket_number=its.fileno(),
        )
        # a session of its own: an interrupt at the terminal is Locust's to handle
        self._process = subprocess.Popen(
            words,
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            env=locust_run.environment(),
            start_new_session=True,
        )
        its.close()
        self._channel = Channel(ours)
        return self._channel

    def _attack(self, channel: Channel, attack: Attack) -> None:
        """Wait for a quiet stretch, then send the attack's queries until it is done."""
        tally = self._plan.tally
        self._heard(channel)
        attack.quiet = max(time.time(), tally.started + tally.limits.warm_up_s)
        gevent.sleep(attack.quiet - time.time() + self._theft.quiet_s)
        attack.began = time.time()
        channel.send({"say": "go"})
        while True:
            message, images = self._heard(channel)
            if message["say"] == "done":
                return
            answers = self._ask(torch.from_numpy(images[0]))
            attack.stolen, attack.sent = self._dilution.stolen, self._dilution.sent
            arrays = {name: tensor.numpy() for name, tensor in vars(answers).items() if tensor is not None}
            channel.send({"say": "answers", "what": list(arrays)}, *arrays.values())

    def _heard(self, channel: Channel) -> tuple[dict[str, Any], list[np.ndarray]]:
        message, arrays = channel.receive()
        if message["say"] == "failed":
            raise AttackProcessError(message["why"])
        return message, arrays

    def _ask(self, images: torch.Tensor) -> Answers:
        """Deal the images to the clients and gather their answers. Raises OracleError where a request failed."""
        mixed, places = self._dilution.mix(images)
        parts = [Part(part) for part in mixed.split(self._theft.rows)]
        for part in parts:
            self._waiting[self._next].put(part)
            self._next = (self._next + 1) % len(self._waiting)
        answers = joined([part.answers.get() for part in parts])
        shown = None if answers.probabilities is None else answers.probabilities[places]
        if answers.work is None:
            return Answers(answers.labels[places], shown)
        # what the benign images among them cost is part of the price of the stolen ones
        share = (answers.work.sum() - answers.work[places].sum()) / len(places)
        return Answers(answers.labels[places], shown, answers.work[places] + share)
