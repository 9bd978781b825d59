"""Secrets stay where they belong: a running server, all its output and files, searched for each of them.

The server is started as operators do, with the key in a file and Redis behind a password, and made to answer, refuse,
charge, limit and fail first.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import re
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests

from bench.redis_server import RedisServer
from handlers import wire
from handlers.key import read_key
from tests.conftest import RECIPE
from tests.e2e.conftest import Served, run
from tests.e2e.test_proof_of_work import archive, image, session, solved
from tests.handlers.test_proof_of_work import BENIGN

pytestmark = pytest.mark.server

PASSWORD = "correct-horse-battery-staple"
# what each of two HMACs of the key is for (defenses/work.py)
DERIVED = (b"torchwarden/toll/challenge", b"torchwarden/toll/solution")


def forms(secret: bytes) -> set[bytes]:
    """How random bytes may be written: as they are, hexadecimal, base64 and its URL form, padded or not."""
    texts = {secret.hex(), secret.hex().upper(), ", ".join(map(str, secret))}
    encoded = (base64.b64encode(secret), base64.urlsafe_b64encode(secret))
    return {secret, *(text.encode() for text in texts), *(each.rstrip(b"=") for each in encoded)}


@dataclass
class Keeper:
    """A running instance and its secrets, by what they are. outputs: all that clients received so far."""

    runs: Path
    store: Path
    facts: dict[str, Any]
    redis: RedisServer
    key: bytes
    outputs: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.runs / "secrets"

    def tokens(self) -> dict[str, str]:
        """TorchServe's, by what they are for. It writes a renewed file in place, so half of it may be read: that is
        read again."""
        for _ in range(100):
            try:
                keys = json.loads(Path(self.facts["key_file"]).read_text())
                return {kind: keys[kind]["key"] for kind in ("management", "inference", "API")}
            except (ValueError, LookupError):
                time.sleep(0.02)
        raise TimeoutError(f"{self.facts['key_file']} does not become whole")

    @property
    def secrets(self) -> dict[str, set[bytes]]:
        derived = {purpose.decode(): forms(hmac.digest(self.key, purpose, "sha256")) for purpose in DERIVED}
        tokens = {f"token for {kind}": {token.encode()} for kind, token in self.tokens().items()}
        return {"key": forms(self.key), "Redis password": {PASSWORD.encode()}, **derived, **tokens}

    def found(self, where: str, text: bytes, *, but: tuple[str, ...] = ()) -> list[str]:
        """The secrets that stand in `text`, each with where that is."""
        return [
            f"{name} in {where}"
            for name, written in self.secrets.items()
            if name not in but and any(form in text for form in written)
        ]

    def ask(self, policy: str, body: bytes, **headers: str) -> requests.Response:
        sent = {
            "Content-Type": wire.RAW,
            "Authorization": f"Bearer {self.tokens()['inference']}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        url = f"{self.facts['inference']}/predictions/digits-{policy}"
        return self.keep(policy, session().post(url, data=body, headers=sent, timeout=60))

    def manage(self, path: str, *, key: str = "management", method: str = "GET") -> requests.Response:
        url = f"{self.facts['management']}/{path}"
        headers = {"Authorization": f"Bearer {self.tokens()[key]}"}
        return self.keep(path, requests.request(method, url, headers=headers, timeout=60))

    def keep(self, what: str, answer: requests.Response) -> requests.Response:
        self.outputs.append(
            (f"the answer {answer.status_code} of {what}", answer.content + repr(answer.headers).encode())
        )
        return answer

    def family(self) -> list[psutil.Process]:
        java = psutil.Process(self.facts["pid"])
        return [java, *java.children(recursive=True)]


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory, key_file: Path) -> Iterator[Keeper]:
    folder = tmp_path_factory.mktemp("secrets")
    store, runs = folder / "store", folder / "run"
    redis = RedisServer(folder, password=PASSWORD)
    redis.start()
    for policy, action in (("pow", "proof-of-work"), ("reject", "reject")):
        archive(store / f"digits-{policy}.mar", folder / policy, action, 1, {})
    instance = ("--instance", "secrets", "--run-folder", runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHWARDEN_STORE", redis.url)
        started = run("deploy.server", "start", *instance, "--store", store, "--free-ports")
    try:
        assert started.returncode == 0, started.stderr
        facts = json.loads((runs / "secrets" / "server.json").read_text())
        key = read_key("TORCHWARDEN_KEY", {"TORCHWARDEN_KEY_FILE": str(key_file)})
        made = Keeper(runs, store, facts, redis, key)
        made.outputs.append(("the output of a start", (started.stdout + started.stderr).encode()))
        provoke(made)
        yield made
    finally:
        stopped = run("deploy.server", "stop", *instance)
        redis.close()
    assert stopped.returncode == 0, stopped.stderr


def provoke(keeper: Keeper) -> None:
    """Every kind of answer that there is, errors above all."""
    suspicious = image(1)
    statuses = Counter[int]()
    asked = keeper.ask("pow", suspicious.tobytes())
    solution = solved(asked.json()["challenge"])
    tries: list[tuple[str, bytes, dict[str, str]]] = [
        ("pow", image(2, BENIGN).tobytes(), {}),
        ("pow", suspicious.tobytes(), {wire.SOLUTION: solution}),
        ("pow", suspicious.tobytes(), {wire.SOLUTION: solution}),
        ("pow", image(3).tobytes(), {wire.SOLUTION: solution}),
        ("pow", suspicious.tobytes(), {wire.SOLUTION: "AAAA"}),
        ("reject", suspicious.tobytes(), {}),
        ("reject", image(4, BENIGN).tobytes(), {"describe": "True"}),
        ("reject", b"", {}),
        ("reject", b"no image", {"Content-Type": wire.PNG}),
        ("reject", b"{", {"Content-Type": wire.JSON}),
        ("reject", b"x", {"Content-Type": "text/plain"}),
        ("reject", np.full((1, 1, 4, 5), np.nan, np.float32).tobytes(), {}),
        ("reject", bytes(80 * 70_000), {}),
        ("reject", image(4, BENIGN).tobytes(), {"Torchwarden-Principal": "not a name"}),
        ("reject", image(4, BENIGN).tobytes(), {"Authorization": "Bearer AAAAAAAA"}),
        ("nobody", image(4, BENIGN).tobytes(), {}),
    ]
    for policy, body, headers in tries:
        statuses[keeper.ask(policy, body, **headers).status_code] += 1
    for path in ("models", "models/digits-pow?customized=true", "models/digits-reject/all", "models/nobody"):
        statuses[keeper.manage(path).status_code] += 1
    for path in ("models?url=x.mar", "workflows?url=http://127.0.0.1:1/x.war"):
        statuses[keeper.manage(path, method="POST").status_code] += 1
    statuses[keeper.manage("models", key="inference").status_code] += 1
    keeper.redis.kill()
    statuses[keeper.ask("pow", image(5).tobytes()).status_code] += 1
    keeper.redis.start()
    status = run("deploy.server", "status", "--instance", "secrets", "--run-folder", keeper.runs)
    keeper.outputs.append(("the output of a status", (status.stdout + status.stderr).encode()))
    assert {200, 400, 403, 404, 405, 413, 415, 503} <= set(statuses), statuses
    assert asked.status_code == 428


def test_the_search_finds_each_secret_in_each_form(keeper: Keeper) -> None:
    assert len(keeper.secrets) == 7
    for name, written in keeper.secrets.items():
        for form in written:
            assert keeper.found("a text", b"before" + form + b"after") == [f"{name} in a text"]
    assert keeper.found("a text", b"nothing of the kind") == []


def test_no_answer_holds_one(keeper: Keeper) -> None:
    assert len(keeper.outputs) > 20
    assert [found for what, text in keeper.outputs for found in keeper.found(what, text)] == []
    descriptions = [text for what, text in keeper.outputs if "customized" in what]
    assert any(b"customizedMetadata" in text for text in descriptions)


def test_no_metric_holds_one(keeper: Keeper) -> None:
    text = requests.get(f"{keeper.facts['metrics']}/metrics", timeout=10).content
    assert b"torchwarden_errors_total" in text
    assert keeper.found("/metrics", text) == []


def test_no_file_of_the_instance_holds_one_but_that_of_the_tokens(keeper: Keeper) -> None:
    """Logs, settings, what is being served, the state, the audit log next to it and all that was unpacked."""
    places = [keeper.runs, Path(keeper.facts["temp"])]
    files = {path for place in places for path in place.rglob("*") if path.is_file() and not path.is_socket()}
    files.discard(Path(keeper.facts["key_file"]))
    named = {path.name for path in files}
    assert {"server.json", "expected.json", "config.properties", "torchserve.log", "secrets.audit.jsonl"} <= named
    assert "model-config.yaml" in named, "no unpacked archive was searched"
    assert [found for path in sorted(files) for found in keeper.found(path.name, path.read_bytes())] == []


def test_the_log_says_that_the_store_failed_and_the_audit_log_whom_it_charged(keeper: Keeper) -> None:
    """Or the search above had nothing to find."""
    log = "".join(path.read_text(errors="replace") for path in (keeper.folder / "logs").iterdir())
    assert "store: StoreError at " in log
    audit = [keeper.folder.with_name(name) for name in ("secrets.audit.jsonl", "secrets.audit.solutions.jsonl")]
    decisions = {json.loads(line)["decision"] for path in audit for line in path.read_text().splitlines()}
    assert {"proof-of-work", "reject", "solution_spent", "solution_invalid"} <= decisions


def test_files_with_secrets_are_their_owner_s_alone(keeper: Keeper) -> None:
    for path in (
        Path(keeper.facts["key_file"]),
        keeper.folder / "server.json",
        *keeper.folder.parent.glob("secrets.audit.*"),
    ):
        assert path.stat().st_mode & 0o077 == 0, path
    assert keeper.folder.stat().st_mode & 0o077 == 0


def test_no_command_line_holds_one(keeper: Keeper) -> None:
    """Of any process on the machine, the test's own Redis aside, which gets its password that way."""
    seen = 0
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = line.read_bytes()
        except OSError:
            continue
        if b"redis-server" in text:
            continue
        seen += 1
        assert keeper.found(f"{line}: {text[:80]!r}", text) == []
    assert seen >= len(keeper.family())


