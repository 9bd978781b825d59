"""Real Locust processes, killed ones among them, in front of a real server."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tomli_w
import torch
from cryptography.fernet import Fernet

from attest import measured
from attest.asking import Asking
from attest.campaign import order
from attest.ledger import Ledger
from attest.senders import messages, wire
from attest.senders.wire import Senders
from attest.target import table
from attest.target.pace import Pace
from attest.target.table import Target
from attest.target.wires import WireError
from tests.attest.service import KEY, Means, Reply, Service, honest
from tests.attest.service import table as fields
from tests.attest.test_asking import inference_server, kinds
from tests.attest.test_campaign import BUDGET, OPTIONS, campaign, run
from tests.processes import running
from zoo import datasets

pytestmark = pytest.mark.drill

SHOP = "shop.toml"


@pytest.fixture(scope="module")
def model() -> Means:
    return Means()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return datasets.load("digits", "test").pixels[:120]


def written(folder: Path, url: str, **changes: Any) -> Target:
    path = folder / SHOP
    path.write_text(tomli_w.dumps({"target": fields(url, **changes)}))
    return table.read(path)


@contextmanager
def asking(url: str, folder: Path, here: int = 2, **changes: Any) -> Iterator[tuple[Asking, Senders]]:
    target = written(folder, url, **changes)
    senders = Senders(target, folder / SHOP, here=here, log=folder / "senders.log")
    try:
        with Ledger(folder) as ledger, Asking(target, senders, Pace(target, sent=ledger.lines), ledger) as found:
            yield found, senders
    finally:
        senders.close()
        assert all(process.poll() is not None for process in senders._processes)


def workers(senders: Senders) -> list[subprocess.Popen[bytes]]:
    return [process for process in senders._processes if "attest.senders.worker" in process.args]


def runs(process: psutil.Process) -> bool:
    """Whether it does; one that ended and that nobody waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def eventually(true: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)


def test_figures_and_digests_are_those_of_one_process(tmp_path: Path, model: Means) -> None:
    options = dataclasses.replace(OPTIONS, thieves=("knockoff", "jbda"))
    found, ledgers = [], []
    for name in ("alone", "senders"):
        (tmp_path / name).mkdir()
        with Service(model=model) as service:
            which = campaign(tmp_path / name, service.url, options)
            if name == "alone":
                found.append(run(which))
            else:
                senders = Senders(which.target, tmp_path / name / SHOP, here=2, log=tmp_path / "senders.log")
                found.append(order.run(which, senders, say=lambda line: None))
        with Ledger(which.folder) as ledger:
            ledgers.append({
                (entry.phase, entry.place): (entry.image_sha256, entry.answer_sha256, entry.kind)
                for entry in ledger.entries()
                if entry.phase != "benign"  # beside the thieves for as long as they take
            })  # fmt: skip
    assert ledgers[0] == ledgers[1]
    assert len(ledgers[0]) > BUDGET / 2
    assert found[0].curves == found[1].curves
    assert found[0].consistency == found[1].consistency
    assert found[0].verdict == found[1].verdict
    assert found[0].utility.accuracy == found[1].utility.accuracy > 0.7
    assert min(senders.carried.values()) > BUDGET / 10
    assert len(senders.carried) == 2
    assert {"several addresses", "colluding accounts"} <= {each.what for each in found[1].not_tried}


def test_every_kind_of_reply_comes_through_and_no_redirection_is_followed(
    tmp_path: Path, model: Means, images: torch.Tensor
) -> None:
    with Service(model=model) as other:
        replies: list[Reply] = [
            (403, {}, b"no"),
            (500, {}, b"oh"),
            (0, {}, b""),
            (307, {"Location": other.url}, b""),
            (200, {}, b"{}"),
            (503, {"Retry-After": "0"}, b""),
        ]

        def bad(service: Service, pixels: np.ndarray) -> Reply:
            return replies[service.number - 1] if service.number <= len(replies) else honest(service, pixels)

        with Service(bad, model) as service, asking(service.url, tmp_path, connections=1) as (ask, _):
            ask.phase("utility")(images[:6])
            found = [entry.kind for entry in ask.ledger.entries()]
            assert len(service.seen) == 7
        assert not other.seen
    assert found == ["refused", "failed", "dropped", "redirected", "unread", "throttled", "answered"]


