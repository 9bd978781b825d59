"""Locust's master: hands on what the campaign's process and the senders say, unread, and tells which senders are alive.

    python -m attest.senders.master HOST:PORT       started by attest.senders.wire; its standard input is the socket

Locust is used as a library: no locust.conf, no web interface, no users. It keeps the list of workers, their heartbeats
and their connections. The campaign's process closes the socket, however it ends, and so ends the master and, by
Locust's message "quit", the workers.
"""

from __future__ import annotations

# locust first: gevent must patch the standard library before anything else has loaded it
from locust import events  # isort: skip

import sys
from multiprocessing.connection import Connection
from typing import Any

import gevent
from locust.env import Environment
from locust.runners import STATE_MISSING, MasterRunner

from attest.senders.messages import joined, parted

WATCHED_S = 0.2


def main() -> None:
    """Hand on until the campaign's process ends."""
    host, _, port = sys.argv[1].rpartition(":")
    channel = Connection(0)
    runner = Environment(events=events).create_master_runner(host, int(port))

    def told(environment: Environment, msg: Any, **_: Any) -> None:
        if isinstance(msg.data, bytes):  # of a stranger it may be anything
            channel.send_bytes(joined({}, msg.data))

    runner.register_message("told", told)
    channel.send_bytes(joined({"port": runner.server.port}))
    gevent.spawn(watch, runner, channel)
    try:
        # in a thread: a blocking read would stop all of Locust
        while message := gevent.get_hub().threadpool.apply(channel.recv_bytes):
            head, sealed = parted(message)
            runner.send_message("ask", sealed, head["to"])
    except EOFError:
        pass
    runner.quit()


def watch(runner: MasterRunner, channel: Connection) -> None:
    """Tell which senders are alive, as Locust's heartbeats have it, whenever that changes."""
    before: list[str] = []
    while True:
        alive = sorted(node.id for node in runner.clients.all if node.state != STATE_MISSING)
        if alive != before:
            channel.send_bytes(joined({"alive": alive}))
            before = alive
        gevent.sleep(WATCHED_S)


if __name__ == "__main__":
    main()
