"""Noise as it is served: keyed by the image, it is one answer from any worker at any time; fresh, never the same."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import torch

import recipes
from evaluation.oracles import InProcessOracle
from export.archive import PolicyTable, Serving, archive
from handlers import wire
from tests.conftest import NOISY, RECIPE, Smoke
from tests.e2e.conftest import Served, run
from zoo import datasets

pytestmark = pytest.mark.server

REPEATS, COPIES = 120, 16
# a worker takes two seconds to start on an idle machine; the bound leaves room for a busy one
PATIENCE = 60.0


@dataclass(frozen=True)
class Observed:
    """What servers answered to the same request, body by body.

    keyed: under meco-keyed with two workers, by when it was asked. busy: CPU seconds each worker spent on the first of
    these. fresh: under meco, request by request. copies: to one image COPIES times in a request, by policy. rotating:
    under meco-rotating, with the number of the key's period.
    """

    keyed: dict[str, set[bytes]]
    busy: dict[int, float]
    fresh: list[bytes]
    copies: dict[str, bytes]
    rotating: list[tuple[int, bytes]]


@contextmanager
def serving(smoke: Smoke, store: Path, folder: Path, *policies: str) -> Iterator[Served]:
    """An instance of its own, until the block ends."""
    instance = ("--instance", "e2e", "--run-folder", folder)
    models = [f"smoke-{policy}" for policy in policies]
    started = run("deploy.server", "start", *instance, "--store", store, "--free-ports", "--models", *models)
    try:
        assert started.returncode == 0, started.stderr
        yield Served(smoke, folder, json.loads((folder / "e2e" / "server.json").read_text()))
    finally:
        stopped = run("deploy.server", "stop", *instance)
    assert stopped.returncode == 0, stopped.stderr


def crops() -> torch.Tensor:
    """Four images that a classifier of digits is unsure of."""
    return datasets.load("flower", "train").pixels[:4]


def question() -> bytes:
    return wire.encode_rows(crops().numpy(), wire.RAW)


def answer(served: Served, policy: str, body: bytes) -> bytes:
    response = served.post(policy, body, wire.RAW)
    assert response.status_code == 200, response.text
    return response.content


def asked_at_once(served: Served, policy: str) -> list[bytes]:
    """The same request from eight clients, many times."""
    body = question()
    with ThreadPoolExecutor(8) as clients:
        return list(clients.map(lambda _: answer(served, policy, body), range(REPEATS)))


def workers(served: Served, policy: str) -> dict[int, str]:
    """The state of each worker process, by its pid."""
    token = json.loads(Path(served.facts["key_file"]).read_text())["management"]["key"]
    models: list[dict[str, Any]] = requests.get(
        f"{served.facts['management']}/models/smoke-{policy}",
        headers={"Authorization": f"Bearer {token}"},
        timeout=20,
    ).json()
    return {worker["pid"]: worker["status"] for worker in models[0]["workers"]}


def seconds(pid: int) -> float:
    spent = psutil.Process(pid).cpu_times()
    return float(spent.user + spent.system)


def replaced(served: Served, policy: str) -> None:
    """Kill both workers; return when two others are ready."""
    before = workers(served, policy)
    assert len(before) == 2
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while True:
        now = workers(served, policy)
        if list(now.values()) == ["READY"] * 2 and not now.keys() & before.keys():
            return
        assert time.monotonic() < deadline, f"no workers for {PATIENCE:g} s after theirs were killed: {now}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def store(smoke_graphs: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archives of NOISY; meco-keyed has two workers."""
    folder, recipe = tmp_path_factory.mktemp("noise") / "model_store", recipes.read(RECIPE)
    serving_, tables = recipe.section("serving", Serving), recipe.family("policies", PolicyTable)
    folders: dict[str, Path | None] = {
        "runs": smoke_graphs.runs,
        "build": smoke_graphs.build,
        "store": folder,
        "data": None,
    }
    for policy in NOISY:
        how = replace(serving_, workers=2 if policy == "meco-keyed" else 1)
        archive(recipe, policy, tables[policy], how, **folders)
    return folder


