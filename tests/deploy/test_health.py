"""Health is what was last seen of a real TorchServe, and who asks for it is bounded."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from deploy import archive, health, readiness, watch
from deploy.archive import Archive
from deploy.errors import RefusedError
from deploy.instance import Instance, Record
from deploy.readiness import Workers
from deploy.watch import BUSY, NONE, RIGHT, WRONG, Look, Model, Timing
from tests.deploy import tiny
from tests.deploy.test_server import ask, server
from tests.processes import running

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
TIMING = Timing(every=0.2, answer=1.0, silent=3.0, starting=60.0)
SERVED = Archive(Path("/store/a.mar"), "a", 2, 1, None, True, b"", ((0.1, 0.9),))


def look(outcome: str, *, at: float = 100.0, ready: int = 2) -> Look:
    return Look(at, Workers("a", 2, ("READY",) * ready), outcome)


def seen(*looks: Look) -> Model:
    model = Model(SERVED)
    for each in looks:
        model.saw(each)
    return model


@pytest.mark.parametrize(
    ("looks", "ready"),
    [
        ([], False),
        ([look(RIGHT)], True),
        ([look(RIGHT, ready=1)], False),
        ([look(WRONG)], False),
        ([look(NONE)], False),
        ([look(WRONG), look(RIGHT)], True),
        # busy is not broken, and does not mend what was
        ([look(BUSY)], True),
        ([look(RIGHT), look(BUSY)], True),
        ([look(WRONG), look(BUSY)], False),
        ([look(BUSY, ready=1)], False),
        ([look(RIGHT), look(NONE)], False),
    ],
)
def test_ready_is_what_the_last_looks_say(looks: list[Look], ready: bool) -> None:
    assert seen(*looks).ready(100.0, TIMING) is ready


def test_a_stale_look_is_not_ready() -> None:
    model = seen(look(RIGHT))
    assert model.ready(99.9 + TIMING.fresh, TIMING)
    assert not model.ready(100.1 + TIMING.fresh, TIMING)


def test_the_version_is_the_projects() -> None:
    assert f'version = "{health.VERSION}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("listen", ["8083", "127.0.0.1", "127.0.0.1:x", ":8083", "127.0.0.1:70000"])
def test_a_wrong_address_is_refused(listen: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main(["--run-folder", str(tmp_path), "--listen", listen]) == 2
    assert f"expected HOST:PORT, got '{listen}'" in capsys.readouterr().err


def test_times_of_no_length_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main(["--run-folder", str(tmp_path), "--every", "0"]) == 2
    assert "every: expected more than 0 seconds, got 0" in capsys.readouterr().err


@dataclass(frozen=True)
class Face:
    """A health server of an instance that is not there, or of another's."""

    server: health.HealthServer
    watch: watch.Watch

    def get(self, path: str, **more: Any) -> requests.Response:
        return requests.get(f"http://{self.server.address}{path}", timeout=5, **more)

    def connect(self) -> socket.socket:
        host, port = self.server.server_address[:2]
        return socket.create_connection((str(host), int(port)), timeout=10)

    def say(self, words: bytes) -> bytes:
        """All that comes back for raw bytes."""
        with self.connect() as connection:
            connection.sendall(words)
            return b"".join(iter(lambda: connection.recv(4096), b""))


@pytest.fixture
def face(tmp_path: Path) -> Iterator[Face]:
    looking = watch.Watch(Instance(tmp_path, "none"), TIMING)
    with health.HealthServer(looking, ("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield Face(server, looking)
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 503),
        ("/v2/health/live", 503),
        ("/v2/health/ready", 503),
        ("/v2", 200),
        ("/v1/models", 200),
        ("/metrics", 200),
        ("/v1/models/a", 404),
        ("/v2/models/a/ready", 404),
        ("/v2/models/a", 404),
        ("/nowhere", 404),
        ("/v2/health/ready?verbose=1", 503),
    ],
)
def test_without_a_server_nothing_is_alive_or_ready(face: Face, path: str, status: int) -> None:
    response = face.get(path)
    assert response.status_code == status
    assert response.headers["Connection"] == "close"
    head = requests.head(f"http://{face.server.address}{path}", timeout=5)
    assert (head.status_code, head.content) == (status, b"")
    assert head.headers["Content-Length"] == response.headers["Content-Length"]


