"""Locust's side of a soak: users who take the next request of one schedule, send it when it is due, and note it.

Called by `python -m loadtests.soak`, which says what is to be done in the options below and reads the notes.
"""

# mypy: disable-error-code="untyped-decorator"
# (it does not follow locust's imports)

from __future__ import annotations

# locust first: gevent must patch the standard library before anything else has loaded it
from locust import constant, events, task  # isort: skip

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import gevent
import torch
from numpy.typing import NDArray

from attacks.knockoff import Knockoff
from evaluation import payment, tables
from handlers import wire
from handlers.errors import Rejected, WorkWanted
from loadtests import answers
from loadtests.soak.records import ANSWERED, FAILED, LOST, REFUSED, Machine, Notebook, Record
from loadtests.soak.schedule import BENIGN, THIEF, Due, Mix, Open, Ramp, levels
from loadtests.tally import Kind
from loadtests.users import plan
from loadtests.users.plan import Plan
from loadtests.users.service import ServiceUser, Verdict, end
from zoo import datasets

NOTED_S = 1.0
# of each kind, encoded before the run: encoding is not to be paid for while the clock runs
BODIES = 400
# as loadtests/users/benign.py has them: mostly pictures
FORMATS = (wire.PNG, wire.PNG, wire.RAW, wire.PNG, wire.PNG, wire.RAW, wire.JSON, wire.PNG, wire.RAW, wire.PNG)
LIMITED = 429

Body = tuple[bytes, str]


@events.init_command_line_parser.add_listener
def add_options(parser: Any, **_: Any) -> None:
    """The options of a load test, and a soak's own."""
    plan.add_options(parser)
    parser.add_argument("--notes", default="", help="file for what becomes of each request")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second of the open loop; 0: the ramp")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the open loop (60)")
    parser.add_argument("--ramp", default="", help="comma-separated users of each level of the ramp")
    parser.add_argument("--warm", type=float, default=30.0, help="seconds before the ramp's first level (30)")
    parser.add_argument("--level", type=float, default=10.0, help="seconds of a level (10)")
    parser.add_argument("--thieving", type=float, default=0.2, help="share of requests that are an attacker's (0.2)")
    parser.add_argument("--most-hashes", type=float, default=5000.0, help="what a user pays for one answer (5000)")


class Run:
    """What the users of a run share."""

    def __init__(self, options: Any) -> None:
        self.plan: Plan = plan.make(options, thieves=False)
        mix = Mix(options.thieving, len(self.plan.models))
        if options.rate:
            self.schedule: Open | Ramp = Open(mix, rate=options.rate, seconds=options.seconds)
        else:
            users = [int(count) for count in options.ramp.split(",")]
            self.schedule = Ramp(mix, levels(users, warm_s=options.warm, level_s=options.level))
        self.most_hashes = float(options.most_hashes)
        self.bodies = {
            BENIGN: _bodies(self.plan.images.pixels.numpy(), FORMATS),
            THIEF: _bodies(_stolen(self.plan), (wire.RAW,)),
        }
        self.notebook = Notebook(Path(options.notes))
        self.started = 0.0
        self.under_way = 0

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def write(self) -> None:
        """A line of notes."""
        self.notebook.write(Machine(self.now, time.process_time(), self.started))

    def keep_writing(self) -> None:
        """A line of notes now and then."""
        while True:
            gevent.sleep(NOTED_S)
            self.write()


def _bodies(images: NDArray[Any], formats: Sequence[str]) -> list[Body]:
    kinds = itertools.cycle(formats)
    return [(wire.encode_rows(image[None], kind), kind) for image, kind in zip(images[:BODIES], kinds, strict=False)]


def _stolen(made: Plan) -> NDArray[Any]:
    """What a Knockoff attacker asks about: the surrogate set of the recipe's attack, in its random order."""
    config: Knockoff = tables.parameters(made.recipe, "knockoff")
    channels, size = made.images.pixels.shape[1:3]
    images = datasets.load(config.surrogate, "train", root=made.data, size=size, channels=channels).pixels
    shuffled = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:BODIES]]
    shown: NDArray[Any] = shuffled.numpy()
    return shown


@events.init.add_listener
def prepare(environment: Any, **_: Any) -> None:
    """Read the recipe, find the server, encode what will be sent."""
    torch.set_num_threads(1)
    environment.soak = Run(environment.parsed_options)
    environment.plan = environment.soak.plan
    environment.host = environment.plan.target.inference
    # gevent counts its timers from its last look at the clock: seconds ago by now
    gevent.get_hub().loop.update_now()


