"""gRPC with tritonclient: past the front to a real TorchServe, and past the real gateway with a client's key."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import requests
import tritonclient.grpc as triton
from PIL import Image

from deploy import settings
from deploy.instance import process
from handlers import wire
from tests.conftest import Smoke
from tests.defenses.policies import section
from tests.deploy import tiny
from tests.e2e.conftest import CHECKOUT, run
from tests.e2e.fronted import Gateway, authorization, build_policy, fronting, serving
from tests.e2e.test_proof_of_work import archive, image, solved
from tests.handlers.test_proof_of_work import BENIGN, rows
from tests.pages import blocks
from zoo import datasets

pytestmark = pytest.mark.server

LIMIT = int(settings.read(CHECKOUT / "config.properties")["max_request_size"])
UNDEFENDED, LABEL = "smoke-undefended", "smoke-label"
QUEUE = 60
# calls at once, of all clients and of one: twice as many as there may be large bodies, for which 14 have room in memory
CALLS, OWN = 28, 14
LOAD = 3
CODES = grpc.StatusCode

# Answers with the headers that reached it; its input says how many seconds to take.
MIRROR = """
import json, struct, time


class Mirror:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        return [self.answer(index, bytes(row.get("body") or b""), context) for index, row in enumerate(data)]

    def answer(self, index, body, context):
        headers = context.get_all_request_header(index)
        length = next((int(text) for name, text in headers.items() if name.lower().startswith("inference-")), None)
        if length is None:
            context.set_response_content_type(index, "application/json")
            return json.dumps({"predictions": [{"label": 1, "probabilities": [0.25, 0.75]}]})
        time.sleep(struct.unpack("<f", body[length:length + 4])[0])
        text = json.dumps({"headers": headers, "asked": json.loads(body[:length])}).encode()
        tail = struct.pack("<I", len(text)) + text
        output = {"name": "seen", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(tail)}}
        head = json.dumps({"model_name": context.model_name, "model_version": "1.0", "outputs": [output]}).encode()
        context.set_response_content_type(index, "application/octet-stream")
        context.set_response_header(index, "Inference-Header-Content-Length", str(len(head)))
        return head + tail
"""


@dataclass(frozen=True)
class Failed:
    """How a call failed. metadata: what followed the status."""

    code: grpc.StatusCode
    message: str
    metadata: dict[str, str]


@dataclass(frozen=True)
class Client:
    """tritonclient, with what it sends beside its calls."""

    triton: triton.InferenceServerClient
    sent: dict[str, str] = field(default_factory=dict)

    def infer(self, model: str, name: str, datatype: str, values: np.ndarray, **more: Any) -> dict[str, np.ndarray]:
        """The outputs of a call by their names. more: `outputs` that are wanted, `headers` in place of its own."""
        given = triton.InferInput(name, list(values.shape), datatype)
        given.set_data_from_numpy(values)
        wanted = more.pop("outputs", None)
        more.setdefault("headers", self.sent)
        outputs = None if wanted is None else [triton.InferRequestedOutput(each) for each in wanted]
        answer = self.triton.infer(model, [given], outputs=outputs, **more)
        return {each.name: answer.as_numpy(each.name) for each in answer.get_response().outputs}

    def images(self, model: str, values: np.ndarray, **more: Any) -> dict[str, np.ndarray]:
        """The outputs for images of float32."""
        return self.infer(model, "images", "FP32", values, **more)

    def mirror(self, seconds: float = 0.0, **more: Any) -> dict[str, Any]:
        """What reached the mirror."""
        answer = self.images("mirror", np.full((1, 1), seconds, np.float32), **more)
        seen: dict[str, Any] = json.loads(answer["seen"][0])
        return seen

    def fails(self, *arguments: Any, **more: Any) -> Failed:
        """How `infer` fails."""
        with pytest.raises(triton.InferenceServerException) as caught:
            self.infer(*arguments, **more)
        return failed(caught.value)


def failed(error: triton.InferenceServerException) -> Failed:
    """tritonclient keeps gRPC's own error behind its own."""
    code = CODES[str(error.status()).removeprefix("StatusCode.")]
    behind = error.__context__
    metadata = behind.trailing_metadata() if isinstance(behind, grpc.Call) else ()
    return Failed(code, error.message(), {name: str(value) for name, value in metadata or ()})


