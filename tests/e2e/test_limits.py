"""Limits on a real TorchServe: a client over one waits as long as Retry-After says, and others do not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from handlers import wire
from tests.conftest import Smoke
from tests.e2e.conftest import run
from tests.e2e.test_served import counted
from zoo import datasets

pytestmark = pytest.mark.server

WINDOW = 12.0  # as the smoke recipe says, for 64 rows of a principal and 170 of all


class Server:
    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.facts = json.loads((runs / "limits" / "server.json").read_text())
        self.token = json.loads(Path(self.facts["key_file"]).read_text())["inference"]["key"]
        self.images = datasets.load("digits", "test").pixels.numpy()

    def ask(self, rows: int, principal: str | None) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": wire.RAW}
        if principal is not None:
            headers[wire.PRINCIPAL] = principal
        body = wire.encode_rows(self.images[:rows], wire.RAW)
        return requests.post(f"{self.facts['inference']}/predictions/smoke-limited", body, headers=headers, timeout=20)

    def counted(self, limit: str) -> float:
        text = requests.get(f"{self.facts['metrics']}/metrics", timeout=10).text
        return counted(text, "torchwarden_limited_rows_total", ModelName="smoke-limited", limit=limit)


@pytest.fixture(scope="module")
def server(limited: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("limits") / "run"
    instance = ("--instance", "limits", "--run-folder", folder)
    only = ("--models", "smoke-limited")
    started = run("deploy.server", "start", *instance, "--store", limited.store, "--free-ports", *only)
    try:
        assert started.returncode == 0, started.stderr
        yield Server(folder)
    finally:
        stopped = run("deploy.server", "stop", *instance)
    assert stopped.returncode == 0, stopped.stderr


def test_over_http_a_principal_waits_for_retry_after_and_others_do_not(server: Server) -> None:
    assert [server.ask(32, "acme").status_code for _ in range(2)] == [200, 200]
    refused = server.ask(1, "acme")
    assert refused.status_code == 429
    assert refused.headers["Torchwarden-Answer"] == "rate_limited"
    assert wire.decode_error(refused.content).code == "rate_limited"
    seconds = int(refused.headers["Retry-After"])
    assert 1 <= seconds <= WINDOW + 1
    assert server.ask(32, "other").status_code == 200
    assert server.ask(32, None).status_code == 200
    assert server.ask(32, "third").status_code == 200
    assert server.ask(32, "fourth").status_code == 429, "of all together"
    assert (server.counted("principal"), server.counted("total")) == (1, 32)
    lines = [json.loads(line) for line in (server.runs / "limits.audit.limited.jsonl").read_text().splitlines()]
    assert [(line["principal"], line["decision"], line["rows"]) for line in lines] == [
        ("acme", "rate_limited", None),
        ("fourth", "rate_limited", 32),
    ]
    assert lines[0]["request"] == refused.headers["x-request-id"]
    time.sleep(seconds)
    assert server.ask(32, "acme").status_code == 200
    assert server.ask(1, "a b").status_code == 400
