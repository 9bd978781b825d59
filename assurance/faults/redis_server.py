"""A redis-server of the measurement's own on a free loopback port: killed, frozen as a network that swallows packets
would, and brought back. It writes nothing to disk, so it comes back empty."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time

from assurance.faults.clients import FaultError

ANSWER_S = 10.0


class RedisServer:
    """Nothing is running until `start`."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns when it answers. Raises FaultError."""
        program = shutil.which("redis-server")
        if program is None:
            raise FaultError("redis-server is not installed: `apt-get install redis-server`")
        words = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        self._process = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith(b"+PONG"):
                    return
            time.sleep(0.02)
        raise FaultError(f"redis-server did not answer within {ANSWER_S:g} s")

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._running.kill()
        self._running.wait()

    def freeze(self) -> None:
        """It accepts connections, as its kernel does for it, and answers nothing."""
        self._running.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it was."""
        self._running.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it if it runs, even frozen."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was started"
        return self._process