@dataclass(frozen=True)
class Served:
    """A gateway with gRPC before a TorchServe, whose server.json is `server`, and a front before that alone."""

    gateway: Gateway
    server: dict[str, Any]
    front: str
    logs: Path

    @property
    def token(self) -> str:
        keys: dict[str, dict[str, str]] = json.loads(Path(self.server["key_file"]).read_text())
        return keys["inference"]["key"]

    def client(self, login: tuple[str, str] | None) -> Client:
        """One of the gateway's, on a connection of its own."""
        facts = self.gateway.facts
        made = triton.InferenceServerClient(
            facts["grpc"].removeprefix("https://"),
            ssl=True,
            root_certificates=facts["certificate"],
            channel_args=[("grpc.use_local_subchannel_pool", 1)],
        )
        return Client(made, {} if login is None else {"authorization": authorization(login)[1]})

    def direct(self) -> Client:
        """One of the front's, with TorchServe's token."""
        return Client(triton.InferenceServerClient(self.front), {"authorization": f"Bearer {self.token}"})

    def lines(self, since: int = 0) -> list[dict[str, Any]]:
        """access.log, once nginx has written it."""
        time.sleep(0.2)
        return self.gateway.lines()[since:]


@pytest.fixture(scope="module")
def served(smoke: Smoke, tmp_path_factory: pytest.TempPathFactory, key_file: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("grpc")
    store, runs, secrets = folder / "store", folder / "run", folder / "secrets"
    tiny.build(store, "mirror", config={"jobQueueSize": QUEUE, "responseTimeout": 30}, handler=MIRROR)
    for name in (UNDEFENDED, LABEL):
        shutil.copy(smoke.store / f"{name}.mar", store)
    limits = {"rows": 4, "total": None, "window": 60.0}
    build_policy(store, folder, section(policy="limited", limits=limits, max_rows=4))
    archive(store / "digits-pow.mar", folder / "pow", "proof-of-work", 1, {"lifetime": 300})
    with serving(runs, "grpc", store) as server, fronting(runs, secrets, "grpc", "grpc", grpc=True) as gateway:
        listen = f"127.0.0.1:{free_port()}"
        # the first is not there: the next is asked
        health = [f"http://127.0.0.1:{free_port()}", *gateway.facts["health"]]
        place = ("--instance", "grpc", "--run-folder", runs)
        command = [sys.executable, "-m", "deploy.grpc_front", *place, "--listen", listen, "--health", *health]
        with (folder / "front.log").open("wb") as log:
            front = subprocess.Popen(command, cwd=CHECKOUT, stdout=log, stderr=log)
        try:
            found = Served(gateway, server, listen, folder / "front.log")
            ready(found)
            yield found
        finally:
            front.terminate()
            assert front.wait(30) == 0


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ready(served: Served) -> None:
    """Wait until the front listens and health has looked at every model."""
    deadline = time.monotonic() + 60
    client = served.direct()
    while True:
        try:
            if client.triton.is_server_ready():
                return
        except triton.InferenceServerException as error:
            if error.status() != "StatusCode.UNAVAILABLE":
                raise
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def acme(served: Served) -> Client:
    return served.client(served.gateway.add("acme"))


@pytest.fixture(params=["gateway", "torchserve"])
def client(request: pytest.FixtureRequest, served: Served, acme: Client) -> Client:
    return acme if request.param == "gateway" else served.direct()


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    images: np.ndarray = datasets.load("digits", "test").pixels[:4].numpy()
    return images


def test_what_is_live_and_ready_and_what_models_take(client: Client) -> None:
    asked = {"headers": client.sent}
    assert client.triton.is_server_live(**asked)
    assert client.triton.is_server_ready(**asked)
    assert client.triton.is_model_ready(UNDEFENDED, **asked)
    assert client.triton.is_model_ready(UNDEFENDED, "1.0", **asked)
    about = client.triton.get_server_metadata(**asked)
    assert (about.name, list(about.extensions)) == ("torchwarden", ["binary_tensor_data"])
    model = client.triton.get_model_metadata(UNDEFENDED, **asked)
    assert (model.name, list(model.versions), model.platform) == (UNDEFENDED, ["1.0"], "torchwarden")
    assert [(each.name, each.datatype, list(each.shape)) for each in model.inputs] == [
        ("images", "FP32", [-1, 1, 28, 28]),
        ("image", "BYTES", [-1]),
    ]
    outputs = [("probabilities", "FP32", [-1, 10]), ("label", "INT64", [-1]), ("name", "BYTES", [-1])]
    assert [(each.name, each.datatype, list(each.shape)) for each in model.outputs] == outputs
    assert [each.name for each in client.triton.get_model_metadata(LABEL, "1.0", **asked).outputs] == ["label", "name"]
    for name, version in (("nobody", ""), (UNDEFENDED, "2.0"), ("../models", ""), (UNDEFENDED, "a/b")):
        for method in (client.triton.is_model_ready, client.triton.get_model_metadata):
            with pytest.raises(triton.InferenceServerException, match="no such model is served") as caught:
                method(name, version, **asked)
            assert failed(caught.value).code == CODES.NOT_FOUND


def over_http(served: Served, model: str, images: np.ndarray) -> list[dict[str, Any]]:
    """The same rows, past no front."""
    answer = requests.post(
        f"{served.server['inference']}/predictions/{model}",
        images.tobytes(),
        headers={"Authorization": f"Bearer {served.token}", "Content-Type": wire.RAW},
        timeout=20,
    )
    found: list[dict[str, Any]] = answer.json()["predictions"]
    return found


def test_images_are_answered_as_over_http(served: Served, client: Client, digits: np.ndarray) -> None:
    answer = client.images(UNDEFENDED, digits)
    expected = over_http(served, UNDEFENDED, digits)
    np.testing.assert_array_equal(answer["probabilities"], np.float32([each["probabilities"] for each in expected]))
    assert answer["label"].tolist() == [each["label"] for each in expected]
    assert [name.decode() for name in answer["name"]] == [each["name"] for each in expected]
    assert set(client.images(UNDEFENDED, digits, outputs=["name", "label"])) == {"name", "label"}
    assert set(client.images(LABEL, digits)) == {"label", "name"}, "its policy shows no probabilities"
    assert client.images(UNDEFENDED, digits, model_version="1.0")["label"].tolist() == answer["label"].tolist()


def test_levels_and_pictures_are_answered_as_images_are(client: Client, digits: np.ndarray) -> None:
    levels = np.round(digits * 255).astype(np.uint8)
    files = []
    for level in levels:
        kept = io.BytesIO()
        Image.fromarray(level[0]).save(kept, "PNG")
        files.append(kept.getvalue())
    answers = [
        client.images(UNDEFENDED, levels / np.float32(255)),
        client.infer(UNDEFENDED, "images", "UINT8", levels),
        client.infer(UNDEFENDED, "image", "BYTES", np.array(files, object)),
    ]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer["probabilities"], answers[0]["probabilities"])
        assert answer["name"].tolist() == answers[0]["name"].tolist()


def test_values_may_stand_in_contents(served: Served, client: Client, digits: np.ndarray) -> None:
    """As clients write them that have no bytes to send: tritonclient always has."""
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name=UNDEFENDED, id="seven")
    given = request.inputs.add(name="images", datatype="FP32", shape=digits.shape)
    given.contents.fp32_contents.extend(digits.ravel().tolist())
    answer = client.triton._client_stub.ModelInfer(request, metadata=tuple(client.sent.items()))
    assert (answer.id, answer.model_name, answer.model_version) == ("seven", UNDEFENDED, "1.0")
    labels = np.frombuffer(answer.raw_output_contents[1], "<i8")
    assert labels.tolist() == [each["label"] for each in over_http(served, UNDEFENDED, digits)]


@pytest.mark.parametrize(
    ("model", "name", "datatype", "values", "code", "words"),
    [
        (UNDEFENDED, "images", "FP32", np.zeros((1, 1, 27, 28), np.float32), "INVALID_ARGUMENT", "(n, 1, 28, 28)"),
        (UNDEFENDED, "images", "FP32", np.full((1, 1, 28, 28), 2.0, np.float32), "INVALID_ARGUMENT", "row 0: "),
        (UNDEFENDED, "images", "FP32", np.full((1, 1, 28, 28), math.nan, np.float32), "INVALID_ARGUMENT", "not_finite"),
        (UNDEFENDED, "images", "INT64", np.zeros((1, 1, 28, 28), np.int64), "INVALID_ARGUMENT", "FP32, UINT8 or BYTES"),
        (UNDEFENDED, "image", "BYTES", np.array([b"none"], object), "INVALID_ARGUMENT", "expected a picture"),
        (UNDEFENDED, "images", "FP32", np.zeros((33, 1, 28, 28), np.float32), "OUT_OF_RANGE", "at most 32 rows"),
        ("nobody", "images", "FP32", np.zeros((1, 1, 28, 28), np.float32), "NOT_FOUND", "no such model is served"),
        ("../models", "images", "FP32", np.zeros((1, 1, 28, 28), np.float32), "NOT_FOUND", "no such model is served"),
    ],
)
def test_what_is_wrong_has_a_code_and_the_handlers_words(
    client: Client, model: str, name: str, datatype: str, values: np.ndarray, code: str, words: str
) -> None:
    found = client.fails(model, name, datatype, values)
    assert found.code == CODES[code], found
    assert words in found.message


def test_a_version_that_is_not_served_is_not_found(client: Client, digits: np.ndarray) -> None:
    assert client.fails(UNDEFENDED, "images", "FP32", digits, model_version="2.0").code == CODES.NOT_FOUND


def test_a_message_has_as_many_bytes_as_a_body(client: Client) -> None:
    rows_ = LIMIT // (4 * 28 * 28)
    assert client.fails(UNDEFENDED, "images", "FP32", np.zeros((rows_ - 1, 1, 28, 28), np.float32)).code == (
        CODES.OUT_OF_RANGE
    ), "rows were counted"
    found = client.fails(UNDEFENDED, "images", "FP32", np.zeros((rows_ + 1, 1, 28, 28), np.float32))
    assert found.code == CODES.RESOURCE_EXHAUSTED
    assert f"vs. {LIMIT}" in found.message


def test_a_compressed_message_counts_as_what_comes_out_of_it(client: Client, digits: np.ndarray) -> None:
    gzip = {"compression_algorithm": "gzip"}
    plain = client.images(UNDEFENDED, digits)["probabilities"]
    np.testing.assert_array_equal(client.images(UNDEFENDED, digits, **gzip)["probabilities"], plain)
    bomb = np.zeros((2 * LIMIT // (4 * 28 * 28), 1, 28, 28), np.float32)
    found = client.fails(UNDEFENDED, "images", "FP32", bomb, **gzip)
    assert (found.code, found.message) == (CODES.RESOURCE_EXHAUSTED, "Decompressed message larger than max")


def test_nobody_gets_in_without_a_key(served: Served, digits: np.ndarray) -> None:
    login = served.gateway.add("keyed")
    stranger = served.client(None)
    before = len(served.lines())
    sent: list[dict[str, str]] = [
        {},
        {"authorization": f"Bearer {served.token}"},
        {"authorization": authorization((login[0], "wrong"))[1]},
        {"authorization": authorization(("acme", login[1]))[1]},
        {"authorization": "Basic !"},
    ]
    for headers in sent:
        found = stranger.fails(UNDEFENDED, "images", "FP32", digits, headers=headers)
        assert found.code == CODES.UNAUTHENTICATED
        assert "expected HTTP Basic authentication" in found.message
        with pytest.raises(triton.InferenceServerException) as caught:
            stranger.triton.is_server_live(headers=headers)
        assert failed(caught.value).code == CODES.UNAUTHENTICATED
    lines = served.lines(before)
    assert len(lines) == 2 * len(sent)
    assert {(line["principal"], line["upstream"]) for line in lines} == {("-", "")}, "the front was not asked"
    assert set(stranger.images(UNDEFENDED, digits, headers={"authorization": authorization(login)[1]}))
    served.gateway.command("revoke", login[0], "--secrets", str(served.gateway.secrets))
    headers = {"authorization": authorization(login)[1]}
    assert stranger.fails(UNDEFENDED, "images", "FP32", digits, headers=headers).code == CODES.UNAUTHENTICATED


def test_torchserve_checks_its_token_itself(served: Served, digits: np.ndarray) -> None:
    client = served.direct()
    for headers in ({}, {"authorization": "Bearer wrong"}):
        found = client.fails(UNDEFENDED, "images", "FP32", digits, headers=headers)
        assert found.code == CODES.UNAUTHENTICATED
        assert "Token" in found.message


def test_nothing_of_a_client_gets_through_but_its_solution(served: Served, acme: Client) -> None:
    forged = {
        "torchwarden-principal": "globex",
        "describe": "True",
        "explain": "True",
        "content-encoding": "gzip",
        "x-forwarded-for": "192.0.2.1",
        "inference-header-content-length": "1",
        "torchwarden-solution": "abc=",
        "x-odd": "x" * 4000,
    }
    for client, principal in ((acme, "acme"), (served.direct(), None)):
        seen = client.mirror(headers=client.sent | forged)
        reached = {name.lower(): value for name, value in seen["headers"].items()}
        assert reached.pop("torchwarden-solution") == "abc="
        assert reached.pop("authorization") == f"Bearer {served.token}"
        assert reached.pop("torchwarden-principal", None) == principal
        assert reached["inference-header-content-length"] != "1"
        assert not set(reached) & set(forged) - {"inference-header-content-length", "explain"}
        assert reached["explain"] == "False", "TorchServe's own"
        assert "globex" not in json.dumps(seen)


def test_rows_are_counted_for_the_principal_whose_key_it_was(served: Served) -> None:
    clients = [served.client(served.gateway.add(name)) for name in ("first", "first", "second")]
    row = rows(BENIGN)
    for client in (clients[0], clients[1], clients[0], clients[1]):
        assert client.images("digits-limited", row, headers=client.sent | {"torchwarden-principal": "second"})
    for client in clients[:2]:
        found = client.fails("digits-limited", "images", "FP32", row)
        assert found.code == CODES.RESOURCE_EXHAUSTED
        assert "rate_limited" in found.message
        assert 1 <= int(found.metadata["retry-after"]) <= 70
    assert clients[2].images("digits-limited", row)


def test_a_suspicious_image_is_answered_for_its_work(served: Served, client: Client) -> None:
    pixels = image(70 if "Basic" in client.sent["authorization"] else 71)
    found = client.fails("digits-pow", "images", "FP32", pixels)
    assert found.code == CODES.FAILED_PRECONDITION
    assert "proof_of_work" in found.message
    challenge = json.loads(base64.b64decode(found.metadata["torchwarden-challenge"]))
    paid = client.sent | {"torchwarden-solution": solved(challenge)}
    assert client.images("digits-pow", pixels, headers=paid)["label"].shape == (1,)
    again = client.fails("digits-pow", "images", "FP32", pixels, headers=paid)
    assert again.code == CODES.PERMISSION_DENIED
    assert "solution_spent" in again.message


def test_several_calls_at_once_are_all_answered(client: Client, digits: np.ndarray) -> None:
    expected = client.images(UNDEFENDED, digits[:1])["probabilities"]
    with ThreadPoolExecutor(OWN) as pool:
        found = list(pool.map(lambda _: client.images(UNDEFENDED, digits[:1])["probabilities"], range(60)))
    assert len(found) == 60
    for probabilities in found:
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_a_deadline_is_kept_and_frees_what_waits(served: Served, client: Client) -> None:
    before = len(served.lines())
    begun = time.monotonic()
    found = client.fails("mirror", "images", "FP32", np.full((1, 1), 2.0, np.float32), client_timeout=0.5)
    assert found.code == CODES.DEADLINE_EXCEEDED
    assert 0.4 < time.monotonic() - begun < 1.5
    if "Basic" in client.sent["authorization"]:
        inner = [line for line in served.lines(before) if line["address"] == "unix:"]
        assert [(line["model"], line["status"]) for line in inner] == [("mirror", 499)], "nginx saw the front leave"
    time.sleep(2)
    assert client.mirror(), "its worker answers the next"


def test_one_client_holds_no_more_than_its_calls_and_all_no_more_than_there_are(served: Served) -> None:
    many, few, third = (served.client(served.gateway.add(name)) for name in ("many", "few", "third"))

    def called(client: Client, seconds: float = 0.0) -> str:
        try:
            client.mirror(seconds)
        except triton.InferenceServerException as error:
            found = failed(error)
            assert found.code == CODES.RESOURCE_EXHAUSTED
            assert found.metadata["retry-after"] == "1"
            return found.message
        return "answered"

    refused = f"at once {CALLS} calls, {OWN} of one client; try again later"
    with ThreadPoolExecutor(2 * CALLS) as pool:
        # the first keeps the only worker busy while the others wait
        calls = [pool.submit(called, many, 1.5)]
        time.sleep(0.3)
        calls += [pool.submit(called, many) for _ in range(OWN + 2)]
        time.sleep(0.3)
        others = [pool.submit(called, few) for _ in range(OWN)]
        time.sleep(0.3)
        assert called(third).endswith(refused), "there are no more for anybody"
        statuses = Counter(call.result() for call in calls)
        assert {call.result() for call in others} == {"answered"}, "another's calls are its own"
    assert statuses.pop("answered") == OWN
    ((message, count),) = statuses.items()
    assert (message.endswith(refused), count) == (True, 3)
    assert called(third) == "answered"


def test_a_flood_from_one_address_is_refused(served: Served) -> None:
    conf = served.gateway.folder / "nginx.conf"
    whole = conf.read_text()
    conf.write_text(whole.replace("rate=2000r/s", "rate=2r/s"))
    assert conf.read_text() != whole
    psutil.Process(served.gateway.facts["pid"]).send_signal(1)
    time.sleep(1)
    stranger = served.client(None)
    found: Counter[grpc.StatusCode] = Counter()
    for _ in range(40 + QUEUE):
        with pytest.raises(triton.InferenceServerException) as caught:
            stranger.triton.is_server_live()
        found[failed(caught.value).code] += 1
    served.gateway.command("reload")
    assert conf.read_text() == whole
    assert set(found) == {CODES.UNAUTHENTICATED, CODES.RESOURCE_EXHAUSTED}
    assert found[CODES.RESOURCE_EXHAUSTED] > 10


class Load:
    """Clients that call until they are stopped. `failures`: what became of calls that were not answered."""

    def __init__(self, clients: list[Client]) -> None:
        self.answered = 0
        self.failures: list[Failed] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(client,)) for client in clients]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _call(self, client: Client) -> None:
        while not self._over.is_set():
            try:
                client.mirror()
                self.answered += 1
            except triton.InferenceServerException as error:
                self.failures.append(failed(error))


