"""The campaign's end: a wire (attest.target.wires) whose requests Locust's workers send.

Limits, ledger and digests stay in the campaign's process: a request is handed on when its slot has come, to the sender
with the fewest under way. At most as many are under way as threads ask. What a sender had when it went is lost, and the
others go on; without a master or without any sender nothing can be sent (WireError). A request whose message got lost
is given up after twice the target's timeout, for connecting and for the answer, and GRACE_S.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken

from attest.ledger import LOST
from attest.senders import messages
from attest.senders.messages import joined, parted, seal, unseal
from attest.target import table
from attest.target.encoding import Encoded
from attest.target.table import Target
from attest.target.wires import Reply, WireError
from loadtests import locust_run

ANY_PORT = "127.0.0.1:0"
GRACE_S = 10.0
# for this machine's senders to be ready; others are waited for
START_S, END_S = 120.0, 5.0


class Senders:
    """`here` senders on this machine and `elsewhere` on others, which connect to `address`.

    path: of the target's file. log: file for what Locust's processes say. say: shown to the user, such as the command
    for the other machines. carried: requests by sender. Raises TargetError and WireError, with no process left.
    """

    def __init__(
        self,
        target: Target,
        path: Path,
        *,
        here: int,
        elsewhere: int = 0,
        address: str = ANY_PORT,
        log: Path,
        say: Callable[[str], object] = print,
    ) -> None:
        self.carried = Counter[str]()
        self._patience_s = 2 * target.timeout + GRACE_S
        key = messages.key_of_environment() if elsewhere else Fernet.generate_key().decode()
        self._key, self._terms = Fernet(key), messages.terms(target, table.digest(path), key)
        self._log, self._say = log, say
        self._numbers = itertools.count()
        self._waiting: dict[int, tuple[str, Future[Reply]]] = {}
        self._admitted, self._alive = set[str](), set[str]()
        self._port = 0
        self._broken = ""
        self._changed = threading.Condition()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._environment = {**locust_run.environment(), messages.KEY: key}
        self._channel, there = Pipe()
        self._listening = threading.Thread(target=self._listen, name="senders", daemon=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._start("master", address, stdin=there.fileno())
            there.close()
            self._listening.start()
            self._wait(lambda: self._port > 0, START_S)
            host = address.rpartition(":")[0]
            if elsewhere:
                say(
                    f"waiting for {elsewhere} senders; on their machines, with this target file, its variables and "
                    f"{messages.KEY}:\n  .venv/bin/python -m attest.senders.worker {path} {host}:{self._port}"
                )
            master = f"{'127.0.0.1' if host in ('*', '0.0.0.0') else host}:{self._port}"
            for _ in range(here):
                self._start("worker", str(path), master, "--lifeline", stdin=subprocess.PIPE)
            self._wait(lambda: len(self._usable) >= here + elsewhere, None if elsewhere else START_S)
        except BaseException:
            self.close()
            raise

    def send(self, encoded: Encoded, headers: Mapping[str, str] | None = None) -> Reply:
        """The reply to a request that one of the senders sends; of the status LOST where that sender is gone. Raises
        WireError."""
        future = Future[Reply]()
        with self._changed:
            self._check()
            loads = Counter(sender for sender, _ in self._waiting.values())
            sender = min(self._usable, key=lambda each: (loads[each], self.carried[each]))
            number = next(self._numbers)
            self._waiting[number] = sender, future
            self.carried[sender] += 1
            asked = {"number": number, "content_type": encoded.content_type, "headers": dict(headers or {})}
            self._tell(sender, asked, encoded.body)
        try:
            return future.result(self._patience_s)
        except futures.TimeoutError:
            return Reply(LOST, b"no reply of the sender", 1000 * self._patience_s)
        finally:
            with self._changed:
                self._waiting.pop(number, None)

    def close(self) -> None:
        """End all processes; senders on other machines end by themselves."""
        self._break("the senders were closed")
        with suppress(OSError):  # it may have ended
            self._channel.send_bytes(b"")
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes:
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._listening.ident is not None:
            self._listening.join()
        self._channel.close()

    @property
    def _usable(self) -> set[str]:
        return self._admitted & self._alive

    def _start(self, module: str, *words: str, stdin: int) -> None:
        command = [sys.executable, "-m", f"attest.senders.{module}", *words]
        with self._log.open("ab") as log:
            # a session of its own: an interrupt at the terminal is the campaign's to handle
            process = subprocess.Popen(
                command, stdin=stdin, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )
        self._processes.append(process)

    def _wait(self, ready: Callable[[], bool], most_s: float | None) -> None:
        """Until it is so. Raises WireError where a process ends before, or it takes too long."""
        until = None if most_s is None else time.monotonic() + most_s
        with self._changed:
            while not self._changed.wait_for(lambda: self._broken or ready(), 0.2):
                ended = next((process for process in self._processes if process.poll() is not None), None)
                if ended is not None:
                    self._break(f"Locust's master or a sender ended with {ended.returncode}{self._last_words()}")
                elif until is not None and time.monotonic() > until:
                    self._break(f"the senders were not ready after {most_s:.0f} s{self._last_words()}")
            self._check()

    def _check(self) -> None:
        if self._broken:
            raise WireError(f"{self._broken}; the same command continues where it was")

    def _last_words(self) -> str:
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return f"; {self._log}: {lines[-1]}" if lines else ""

    def _tell(self, sender: str, head: Mapping[str, Any], body: bytes = b"") -> None:
        try:
            self._channel.send_bytes(joined({"to": sender}, seal(self._key, {**head, "to": sender}, body)))
        except OSError:
            self._break("the Locust master ended")

    def _listen(self) -> None:
        """Hear the master until it ends."""
        try:
            with suppress(EOFError, OSError):
                while True:
                    self._heard(*parted(self._channel.recv_bytes()))
        finally:
            self._break(f"the Locust master ended{self._last_words()}")

    def _heard(self, head: dict[str, Any], body: bytes) -> None:
        with self._changed:
            self._port = head.get("port", self._port)
            if "alive" in head:
                self._see(set(head["alive"]))
            elif body:
                self._told(body)
            self._changed.notify_all()

    def _see(self, alive: set[str]) -> None:
        had, self._alive = self._usable, alive
        if had and not self._usable:
            self._break(f"no sender is left{self._last_words()}")
        for sender, future in self._waiting.values():
            if sender not in alive and not future.done():
                future.set_result(Reply(LOST, b"the sender is gone", 0.0))

    def _told(self, token: bytes) -> None:
        """What a sender says: its terms once, then replies."""
        try:
            head, body = unseal(self._key, token)
        except InvalidToken:
            return  # a stranger at Locust's port
        sender = head.pop("sender")
        if "terms" in head:
            self._admit(sender, head["terms"])
            return
        expected, future = self._waiting.get(head.pop("number"), ("", None))
        if future is not None and expected == sender and not future.done():
            future.set_result(Reply(body=body, **head))

    def _admit(self, sender: str, terms: dict[str, str]) -> None:
        other = [name for name, value in self._terms.items() if terms.get(name) != value]
        if not other:
            self._admitted.add(sender)
            return
        what = "target file" if "file" in other else "variables of the target's headers"
        why = f"expected the campaign's {what}, this machine has another; copy it from there"
        self._say(f"the sender {sender} is turned away: {why}")
        self._tell(sender, {"refused": why, "number": next(self._numbers)})

    def _break(self, why: str) -> None:
        """Nothing can be sent any more; the first reason counts."""
        with self._changed:
            self._broken = self._broken or why
            for _, future in self._waiting.values():
                if not future.done():
                    future.set_exception(WireError(f"{self._broken}; the same command continues where it was"))
            self._changed.notify_all()
