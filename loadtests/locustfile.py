"""Locust's entry: the users, and what happens at the start and the end of a run.

    locust -f loadtests/locustfile.py --headless -u 5 -r 5 -t 20s --recipe digits --policies undefended,edm \\
        BenignUser HostileUser

docs/loadtests.md describes campaigns, their options and runs over several machines.
`python -m loadtests.load` and `python -m loadtests.attack` call it so. The exit code is 0 only if every threshold of
the recipe's [loadtest] was met; each one that was not is named. A run that cannot meet its failure ratio any more
stops early.
"""

# mypy: disable-error-code="untyped-decorator"
# (it does not follow locust's imports)

from __future__ import annotations

# locust first: gevent must patch the standard library before anything else has loaded it
from locust import events  # isort: skip

import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import gevent
import torch
from locust.runners import STATE_RUNNING, DistributedRunner, MasterRunner, WorkerRunner

from loadtests.users import plan
from loadtests.users.benign import BenignUser
from loadtests.users.hostile import HostileUser
from loadtests.users.service import OVER, end
from loadtests.users.thief import ThiefUser
from report.atomic import write_json

__all__ = ["BenignUser", "HostileUser", "ThiefUser"]

events.init_command_line_parser.add_listener(lambda parser, **_: plan.add_options(parser))


@events.init.add_listener
def prepare(environment: Any, runner: Any, **_: Any) -> None:
    """Read the recipe, find the server, load the images; a worker does so once it has the options from its master."""
    environment.plan = environment.campaign = None
    environment.news = defaultdict(list)
    if not isinstance(runner, WorkerRunner):
        _ready(environment, _plan(environment), runner)
    # gevent counts its timers, Locust's run time among them, from its last look at the clock: seconds ago by now
    gevent.get_hub().loop.update_now()


@events.test_start.add_listener
def begin(environment: Any, **_: Any) -> None:
    """Start the clock of the tally."""
    if environment.plan is None:
        try:
            # in a thread: a master gives up a worker that loads images for seconds and sends no heartbeat
            made = gevent.get_hub().threadpool.apply(_plan, (environment,))
        except Exception as error:
            end(environment.runner, f"a worker could not begin: {type(error).__name__}: {error}")
            raise
        _ready(environment, made, environment.runner)
    environment.plan.tally.started = time.time()


def _plan(environment: Any) -> plan.Plan:
    torch.set_num_threads(1)
    return plan.make(environment.parsed_options, thieves=ThiefUser in environment.user_classes)


def _ready(environment: Any, made: plan.Plan, runner: Any) -> None:
    """Give the users their plan, and the tally their requests."""
    environment.plan = made
    environment.host = made.target.inference
    if made.theft is not None:
        ThiefUser.fixed_count = made.theft.clients
        if isinstance(runner, DistributedRunner) and made.theft.clients > 1:
            raise ValueError(
                "--clients: expected 1 in a distributed run, where clients of one attack would be on several workers, "
                f"got {made.theft.clients}; run the campaign next to it (python -m loadtests.attack)"
            )
    tally = made.tally

    def count(response_time: float, exception: Any, context: Any, start_time: float, **_: Any) -> None:
        failure = None if exception is None else str(exception)
        tally.add(context["kind"], ms=response_time, at=start_time, failure=failure, **vars(context["verdict"]))
        if tally.hopeless and environment.runner.state == STATE_RUNNING:
            end(environment.runner)

    environment.events.request.add_listener(count)
    if isinstance(runner, MasterRunner):
        _listen(environment, runner)
    elif isinstance(runner, WorkerRunner):
        environment.events.report_to_master.add_listener(lambda client_id, data: data.update(tally=tally.news()))


def _listen(environment: Any, runner: Any) -> None:
    """A master receives what its workers' users counted, and when the run is over."""

    def hear(client_id: str, data: dict[str, Any]) -> None:
        if "tally" in data:  # not from a worker that has not begun
            environment.news[client_id].append(data["tally"])

    def over(msg: Any, **_: Any) -> None:
        if msg.data is not None:
            environment.plan.tally.errors.append(msg.data)
        end(runner)

    environment.events.worker_report.add_listener(hear)
    runner.register_message(OVER, over)


@events.quitting.add_listener
def judge(environment: Any, **_: Any) -> None:
    """Write the summary, name each broken threshold, set the exit code; on a worker leave all that to the master."""
    if environment.campaign is not None:
        environment.campaign.close()
    if isinstance(environment.runner, WorkerRunner):
        environment.process_exit_code = 0
        return
    tally = environment.plan.tally
    tally.ended = time.time()
    if isinstance(environment.runner, MasterRunner):
        for news in environment.news.values():
            tally.hear(news)
    summary = tally.summary()
    if environment.parsed_options.summary:
        write_json(Path(environment.parsed_options.summary), summary)
    for line in summary["broken"]:
        print(f"threshold: {line}", file=sys.stderr)
    environment.process_exit_code = 1 if summary["broken"] else 0