def test_renewing_the_token_fails_no_call(served: Served) -> None:
    before = served.token
    login = served.gateway.add("loaded")
    with Load([served.client(login) for _ in range(LOAD)]) as load:
        for _ in range(3):
            time.sleep(0.3)
            assert served.gateway.command("rotate") == "renewed the inference token of grpc\n"
        time.sleep(0.3)
    assert served.token != before
    assert load.failures == []
    assert load.answered > 50


def test_new_settings_fail_no_call(served: Served) -> None:
    login = served.gateway.add("reloaded")
    with Load([served.client(login) for _ in range(LOAD)]) as load:
        time.sleep(0.3)
        served.gateway.command("reload")
        time.sleep(0.5)
    assert load.failures == []
    assert load.answered > 20


def test_a_gateway_drains_its_calls_before_it_stops(served: Served, digits: np.ndarray) -> None:
    runs, secrets = served.gateway.runs, served.gateway.secrets
    login = served.gateway.add("leaving")
    with fronting(runs, secrets, "second", "grpc", grpc=True) as gateway:
        client = Served(gateway, served.server, served.front, served.logs).client(login)
        assert client.mirror()
        facts = gateway.facts
        with ThreadPoolExecutor(2) as pool:
            slow = pool.submit(client.mirror, 3.0)
            time.sleep(0.5)
            stopping = pool.submit(gateway.command, "stop", "--quiet", "2")
            time.sleep(1)
            with pytest.raises(triton.InferenceServerException) as caught:
                client.triton.is_server_ready(headers=client.sent)
            assert failed(caught.value).code == CODES.UNAVAILABLE, "it takes leave"
            assert set(client.images(LABEL, digits)) == {"label", "name"}, "and answers what still comes"
            assert slow.result()["asked"]
            stopping.result()
        assert not any(process(*each) for each in ((facts["pid"], facts["started"]), *facts["helpers"]))
        with pytest.raises(triton.InferenceServerException) as caught:
            client.mirror()
        assert failed(caught.value).code == CODES.UNAVAILABLE