def test_no_environment_holds_one_but_redis_s(keeper: Keeper) -> None:
    """The key is in a file, so Java and its workers know where, not what. The Redis password is theirs to know: an
    environment is its owner's alone, as a file of mode 0600 is."""
    family = keeper.family()
    assert len(family) >= 3
    for process in family:
        path = Path(f"/proc/{process.pid}/environ")
        text = path.read_bytes()
        assert b"TORCHWARDEN_KEY_FILE=" in text
        assert b"TORCHWARDEN_KEY=" not in text
        assert keeper.found(f"the environment of {process.pid}", text, but=("Redis password",)) == []
        assert path.stat().st_mode & 0o077 == 0


def test_no_archive_holds_one(keeper: Keeper) -> None:
    archives = sorted(keeper.store.glob("*.mar"))
    assert len(archives) == 2
    for path in archives:
        with zipfile.ZipFile(path) as packed:
            members = [(name, packed.read(name)) for name in packed.namelist()]
        assert [found for name, content in members for found in keeper.found(f"{path.name}/{name}", content)] == []


def test_no_temporary_file_of_this_user_s_holds_one(keeper: Keeper) -> None:
    """Java and its workers are configured to use a folder of the instance; nothing may stand in the machine's own."""
    since = psutil.Process(keeper.facts["pid"]).create_time() - 1
    kept = {keeper.runs, keeper.store, keeper.store.parent, Path(keeper.facts["temp"])}
    for path in Path(tempfile.gettempdir()).iterdir():
        if path in kept or not path.is_file() or path.stat().st_uid != os.getuid() or path.stat().st_mtime < since:
            continue
        assert keeper.found(str(path), path.read_bytes()) == []


