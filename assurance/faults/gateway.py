"""The gateway before an instance, with one client's key: `python -m deploy.gateway` on free ports."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from assurance.faults.clients import Door, FaultError
from evaluation.oracles import CHECKOUT
from loadtests.own_server import Instance

CLIENT = "faults"


@dataclass(frozen=True)
class Gateway:
    """A gateway that runs. door: for a client with its key. secrets: folder of the keys."""

    served: Instance
    door: Door
    secrets: str

    def another(self, name: str) -> Door:
        """The door for one client more, whose principal has that name. Raises FaultError."""
        return replace(self.door, authorization=_key(self.served, name, self.secrets))

    def stop(self) -> None:
        """Stop it as an operator does: it lets answers under way finish. One that does not run is left as it is."""
        _command(self.served, "stop")


@contextlib.contextmanager
def fronting(served: Instance) -> Iterator[Gateway]:
    """A gateway before a running instance, stopped at the end whatever happens. Raises FaultError."""
    folder = served.run_folder / f"{served.name}.gateway"
    with tempfile.TemporaryDirectory(prefix="torchwarden-") as secrets:
        try:
            _command(served, "start", "--free-ports", "--secrets", secrets)
            facts = json.loads((folder / "gateway.json").read_text("utf-8"))
            door = Door(facts["url"], _key(served, CLIENT, secrets), Path(facts["certificate"]))
            yield Gateway(served, door, secrets)
        finally:
            _command(served, "stop")
            # where root's nginx cannot enter the run folder, this is a link to one that it can
            shutil.rmtree(folder.resolve(), ignore_errors=True)
            if folder.is_symlink():
                folder.unlink()


def _key(served: Instance, name: str, secrets: str) -> dict[str, str]:
    """The header of a new client's key. Raises FaultError."""
    login_and_key = _command(served, "add", name, "--secrets", secrets).strip()
    return {"Authorization": f"Basic {base64.b64encode(login_and_key.encode()).decode()}"}


def _command(served: Instance, action: str, *words: str) -> str:
    """`python -m deploy.gateway ...`: what it prints. Raises FaultError."""
    place = ("--instance", served.name, "--run-folder", str(served.run_folder))
    command = [sys.executable, "-m", "deploy.gateway", action, *place, *words]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FaultError(f"`python -m deploy.gateway {action}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout
