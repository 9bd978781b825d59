"""A real server in an environment without torch: it answers as the ordinary one does, and keeps to the memory goal."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests

from handlers import wire
from tests.conftest import Smoke
from tests.deploy import lean_environment
from tests.e2e.conftest import CHECKOUT, Served

pytestmark = pytest.mark.drill

# The goal for Java and two workers of `undefended`; here it bounds Java and one worker each of three policies.
GOAL_MB = 900
ONNX = ("undefended", "edm", "averaged")
INSTANCE = "lean"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lean_environment.make(tmp_path_factory.mktemp("lean") / "environment")


def deploy(python: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """`python -m deploy.server`, with the environment's Python."""
    return subprocess.run(
        [python, "-m", "deploy.server", *map(str, words)],
        cwd=CHECKOUT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def lean(python: Path, smoke: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("e2e-lean") / "run"
    instance = ("--instance", INSTANCE, "--run-folder", folder)
    models = [f"smoke-{policy}" for policy in ONNX]
    started = deploy(python, "start", *instance, "--store", smoke.store, "--free-ports", "--models", *models)
    try:
        assert started.returncode == 0, started.stderr
        yield Served(smoke, folder, json.loads((folder / INSTANCE / "server.json").read_text()))
    finally:
        stopped = deploy(python, "stop", *instance)
    assert stopped.returncode == 0, stopped.stderr


def workers(served: Served, policy: str) -> list[psutil.Process]:
    token = json.loads(Path(served.facts["key_file"]).read_text())["management"]["key"]
    described = requests.get(
        f"{served.facts['management']}/models/smoke-{policy}", headers={"Authorization": f"Bearer {token}"}, timeout=10
    )
    return [psutil.Process(worker["pid"]) for worker in described.json()[0]["workers"]]


def maps_torch(process: psutil.Process) -> bool:
    return any("libtorch" in mapped.path for mapped in process.memory_maps())


def test_there_is_no_torch_in_the_environment(python: Path) -> None:
    program = "import importlib.util; print(importlib.util.find_spec('torch'), bool(importlib.util.find_spec('ts')))"
    found = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["None", "True"]


@pytest.mark.parametrize("policy", ONNX)
def test_answers_are_those_of_the_ordinary_server(lean: Served, served: Served, policy: str) -> None:
    rows = np.random.default_rng(0).random((16, 1, 28, 28), np.float32)
    bodies = [(wire.encode_rows(rows, kind), kind) for kind in (wire.RAW, wire.JSON)]
    bodies += [(wire.encode_rows(row[np.newaxis], wire.PNG), wire.PNG) for row in rows]
    for body, content_type in bodies:
        ours, theirs = (each.post(policy, body, content_type) for each in (lean, served))
        assert (ours.status_code, ours.content) == (200, theirs.content)
        assert theirs.status_code == 200


def test_only_who_uses_torch_holds_it(lean: Served, served: Served) -> None:
    assert not [policy for policy in ONNX for worker in workers(lean, policy) if maps_torch(worker)]
    held = {policy: [maps_torch(worker) for worker in workers(served, policy)] for policy in (*ONNX, "label")}
    assert held == {"undefended": [False], "edm": [False], "averaged": [False], "label": [True]}


def test_the_whole_server_keeps_to_the_goal(lean: Served) -> None:
    java = psutil.Process(lean.facts["pid"])
    family = [java, *java.children(recursive=True)]
    assert len(family) == 1 + len(ONNX)
    held = sum(process.memory_full_info().pss for process in family) / 1e6
    assert held <= GOAL_MB


def test_a_torchscript_archive_is_refused_with_the_reason(python: Path, smoke: Smoke, tmp_path: Path) -> None:
    instance = ("--instance", "torchscript", "--run-folder", tmp_path / "run")
    started = deploy(python, "start", *instance, "--store", smoke.store, "--free-ports", "--models", "smoke-label")
    assert started.returncode == 1
    assert "backend 'torchscript' is not installed: No module named 'torch'" in started.stderr
    assert deploy(python, "status", *instance).returncode == 1
