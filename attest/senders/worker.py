"""A sender: a Locust worker that sends each request that it is handed, once, and hands back the reply.

    python -m attest.senders.worker NAME HOST:PORT

NAME is a file of targets/, the same as the campaign's; HOST:PORT is its Locust master. The url, the secrets and the
timeout are this machine's own: a master says only which bytes to send. Requests go over the same wire as a campaign's
of one process (attest/target/wires.py): no redirection is followed, nothing is sent again.
"""

from __future__ import annotations

# locust first: gevent must patch the standard library before anything else has loaded it
from locust import events  # isort: skip

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import gevent.os
from cryptography.fernet import Fernet, InvalidToken
from locust.env import Environment
from locust.runners import WorkerRunner

from attest.senders import messages
from attest.senders.messages import seal, unseal
from attest.target import table
from attest.target.encoding import Encoded
from attest.target.table import SENDS, Target, TargetError
from attest.target.wires import Wire, WireError, wire


class Sender:
    """Answers the campaign's messages."""

    def __init__(self, runner: WorkerRunner, sending: Wire, key: Fernet) -> None:
        self._runner, self._wire, self._key = runner, sending, key
        self._last = -1
        self.refused = ""

    def tell(self, head: dict[str, Any], body: bytes = b"") -> None:
        """Tell the campaign's process."""
        self._runner.send_message("told", seal(self._key, {**head, "sender": self._runner.client_id}, body))

    def asked(self, environment: Environment, msg: Any, **_: Any) -> None:
        """Send one request, in a greenlet of its own."""
        try:
            head, body = unseal(self._key, msg.data)
        except (InvalidToken, TypeError):
            return
        if head["to"] != self._runner.client_id or head["number"] <= self._last:
            return  # a message of another day, or the same once more
        self._last = head["number"]
        if "refused" in head:
            self.refused = head["refused"]
            self._runner.quit()
            return
        reply = self._wire.send(Encoded(body, head["content_type"]), head["headers"])
        self.tell({"number": head["number"], **{name: getattr(reply, name) for name in REPLY}}, reply.body)


REPLY = ("status", "ms", "retry_after", "location")


def main() -> None:
    """Send until the campaign ends; a mistake is a message and exit code 1, before anything is sent."""
    options = _options()
    try:
        path = table.path_of(options.name, options.targets)
        target = table.read(path)
        key = messages.key_of_environment()
        terms = messages.terms(target, table.digest(path), key)
        sending = _wire(target)
    except (TargetError, WireError) as error:
        sys.exit(f"attest.senders: {error}")
    host, _, port = options.master.rpartition(":")
    if options.lifeline:
        gevent.spawn(_end_with_parent)
    try:
        runner = Environment(events=events).create_worker_runner(host, int(port))
    except ConnectionError:
        sys.exit(f"attest.senders: no Locust master at {options.master}; start the campaign there (docs/attest.md)")
    sender = Sender(runner, sending, Fernet(key))
    runner.register_message("ask", sender.asked, concurrent=True)
    sender.tell({"terms": terms})
    runner.greenlet.join()
    if sender.refused:
        sys.exit(f"attest.senders: {sender.refused}")


def _wire(target: Target) -> Wire:
    if SENDS[target.send].grpc:
        from grpc.experimental import gevent as grpc_gevent

        grpc_gevent.init_gevent()
    return wire(target)


def _end_with_parent() -> None:
    """Standard input is a pipe whose other end the campaign's process alone has: it is closed when that ends."""
    gevent.os.tp_read(0, 1)
    os._exit(0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m attest.senders.worker", description="send a campaign's requests")
    parser.add_argument("name", help="a target's name, or the path of its .toml file: the campaign's")
    parser.add_argument("master", metavar="HOST:PORT", help="the campaign's Locust master")
    parser.add_argument("--targets", type=Path, default=table.FOLDER, help="folder of the target files (targets)")
    parser.add_argument("--lifeline", action="store_true", help="end when the standard input does")
    return parser.parse_args()


if __name__ == "__main__":
    main()