def test_the_documented_client_is_answered(served: Served, digits: np.ndarray, tmp_path: Path) -> None:
    (program,) = (body for language, body in blocks("docs/protocols.md") if language == "python" and "triton" in body)
    Image.fromarray(np.round(digits[0, 0] * 255).astype(np.uint8)).save(tmp_path / "image.png")
    facts = served.gateway.facts
    for written, here in (
        ("127.0.0.1:8444", facts["grpc"].removeprefix("https://")),
        ("secrets/gateway.crt", facts["certificate"]),
        ("acme:KEY", ":".join(served.gateway.add("reader"))),
        ("digits-edm", UNDEFENDED),
    ):
        assert program.count(written) == 1
        program = program.replace(written, here)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    label = over_http(served, UNDEFENDED, digits[:1])[0]["label"]
    assert done.stdout.split() == [str(label), str(label)]


def test_a_part_that_has_ended_is_noticed(served: Served) -> None:
    with fronting(served.gateway.runs, served.gateway.secrets, "ended", "grpc", grpc=True) as gateway:
        place = ("--instance", "ended", "--run-folder", served.gateway.runs)
        assert run("deploy.gateway", "status", *place).returncode == 0
        front = psutil.Process(gateway.facts["helpers"][-1][0])
        assert "deploy.grpc_front" in front.cmdline()
        front.kill()
        front.wait(10)
        client = Served(gateway, served.server, served.front, served.logs).client(gateway.add("late"))
        with pytest.raises(triton.InferenceServerException) as caught:
            client.mirror()
        found = failed(caught.value)
        assert (found.code, found.metadata["retry-after"]) == (CODES.UNAVAILABLE, "1")
        assert run("deploy.gateway", "status", *place).returncode == 1


