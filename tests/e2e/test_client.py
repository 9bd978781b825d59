"""The published client: answers of a real server in both protocols, and one line for each failure."""

from __future__ import annotations

import io
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deploy.gateway import certificates
from tests.e2e.conftest import CHECKOUT, Served
from zoo import datasets

pytestmark = pytest.mark.server

CLIENT = CHECKOUT / "docs/api/client.py"
FORMS = {"PNG": "png", "JPEG": "jfif", "WEBP": "WebP", "BMP": "dib", "TIFF": "tif", "GIF": "", "PPM": "pgm"}


def image() -> np.ndarray:
    pixels = datasets.load("digits", "test").pixels[0, 0].numpy()
    return np.rint(pixels * 255).astype(np.uint8)


def picture(folder: Path, form: str, ending: str) -> Path:
    file = folder / f"digit.{ending}"
    out = io.BytesIO()
    Image.fromarray(image()).save(out, form, **({"lossless": True} if form == "WEBP" else {}))
    file.write_bytes(out.getvalue())
    return file


def client(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The client with these words, and nothing of this process's environment but what Python needs."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [sys.executable, str(CLIENT), *map(str, words)]
    return subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True, check=False, timeout=60)


def url(served: Served, policy: str = "edm") -> str:
    return f"{served.facts['inference']}/predictions/smoke-{policy}"


def answered(served: Served, *words: str | Path, policy: str = "edm") -> Any:
    done = client(*words[:-1], url(served, policy), words[-1], TORCHWARDEN_TOKEN=served.token)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr + done.stdout
    return json.loads(done.stdout)


def line(done: subprocess.CompletedProcess[str]) -> str:
    """What a client that got no answer says: a line, and nothing on standard output."""
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("client: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("form", FORMS)
def test_a_file_is_known_by_its_first_bytes_whatever_its_name(served: Served, tmp_path: Path, form: str) -> None:
    (shown,) = answered(served, picture(tmp_path, form, FORMS[form]))["predictions"]
    (plain,) = answered(served, picture(tmp_path, "PNG", "x"))["predictions"]
    assert shown["label"] == plain["label"]
    np.testing.assert_allclose(shown["probabilities"], plain["probabilities"], atol=0.05 if form == "JPEG" else 1e-5)


def test_json_is_known_too_and_other_types_are_named(served: Served, tmp_path: Path) -> None:
    row = (image() / np.float32(255)).astype(np.float32)
    text, raw = tmp_path / "a", tmp_path / "b.float32"
    text.write_text(json.dumps({"instances": [row.tolist()] * 2}))
    raw.write_bytes(row.tobytes())
    first, second = answered(served, text)["predictions"]
    (alone,) = answered(served, "--type", "application/octet-stream", raw)["predictions"]
    assert first["label"] == second["label"] == alone["label"]


def test_a_picture_of_another_size_is_sent_as_it_is(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    Image.fromarray(image()).resize((56, 56)).save(file)
    done = client(url(served), file, TORCHWARDEN_TOKEN=served.token)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "wrong_shape"
    assert "label" in answered(served, file, policy="fitted")["predictions"][0]


def test_the_open_inference_protocol_says_the_same(served: Served, tmp_path: Path) -> None:
    file = picture(tmp_path, "PNG", "png")
    (plain,) = answered(served, file)["predictions"]
    outputs = {each["name"]: each["data"] for each in answered(served, "--v2", file)["outputs"]}
    assert (outputs["label"], outputs["name"]) == ([plain["label"]], [plain["name"]])
    np.testing.assert_allclose(outputs["probabilities"], plain["probabilities"], atol=1e-5)
    text = tmp_path / "own.json"
    text.write_text(json.dumps({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["AAAA"]}]}))
    address = f"{served.facts['inference']}/v2/models/smoke-edm/infer"
    done = client("--v2", address, text, TORCHWARDEN_TOKEN=served.token)
    assert done.returncode == 1
    assert "undecodable" in json.loads(done.stdout)["error"]


def test_a_wrong_token_is_a_refusal(served: Served, tmp_path: Path) -> None:
    done = client(url(served), picture(tmp_path, "PNG", "png"), TORCHWARDEN_TOKEN="wrong-one")
    assert done.returncode == 1
    assert json.loads(done.stdout)["type"] == "InvalidKeyException"
    assert "wrong-one" not in done.stdout + done.stderr


