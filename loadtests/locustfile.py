"""Locust's entry: the users, and what happens at the start and the end of a run.

    locust -f loadtests/locustfile.py --headless -u 5 -r 5 -t 20s --recipe digits --policies undefended,edm \\
        BenignUser HostileUser

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
from pathlib import Path
from typing import Any

import gevent
import torch
from locust.runners import STATE_RUNNING

from loadtests.results import write_json
from loadtests.users import plan
from loadtests.users.benign import BenignUser
from loadtests.users.hostile import HostileUser
from loadtests.users.thief import ThiefUser

__all__ = ["BenignUser", "HostileUser", "ThiefUser"]

events.init_command_line_parser.add_listener(lambda parser, **_: plan.add_options(parser))


@events.init.add_listener
def prepare(environment: Any, **_: Any) -> None:
    """Read the recipe, find the server, load the images."""
    torch.set_num_threads(1)
    environment.plan = plan.make(environment.parsed_options)
    environment.host = environment.plan.target.inference
    tally = environment.plan.tally

    def count(response_time: float, exception: Any, context: Any, start_time: float, **_: Any) -> None:
        failure = None if exception is None else str(exception)
        tally.add(context["kind"], ms=response_time, at=start_time, failure=failure)
        if tally.hopeless and environment.runner.state == STATE_RUNNING:
            # not in this greenlet, which belongs to one of the users to be stopped
            gevent.spawn(environment.runner.quit)

    environment.events.request.add_listener(count)
    # gevent counts its timers, Locust's run time among them, from its last look at the clock: seconds ago by now
    gevent.get_hub().loop.update_now()


@events.test_start.add_listener
def begin(environment: Any, **_: Any) -> None:
    """Start the clock of the tally."""
    environment.plan.tally.started = time.time()


@events.quitting.add_listener
def judge(environment: Any, **_: Any) -> None:
    """Write the summary, name each broken threshold, set the exit code."""
    tally = environment.plan.tally
    tally.ended = time.time()
    summary = tally.summary()
    if environment.parsed_options.summary:
        write_json(Path(environment.parsed_options.summary), summary)
    for line in summary["broken"]:
        print(f"threshold: {line}", file=sys.stderr)
    environment.process_exit_code = 1 if summary["broken"] else 0