def test_before_another_machines_server_nothing_is_known_of_readiness(served: Served, digits: np.ndarray) -> None:
    remote = f"{served.server['inference'].removeprefix('http://')}={served.server['key_file']}"
    with fronting(served.gateway.runs, served.gateway.secrets, "far", remote, grpc=True) as gateway:
        client = Served(gateway, served.server, served.front, served.logs).client(gateway.add("far"))
        assert set(client.images(LABEL, digits)) == {"label", "name"}
        with pytest.raises(triton.InferenceServerException, match=r"deploy\.health, .*, does not answer") as caught:
            client.triton.is_server_live(headers=client.sent)
        assert failed(caught.value).code == CODES.UNAVAILABLE


def test_without_grpc_there_is_none(served: Served, tmp_path: Path) -> None:
    with fronting(served.gateway.runs, served.gateway.secrets, "plain", "grpc") as gateway:
        assert gateway.facts["grpc"] is None
        assert len(gateway.facts["helpers"]) == 1
        assert "http2" not in (gateway.folder / "nginx.conf").read_text()
    status = run("deploy.gateway", "status", "--instance", "grpc", "--run-folder", served.gateway.runs)
    assert status.returncode == 0
    assert f"gRPC {served.gateway.facts['grpc']}" in status.stdout


def test_one_command_starts_and_stops_all_of_it(served: Served, tmp_path: Path) -> None:
    store = tmp_path / "store"
    tiny.build(store, "mirror", handler=MIRROR)
    with serving(tmp_path, "whole", store, "--gateway", "--grpc", "--secrets", tmp_path / "secrets") as server:
        gateway = Gateway(tmp_path, tmp_path / "secrets", "whole")
        client = Served(gateway, server, served.front, served.logs).client(gateway.add("acme"))
        assert client.mirror()["headers"]
        facts = gateway.facts
        assert len(facts["helpers"]) == 2
        assert run("deploy.server", "status", "--instance", "whole", "--run-folder", tmp_path).returncode == 0
    assert not any(process(*each) for each in ((facts["pid"], facts["started"]), *facts["helpers"]))


def test_only_the_gateway_reaches_the_sockets_and_no_log_holds_a_secret(served: Served, acme: Client) -> None:
    sockets = served.gateway.folder.resolve() / "grpc"
    assert sockets.stat().st_mode & 0o007 == 0
    acme.mirror(headers=acme.sent | {"torchwarden-solution": "marked"})
    with pytest.raises(triton.InferenceServerException):
        acme.mirror(headers={"authorization": "Basic marked"})
    logs = served.logs.read_text() + "".join(path.read_text() for path in (served.gateway.folder / "logs").iterdir())
    family = [psutil.Process(pid) for pid, _ in served.gateway.facts["helpers"]]
    shown = logs + "".join(" ".join(each.cmdline()) for each in family)
    for secret in (served.token, acme.sent["authorization"].split()[1], "marked"):
        assert secret not in shown
    assert not re.search(r"Traceback|while answering", logs)