@events.test_start.add_listener
def begin(environment: Any, **_: Any) -> None:
    """Start the schedule's clock."""
    environment.soak.started = time.monotonic()
    gevent.spawn(environment.soak.keep_writing)


@events.quitting.add_listener
def finish(environment: Any, **_: Any) -> None:
    """Write the last line; whether the soak was passed is for its caller to say."""
    environment.soak.write()
    environment.process_exit_code = 0


class SoakUser(ServiceUser):
    """Takes the next request of the schedule, benign or an attacker's, and records the outcome."""

    wait_time = constant(0)
    numbers: ClassVar = itertools.count()

    def on_start(self) -> None:
        """Take a number: the ramp's levels go by it."""
        self.number = next(self.numbers)
        self.run: Run = self.environment.soak

    @task
    def step(self) -> None:
        """One request, if it is this user's turn."""
        run = self.run
        due = run.schedule.take(self.number, run.now)
        if due is None:
            if not run.under_way:
                self.end_run()
            gevent.sleep(1.0)
        elif isinstance(due, float):
            gevent.sleep(due)
        else:
            wait = 0.0 if due.at is None else due.at - run.now
            if wait > 0:
                gevent.sleep(wait)
            run.under_way += 1
            try:
                self._send(due, in_time=wait > 0)
            finally:
                run.under_way -= 1

    def end_run(self) -> None:
        """Stop all users."""
        end(self.environment.runner)

    def _send(self, due: Due, *, in_time: bool) -> None:
        run = self.run
        bodies = run.bodies[due.role]
        body, content_type = bodies[due.number % len(bodies)]
        model = run.plan.models[due.model]
        headers = {**run.plan.target.authorization, "Content-Type": content_type}
        kind = Kind(due.role, model, content_type, 1)
        sent = run.now
        at = sent if due.at is None else due.at
        status, answer, *_ = self.send(kind, body, headers, _any, Verdict())
        answered = run.now
        challenge = wire.decode_challenge(answer)
        what, code, hashes = self._became(status, answer), _code(status, answer), 0
        run.notebook.note(
            Record(
                at=round(at, 4),
                role=due.role,
                model=due.model,
                ms=round(1000 * (answered - at), 2),
                late_ms=round(1000 * (sent - at), 2),
                waited=in_time,
                status=status,
                code=code,
                what=what,
                hashes=hashes,
            )
        )
        if payment.affordable(challenge, run.most_hashes):
            assert challenge is not None
            self._pay(due, challenge, kind, body, headers)

    def _pay(self, due: Due, challenge: payment.Challenge, kind: Kind, body: bytes, headers: dict[str, str]) -> None:
        """Solve the challenge and send the request again: not on the schedule, and recorded separately."""
        run = self.run
        paid = gevent.get_hub().threadpool.apply(payment.solve, (challenge,))
        if paid is None:
            return
        sent = run.now
        status, answer, *_ = self.send(kind, body, {**headers, wire.SOLUTION: paid.solution}, _any, Verdict())
        repeated = Record(
            at=round(sent, 4),
            role=due.role,
            model=due.model,
            ms=round(1000 * (run.now - sent), 2),
            late_ms=0.0,
            waited=False,
            status=status,
            code=_code(status, answer),
            what=self._became(status, answer),
            hashes=paid.attempts,
        )
        run.notebook.note(repeated)

    def _became(self, status: int, answer: bytes) -> str:
        """The outcome of a request: an answer counts only if it is what was promised."""
        if status == 0:
            return LOST
        if status == LIMITED or _code(status, answer) in (Rejected.code, WorkWanted.code):
            return REFUSED
        if status != 200:
            return FAILED
        made = self.run.plan
        try:
            tolerance = made.limits.sum_tolerance
            answers.check_answer(answer, rows=1, classes=len(made.images.classes), sum_tolerance=tolerance)
        except wire.WireError:
            return FAILED
        return ANSWERED


def _code(status: int, answer: bytes) -> str:
    """The code of a refusal of ours; "" for answers, and for what TorchServe itself refuses."""
    if status in (0, 200):
        return ""
    try:
        return wire.decode_error(answer).code
    except wire.WireError:
        return ""


def _any(status: int, answer: bytes) -> None:
    """Every answer is noted, none fails Locust's own count."""
    del status, answer