class Text(BaseHTTPRequestHandler):
    """Answers as some other service would."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        empty = self.path == "/empty"
        self.send_response(413 if empty else 200)
        if not empty:
            self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"" if empty else b"<html>")

    def log_message(self, *_: object) -> None:
        """Nothing is written."""


@contextmanager
def serving(certificate: tuple[Path, Path] | None = None) -> Iterator[int]:
    """The port of a server of `Text`, with TLS where it has a certificate and a key."""
    server = HTTPServer(("127.0.0.1", 0), Text)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


TOKEN = {"TORCHWARDEN_TOKEN": "secret-token"}


def test_a_file_that_is_nothing_known_or_not_there(tmp_path: Path) -> None:
    unknown = tmp_path / "a.npy"
    unknown.write_bytes(b"\x93NUMPY")
    said = line(client("http://127.0.0.1:9/predictions/a", unknown, **TOKEN))
    assert "a.npy: expected a picture or a JSON text, got neither; name what it is with --type" in said
    assert "b.png: No such file" in line(client("http://127.0.0.1:9/predictions/a", tmp_path / "b.png", **TOKEN))


def test_no_token(tmp_path: Path) -> None:
    file = picture(tmp_path, "PNG", "png")
    assert "expected TORCHWARDEN_LOGIN=LOGIN:KEY" in line(client("http://127.0.0.1:9/predictions/a", file))


def test_nobody_there(tmp_path: Path) -> None:
    file = picture(tmp_path, "PNG", "png")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/predictions/a"
    assert f"no answer from {address}: [Errno" in line(client(address, file, **TOKEN))
    assert "expected a URL http://... or https://..., got 'ftp://a'" in line(client("ftp://a", file, **TOKEN))
    assert "no answer from http://no.such.host.invalid/a: " in line(
        client("http://no.such.host.invalid/a", file, **TOKEN)
    )


def test_what_is_no_json_comes_from_another_service(tmp_path: Path) -> None:
    file = picture(tmp_path, "PNG", "png")
    with serving() as port:
        said = line(client(f"http://127.0.0.1:{port}/predictions/a", file, **TOKEN))
        assert "expected JSON, got status 200 and text/html; is this the service's address?" in said
        assert "got status 413 and no body" in line(client(f"http://127.0.0.1:{port}/empty", file, **TOKEN))


def test_a_certificate_is_trusted_where_it_is_named(tmp_path: Path) -> None:
    file = picture(tmp_path, "PNG", "png")
    made = tmp_path / "gateway.crt", tmp_path / "gateway.key"
    certificates.make(*made, host="127.0.0.1")
    with serving(made) as port:
        address = f"https://127.0.0.1:{port}/predictions/a"
        assert f"the certificate of {address} is not trusted (self" in (said := line(client(address, file, **TOKEN)))
        assert "name it with --cacert FILE" in said
        assert "and text/html" in line(client("--cacert", made[0], address, file, **TOKEN))
        assert "--cacert: expected a file of certificates, got" in line(
            client("--cacert", file, address, file, **TOKEN)
        )
        missing = tmp_path / "none.crt"
        assert "No such file" in line(client("--cacert", missing, address, file, **TOKEN))


def test_a_key_that_no_header_carries_is_not_shown(tmp_path: Path) -> None:
    file = picture(tmp_path, "PNG", "png")
    said = line(client("http://127.0.0.1:9/a", file, TORCHWARDEN_TOKEN="secret\nX: y"))
    assert "that HTTP can carry" in said
    assert "secret" not in said


def test_an_answer_without_a_challenge_has_nothing_to_solve(tmp_path: Path) -> None:
    file = tmp_path / "answer.json"
    for content, words in (
        ("{", "expected an answer of the service with a challenge"),
        ("[]", "expected an answer of the service with a challenge"),
        ('{"challenge": {}}', "expected a challenge as the service sends it, got another"),
    ):
        file.write_text(content)
        assert words in line(client("--solve", file))
    assert "expected the URL of a model's predictions and a file" in line(client(file))
