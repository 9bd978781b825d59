"""Proof of work against a running server: paid once, for one request, at any worker and whatever Redis does."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests
from altcha import Challenge, Payload, solve_challenge

from bench.redis_server import RedisServer
from export.archive import Serving, model_config, pack
from handlers import wire
from tests.defenses.policies import section
from tests.e2e.conftest import CHECKOUT, run
from tests.e2e.test_contract import check
from tests.e2e.test_served import counted
from tests.handlers.archives import gate, weights, write_archive
from tests.handlers.test_proof_of_work import BENIGN, HIGHEST, LOWEST, rows

pytestmark = pytest.mark.server

RAW = {"Content-Type": wire.RAW}
REPLAYS, CLIENTS = 1000, 50
CLIENT = CHECKOUT / "docs/api/client.py"


@dataclass(frozen=True)
class Server:
    """A running instance of synthetic archives, one for each policy below."""

    facts: dict[str, Any]
    token: str
    redis: RedisServer
    logs: Path

    def ask(self, policy: str, pixels: np.ndarray, solution: str | None = None) -> requests.Response:
        more = {} if solution is None else {wire.SOLUTION: solution}
        headers = {**RAW, "Authorization": f"Bearer {self.token}", **more}
        return session().post(self.url(policy), data=pixels.tobytes(), headers=headers, timeout=60)

    def challenge(self, policy: str, pixels: np.ndarray) -> dict[str, Any]:
        challenge: dict[str, Any] = check(self.ask(policy, pixels), 428)["challenge"]
        return challenge

    def url(self, policy: str) -> str:
        return f"{self.facts['inference']}/predictions/digits-{policy}"

    def metric(self, name: str, **labels: str) -> float:
        return counted(requests.get(f"{self.facts['metrics']}/metrics", timeout=10).text, name, **labels)

    def worked(self, policy: str) -> dict[int, float]:
        """Processor seconds of each of a policy's workers, by their pids."""
        key = json.loads(Path(self.facts["key_file"]).read_text())["management"]["key"]
        url = f"{self.facts['management']}/models/digits-{policy}"
        (model,) = requests.get(url, headers={"Authorization": f"Bearer {key}"}, timeout=10).json()
        return {worker["pid"]: sum(psutil.Process(worker["pid"]).cpu_times()[:2]) for worker in model["workers"]}


_local = threading.local()


def session() -> requests.Session:
    """One for each thread: a connection a request would run out of ports."""
    if not hasattr(_local, "session"):
        _local.session = requests.Session()
    return _local.session