def test_what_a_stranger_sends_is_neither_returned_nor_logged(face: Face, capfd: pytest.CaptureFixture[str]) -> None:
    for words in (
        b"POST /evil HTTP/1.1\r\nContent-Length: 4\r\n\r\nevil",
        b"EVIL /evil HTTP/1.1\r\n\r\n",
        b"GET /evil HTTP/1.1\r\nevil: \x00\xff\r\n\r\n",
        b"GET /v1/models/evil HTTP/9.9\r\n\r\n",
        b"evil\r\n\r\n",
        b"GET /" + b"evil" * 5000 + b" HTTP/1.1\r\n\r\n",
    ):
        answer = face.say(words)
        assert b"evil" not in answer.lower()
        assert not answer or re.match(rb"HTTP/1\.1 (4|5)\d\d |\{", answer), answer
    assert face.get("/v2").status_code == 200, "and the next one is answered"
    assert capfd.readouterr() == ("", "")


def test_a_slow_head_ends_and_its_place_is_free_again(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "SECONDS", 0.5)
    begun = time.monotonic()
    with face.connect() as slow:
        slow.settimeout(5)
        try:
            while time.monotonic() - begun < 4:
                slow.sendall(b"G")
                time.sleep(0.1)
        except OSError:
            pass
        assert time.monotonic() - begun < 3, "a byte now and then must not keep a connection"
    assert face.get("/v2").status_code == 200


def test_more_connections_than_there_are_places_are_closed(face: Face) -> None:
    held = [face.connect() for _ in range(health.CONNECTIONS)]
    try:
        deadline = time.monotonic() + health.SECONDS / 2
        while face.server._free.acquire(blocking=False):  # until every thread has begun
            face.server._free.release()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with face.connect() as more:
            assert more.recv(1) == b""
    finally:
        for connection in held:
            connection.close()
    until(lambda: face.say(b"GET /v2 HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200"))


def test_a_taken_address_is_refused(face: Face) -> None:
    host, port = face.server.server_address[:2]
    with pytest.raises(RefusedError, match=f"--listen {host}:{port}: Address already in use; choose another"):
        health.HealthServer(face.watch, (str(host), int(port)))


def until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not so():
        assert time.monotonic() < deadline, "it did not become so"
        time.sleep(0.05)


