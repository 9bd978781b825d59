from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import altcha
import grpc
import numpy as np
import pytest
import torch

from attest.asking import GONE, Asking
from attest.ledger import Ledger
from attest.target.pace import Pace, Stopped
from attest.target.table import Target
from attest.target.wires import wire
from deploy.grpc_front.messages import message
from handlers.wire import SOLUTION
from tests.attest.certificates import Certified
from tests.attest.service import KEY, Means, Reply, Service, honest, table
from zoo import datasets


@pytest.fixture(scope="module")
def model() -> Means:
    return Means()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return datasets.load("digits", "test").pixels[:40]


@contextmanager
def asking(url: str, folder: Path, **changes: Any) -> Iterator[Asking]:
    target = Target(**table(url, **changes)).whole()
    with Ledger(folder) as ledger:
        pace = Pace(target, sent=ledger.lines)
        with Asking(target, wire(target), pace, ledger) as found:
            yield found


def kinds(ask: Asking) -> Counter[str]:
    return Counter(entry.kind for entry in ask.ledger.entries())


def test_answers_are_the_model_s_in_the_order_of_the_images(tmp_path: Path, model: Means, images: torch.Tensor) -> None:
    with Service(model=model) as service, asking(service.url, tmp_path) as ask:
        answers = ask.phase("utility")(images)
    wanted = np.stack([model(np.rint(image.numpy() * 255) / 255) for image in images])
    assert answers.probabilities is not None
    np.testing.assert_allclose(answers.probabilities, wanted, atol=1e-5)
    assert answers.labels.tolist() == wanted.argmax(axis=1).tolist()


def test_what_was_answered_is_not_asked_twice(tmp_path: Path, model: Means, images: torch.Tensor) -> None:
    with Service(model=model) as service:
        with asking(service.url, tmp_path) as ask:
            oracle = ask.phase("utility")
            first = [oracle(images[:16]), oracle(images[16:24])]
        with asking(service.url, tmp_path) as ask:
            oracle = ask.phase("utility")
            again = [oracle(images[:16]), oracle(images[16:])]
        assert len(service.seen) == len(images) == len(set(service.seen))
    assert first[0].probabilities is not None
    assert again[0].probabilities is not None
    torch.testing.assert_close(first[0].probabilities, again[0].probabilities, rtol=0, atol=0)
    assert again[1].labels[:8].tolist() == first[1].labels.tolist()


def test_a_throttled_picture_is_sent_again_when_the_service_allows_it(
    tmp_path: Path, model: Means, images: torch.Tensor
) -> None:
    def busy(service: Service, pixels: np.ndarray) -> Reply:
        return (429, {"Retry-After": "1"}, b"slow down") if service.number == 3 else honest(service, pixels)

    with Service(busy, model) as service, asking(service.url, tmp_path, connections=1) as ask:
        answers = ask.phase("utility")(images[:5])
        assert not answers.refused.any()
        assert kinds(ask) == {"answered": 5, "throttled": 1}
        assert ask.pace.sent == len(service.seen) == 6  # what was sent twice is charged twice
        assert service.times[3] - service.times[2] >= 0.95


def test_refusals_and_faults_are_refused_rows_and_told_apart(
    tmp_path: Path, model: Means, images: torch.Tensor
) -> None:
    replies: list[Reply] = [
        (403, {}, b"no"),
        (500, {}, b"oh"),
        (0, {}, b""),
        (307, {"Location": "http://127.0.0.1:1/elsewhere"}, b""),
        (200, {}, b"{}"),
    ]

    def bad(service: Service, pixels: np.ndarray) -> Reply:
        return replies[service.number - 1]

    with Service(bad, model) as service, asking(service.url, tmp_path, connections=1) as ask:
        answers = ask.phase("utility")(images[:5])
        assert answers.refused.all()
        found = [entry.kind for entry in ask.ledger.entries()]
        assert found == ["refused", "failed", "dropped", "redirected", "unread"]
        assert len(service.seen) == 5  # a redirection is not followed


def test_a_service_that_is_gone_is_not_asked_for_ever(tmp_path: Path, model: Means, images: torch.Tensor) -> None:
    def broken(service: Service, pixels: np.ndarray) -> Reply:
        return 500, {}, b"oh"

    with Service(broken, model) as service, asking(service.url, tmp_path, connections=2) as ask:
        with pytest.raises(Stopped, match=f"no answer to the last {GONE} queries"):
            ask.phase("utility")(images.repeat(3, 1, 1, 1))
        assert GONE <= len(service.seen) <= GONE + 2
        assert ask.ledger.lines == len(service.seen)


