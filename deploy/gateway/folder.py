"""The gateway's folder, run/<instance>.gateway/: what nginx reads, what it writes, and what shows that it runs.

    gateway.json        where it listens and what runs; what `stop` and clients read (0600)
    nginx.conf          with answers.conf and entrance.conf, made by deploy/gateway/configuration.py
    keys                a copy of the clients' hashed keys, for nginx's workers alone
    token/, tokens/     TorchServe's tokens (deploy/gateway/servers.py)
    closing, renewing   there while it drains, and while a token is renewed
    wait/socket         where requests wait for a new token
    grpc/front, http    sockets of deploy.grpc_front, and of nginx for it
    logs/, temp/        access.log (JSON lines) and error.log; bodies on their way

It stands next to the instance's folder, not in it, because that one is recreated at each start of TorchServe, and
closed to all but its owner: where the gateway is started by root, nginx's workers are another user. Where that user
cannot come to the place at all, a temporary folder is linked to from there.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from deploy.instance import Instance, process

# Debian's user for web servers; elsewhere the one that owns nothing.
USERS = ("www-data", "nginx", "nobody")
LEFT = "logs"


@dataclass(frozen=True)
class GatewayRecord:
    """gateway.json. `url` is https://HOST:PORT, `status` and `health` http://...; `pid` and `started` name nginx's
    master, `helpers` the processes of deploy.health and deploy.grpc_front. patience: seconds that an answer under way
    may take. `grpc` is https://HOST:PORT, None where the gateway has no gRPC."""

    instance: str
    url: str
    status: str
    health: list[str]
    upstreams: list[str]
    secrets: str
    certificate: str
    certificate_key: str
    patience: int
    pid: int
    started: float
    helpers: list[tuple[int, float]]
    grpc: str | None = None

    def process(self) -> psutil.Process | None:
        """nginx's master, or None where it has ended."""
        return process(self.pid, self.started)


class GatewayFolder:
    """Paths, who owns them, and the record."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = Instance(root, name).name
        self.place = (root / f"{name}.gateway").absolute()
        self.path = self.place.resolve()
        self.conf = self.path / "nginx.conf"
        self.keys = self.path / "keys"
        self.token = self.path / "token"
        self.tokens = self.path / "tokens"
        self.closing = self.path / "closing"
        self.renewing = self.path / "renewing"
        self.wait = self.path / "wait"
        self.grpc = self.path / "grpc"
        self.temp = self.path / "temp"
        self.logs = self.path / LEFT
        self.access_log = self.logs / "access.log"
        self.error_log = self.logs / "error.log"
        self._record = self.path / "gateway.json"

    @classmethod
    def make(cls, root: Path, name: str) -> GatewayFolder:
        """Recreate the folder, except for the logs."""
        folder = cls(root, name)
        folder.place.parent.mkdir(parents=True, exist_ok=True)
        user = workers_user()
        if user is not None and not enterable(folder.path.parent, user):
            if not folder.place.is_symlink():
                folder.place.symlink_to(tempfile.mkdtemp(prefix="torchwarden-gateway-"))
            folder = cls(root, name)
        folder.path.mkdir(exist_ok=True)
        folder.clear()
        private = (folder.token, folder.tokens, folder.wait, folder.grpc)
        for inner in (folder.path, *private, folder.temp, folder.logs):
            inner.mkdir(exist_ok=True)
            # root's: the workers' user comes through and sees no names
            inner.chmod(0o711 if user is not None else 0o700)
        for inner in private:
            inner.chmod(0o710 if user is not None else 0o700)
            folder.give(inner, group_only=True)
        return folder

    def give(self, path: Path, *, group_only: bool = False) -> None:
        """Let nginx's workers have a file, or come into a folder that their group may enter."""
        user = workers_user()
        if user is not None:
            os.chown(path, -1 if group_only else user.pw_uid, user.pw_gid)

    def record(self) -> GatewayRecord | None:
        """The content of gateway.json, or None where there is none."""
        try:
            content = json.loads(self._record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return GatewayRecord(**content)

    def running(self) -> GatewayRecord | None:
        """The record of a gateway that runs, or None."""
        record = self.record()
        return record if record is not None and record.process() is not None else None

    def announce(self, record: GatewayRecord) -> None:
        """Write gateway.json, whole or not at all."""
        put(self._record, json.dumps(asdict(record), indent=2) + "\n", 0o600)

    def clear(self) -> None:
        """Remove what an ended gateway leaves, but the logs."""
        for left in self.path.iterdir():
            if left.is_dir() and not left.is_symlink():
                if left.name != LEFT:
                    shutil.rmtree(left)
            else:
                left.unlink()


def put(path: Path, text: str, mode: int = 0o644) -> Path:
    """Write a file whole or not at all, with this mode from its first byte on."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=mode)
    temporary.write_text(text, encoding="utf-8")
    return temporary.replace(path)


def workers_user() -> pwd.struct_passwd | None:
    """The user of nginx's workers where the gateway is started by root; None where all run as who starts it."""
    if os.geteuid() != 0:
        return None
    for name in USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise KeyError(f"none of the users {', '.join(USERS)} exists")


def enterable(folder: Path, user: pwd.struct_passwd) -> bool:
    """Whether a user may come into a folder, by the modes of all above it."""
    for place in (folder, *folder.parents):
        state = place.stat()
        bit = 0o100 if state.st_uid == user.pw_uid else 0o010 if state.st_gid == user.pw_gid else 0o001
        if not state.st_mode & bit:
            return False
    return True
