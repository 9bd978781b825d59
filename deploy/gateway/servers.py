"""What the gateway stands in front of: TorchServe instances of this machine by name, or HOST:PORT=KEY_FILE.

TorchServe makes its token itself, so each has another one. nginx finds it in the name of a folder: `token/PEER` links
to it, and renaming another link over that one changes the token between two requests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from deploy import archive, direct, settings
from deploy.errors import DeployError, RefusedError
from deploy.gateway.folder import GatewayFolder
from deploy.instance import Instance

REMOTE = re.compile(r"(?P<address>[A-Za-z0-9.-]+:[0-9]{1,5})=(?P<key_file>.+)")
TOKEN = re.compile(r"[A-Za-z0-9_-]+")
ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Upstream:
    """One TorchServe.

    name: in nginx.conf, peer and a number. given: as the operator named it. management: its URL, None for one that is
    not this machine's. queue: requests that may wait for the model with the shortest queue. seconds: the most a worker
    may take for a batch. principal_headers: those that the models' policies read.
    """

    name: str
    given: str
    address: str
    key_file: Path
    management: str | None
    queue: int
    seconds: int
    principal_headers: tuple[str, ...]

    def token(self) -> str:
        """The inference token. Raises `DeployError` where the key file does not hold one."""
        return str(self._keys()["inference"]["key"])

    def renew(self) -> None:
        """Have TorchServe make another inference token; the old one is refused from then on. Raises `DeployError`."""
        key = self._keys()["API"]["key"]
        with direct.session() as session:
            try:
                answer = session.get(
                    f"{self.management}/token?type=inference",
                    headers={"Authorization": f"Bearer {key}"},
                    timeout=ANSWER_SECONDS,
                )
            except requests.RequestException as error:
                raise DeployError(
                    f"instance {self.given} did not renew its token ({type(error).__name__}); is it running?"
                ) from error
        if answer.status_code != 200:
            raise DeployError(f"instance {self.given} did not renew its token: status {answer.status_code}")

    def _keys(self) -> dict[str, dict[str, str]]:
        try:
            keys: dict[str, dict[str, str]] = json.loads(self.key_file.read_text(encoding="utf-8"))
            if not TOKEN.fullmatch(keys["inference"]["key"]):
                raise ValueError("its inference key is none of TorchServe's")
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DeployError(
                f"token file {self.key_file}: expected TorchServe's key_file.json ({type(error).__name__}); "
                "start the server, then `python -m deploy.gateway reload`"
            ) from error
        return keys


def find(root: Path, given: Sequence[str], defaults: dict[str, str]) -> list[Upstream]:
    """The upstreams that are named. defaults: config.properties. Raises `RefusedError` for one that does not run."""
    return [_upstream(root, name, f"peer{number}", defaults) for number, name in enumerate(given, start=1)]


def link(folder: GatewayFolder, upstreams: Iterable[Upstream]) -> None:
    """Let nginx send the tokens that the key files hold now, from its next request on."""
    wanted = {upstream.name: upstream.token() for upstream in upstreams}
    for name, token in wanted.items():
        (folder.tokens / token).mkdir(mode=0o711, exist_ok=True)
        temporary = folder.token / f"{name}.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path(os.path.relpath(folder.tokens, folder.token)) / token)
        temporary.replace(folder.token / name)
    for left in folder.tokens.iterdir():
        if left.name not in wanted.values():
            shutil.rmtree(left)


def _upstream(root: Path, given: str, name: str, defaults: dict[str, str]) -> Upstream:
    remote = REMOTE.fullmatch(given)
    if remote is not None:
        queue, headers = int(defaults["job_queue_size"]), (archive.PRINCIPAL,)
        key_file = Path(remote["key_file"]).absolute()
        return Upstream(name, given, remote["address"], key_file, None, queue, archive.RESPONSE_SECONDS, headers)
    instance = Instance(root, given)
    record = instance.record()
    if record is None or record.process() is None:
        raise RefusedError(
            f"instance {given} is not running; start it (`python -m deploy.server start --instance {given}`), "
            "or name another one, or HOST:PORT=KEY_FILE, with --upstreams"
        )
    served = archive.recall(instance.expected)
    queue = int(settings.read(instance.config)["job_queue_size"])
    return Upstream(
        name,
        given,
        record.inference.removeprefix("http://"),
        Path(record.key_file),
        record.management,
        queue=min(queue if each.queue is None else each.queue for each in served),
        seconds=max(each.response_seconds for each in served),
        principal_headers=tuple(sorted({each.principal_header for each in served})),
    )