@pytest.fixture(scope="module")
def observed(smoke_graphs: Smoke, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Observed:
    """Asked once for all tests: before and after workers were killed, after a restart, and under another key."""
    folder, body = tmp_path_factory.mktemp("observed") / "run", question()
    keyed: dict[str, set[bytes]] = {}
    with serving(smoke_graphs, store, folder, *NOISY) as served:
        before = {pid: seconds(pid) for pid in workers(served, "meco-keyed")}
        keyed["first"] = set(asked_at_once(served, "meco-keyed"))
        busy = {pid: seconds(pid) - spent for pid, spent in before.items()}
        replaced(served, "meco-keyed")
        keyed["other workers"] = set(asked_at_once(served, "meco-keyed"))
        fresh = asked_at_once(served, "meco")
        many = wire.encode_rows(crops()[:1].expand(COPIES, -1, -1, -1).numpy(), wire.RAW)
        copies = {policy: answer(served, policy, many) for policy in ("meco", "meco-keyed")}
        rotating = []
        until = time.monotonic() + 4
        while time.monotonic() < until:
            period = int(time.time())
            got = answer(served, "meco-rotating", body)
            if int(time.time()) == period:  # or nobody knows in which it was drawn
                rotating.append((period, got))
    with serving(smoke_graphs, store, folder, "meco-keyed") as served:
        keyed["restarted"] = set(asked_at_once(served, "meco-keyed"))
    key = tmp_path_factory.mktemp("another") / "torchwarden.key"
    key.touch(mode=0o600)
    key.write_text("a5" * 32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHWARDEN_KEY_FILE", str(key))
        with serving(smoke_graphs, store, folder, "meco-keyed") as served:
            keyed["another key"] = set(asked_at_once(served, "meco-keyed"))
    return Observed(keyed, busy, fresh, copies, rotating)


def rows(body: bytes) -> list[list[float]]:
    return [prediction["probabilities"] for prediction in json.loads(body)["predictions"]]


def test_identical_repeats_are_one_answer_across_workers_and_restarts(observed: Observed) -> None:
    assert len(observed.keyed["first"]) == 1
    assert len(observed.busy) == 2
    assert min(observed.busy.values()) > 0.02, "both workers took part"
    assert observed.keyed["other workers"] == observed.keyed["first"]
    assert observed.keyed["restarted"] == observed.keyed["first"]


def test_they_are_the_answers_of_the_archive_in_this_process(observed: Observed, store: Path) -> None:
    with InProcessOracle(store / "smoke-meco-keyed.mar") as oracle:
        status, body = oracle.post(question(), wire.RAW)
        clean = oracle.everyone(crops())[:, 0]
    assert status == 200
    assert observed.keyed["first"] == {body}
    assert not torch.allclose(torch.tensor(rows(body)), clean, atol=1e-4), "there is noise in them"


def test_another_key_gives_every_image_another_answer(observed: Observed) -> None:
    (before,), (after,) = observed.keyed["first"], observed.keyed["another key"]
    assert all(one != other for one, other in zip(rows(before), rows(after), strict=True))


def test_a_rotation_changes_every_answer_and_a_period_has_one(observed: Observed) -> None:
    periods: dict[int, set[bytes]] = {}
    for period, body in observed.rotating:
        periods.setdefault(period, set()).add(body)
    assert len(periods) >= 3
    assert len(observed.rotating) > 2 * len(periods)
    assert all(len(bodies) == 1 for bodies in periods.values())
    assert len(set.union(*periods.values())) == len(periods)


def test_fresh_noise_is_another_in_every_answer(observed: Observed) -> None:
    for image in range(4):
        assert len({tuple(rows(body)[image]) for body in observed.fresh}) == REPEATS


def test_one_image_many_times_in_one_request_has_noise_of_its_own_each_time(observed: Observed) -> None:
    # never one draw for a batch
    assert len({tuple(row) for row in rows(observed.copies["meco"])}) == COPIES
    (body,) = observed.keyed["first"]
    assert rows(observed.copies["meco-keyed"]) == rows(body)[:1] * COPIES
