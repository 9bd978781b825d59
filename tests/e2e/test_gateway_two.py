"""Two TorchServe instances behind one gateway, one Redis between them: what is spent on one is spent on the other, and
rows are counted over both."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import requests

from bench.redis_server import RedisServer
from tests.defenses.policies import section
from tests.e2e.fronted import Gateway, build_policy, fronting, serving
from tests.e2e.test_proof_of_work import image, solved
from tests.e2e.test_served import counted
from tests.handlers.archives import gate
from tests.handlers.test_proof_of_work import BENIGN

pytestmark = pytest.mark.server

NAMES = ("left", "right")
REPLAYS = 40
ROWS = 24


class Two(NamedTuple):
    """A gateway, its instances' server.json, and a client's login and key."""

    gateway: Gateway
    servers: dict[str, dict[str, Any]]
    acme: tuple[str, str]

    def ask(self, policy: str, body: bytes, **headers: str) -> requests.Response:
        return self.gateway.ask(self.acme, f"digits-{policy}", body, **headers)

    def count(self, name: str, **labels: str) -> dict[str, float]:
        """A metric of each instance."""
        found = {}
        for instance, facts in self.servers.items():
            text = requests.get(f"{facts['metrics']}/metrics", timeout=10).text
            found[instance] = counted(text, name, **labels)
        return found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, key_file: Path) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("two")
    store, runs, secrets = folder / "store", folder / "run", folder / "secrets"
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(contextlib.closing(RedisServer(folder, password="")))
        redis.start()
        work = gate("proof-of-work", lifetime=300)
        build_policy(store, folder, section(policy="paid", gate=work, key_env="TORCHWARDEN_KEY", store=redis.url))
        limits = {"rows": ROWS, "total": None, "window": 300.0}
        build_policy(store, folder, section(policy="limited", limits=limits, store=redis.url))
        servers = {name: stack.enter_context(serving(runs, name, store)) for name in NAMES}
        gateway = stack.enter_context(fronting(runs, secrets, "gate", *NAMES))
        yield Two(gateway, servers, gateway.add("acme"))


def test_each_instance_has_a_token_of_its_own_and_both_are_asked(two: Two) -> None:
    tokens = {json.loads(Path(facts["key_file"]).read_text())["inference"]["key"] for facts in two.servers.values()}
    assert len(tokens) == len(NAMES)
    body = image(1, BENIGN).tobytes()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: two.ask("paid", body), range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    asked = Counter(line["upstream"] for line in two.gateway.lines())
    assert set(asked) == {facts["inference"].removeprefix("http://") for facts in two.servers.values()}


def test_a_solution_that_is_spent_on_one_is_refused_by_both(two: Two) -> None:
    pixels = image(2).tobytes()
    charged = two.ask("paid", pixels)
    assert charged.status_code == 428
    solution = {"Torchwarden-Solution": solved(charged.json()["challenge"])}
    model = {"ModelName": "digits-paid"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: two.ask("paid", pixels, **solution), range(REPLAYS)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 403: REPLAYS - 1}
    codes = {answer.json()["error"]["code"] for answer in answers if answer.status_code == 403}
    assert codes == {"solution_spent"}
    replayed = two.count("torchwarden_work_total", event="replayed", **model)
    assert all(replayed.values()), replayed
    assert sum(replayed.values()) == REPLAYS - 1
    assert sum(two.count("torchwarden_work_total", event="solved", **model).values()) == 1


def test_rows_are_counted_over_both(two: Two) -> None:
    body = image(3, BENIGN).tobytes()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: two.ask("limited", body), range(2 * ROWS)))
    assert Counter(answer.status_code for answer in answers) == {200: ROWS, 429: ROWS}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.json()["error"]["code"] for answer in refused} == {"rate_limited"}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    answered = two.count("torchwarden_rows_total", ModelName="digits-limited", decision="answer")
    limited = two.count("torchwarden_limited_rows_total", ModelName="digits-limited", limit="principal")
    assert all(answered.values()), answered
    assert all(limited.values()), limited
    assert sum(limited.values()) == ROWS
    other = two.gateway.add("globex")
    assert two.gateway.ask(other, "digits-limited", body).status_code == 200


def test_tokens_of_both_are_renewed(two: Two) -> None:
    assert two.gateway.command("rotate") == "renewed the inference token of left, right\n"
    body = image(4, BENIGN).tobytes()
    assert {two.ask("paid", body).status_code for _ in range(10)} == {200}


def test_while_one_is_down_the_other_answers(two: Two) -> None:
    java = psutil.Process(two.servers["left"]["pid"])
    java.kill()
    psutil.wait_procs([java], timeout=10)
    body = image(5, BENIGN).tobytes()
    answers = [two.ask("paid", body) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    statuses = {line["upstream_status"] for line in two.gateway.lines()[-len(answers) :]}
    assert statuses == {"200", "502 : 200"}, "about half were sent to the one that is down first"
