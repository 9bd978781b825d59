"""A gateway before real servers: archives that echo what reached them, policies over synthetic graphs, and clients."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import shutil
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import requests

from defenses.policy import Policy
from export.archive import Serving, model_config, pack
from tests.deploy import tiny
from tests.e2e.conftest import CHECKOUT, run
from tests.handlers.archives import weights, write_archive, write_guard
from tests.handlers.test_proof_of_work import BENIGN, rows

QUEUE = 8
RAW = "application/octet-stream"

# Answers with the headers that reached it; a JSON body says how long to take and what to answer.
FRANK = """
import json, os, struct, time


class Frank:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        return [self.answer(index, bytes(row.get("body") or b""), context) for index, row in enumerate(data)]

    def answer(self, index, body, context):
        context.set_response_content_type(index, "application/json")
        asked = json.loads(body) if body.startswith(b"{") else {}
        time.sleep(asked.get("seconds", 0))
        if "raise" in asked:
            raise MemoryError if asked["raise"] == "memory" else ValueError
        if asked.get("exit"):
            os._exit(3)
        if "answer" in asked:
            context.set_response_header(index, "Torchwarden-Answer", asked["answer"])
        if "redirect" in asked:
            headers = {**asked["headers"], "X-Accel-Redirect": f"@refusal_{asked['redirect']}"}
            for name, value in {**headers, "Torchwarden-Refusal": asked["said"]}.items():
                context.set_response_header(index, name, value)
            return ""
        if "status" in asked:
            context.set_response_status(asked["status"], "stated", index)
            return json.dumps({"error": {"code": asked.get("answer"), "message": "stated", "row": 0}})
        bright = 0.0 if body.startswith(b"{") else struct.unpack("<f", body[:4])[0]
        prediction = {"label": int(bright > 0.5), "probabilities": [1 - bright, bright]}
        headers = context.get_all_request_header(index)
        return json.dumps({"predictions": [prediction], "headers": headers, "bytes": len(body)})
"""


def build_frank(store: Path) -> None:
    """store/frank.mar: one worker, QUEUE places to wait."""
    tiny.build(store, "frank", config={"jobQueueSize": QUEUE}, handler=FRANK)


def build_policy(store: Path, folder: Path, section: dict[str, Any]) -> None:
    """store/digits-POLICY.mar of a policy's section, staged in `folder`."""
    name = f"digits-{section['policy']}"
    staged = folder / name
    write_archive(staged, section)
    for room in ("handlers", "defenses", "pictures"):
        shutil.copytree(CHECKOUT / room, staged / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(CHECKOUT / "handlers/handler.py", staged / "handler.py")
    image = rows(BENIGN)
    logits = (image.reshape(1, -1) - 0.5) @ weights("victim", image.size, 3)
    answer = np.exp(logits) / np.exp(logits).sum()
    golden = {"image": base64.b64encode(image.tobytes()).decode(), "accepted": answer.tolist()}
    (staged / "golden.json").write_text(json.dumps(golden))
    if "precision" in section:
        write_guard(staged, Policy.parse(section))
    (staged / "model-config.yaml").write_text(model_config(section, Serving(workers=1, batch_size=4)))
    store.mkdir(parents=True, exist_ok=True)
    pack(staged, name, store / f"{name}.mar")


@dataclass(frozen=True)
class Gateway:
    """A running gateway. facts: its gateway.json. name: of the instance that it is started as."""

    runs: Path
    secrets: Path
    name: str

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.folder / "gateway.json").read_text())
        return facts

    @property
    def folder(self) -> Path:
        return self.runs / f"{self.name}.gateway"

    @property
    def url(self) -> str:
        return str(self.facts["url"])

    def command(self, *words: str, instance: str | None = None) -> str:
        """`python -m deploy.gateway ...` for this gateway; what it prints."""
        place = ("--instance", instance or self.name, "--run-folder", self.runs)
        done = run("deploy.gateway", *words, *place)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def add(self, name: str) -> tuple[str, str]:
        """A new login and its key."""
        login, key = self.command("add", name, "--secrets", str(self.secrets)).strip().split(":")
        return login, key

    def session(self, auth: tuple[str, str] | None) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        session.verify = str(self.facts["certificate"])
        session.auth = auth
        session.headers["Content-Type"] = RAW
        return session

    def ask(self, auth: tuple[str, str] | None, model: str, body: bytes, **headers: str) -> requests.Response:
        """One request on a connection of its own."""
        with self.session(auth) as session:
            return session.post(f"{self.url}/predictions/{model}", data=body, headers=headers, timeout=30)

    def raw(self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes = b"") -> tuple[int, Any]:
        """A request whose headers go out as they stand, repeated ones too: status and JSON of the answer."""
        with contextlib.closing(self.connection()) as connection:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def connection(self) -> http.client.HTTPSConnection:
        trust = ssl.create_default_context(cafile=self.facts["certificate"])
        return http.client.HTTPSConnection(self.host, self.port, timeout=30, context=trust)

    @property
    def host(self) -> str:
        return str(urlsplit(self.url).hostname)

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def lines(self) -> list[dict[str, Any]]:
        """access.log, parsed."""
        return [json.loads(line) for line in (self.folder / "logs" / "access.log").read_text().splitlines()]


@contextlib.contextmanager
def serving(runs: Path, name: str, store: Path, *more: str | Path) -> Iterator[dict[str, Any]]:
    """A running instance's server.json; stopped at the end."""
    instance = ("--instance", name, "--run-folder", runs)
    started = run("deploy.server", "start", *instance, "--store", store, "--free-ports", *more)
    try:
        assert started.returncode == 0, started.stderr
        yield json.loads((runs / name / "server.json").read_text())
    finally:
        stopped = run("deploy.server", "stop", *instance)
        _remove(runs, name)
        assert stopped.returncode == 0, stopped.stderr


@contextlib.contextmanager
def fronting(runs: Path, secrets: Path, name: str, *upstreams: str, grpc: bool = False) -> Iterator[Gateway]:
    """A gateway of its own before instances that run; stopped at the end."""
    place = ("--instance", name, "--run-folder", runs)
    more = ["--grpc"] if grpc else []
    named = ("--upstreams", *upstreams)
    started = run("deploy.gateway", "start", *place, "--secrets", secrets, "--free-ports", *more, *named)
    try:
        assert started.returncode == 0, started.stderr
        yield Gateway(runs, secrets, name)
    finally:
        stopped = run("deploy.gateway", "stop", *place, "--quiet", "0")
        _remove(runs, name)
        assert stopped.returncode == 0, stopped.stderr


def _remove(runs: Path, name: str) -> None:
    """The gateway's folder, which is outside of pytest's where root's workers could not enter that one."""
    shutil.rmtree((runs / f"{name}.gateway").resolve(), ignore_errors=True)


def authorization(auth: tuple[str, str]) -> tuple[str, str]:
    """The header of HTTP Basic."""
    return "Authorization", "Basic " + base64.b64encode(":".join(auth).encode()).decode()