@dataclass(frozen=True)
class Health:
    """The health command next to a real TorchServe of two small models."""

    instance: Instance
    address: str
    process: subprocess.Popen[bytes]

    @property
    def record(self) -> Record:
        found = self.instance.record()
        assert found is not None
        return found

    def status(self, path: str) -> int:
        return requests.get(f"{self.address}{path}", timeout=5).status_code

    def value(self, name: str, **labels: str) -> float | None:
        text = requests.get(f"{self.address}/metrics", timeout=5).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        return None

    def once(self, question: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "deploy.health", *self.where, "--once", question, *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    @property
    def where(self) -> tuple[str, ...]:
        return ("--instance", self.instance.name, "--run-folder", str(self.instance.folder.parent))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Health]:
    folder = tmp_path_factory.mktemp("health")
    tiny.build(folder / "store", "plain")
    # two requests of the queue, and one with the worker
    tiny.build(folder / "store", "narrow", config={"jobQueueSize": 1, "responseTimeout": 60})
    instance = Instance(folder / "run", "health")
    where = ("--instance", "health", "--run-folder", folder / "run")
    started = server("start", *where, "--store", folder / "store", "--free-ports")
    try:
        assert started.returncode == 0, started.stderr
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        command = [sys.executable, "-m", "deploy.health", *map(str, where), "--listen", address]
        for name, seconds in (("every", "0.2"), ("timeout", "1"), ("silent", "3"), ("starting", "60")):
            command += [f"--{name}", seconds]
        with running(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
            found = Health(instance, f"http://{address}", process)
            until(lambda: _answers(found))
            yield found
            process.terminate()
            assert process.wait(10) == 0
    finally:
        server("stop", *where)


def _answers(found: Health) -> bool:
    try:
        return found.status("/v2/health/ready") == 200
    except requests.ConnectionError:
        return False


@pytest.mark.server
def test_a_server_that_answers_right_is_live_and_ready(served: Health) -> None:
    for path in (
        *("/", "/v2/health/live", "/v2/health/ready", "/v1/models/plain"),
        *("/v2/models/plain/ready", "/v2/models/narrow/versions/1.0/ready"),
    ):
        assert served.status(path) == 200, path
    assert served.status("/v2/models/plain/versions/2.0/ready") == 404
    bodies = {path: requests.get(served.address + path, timeout=5).json() for path in ("/", "/v2/health/ready")}
    assert bodies == {"/": {"status": "alive"}, "/v2/health/ready": {"ready": True}}
    assert requests.get(f"{served.address}/v1/models", timeout=5).json() == {"models": ["narrow", "plain"]}
    assert requests.get(f"{served.address}/v1/models/plain", timeout=5).json() == {"name": "plain", "ready": True}
    for question in ("live", "ready"):
        assert served.once(question).stdout == f"{question}: yes\n"


@pytest.mark.server
def test_what_a_model_takes_and_gives(served: Health) -> None:
    for path in ("/v2/models/plain", "/v2/models/plain/versions/1.0"):
        assert requests.get(served.address + path, timeout=5).json() == {
            "name": "plain",
            "versions": ["1.0"],
            "platform": "torchwarden",
            "inputs": [
                {"name": "images", "datatype": "FP32", "shape": [-1, 1, 2, 2]},
                {"name": "image", "datatype": "BYTES", "shape": [-1]},
            ],
            "outputs": [
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
                {"name": "label", "datatype": "INT64", "shape": [-1]},
                {"name": "name", "datatype": "BYTES", "shape": [-1]},
            ],
            "parameters": {"classes": ["dark", "bright"]},
        }
    for path in ("/v2/models/nobody", "/v2/models/plain/versions/2.0", "/v2/models/plain/versions"):
        assert served.status(path) == 404
    assert requests.get(f"{served.address}/v2", timeout=5).json()["extensions"] == ["binary_tensor_data"]


def test_a_model_whose_answers_are_labels_has_no_probabilities() -> None:
    outputs = health.metadata(replace(SERVED, probabilities=False, classes=("a", "b")))["outputs"]
    assert [output["name"] for output in outputs] == ["label", "name"]


@pytest.mark.server
def test_metrics_say_what_was_seen(served: Health) -> None:
    assert served.value("torchwarden_live") == 1
    assert served.value("torchwarden_ready", model="plain") == 1
    assert served.value("torchwarden_workers", model="plain", state="READY") == 1
    assert served.value("torchwarden_workers_expected", model="plain") == 1
    assert served.value("torchwarden_members", model="plain") == 1
    seconds = served.value("torchwarden_probe_seconds", model="plain")
    assert seconds is not None
    assert 0 < seconds < 1
    expiry = served.value("torchwarden_token_expiry_seconds", token="inference")
    assert expiry is not None
    assert 364 < (expiry - time.time()) / 86400 < 366, "token_expiration_min is a year"
    text = requests.get(f"{served.address}/metrics", timeout=5).text
    names = {family.name for family in text_string_to_metric_families(text)}
    assert names == {name.removesuffix("_total") for name in health.METRICS}


@pytest.mark.server
def test_a_look_says_who_asks(served: Health) -> None:
    plain = archive.recall(served.instance.expected)[-1]
    with readiness.Server(served.record) as asked:
        assert asked.ask(plain).json()["principal"] == "readiness"


@pytest.mark.server
def test_health_requests_do_not_reach_the_server(served: Health) -> None:
    def golden() -> float:
        return sum(
            served.value("torchwarden_probes_total", model="plain", outcome=each) or 0 for each in watch.OUTCOMES
        )

    before, begun = golden(), time.monotonic()
    for _ in range(200):
        assert served.status("/v2/health/ready") == 200
    asked, seconds = golden() - before, time.monotonic() - begun
    assert asked <= seconds / 0.2 + 2


@pytest.mark.server
def test_a_wrong_golden_prediction_is_live_but_not_ready(served: Health) -> None:
    kept = served.instance.expected.read_bytes()
    expected = archive.recall(served.instance.expected)
    wrong = [replace(each, accepted=((0.9, 0.1),)) if each.name == "plain" else each for each in expected]
    archive.remember(served.instance.expected, wrong)
    try:
        done = served.once("ready")
        assert (done.returncode, done.stdout) == (1, "ready: no\n")
        assert "plain: expected label 0, got 1" in done.stderr
        assert served.once("live").returncode == 0
    finally:
        served.instance.expected.write_bytes(kept)


@pytest.mark.server
def test_a_full_queue_is_busy_and_stays_ready(served: Health) -> None:
    (narrow,) = [each for each in archive.recall(served.instance.expected) if each.name == "narrow"]
    key = json.loads(served.instance.key_file.read_text())["management"]["key"]
    about = requests.get(
        f"{served.record.management}/models/narrow", headers={"Authorization": f"Bearer {key}"}, timeout=5
    ).json()
    worker = psutil.Process(about[0]["workers"][0]["pid"])

    def one() -> None:
        with contextlib.suppress(requests.RequestException):
            ask(json.loads(served.instance.server.read_text()), "narrow", kind="inference")

    worker.suspend()
    try:
        askers = [threading.Thread(target=one) for _ in range(4)]
        for asker in askers:
            asker.start()
        until(lambda: watch.see(served.record, narrow, seconds=1).outcome == BUSY)
        until(lambda: (served.value("torchwarden_probes_total", model="narrow", outcome=BUSY) or 0) > 1)
        assert served.status("/v2/models/narrow/ready") == 200
    finally:
        worker.resume()
    for asker in askers:
        asker.join()
    until(lambda: watch.see(served.record, narrow, seconds=1).outcome == RIGHT)


@pytest.mark.server
def test_a_server_that_hangs_is_neither_ready_nor_after_a_while_alive(served: Health) -> None:
    java = served.record.process()
    assert java is not None
    java.suspend()
    try:
        until(lambda: served.status("/v2/health/ready") == 503)
        assert served.status("/v2/health/live") == 200, "it may only be slow"
        until(lambda: served.status("/v2/health/live") == 503)
        assert served.value("torchwarden_live") == 0
        assert served.once("live", "--timeout", "0.5", "--starting", "0.1").returncode == 1
    finally:
        java.resume()
    until(lambda: served.status("/v2/health/ready") == 200)
    assert served.status("/") == 200


@pytest.mark.server
def test_a_dead_server_is_not_alive_and_its_models_are_remembered(served: Health) -> None:
    os.kill(served.record.pid, signal.SIGKILL)
    until(lambda: served.status("/v2/health/live") == 503)
    assert served.status("/v2/models/plain/ready") == 503
    assert served.value("torchwarden_ready", model="plain") == 0
    assert served.value("torchwarden_workers", model="plain", state="READY") == 0
    for question in ("live", "ready"):
        assert served.once(question).returncode == 1
