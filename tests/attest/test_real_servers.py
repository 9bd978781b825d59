"""Ways of sending and TLS against servers that are not ours: uvicorn with FastAPI, and grpc's own."""

from __future__ import annotations

import base64
import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import uvicorn
from fastapi import FastAPI, Request
from PIL import Image

from attest.target import check
from attest.target.encoding import encode, pictures
from attest.target.table import Target
from attest.target.wires import DROPPED, Reply, wire
from tests.attest.certificates import DAY, ELSEWHERE, THIS, Authority, Certified
from tests.attest.service import KEY, Means, table
from tests.attest.test_asking import asking, inference_server
from zoo import datasets


@pytest.fixture(scope="module")
def model() -> Means:
    return Means()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return datasets.load("digits", "test").pixels[:12]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@contextmanager
def served(model: Means, certified: Certified | None = None) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """uvicorn around FastAPI, over TLS where there is a certificate: its address, and the headers of all requests."""
    app, headers = FastAPI(), []

    async def numbers(request: Request) -> dict[str, Any]:
        headers.append(dict(request.headers))
        rows = np.asarray((await request.json())["inputs"]["rows"], np.float32) / 255
        return {"out": [{"p": model(row.transpose(2, 0, 1)).tolist()} for row in rows]}

    async def files(request: Request) -> dict[str, Any]:
        headers.append(dict(request.headers))
        told = (await request.json())["instances"]
        rows = [Image.open(io.BytesIO(base64.b64decode(each["image"]["b64"], validate=True))) for each in told]
        return {"out": [{"p": model(np.asarray(row, np.float32)[None] / 255).tolist()} for row in rows]}

    for place, work in (("/numbers", numbers), ("/files", files)):
        app.add_api_route(place, work, methods=["POST"])
    tls = {"ssl_certfile": certified.certificate, "ssl_keyfile": certified.key} if certified else {}
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", **tls))  # type: ignore[arg-type]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"{'https' if certified else 'http'}://127.0.0.1:{listening.getsockname()[1]}", headers
        finally:
            server.should_exit = True
            thread.join()


WAYS = {
    "json": {"send": "json", "field": "inputs.rows[]", "format": "uint8", "layout": "NHWC", "rows": 5},
    "json-b64": {"send": "json-b64", "field": "instances[].image.b64", "format": "png", "rows": 5},
}
PLACES = {"json": "/numbers", "json-b64": "/files"}


def target(url: str, way: str = "json", **changes: Any) -> Target:
    return Target(**table(url + PLACES[way], **WAYS[way], answer="out[].p", **changes)).whole()


def sent(which: Target, images: torch.Tensor) -> Reply:
    """One request."""
    sending = wire(which)
    try:
        return sending.send(encode(which, pictures(which, images[: which.rows].numpy())))
    finally:
        sending.close()


@pytest.mark.parametrize("way", WAYS)
def test_rows_in_json_are_answered_in_their_order(tmp_path: Path, model: Means, images: torch.Tensor, way: str) -> None:
    with served(model) as (url, headers):
        with asking(url + PLACES[way], tmp_path, **WAYS[way], answer="out[].p") as ask:  # type: ignore[arg-type]
            answers = ask.phase("utility")(images)
        assert len(headers) == 3  # 5, 5 and 2 pictures
    wanted = np.stack([model(np.rint(image.numpy() * 255) / 255) for image in images])
    assert answers.probabilities is not None
    np.testing.assert_allclose(answers.probabilities, wanted, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_over_tls_by_the_authority_that_is_named(
    model: Means, images: torch.Tensor, authority: Authority, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", KEY)
    how = {"cacert": str(authority.certificate), "headers": {"X-Api-Key": "env:SHOP_KEY"}}
    with served(model, authority.certify()) as (url, headers):
        which = target(url, way, **how)
        assert sent(which, images).status == 200
        assert headers[-1]["x-api-key"] == KEY
    assert which.facts("shop", "0").tls == "own authority"


def wrong(authority: Authority, folder: Path) -> dict[str, tuple[Certified, Path | None]]:
    """What a server shows, and the authority that its client is given; None: those of the machine."""
    stranger = Authority(folder, "stranger")
    return {
        "another authority": (authority.certify(), stranger.certificate),
        "an unknown authority": (authority.certify(), None),
        "another host": (authority.certify(ELSEWHERE), authority.certificate),
        "expired": (authority.certify(left=-DAY), authority.certificate),
    }


@pytest.mark.parametrize("what", ["another authority", "an unknown authority", "another host", "expired"])
def test_a_wrong_certificate_gets_neither_picture_nor_secret(
    tmp_path: Path, model: Means, images: torch.Tensor, authority: Authority, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", KEY)
    # the environment may name authorities; it is not asked
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
    certified, given = wrong(authority, tmp_path)[what]
    how = {"headers": {"X-Api-Key": "env:SHOP_KEY"}, "cacert": str(given or "")}
    with served(model, certified) as (url, headers):
        which = target(url, **how)
        reply = sent(which, images)
        assert headers == []
    assert reply.status == DROPPED
    said = check.fault(which, [(reply, "dropped", None)])
    assert said is not None
    assert "certificate" in said
    assert "is cacert the authority that signed the server's certificate" in said


@pytest.mark.parametrize("what", [None, "another authority", "another host", "expired"])
def test_grpc_over_tls_by_the_same_rules(
    tmp_path: Path, model: Means, images: torch.Tensor, authority: Authority, what: str | None
) -> None:
    good = (authority.certify(THIS), authority.certificate)
    certified, given = good if what is None else wrong(authority, tmp_path)[what]
    how = {"send": "kserve-v2-grpc", "format": "float32", "rows": 4, "timeout": 3.0, "answer": "", "cacert": str(given)}
    with inference_server(model, certified) as url:
        which = Target(**table(url, **how)).whole()
        reply = sent(which, images)
    assert which.facts("shop", "0").tls == "own authority"
    if what is None:
        assert reply.status == 200
    else:
        said = check.fault(which, [(reply, "dropped", None)])
        assert (reply.status, said is not None and "is cacert the authority" in said) == (DROPPED, True)