def archive(
    target: Path, folder: Path, action: str, workers: int, work: dict[str, Any], redis: str | None = None
) -> None:
    """The archive `target`, staged in `folder`, of a policy by the same name."""
    key = "TORCHWARDEN_KEY" if action == "proof-of-work" else None
    fields = section(policy=folder.name, gate=gate(action, **work), key_env=key, store=redis)
    write_archive(folder, fields)
    for room in ("handlers", "defenses", "pictures"):
        shutil.copytree(CHECKOUT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(CHECKOUT / "handlers/handler.py", folder / "handler.py")
    image = rows(BENIGN)
    logits = (image.reshape(1, -1) - 0.5) @ weights("victim", image.size, 3)
    answer = np.exp(logits) / np.exp(logits).sum()
    golden = {"image": base64.b64encode(image.tobytes()).decode(), "accepted": answer.tolist()}
    (folder / "golden.json").write_text(json.dumps(golden))
    (folder / "model-config.yaml").write_text(model_config(fields, Serving(workers=workers, queue=2 * REPLAYS)))
    pack(folder, target.stem, target)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with contextlib.closing(RedisServer(tmp_path_factory.mktemp("redis"), password="")) as server:
        server.start()
        yield server


@pytest.fixture(scope="module")
def server(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory, key_file: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("pow")
    store, runs = folder / "store", folder / "run"
    for policy, *how in (
        ("sqlite", "proof-of-work", 2, {"lifetime": 300}),
        ("redis", "proof-of-work", 1, {"lifetime": 300}, redis.url),
        ("brief", "proof-of-work", 1, {"lifetime": 1}),
        ("reject", "reject", 1, {}),
        ("observe", "observe", 1, {}),
    ):
        archive(store / f"digits-{policy}.mar", folder / policy, *how)
    instance = ("--instance", "pow", "--run-folder", runs)
    started = run("deploy.server", "start", *instance, "--store", store, "--free-ports")
    try:
        assert started.returncode == 0, started.stderr
        facts = json.loads((runs / "pow" / "server.json").read_text())
        token = json.loads(Path(facts["key_file"]).read_text())["inference"]["key"]
        yield Server(facts, token, redis, runs / "pow" / "logs")
    finally:
        stopped = run("deploy.server", "stop", *instance)
    assert stopped.returncode == 0, stopped.stderr


def solved(challenge: dict[str, Any]) -> str:
    asked = Challenge.from_dict(challenge)
    found = solve_challenge(asked)
    assert found is not None
    return str(Payload(asked, found).to_base64())


def image(seed: int, distance: float = HIGHEST) -> np.ndarray:
    """A row of that distance from gray that no other test asks about."""
    signs = np.random.default_rng(seed).permutation(rows(1.0).ravel() - 0.5)
    return (0.5 + distance * signs.reshape(1, 1, 4, 5)).astype(np.float32)


def refused(response: requests.Response, code: str) -> None:
    error = check(response, 403)["error"]
    assert (error["code"], error["row"]) == (code, None)


@pytest.mark.parametrize("policy", ["sqlite", "redis", "reject", "observe"])
def test_a_benign_image_passes(server: Server, policy: str) -> None:
    (answer,) = check(server.ask(policy, image(1, BENIGN)), 200)["predictions"]
    assert answer["label"] == int(np.argmax(answer["probabilities"]))


def test_a_suspicious_image_is_refused_or_only_observed(server: Server) -> None:
    error = check(server.ask("reject", image(2)), 403)["error"]
    assert (error["code"], error["row"]) == ("rejected", 0)
    (answer,) = check(server.ask("observe", image(2)), 200)["predictions"]
    assert "label" in answer
    assert server.metric("torchwarden_rows_total", ModelName="digits-reject", decision="reject") == 1
    assert server.metric("torchwarden_rows_total", ModelName="digits-observe", decision="observe") == 1


@pytest.mark.parametrize("policy", ["sqlite", "redis"])
def test_a_suspicious_image_is_answered_once_for_its_work(server: Server, policy: str) -> None:
    pixels = image(3)
    challenge = server.challenge(policy, pixels)
    assert challenge["parameters"]["data"]["hashes"] == 160
    solution = solved(challenge)
    (answer,) = check(server.ask(policy, pixels, solution), 200)["predictions"]
    (observed,) = check(server.ask("observe", pixels), 200)["predictions"]
    assert answer["label"] == observed["label"]
    np.testing.assert_allclose(answer["probabilities"], observed["probabilities"], atol=1e-6)
    refused(server.ask(policy, pixels, solution), "solution_spent")


def test_rows_of_one_request_are_paid_for_together(server: Server) -> None:
    batch = np.concatenate([image(4), image(5, BENIGN), image(6, LOWEST)])
    body = check(server.ask("sqlite", batch), 200)
    assert [each.get("error", {}).get("code") for each in body["predictions"]] == [
        "proof_of_work",
        None,
        "proof_of_work",
    ]
    assert body["challenge"]["parameters"]["data"]["hashes"] == 170
    paid = check(server.ask("sqlite", batch, solved(body["challenge"])), 200)
    assert "challenge" not in paid
    assert all("label" in each for each in paid["predictions"])
    assert paid["predictions"][1] == body["predictions"][1]


def test_a_solution_is_good_for_its_own_request_and_policy_only(server: Server) -> None:
    pixels = image(7)
    solution = solved(server.challenge("sqlite", pixels))
    decoded = json.loads(base64.b64decode(solution))
    decoded["challenge"]["parameters"]["expiresAt"] += 3600
    altered = base64.b64encode(json.dumps(decoded).encode()).decode()
    for policy, sent, brought in (
        ("sqlite", image(8), solution),
        ("sqlite", np.concatenate([pixels, pixels]), solution),
        ("redis", pixels, solution),
        ("sqlite", pixels, altered),
        ("sqlite", pixels, solution[:100]),
        ("sqlite", pixels, "x" * 4000),
    ):
        refused(server.ask(policy, sent, brought), "solution_invalid")
    check(server.ask("sqlite", pixels, solution), 200)


def test_a_solution_expires(server: Server) -> None:
    pixels = image(9)
    solution = solved(server.challenge("brief", pixels))
    time.sleep(1.1)
    refused(server.ask("brief", pixels, solution), "solution_expired")


@pytest.mark.parametrize(("policy", "workers"), [("sqlite", 2), ("redis", 1)])
def test_of_a_thousand_replays_at_once_one_is_answered(server: Server, policy: str, workers: int) -> None:
    pixels = image(10)
    solution = solved(server.challenge(policy, pixels))
    before = server.worked(policy)
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda _: server.ask(policy, pixels, solution), range(REPLAYS)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 403: REPLAYS - 1}
    codes = {answer.json()["error"]["code"] for answer in answers if answer.status_code == 403}
    assert codes == {"solution_spent"}
    after = server.worked(policy)
    assert len(after) == workers
    assert all(after[pid] > seconds for pid, seconds in before.items()), "every worker took part"


def test_without_redis_nobody_is_answered_unpaid_and_its_return_mends_it(server: Server) -> None:
    pixels, other = image(11), image(12)
    spent, saved = (solved(server.challenge("redis", each)) for each in (pixels, other))
    check(server.ask("redis", pixels, spent), 200)
    server.redis.kill()
    for sent, brought in ((pixels, None), (pixels, spent), (other, saved)):
        assert check(server.ask("redis", sent, brought), 503)["error"]["code"] == "store_failed"
    check(server.ask("redis", image(13, BENIGN)), 200)
    mixed = check(server.ask("redis", np.concatenate([other, image(13, BENIGN)])), 200)
    assert mixed["predictions"][0]["error"]["code"] == "store_failed"
    assert "label" in mixed["predictions"][1]
    assert "store: StoreError at " in "".join(path.read_text() for path in server.logs.iterdir())
    server.redis.start()
    assert not server.redis.client.keys(), "it has come back empty"
    for sent, brought in ((pixels, spent), (other, saved)):
        refused(server.ask("redis", sent, brought), "solution_spent")
    again = solved(server.challenge("redis", pixels))
    check(server.ask("redis", pixels, again), 200)
    refused(server.ask("redis", pixels, again), "solution_spent")


def test_the_published_client_pays(server: Server, tmp_path: Path) -> None:
    picture = tmp_path / "image.png"
    picture.write_bytes(wire.encode_rows(image(14), wire.PNG))
    environment = {**os.environ, "TORCHWARDEN_TOKEN": server.token}
    command = [sys.executable, str(CLIENT), server.url("sqlite"), str(picture)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "label" in json.loads(done.stdout)["predictions"][0]
    assert "the service asks for about 160 hashes" in done.stderr
    assert server.token not in done.stdout + done.stderr


def test_a_client_may_solve_with_the_published_one_alone(server: Server, tmp_path: Path) -> None:
    pixels, answer = image(15), tmp_path / "answer.json"
    answer.write_bytes(server.ask("sqlite", pixels).content)
    command = [sys.executable, str(CLIENT), "--solve", str(answer)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    check(server.ask("sqlite", pixels, done.stdout.strip()), 200)


def test_what_happens_is_counted_and_nothing_of_it_logged(server: Server) -> None:
    def seen() -> dict[str, float]:
        model = {"ModelName": "digits-sqlite"}
        events = ("issued", "solved", "replayed", "invalid")
        return {
            **{event: server.metric("torchwarden_work_total", event=event, **model) for event in events},
            **{name: server.metric(f"torchwarden_{name}_total", **model) for name in ("scores", "rows")},
        }

    before = seen()
    pixels = image(16)
    solution = solved(server.challenge("sqlite", pixels))
    for brought in (solution, solution, solution, "AAAA"):
        server.ask("sqlite", pixels, brought)
    server.ask("sqlite", image(16, BENIGN))
    after = {name: value - before[name] for name, value in seen().items()}
    assert after == {"issued": 1, "solved": 1, "replayed": 2, "invalid": 1, "scores": 2, "rows": 3}
    logs = "".join(path.read_text(errors="replace") for path in server.logs.rglob("*") if path.is_file())
    assert "digits-sqlite runs on " in logs
    for secret in (server.token, solution[:100], json.loads(base64.b64decode(solution))["challenge"]["signature"]):
        assert secret not in logs
