"""A redis-server of our own on a free loopback port: killed, frozen as a network that swallows packets would, and
brought back. It writes nothing to disk unless a client asks for a dump (SAVE), so it comes back empty or with that."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import redis

from loadtests.own_server import ServerError

ANSWER_S = 10.0


class RedisServer:
    """Nothing is running until `start`. folder: of its dump. password: "" for none. client: one with the password."""

    def __init__(self, folder: Path, *, password: str = "") -> None:
        self._folder = folder
        self._password = password
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        login = f":{password}@" if password else ""
        self.url = f"redis://{login}127.0.0.1:{self.port}/0"
        self.client = redis.Redis.from_url(self.url)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns when it answers. Raises ServerError."""
        program = shutil.which("redis-server")
        if program is None:
            raise ServerError("redis-server is not installed: `apt-get install redis-server`")
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", self._password]
        words += ["--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        self._process = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            try:
                self.client.ping()
            except redis.ConnectionError:
                time.sleep(0.02)
            else:
                return
        raise ServerError(f"redis-server did not answer within {ANSWER_S:g} s")

    def kill(self) -> None:
        """End it at once, as a crash would: it writes nothing more."""
        self._running.kill()
        self._running.wait()

    def freeze(self) -> None:
        """It accepts connections, as its kernel does for it, and answers nothing."""
        self._running.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it was."""
        self._running.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it if it runs, even frozen, and close the client."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self.client.close()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was started"
        return self._process
