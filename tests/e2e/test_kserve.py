"""KServe's own client (PyPI's `kserve`) at a real gateway, with a client's key: both HTTP protocols and gRPC.

It runs in an environment of its own, of tests/e2e/kserve.lock: it wants a psutil below 6 and a protobuf below 7, and
the server has newer ones, so no environment holds both.
"""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Smoke
from tests.e2e.conftest import CHECKOUT
from tests.e2e.fronted import Gateway, serving
from tests.pages import blocks
from zoo import datasets

pytestmark = pytest.mark.drill

MODEL = "smoke-undefended"
LOCK = Path(__file__).with_name("kserve.lock")
CLIENT = Path(__file__).with_name("kserve_client.py")
SECONDS = 120


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with what the lock names and nothing else."""
    folder = tmp_path_factory.mktemp("kserve") / "environment"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    found = folder / "bin" / "python"
    install = [*uv, "pip", "install", "--quiet", "--python", found, "--require-hashes", "-r", LOCK]
    subprocess.run(install, check=True)
    return found


@pytest.fixture(scope="module")
def gateway(smoke: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    runs, secrets = folder / "run", folder / "secrets"
    with serving(runs, "kserve", smoke.store, "--models", MODEL, "--gateway", "--grpc", "--secrets", secrets):
        yield Gateway(runs, secrets, "kserve")


@pytest.fixture(scope="module")
def login(gateway: Gateway) -> tuple[str, str]:
    return gateway.add("acme")


@pytest.fixture(scope="module")
def levels() -> np.ndarray:
    """A digit: (28, 28) uint8."""
    return np.round(datasets.load("digits", "test").pixels[0, 0].numpy() * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def picture(levels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def expected(gateway: Gateway, login: tuple[str, str], picture: bytes) -> dict[str, Any]:
    """The answer to the digit, past no client of KServe's."""
    answer = gateway.ask(login, MODEL, picture, **{"Content-Type": "image/png"})
    (found,) = answer.json()["predictions"]
    return dict(found)


@pytest.fixture(scope="module")
def found(
    python: Path, gateway: Gateway, login: tuple[str, str], levels: np.ndarray, picture: bytes
) -> dict[str, dict[str, Any]]:
    facts = gateway.facts
    asked = {
        "url": gateway.url,
        "grpc": facts["grpc"].removeprefix("https://"),
        "certificate": facts["certificate"],
        "login": ":".join(login),
        "model": MODEL,
        "picture": base64.b64encode(picture).decode(),
        "pixels": (levels[np.newaxis, np.newaxis] / np.float32(255)).tolist(),
    }
    ready(gateway)
    answers: dict[str, dict[str, Any]] = json.loads(call(python, CLIENT.read_text("utf-8"), json.dumps(asked)))
    return answers


def ready(gateway: Gateway) -> None:
    """Wait until health has looked at the model."""
    deadline = time.monotonic() + SECONDS
    with gateway.session(None) as session:
        while session.get(f"{gateway.url}/v2/health/ready", timeout=10).status_code != 200:
            assert time.monotonic() < deadline, "not ready yet"
            time.sleep(0.2)


def call(python: Path, program: str, given: str = "", folder: Path = CHECKOUT) -> str:
    """What a program prints in KServe's environment."""
    environ = {**os.environ, "NO_PROXY": "*"}
    environ.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python, "-I", "-c", program],
        input=given,
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def same(answer: dict[str, list[Any]], expected: dict[str, Any]) -> None:
    """The outputs of a call say what the gateway says of the digit."""
    assert (answer["label"], answer["name"]) == ([expected["label"]], [expected["name"]])
    np.testing.assert_allclose(answer["probabilities"], expected["probabilities"], atol=1e-6)


@pytest.mark.parametrize("form", ["b64", "image_bytes", "pixels"])
def test_version_1(form: str, found: dict[str, dict[str, Any]], expected: dict[str, Any]) -> None:
    (prediction,) = found["v1"][form]["predictions"]
    assert (prediction["label"], prediction["name"]) == (expected["label"], expected["name"])
    np.testing.assert_allclose(prediction["probabilities"], expected["probabilities"], atol=1e-6)


@pytest.mark.parametrize("protocol", ["v2", "grpc"])
@pytest.mark.parametrize("form", ["binary", "listed", "picture", "listed picture"])
def test_version_2(protocol: str, form: str, found: dict[str, dict[str, Any]], expected: dict[str, Any]) -> None:
    same(found[protocol][form], expected)


def test_outputs_that_are_asked_for(found: dict[str, dict[str, Any]], expected: dict[str, Any]) -> None:
    for form in ("some outputs", "binary outputs"):
        answer = found["v2"][form]
        assert list(answer) == ["label", "probabilities"]
        same(answer | {"name": [expected["name"]]}, expected)
    assert found["grpc"]["some outputs"] == {"label": [expected["label"]]}


def test_it_sees_what_is_live_and_ready(found: dict[str, dict[str, Any]]) -> None:
    asked = ("live", "ready", "model ready", "stranger ready")
    states = {
        protocol: {name: answers[name] for name in asked if name in answers} for protocol, answers in found.items()
    }
    assert states == {
        "v1": {"live": True, "model ready": True},
        "v2": {"live": True, "ready": True, "model ready": True, "stranger ready": False},
        "grpc": {"live": True, "ready": True, "model ready": True},
    }


def test_its_errors_say_what_was_wrong(found: dict[str, dict[str, Any]]) -> None:
    for protocol, status in (("v1", 400), ("v2", 400), ("grpc", "INVALID_ARGUMENT")):
        code, message = found[protocol]["wrong"]
        assert code == status
        assert "expected" in message, message


def test_the_documented_client_is_answered(
    python: Path, gateway: Gateway, found: dict[str, Any], picture: bytes, expected: dict[str, Any], tmp_path: Path
) -> None:
    (program,) = (body for language, body in blocks("docs/protocols.md") if language == "python" and "kserve" in body)
    (tmp_path / "image.png").write_bytes(picture)
    for written, here in (
        ("https://127.0.0.1:8443", gateway.url),
        ("127.0.0.1:8444", gateway.facts["grpc"].removeprefix("https://")),
        ("acme:KEY", ":".join(gateway.add("reader"))),
        ("digits-edm", MODEL),
        ("secrets/gateway.crt", gateway.facts["certificate"]),
    ):
        assert written in program
        program = program.replace(written, here)
    assert call(python, program, folder=tmp_path).split() == 3 * [str(expected["label"])]