def test_the_rate_is_a_hard_limit_of_all_senders_together(tmp_path: Path, model: Means, images: torch.Tensor) -> None:
    rate, connections = 40.0, 3
    with Service(model=model) as service:
        with asking(service.url, tmp_path, rate=rate, connections=connections) as (ask, senders):
            assert not ask.phase("utility")(images).refused.any()
        times = sorted(service.times)
        assert min(senders.carried.values()) > len(images) / 4
    # a request may be late, and the next in time; no more than are under way at once
    most = max(sum(start <= each < start + 1 for each in times) for start in times)
    assert most <= rate + connections
    assert times[-1] - times[0] > (len(images) - connections) / rate


def test_a_429_to_one_sender_leaves_the_service_alone(tmp_path: Path, model: Means, images: torch.Tensor) -> None:
    def busy(service: Service, pixels: np.ndarray) -> Reply:
        return (429, {"Retry-After": "2"}, b"") if service.number == 20 else honest(service, pixels)

    with Service(busy, model) as service:
        with asking(service.url, tmp_path, connections=2) as (ask, _):
            assert not ask.phase("utility")(images[:60]).refused.any()
            assert kinds(ask) == {"answered": 60, "throttled": 1}
        pause = [later - earlier for earlier, later in zip(service.times[19:], service.times[20:], strict=False)]
    # the other sender's request may be under way already
    assert max(pause[:3]) > 1.5


