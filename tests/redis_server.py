"""A real redis-server on a free loopback port, which can be killed and brought back."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

import redis

PASSWORD = "hunter2hunter2"


class RedisServer:
    """Nothing is running until `start`. folder: where it writes its dump, if told to. password: "" for none."""

    def __init__(self, folder: Path, *, password: str = PASSWORD) -> None:
        self._folder = folder
        self._password = password
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"redis://:{password}@127.0.0.1:{self.port}/0" if password else f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis.from_url(self.url)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, with what its last dump holds; returns when it answers."""
        program = shutil.which("redis-server")
        assert program, "the tests need Debian's redis-server: apt-get install redis-server"
        self._process = subprocess.Popen(
            [
                *(program, "--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", self._password),
                *("--save", "", "--dir", str(self._folder)),
            ],
            stdout=subprocess.DEVNULL,
        )
        for _ in range(200):
            try:
                self.client.ping()
            except redis.ConnectionError:
                time.sleep(0.05)
            else:
                return
        raise TimeoutError("redis-server did not answer")

    def kill(self) -> None:
        """End it at once, as a crash would: it writes nothing more."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kill it if it runs, and close the client."""
        if self._process is not None:
            self.kill()
        self.client.close()
