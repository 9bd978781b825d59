"""A redis-server of our own on a free loopback port: killed, frozen as a network that swallows packets would, and
brought back; made another's replica, promoted, and moved to another port, as an operator moves the service's address.
It writes nothing to disk unless a client asks for a dump (SAVE) or it becomes a replica, so it comes back empty or with
that."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import redis

from loadtests.own_server import ServerError, wait_for

ANSWER_S = 10.0


class RedisServer:
    """Nothing is running until `start`. folder: of its dump, its own. password: "" for none, one for all that replicate
    each other. options: more of the command line, a configuration file first. client: one with the password."""

    def __init__(self, folder: Path, *, password: str = "", options: tuple[str, ...] = ()) -> None:
        self._folder = folder
        self._password = password
        self._options = options
        self._at(free_port())
        self._process: subprocess.Popen[bytes] | None = None

    def _at(self, port: int) -> None:
        self.port = port
        login = f":{self._password}@" if self._password else ""
        self.url = f"redis://{login}127.0.0.1:{port}/0"
        self.client = redis.Redis.from_url(self.url)

    def start(self) -> None:
        """Start it; returns when it answers. Raises ServerError."""
        program = shutil.which("redis-server")
        if program is None:
            raise ServerError("redis-server is not installed: `apt-get install redis-server`")
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", self._password]
        words += ["--save", "", "--appendonly", "no", "--dir", str(self._folder), "--masterauth", self._password]
        words += ["--repl-diskless-sync-delay", "0"]
        self._process = subprocess.Popen([program, *self._options, *words], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            try:
                self.client.ping()
            except redis.ConnectionError:
                time.sleep(0.02)
            else:
                return
        raise ServerError(f"redis-server did not answer within {ANSWER_S:g} s")

    def dump(self) -> None:
        """Write the dump now. A replica's first copy is a save in the background, and Redis refuses another meanwhile.
        Raises ServerError."""
        if wait_for(lambda: not self.client.info("persistence")["rdb_bgsave_in_progress"], seconds=ANSWER_S) is None:
            raise ServerError(f"redis-server was still saving after {ANSWER_S:g} s")
        self.client.save()

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

    def follow(self, primary: RedisServer) -> None:
        """Become a replica; returns when it has all that `primary` had. Raises ServerError."""
        self.client.replicaof("127.0.0.1", primary.port)
        linked = wait_for(lambda: self.client.info("replication").get("master_link_status") == "up", seconds=ANSWER_S)
        if linked is None:
            raise ServerError(f"redis-server was no replica within {ANSWER_S:g} s")

    def promote(self) -> None:
        """A replica no longer: it takes writes."""
        self.client.replicaof("NO", "ONE")

    def move(self, port: int) -> None:
        """Be found at another port, and no longer where it was: connected clients are disconnected."""
        self.client.config_set("port", port)  # since Redis 7
        self.client.client_kill_filter(_type="normal", skipme=True)
        self.client.close()
        self._at(port)

    def close(self) -> None:
        """Kill it if it runs, even frozen, and close the client."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self.client.close()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was started"
        return self._process


@contextlib.contextmanager
def replica_of(primary: RedisServer, folder: Path) -> Iterator[RedisServer]:
    """A replica that has all that a primary without a password has; ended at the end, wherever it is by then. folder:
    its own. Raises ServerError."""
    with contextlib.closing(RedisServer(folder)) as replica:
        replica.start()
        replica.follow(primary)
        yield replica


def free_port() -> int:
    """A port of this machine that nobody has now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
