"""A real TorchServe with the smoke product, started once a session through the command that users call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import POLICIES, Smoke

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Served:
    """A running instance of the smoke product. facts: its server.json."""

    smoke: Smoke
    run_folder: Path
    facts: dict[str, Any]

    @property
    def token(self) -> str:
        keys: dict[str, dict[str, str]] = json.loads(Path(self.facts["key_file"]).read_text())
        return keys["inference"]["key"]

    def post(self, policy: str, body: bytes, content_type: str, **headers: str) -> requests.Response:
        """One prediction request with the token, unless `headers` bring their own Authorization."""
        return requests.post(
            f"{self.facts['inference']}/predictions/smoke-{policy}",
            data=body,
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": content_type, **headers},
            timeout=20,
        )

    def metrics(self) -> str:
        return requests.get(f"{self.facts['metrics']}/metrics", timeout=10).text

    def logs(self) -> str:
        return "".join(
            path.read_text(errors="replace") for path in (self.run_folder / "e2e" / "logs").rglob("*") if path.is_file()
        )


def run(*arguments: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """`python -m ...` in the checkout, as the Makefile calls it."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=CHECKOUT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="session")
def served(smoke: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("e2e") / "run"
    instance = ("--instance", "e2e", "--run-folder", folder)
    models = [f"smoke-{policy}" for policy in POLICIES]
    started = run("deploy.server", "start", *instance, "--store", smoke.store, "--free-ports", "--models", *models)
    try:
        assert started.returncode == 0, started.stderr
        yield Served(smoke, folder, json.loads((folder / "e2e" / "server.json").read_text()))
    finally:
        stopped = run("deploy.server", "stop", *instance)
    assert stopped.returncode == 0, stopped.stderr
