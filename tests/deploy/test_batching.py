"""`maxBatchDelay: 0` in an archive: nobody waits for others, and whoever waits anyway goes together."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from deploy import batching, launch
from deploy.errors import RefusedError
from loadtests.own_server import Instance, running
from tests.deploy import tiny

# Says how many requests its batch held. A white image takes a second: what comes meanwhile waits together.
HANDLER = """
import json, struct, time


class Counting:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        pixels = [struct.unpack("<4f", row["body"])[0] for row in data]
        time.sleep(1.0 if max(pixels) == 1 else 0)
        for i in range(len(data)):
            context.set_response_content_type(i, "application/json")
        labels = [{"label": int(bright > 0.5), "probabilities": [1 - bright, bright]} for bright in pixels]
        return [json.dumps({"predictions": [label], "batch": len(data)}) for label in labels]
"""
WHITE, SIZE, WAITS_MS = 1.0, 8, 1000
CONFIG = {"batchSize": SIZE}
# what TorchServe waits where it takes a 0 for no setting
DEFAULT_S = 0.1
PATIENCE = 60.0


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    folder = tmp_path_factory.mktemp("batching")
    archives = tuple(
        tiny.build(folder / "store", name, handler=HANDLER, config=CONFIG | delay)
        for name, delay in (("eager", {"maxBatchDelay": 0}), ("patient", {"maxBatchDelay": WAITS_MS}))
    )
    with running(Instance("batching", folder / "run", archives)) as started:
        yield started


def ask(instance: Instance, model: str, bright: float = 0.75) -> tuple[dict[str, Any], float]:
    """A right answer, and the seconds that it took."""
    facts = instance.facts
    token = json.loads(Path(facts["key_file"]).read_text())["inference"]["key"]
    headers = {"Content-Type": "application/octet-stream", "Authorization": f"Bearer {token}"}
    begun = time.perf_counter()
    answer = requests.post(
        f"{facts['inference']}/predictions/{model}", data=tiny.pixels(bright), headers=headers, timeout=PATIENCE
    )
    assert answer.status_code == 200, answer.text
    return answer.json(), time.perf_counter() - begun


def batches_behind_a_slow_one(instance: Instance, model: str) -> list[int]:
    """The sizes of the batches of SIZE requests that come while another is being answered."""
    with ThreadPoolExecutor(1 + SIZE) as clients:
        slow = clients.submit(ask, instance, model, WHITE)
        time.sleep(0.5)
        behind = [clients.submit(ask, instance, model) for _ in range(SIZE)]
        assert slow.result()[0]["batch"] == 1
        return [each.result()[0]["batch"] for each in behind]


def assert_eager(instance: Instance) -> None:
    """Nobody waits for others, TorchServe's own 100 ms least of all; those who wait anyway are one batch."""
    assert instance.described("eager")["maxBatchDelay"] == 0
    alone = [ask(instance, "eager") for _ in range(10)]
    assert {answer["batch"] for answer, _ in alone} == {1}
    assert min(seconds for _, seconds in alone) < DEFAULT_S
    assert batches_behind_a_slow_one(instance, "eager") == [SIZE] * SIZE


@pytest.mark.server
def test_who_is_alone_waits_for_nobody_and_who_waits_anyway_goes_together(instance: Instance) -> None:
    assert_eager(instance)


@pytest.mark.server
def test_a_worker_that_is_started_again_waits_for_nobody(instance: Instance) -> None:
    (before,) = instance.workers("eager")
    before.kill()
    deadline = time.monotonic() + PATIENCE
    while not (workers := instance.workers("eager")) or workers == [before]:
        assert time.monotonic() < deadline, "no worker in place of the one that was killed"
        time.sleep(0.1)
    assert_eager(instance)


@pytest.mark.server
def test_a_server_that_is_started_again_waits_for_nobody(instance: Instance) -> None:
    before: psutil.Process = instance.process
    instance.stop()
    instance.start()
    assert instance.process != before
    assert_eager(instance)


@pytest.mark.server
def test_a_delay_is_kept(instance: Instance) -> None:
    """A batch that is not full waits as long as it is told to, and not longer than until it is full."""
    assert instance.described("patient")["maxBatchDelay"] == WAITS_MS
    _, seconds = ask(instance, "patient")
    assert seconds >= WAITS_MS / 1000
    begun = time.perf_counter()
    with ThreadPoolExecutor(SIZE) as clients:
        answers = list(clients.map(lambda _: ask(instance, "patient")[0], range(SIZE)))
    assert [answer["batch"] for answer in answers] == [SIZE] * SIZE
    assert time.perf_counter() - begun < WAITS_MS / 1000, "a full batch goes at once"


def test_each_class_is_changed_in_its_place_alone() -> None:
    packages = launch.site_packages()
    classes = batching.changed(packages)
    assert set(classes) == {change.member for change in batching.CHANGES}
    with zipfile.ZipFile(packages / batching.JAR) as frontend:
        for change in batching.CHANGES:
            parts = frontend.read(change.member).split(change.before)
            assert len(parts) == 2
            assert classes[change.member] == change.after.join(parts)
            # jumps and the verifier's frames stay where they are
            assert len(change.before) == len(change.after)


def test_classes_of_another_version_are_refused(tmp_path: Path) -> None:
    jar = tmp_path / batching.JAR
    jar.parent.mkdir(parents=True)
    with zipfile.ZipFile(jar, "w") as frontend:
        for change in batching.CHANGES:
            frontend.writestr(change.member, b"\xca\xfe\xba\xbe" + change.before)
    with pytest.raises(RefusedError, match=r"ModelManager\.class: expected that of torchserve 0\.12\.0.*`make setup`"):
        batching.changed(tmp_path)