def test_a_slow_answer_is_cut_off_however_its_bytes_come(tmp_path: Path, model: Means, images: torch.Tensor) -> None:
    def slow(service: Service, pixels: np.ndarray) -> Reply:
        time.sleep(1)
        return honest(service, pixels)

    with Service(slow, model) as service, asking(service.url, tmp_path, timeout=0.3) as ask:
        assert ask.phase("utility")(images[:1]).refused.all()
        assert kinds(ask) == {"dropped": 1}


def test_the_budget_is_a_hard_limit(tmp_path: Path, model: Means, images: torch.Tensor) -> None:
    with Service(model=model) as service, asking(service.url, tmp_path, budget=7) as ask:
        with pytest.raises(Stopped, match="the budget of 7 queries is spent"):
            ask.phase("utility")(images)
        assert len(service.seen) == ask.ledger.lines == 7


def test_secrets_are_sent_and_written_nowhere(
    tmp_path: Path, model: Means, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", KEY)
    # the environment's proxy, which a session of ours does not ask
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with (
        Service(model=model) as service,
        asking(service.url, tmp_path, headers={"X-Api-Key": "env:SHOP_KEY"}) as ask,
    ):
        assert not ask.phase("utility")(images[:3]).refused.any()
        assert service.headers["X-Api-Key"] == KEY
        assert KEY not in repr(vars(ask.target)) + repr(ask._wire)
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_our_proof_of_work_is_done_where_it_is_asked_for(tmp_path: Path, model: Means, images: torch.Tensor) -> None:
    hashes = 16

    def asks(service: Service, pixels: np.ndarray) -> Reply:
        if SOLUTION in service.headers:
            return honest(service, pixels)
        challenge = altcha.create_challenge(
            algorithm="SHA-256", cost=1, counter=hashes // 2, hmac_secret="test", data={"hashes": float(hashes)}
        )
        body = {"error": {"code": "work_wanted", "message": "pay", "row": 0}, "challenge": challenge.to_dict()}
        return 428, {}, json.dumps(body).encode()

    with Service(asks, model) as service, asking(service.url, tmp_path, connections=1) as ask:
        assert not ask.phase("utility")(images[:2]).refused.any()
        assert kinds(ask) == {"challenged": 2, "answered": 2}


@contextmanager
def inference_server(model: Means, certified: Certified | None = None) -> Iterator[str]:
    """A real gRPC server that speaks the Open Inference Protocol, over TLS where there is a certificate; refuses the
    third call."""
    calls = []
    lock = threading.Lock()

    def infer(asked: Any, context: grpc.ServicerContext) -> Any:
        with lock:
            calls.append(asked)
            number = len(calls)
        if number == 3:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        pixels = np.frombuffer(asked.raw_input_contents[0], "<f4").reshape(asked.inputs[0].shape)
        answered = message("ModelInferResponse")(model_name=asked.model_name)
        answered.outputs.add(name="probabilities", datatype="FP32", shape=[len(pixels), 10])
        answered.raw_output_contents.append(np.stack([model(row) for row in pixels]).tobytes())
        return answered

    handler = grpc.unary_unary_rpc_method_handler(
        infer,
        request_deserializer=message("ModelInferRequest").FromString,
        response_serializer=message("ModelInferResponse").SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(2))
    service = "inference.GRPCInferenceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"ModelInfer": handler}),))
    if certified is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        pair = (certified.key.read_bytes(), certified.certificate.read_bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        yield f"{'grpcs' if certified else 'grpc'}://127.0.0.1:{port}/digits"
    finally:
        server.stop(None).wait()


def test_the_open_inference_protocol_over_grpc(tmp_path: Path, model: Means, images: torch.Tensor) -> None:
    how = {"send": "kserve-v2-grpc", "format": "float32", "rows": 4, "connections": 1, "answer": ""}
    with inference_server(model) as url, asking(url, tmp_path, **how) as ask:
        answers = ask.phase("utility")(images[:16])
    assert answers.refused.tolist() == [False] * 8 + [True] * 4 + [False] * 4
    wanted = np.stack([model(image.numpy()) for image in images[:16]])
    assert answers.probabilities is not None
    np.testing.assert_allclose(answers.probabilities[:8], wanted[:8], atol=1e-6)