class Held:
    """Answers honestly, the requests from the tenth on when `go` is set."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self, service: Service, pixels: np.ndarray) -> Reply:
        if service.number >= 10:
            self.go.wait(180)
        return honest(service, pixels)


def test_what_a_killed_sender_had_is_lost_and_the_others_go_on(
    tmp_path: Path, model: Means, images: torch.Tensor
) -> None:
    held = Held()
    with Service(held, model) as service:
        with asking(service.url, tmp_path, connections=2, timeout=30.0) as (ask, senders):
            thief = threading.Thread(target=lambda: ask.phase("utility")(images[:60]))
            thief.start()
            eventually(lambda: len(service.seen) >= 11)  # each has one
            workers(senders)[0].kill()
            eventually(lambda: kinds(ask)["lost"])
            held.go.set()
            thief.join(120)
            assert not thief.is_alive()
            assert kinds(ask)["answered"] + kinds(ask)["lost"] == 60
            assert 1 <= kinds(ask)["lost"] == ask.ledger.lost <= 2
        assert max(Counter(service.seen).values()) == 1
        with asking(service.url, tmp_path, connections=2) as (ask, _):
            answers = ask.phase("utility")(images[:60])
            assert int(answers.refused.sum()) == ask.ledger.lost
        assert max(Counter(service.seen).values()) == 1


@pytest.mark.parametrize(("which", "said"), [("master", "the Locust master ended"), ("worker", "no sender is left")])
def test_without_master_or_senders_the_campaign_ends_and_is_taken_up(
    tmp_path: Path, model: Means, images: torch.Tensor, which: str, said: str
) -> None:
    held = Held()
    with Service(held, model) as service:
        with asking(service.url, tmp_path, connections=2, timeout=30.0) as (ask, senders):
            failed: list[BaseException] = []

            def steal() -> None:
                try:
                    ask.phase("utility")(images[:60])
                except WireError as error:
                    failed.append(error)

            thief = threading.Thread(target=steal)
            thief.start()
            eventually(lambda: len(service.seen) >= 11)
            for process in senders._processes:
                if f"attest.senders.{which}" in process.args:
                    process.kill()
            thief.join(120)
            assert re.search(f"{said}.*; the same command continues where it was", str(failed[0]))
            with pytest.raises(WireError, match=said):
                ask.phase("more")(images[:1])
        held.go.set()
        before = len(service.seen)
        with asking(service.url, tmp_path, connections=2) as (ask, _):
            answers = ask.phase("utility")(images[:60])
            # one each, and what the other was handed when the first was seen to be gone
            assert 1 <= int(answers.refused.sum()) <= 3
            assert ask.ledger.lines == 61  # one that was not sent, of the phase "more", is lost too
        assert len(service.seen) > before
        assert max(Counter(service.seen).values()) == 1


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell that starts tests in the background has them ignore SIGINT, and with them what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_an_ended_campaign_leaves_nothing_running_and_is_taken_up(
    tmp_path: Path, model: Means, sent: signal.Signals
) -> None:
    family: list[psutil.Process] = []

    def ending(service: Service, pixels: np.ndarray) -> Reply:
        if service.number == 230 and not family:
            family.extend(psutil.Process(process.pid).children(recursive=True))
            process.send_signal(sent)
        return honest(service, pixels)

    with Service(ending, model) as service:
        campaign(tmp_path, service.url, connections=2)
        command = [sys.executable, "-m", "attest", str(tmp_path / SHOP), "--images", "digits", "--workers", "0"]
        command += ["--thieves", "knockoff", "--epochs", "1", "--recipes", "adamw", "--seeds", "0", "--exam", "60"]
        command += ["--reports", str(tmp_path / "reports"), "--senders", "2"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with running(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
            _, said = process.communicate(timeout=300)
        assert process.returncode == (-signal.SIGKILL if sent is signal.SIGKILL else 1)
        assert ("interrupted; the same command continues" in said) == (sent is signal.SIGINT)
        eventually(lambda: not any(map(runs, family)))
        assert len(family) == 3
        before = len(service.seen)
        assert before < BUDGET
        again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert again.returncode == 0, again.stderr
        found = measured.read(tmp_path / "reports" / "attest-shop")
        arrived = len(service.seen)
    assert found.run.resumed == 1
    lines = [json.loads(line) for line in (tmp_path / "reports/attest-shop/ledger.jsonl").read_text().splitlines()]
    assert len({(line["phase"], line["place"]) for line in lines}) == len(lines) == found.ledger.queries
    # what had not left a sender when all ended is lost, and was not asked
    assert arrived <= len(lines) <= arrived + found.ledger.lost
    assert found.ledger.lost <= 3  # two connections and the benign user


@contextmanager
def recorded(port: int) -> Iterator[tuple[int, bytearray]]:
    """A port that leads to another, and all bytes that go through it."""
    seen = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def pump(source: socket.socket, sink: socket.socket) -> None:
            try:
                while data := source.recv(2**16):
                    seen.extend(data)
                    sink.sendall(data)
            except OSError:
                pass
            finally:
                sink.close()

        def accept() -> None:
            while True:
                try:
                    near, _ = server.accept()
                except OSError:
                    return
                far = socket.create_connection(("127.0.0.1", port))
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], seen


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_senders_elsewhere_bring_their_own_secrets_and_no_message_has_one(
    tmp_path: Path, model: Means, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, plain = Fernet.generate_key().decode(), bytearray()
    monkeypatch.setenv("SHOP_KEY", KEY)
    monkeypatch.setenv(messages.KEY, key)

    def heard(fernet: Fernet, token: bytes) -> tuple[dict[str, Any], bytes]:
        plain.extend(fernet.decrypt(token))
        return messages.unseal(fernet, token)

    def said(fernet: Fernet, head: Any, body: bytes = b"") -> bytes:
        plain.extend(messages.joined(head, body))
        return messages.seal(fernet, head, body)

    monkeypatch.setattr(wire, "unseal", heard)
    monkeypatch.setattr(wire, "seal", said)
    shown: list[str] = []
    started: list[Senders] = []
    with Service(model=model) as service:
        target = written(tmp_path, service.url, headers={"X-Api-Key": "env:SHOP_KEY"}, connections=2)
        port = free_port()

        def start() -> None:
            started.append(
                Senders(
                    target, tmp_path / SHOP, here=0, elsewhere=1, address=f"127.0.0.1:{port}",
                    log=tmp_path / "senders.log", say=shown.append,
                )
            )  # fmt: skip

        waiting = threading.Thread(target=start)
        waiting.start()
        eventually(lambda: shown)
        assert f"python -m attest.senders.worker {tmp_path / SHOP} 127.0.0.1:{port}" in shown[0]
        with recorded(port) as (through, seen):
            command = [sys.executable, "-m", "attest.senders.worker", str(tmp_path / SHOP), f"127.0.0.1:{through}"]

            def worker(**changes: str) -> Any:
                return running(command, env={**os.environ, **changes}, stderr=subprocess.PIPE, text=True)

            with worker(SHOP_KEY="another") as wrong:
                _, why = wrong.communicate(timeout=60)
            assert wrong.returncode == 1
            assert "expected the campaign's variables of the target's headers, this machine has another" in why
            with (
                worker(**{messages.KEY: Fernet.generate_key().decode()}) as stranger,
                worker() as right,
            ):
                waiting.join(60)
                senders = started[0]
                assert len(senders._usable) == 1
                with Ledger(tmp_path) as ledger, Asking(target, senders, Pace(target), ledger) as ask:
                    assert not ask.phase("utility")(images[:20]).refused.any()
                # Locust's own end comes to them, with the key or without
                for process in (right, stranger):
                    process.wait(timeout=30)
        assert service.headers["X-Api-Key"] == KEY
        assert len(service.seen) == 20
    assert b"heartbeat" in seen
    assert b"content_type" in plain
    assert b"\x89PNG" in plain
    for bytes_of in (bytes(seen), bytes(plain), (tmp_path / "senders.log").read_bytes()):
        assert KEY.encode() not in bytes_of
    assert b"\x89PNG" not in seen, "Locust's port shows no picture"


def test_a_sender_without_a_secret_stops_before_anything_is_sent(tmp_path: Path) -> None:
    written(tmp_path, "http://127.0.0.1:1/x", headers={"X-Api-Key": "env:SHOP_KEY"})
    command = [sys.executable, "-m", "attest.senders.worker", str(tmp_path / SHOP), "127.0.0.1:1"]
    environment = {**os.environ, messages.KEY: Fernet.generate_key().decode()}
    environment.pop("SHOP_KEY", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert "headers.X-Api-Key: expected the variable SHOP_KEY in the environment, it is not set" in done.stderr


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    target = written(tmp_path, "http://127.0.0.1:1/x")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(WireError, match="Address already in use"):
            Senders(target, tmp_path / SHOP, here=1, address=address, log=tmp_path / "senders.log")


def test_the_open_inference_protocol_over_grpc(tmp_path: Path, model: Means, images: torch.Tensor) -> None:
    how = {"send": "kserve-v2-grpc", "format": "float32", "rows": 4, "connections": 1, "answer": ""}
    with inference_server(model) as url, asking(url, tmp_path, here=1, **how) as (ask, _):
        answers = ask.phase("utility")(images[:16])
    assert answers.refused.tolist() == [False] * 8 + [True] * 4 + [False] * 4


def test_a_request_whose_message_was_lost_is_given_up(
    tmp_path: Path, model: Means, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sender that stands still hears nothing and is given up, when its heartbeats stay out."""
    with Service(model=model) as service, asking(service.url, tmp_path, connections=1) as (ask, senders):
        assert not ask.phase("utility")(images[:4]).refused.any()
        still = workers(senders)[0]
        still.send_signal(signal.SIGSTOP)
        try:
            answers = ask.phase("more")(images[4:12])
            assert int(answers.refused.sum()) == kinds(ask)["lost"] == 1
        finally:
            still.send_signal(signal.SIGCONT)