@pytest.mark.parametrize("what", ["load", "selftest"])
def test_no_report_holds_one(served: Served, tmp_path: Path, what: str) -> None:
    """What the load tests print and write, and the pages made from it."""
    where = ("--instance", "e2e", "--run-folder", served.run_folder, "--policies", "undefended")
    commands: dict[str, tuple[tuple[str | Path, ...], ...]] = {
        "load": (
            ("loadtests.load", RECIPE, *where, "--seconds", "12", "--run", tmp_path),
            ("report.html", tmp_path),
        ),
        "selftest": (("assurance.selftest", RECIPE, *where, "--output", tmp_path / "selftest.json"),),
    }
    text = b""
    for command in commands[what]:
        done = run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        text += (done.stdout + done.stderr).encode()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} & {".json", ".html"}
    text += b"".join(path.read_bytes() for path in files)
    keys = json.loads(Path(served.facts["key_file"]).read_text())
    key = bytes.fromhex(served.smoke.key_file.read_text())
    for form in (*forms(key), *(entry["key"].encode() for entry in keys.values())):
        assert form not in text


def test_the_token_is_renewed_under_load_and_no_request_is_lost(keeper: Keeper) -> None:
    """Direct clients hold a token that stops being good at once. One that reads the key file again when it is refused,
    and asks again, is answered: TorchServe writes the file before it answers, and nothing was evaluated meanwhile."""
    body, url = image(6, BENIGN).tobytes(), f"{keeper.facts['inference']}/predictions/digits-reject"
    old = keeper.tokens()
    stop = threading.Event()
    answers: list[int] = []
    renewals: list[int] = []

    def client() -> None:
        token = keeper.tokens()["inference"]
        while not stop.is_set():
            for attempt in range(20):
                headers = {"Content-Type": wire.RAW, "Authorization": f"Bearer {token}"}
                answer = session().post(url, data=body, headers=headers, timeout=30)
                if answer.status_code != 400:
                    break
                assert answer.json()["type"] == "InvalidKeyException"
                token = keeper.tokens()["inference"]
                renewals.append(attempt)
                time.sleep(0.05 * attempt)
            answers.append(answer.status_code)

    clients = [threading.Thread(target=client) for _ in range(4)]
    for each in clients:
        each.start()
    for _ in range(3):
        time.sleep(0.5)
        assert keeper.manage("token?type=inference", key="API").status_code == 200
    time.sleep(0.5)
    stop.set()
    for each in clients:
        each.join()
    assert len(answers) > 20
    assert set(answers) == {200}
    assert renewals, "no client met a token that was no longer good"
    new = keeper.tokens()
    assert new["inference"] != old["inference"]
    assert new["management"] == old["management"]
    refused = requests.post(
        url, data=body, headers={"Content-Type": wire.RAW, "Authorization": f"Bearer {old['inference']}"}, timeout=30
    )
    assert refused.status_code == 400
    status = run("deploy.server", "status", "--instance", "secrets", "--run-folder", keeper.runs)
    assert status.returncode == 0, status.stdout + status.stderr
    assert re.search(r"digits-reject\s+1/1\s+right", status.stdout)
