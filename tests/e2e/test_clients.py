"""What clients send as they find it: photographs, forms, odd types and encodings, at TorchServe and at the gateway.

Each line of CLIENTS is a client's call, in the words of the tool that makes it, and what has to come of it.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import requests
import tritonclient.http as triton
from PIL import Image

from tests.conftest import Smoke
from tests.e2e.fronted import Gateway, serving
from tests.pictures.corpus import MAKE
from zoo import datasets

pytestmark = pytest.mark.server

MODEL = "smoke-fitted"
ORIGIN = "https://app.example.com"


class Door(NamedTuple):
    """Where a client asks: TorchServe with its token, or the gateway with a key."""

    url: str
    headers: dict[str, str]
    verify: Any

    def send(self, method: str, path: str, **more: Any) -> requests.Response:
        """A request without any header that `requests` adds by itself but the client's own."""
        headers = {**self.headers, **more.pop("headers", {})}
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, f"{self.url}{path}", headers=headers, verify=self.verify, timeout=30, **more)

    def curl(self, *words: str) -> requests.Response:
        """What curl itself makes of its options; the status in place of an object's own."""
        told = [word for name, value in self.headers.items() for word in ("-H", f"{name}: {value}")]
        trust = ["--cacert", str(self.verify)] if isinstance(self.verify, str) else []
        done = subprocess.run(
            ["curl", "--silent", "--noproxy", "*", *trust, *told, *words, "--write-out", "\n%{http_code}"],
            capture_output=True,
            check=True,
            timeout=60,
        )
        body, _, status = done.stdout.rpartition(b"\n")
        answer = requests.Response()
        answer.status_code, answer._content = int(status), body
        return answer


class Running(NamedTuple):
    torchserve: Door
    gateway: Door
    place: Gateway


@pytest.fixture(scope="module")
def running(smoke: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("clients")
    run, secrets = folder / "run", folder / "secrets"
    models = ("--models", MODEL, "smoke-label")
    with serving(run, "clients", smoke.store, *models, "--gateway", "--secrets", secrets) as server:
        place = Gateway(run, secrets, "clients")
        name_origin(place, folder)
        login, key = place.add("acme")
        basic = base64.b64encode(f"{login}:{key}".encode()).decode()
        token = json.loads(Path(server["key_file"]).read_text())["inference"]["key"]
        yield Running(
            Door(server["inference"], {"Authorization": f"Bearer {token}"}, True),
            Door(place.url, {"Authorization": f"Basic {basic}"}, str(place.facts["certificate"])),
            place,
        )


def name_origin(place: Gateway, folder: Path) -> None:
    """Reload the gateway with ORIGIN in its config.properties, which is the checkout's and has none."""
    settings = Path("config.properties").read_text()
    assert "\ngateway_origins=\n" in settings
    (folder / "config.properties").write_text(settings.replace("gateway_origins=\n", f"gateway_origins={ORIGIN}\n"))
    code = f"from pathlib import Path; from deploy.gateway import commands; commands.ROOT = Path({str(folder)!r})"
    words = ["reload", "--instance", place.name, "--run-folder", str(place.runs)]
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; raise SystemExit(commands.main({words!r}))"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(params=["torchserve", "gateway"])
def door(request: pytest.FixtureRequest, running: Running) -> Door:
    door: Door = getattr(running, request.param)
    return door


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A digit as a camera would have it: 640 x 480, JPEG."""
    digit = datasets.load("digits", "test").pixels[0, 0].numpy()
    paper = np.zeros((480, 640), np.uint8)
    large = Image.fromarray(np.rint(digit * 255).astype(np.uint8)).resize((480, 480), Image.Resampling.BICUBIC)
    paper[:, 80:560] = np.asarray(large)
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    Image.fromarray(paper).save(path, quality=92)
    return path


def label(answer: requests.Response) -> int:
    assert answer.status_code == 200, answer.text
    (prediction,) = answer.json()["predictions"]
    assert prediction["name"] == str(prediction["label"])
    return int(prediction["label"])


@pytest.fixture(scope="module")
def expected(running: Running, photo: Path) -> int:
    return label(running.torchserve.send("POST", f"/predictions/{MODEL}", data=photo.read_bytes()))


def test_a_photograph_gets_the_label_of_its_digit(expected: int) -> None:
    assert expected == int(datasets.load("digits", "test").labels[0])  # type: ignore[index]


def curl_calls(url: str, file: Path, folder: Path) -> dict[str, list[str]]:
    """As TorchServe's own pages and everybody's shell history have them."""
    text = base64.b64encode(file.read_bytes()).decode()
    wrapped = folder / "wrapped.json"
    lines = "\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    wrapped.write_text(json.dumps({"instances": [{"b64": lines}]}))
    plain = folder / "data.json"
    plain.write_text(json.dumps({"data": text}))
    bom = folder / "bom.json"
    bom.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    return {
        "curl -T": ["-T", str(file), url],
        "curl -X POST -T": ["-X", "POST", "-T", str(file), url],
        "curl -F data=@": ["-F", f"data=@{file}", url],
        "curl -F file=@, typed": ["-F", f"file=@{file};type=image/jpeg", url],
        "curl --data-binary, image/jpg": ["--data-binary", f"@{file}", "-H", "Content-Type: image/jpg", url],
        "curl --data-binary, octet-stream": [
            *("--data-binary", f"@{file}", "-H", "Content-Type: application/octet-stream", url)
        ],
        "curl --data-binary, no type": ["--data-binary", f"@{file}", "-H", "Content-Type:", url],
        "curl --data-binary, application/json": [
            *("--data-binary", f"@{file}", "-H", "Content-Type: application/json", url)
        ],
        "curl -d @data.json": ["-d", f"@{plain}", "-H", "Content-Type: application/json", url],
        "curl -T data.json": ["-T", str(plain), url],
        "curl -T wrapped.json": ["-T", str(wrapped), url],
        "curl -T bom.json": ["-T", str(bom), url],
    }


def test_curl(door: Door, photo: Path, expected: int, tmp_path: Path) -> None:
    """Every call is made before any is judged, so that one line that fails does not hide another."""
    calls = curl_calls(f"{door.url}/predictions/{MODEL}", photo, tmp_path)
    answers = {call: door.curl(*words) for call, words in calls.items()}
    wrong = {call: answer.text for call, answer in answers.items() if answer.status_code != 200}
    assert not wrong
    assert {call: label(answer) for call, answer in answers.items()} == dict.fromkeys(calls, expected)


@pytest.mark.parametrize(
    "form",
    ["b64", "data", "image_bytes", "nested", "url-safe", "data url", "v1"],
)
def test_json(form: str, door: Door, photo: Path, expected: int) -> None:
    data = photo.read_bytes()
    text = base64.b64encode(data).decode()
    instance: dict[str, Any] = {
        "data": {"data": text},
        "image_bytes": {"image_bytes": text},
        "nested": {"image_bytes": {"b64": text}},
        "url-safe": {"b64": base64.urlsafe_b64encode(data).decode()},
        "data url": {"b64": f"data:image/jpeg;base64,{text}"},
    }.get(form, {"b64": text})
    path = f"/v1/models/{MODEL}:predict" if form == "v1" else f"/predictions/{MODEL}"
    assert label(door.send("POST", path, json={"instances": [instance]})) == expected


@pytest.mark.parametrize("name", ["png, opaque alpha", "webp", "gif", "bmp", "tiff, lzw", "jpeg, cmyk", "png, 16 bits"])
def test_formats(name: str, door: Door) -> None:
    data = MAKE[name]().data
    plain = door.send("POST", f"/predictions/{MODEL}", data=MAKE["png"]().data, headers={"Content-Type": "image/png"})
    assert label(door.send("POST", f"/predictions/{MODEL}", data=data)) == label(plain)


def test_several_files_are_rows_in_order(door: Door, photo: Path, expected: int) -> None:
    good = ("photo.jpg", photo.read_bytes(), "image/jpeg")
    answer = door.send("POST", f"/predictions/{MODEL}", files={"a": good, "b": ("b.txt", b"none"), "c": good})
    assert answer.status_code == 200, answer.text
    first, second, third = answer.json()["predictions"]
    assert first == third
    assert first["label"] == expected
    assert second["error"]["code"] == "undecodable"


def test_files_of_one_name_are_refused_with_the_way_out(door: Door, photo: Path) -> None:
    good = ("photo.jpg", photo.read_bytes(), "image/jpeg")
    answer = door.send("POST", f"/predictions/{MODEL}", files=[("data", good), ("data", good)])
    assert answer.status_code == 400
    assert "each part under a name of its own (file1, file2, ...)" in answer.json()["error"]["message"]


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate"])
def test_a_compressed_body_is_415_and_says_why(encoding: str, door: Door, photo: Path) -> None:
    headers = {"Content-Encoding": encoding}
    answer = door.send("POST", f"/predictions/{MODEL}", data=photo.read_bytes(), headers=dict(headers))
    assert answer.status_code == 415, answer.text
    assert answer.json()["error"]["message"].startswith("expected no Content-Encoding")


def test_a_camera_s_largest_photograph_is_answered_and_a_larger_one_refused(door: Door) -> None:
    def sized(width: int, height: int) -> bytes:
        out = io.BytesIO()
        Image.new("L", (width, height), 200).save(out, "JPEG")
        return out.getvalue()

    label(door.send("POST", f"/predictions/{MODEL}", data=sized(4000, 3000)))
    answer = door.send("POST", f"/predictions/{MODEL}", data=sized(5000, 4000))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_many_pixels"
    assert "at most 13 megapixels, got 20.0" in answer.json()["error"]["message"]


def test_torchserves_own_form_of_answer(door: Door, photo: Path, expected: int) -> None:
    headers = {"Accept": "application/vnd.torchserve+json"}
    answer = door.send("PUT", f"/predictions/{MODEL}", data=photo.read_bytes(), headers=dict(headers))
    assert answer.status_code == 200, answer.text
    named = answer.json()
    assert len(named) == 5
    assert next(iter(named)) == str(expected)
    assert list(named.values()) == sorted(named.values(), reverse=True)


def test_the_gateway_takes_that_wish_from_the_address_too(running: Running, photo: Path, expected: int) -> None:
    answer = running.gateway.send("POST", f"/predictions/{MODEL}?form=torchserve", data=photo.read_bytes())
    assert next(iter(answer.json())) == str(expected)


def tensors(photo: Path) -> dict[str, Any]:
    text = base64.b64encode(photo.read_bytes()).decode()
    return {"id": "7", "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}]}


def test_the_open_inference_protocol(door: Door, photo: Path, expected: int) -> None:
    answer = door.send("POST", f"/v2/models/{MODEL}/infer", json=tensors(photo))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    outputs = {output["name"]: output for output in body["outputs"]}
    assert (body["model_name"], body["id"]) == (MODEL, "7")
    assert outputs["label"]["data"] == [expected]
    assert outputs["name"]["data"] == [str(expected)]
    assert outputs["probabilities"]["shape"] == [1, 10]


def test_its_errors_are_texts(door: Door, running: Running) -> None:
    answer = door.send("POST", f"/v2/models/{MODEL}/infer", json={"inputs": []})
    assert answer.status_code == 400
    assert answer.json() == {"error": "expected one input, `images` or `image` (undecodable)"}
    for path, status in (("/v2/models/none/infer", 404), ("/v2/nothing", 404)):
        answer = running.gateway.send("POST", path, json=tensors(Path("/dev/null")))
        assert answer.status_code == status
        assert isinstance(answer.json()["error"], str)
    stranger = running.gateway._replace(headers={})
    answer = stranger.send("POST", f"/v2/models/{MODEL}/infer", json={"inputs": []})
    assert (answer.status_code, answer.json()["error"][-14:]) == (401, "(unauthorized)")


def test_a_version_is_part_of_the_gateways_address(running: Running, photo: Path) -> None:
    for version, status in (("1.0", 200), ("9.9", 404)):
        path = f"/v2/models/{MODEL}/versions/{version}/infer"
        assert running.gateway.send("POST", path, json=tensors(photo)).status_code == status


def test_a_page_of_a_named_origin_may_ask_and_no_other(running: Running, photo: Path, expected: int) -> None:
    url, stranger = f"/predictions/{MODEL}", running.gateway._replace(headers={})
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    preflight = stranger.send("OPTIONS", url, headers={"Origin": ORIGIN, **asks})
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    answer = running.gateway.send("POST", url, data=photo.read_bytes(), headers={"Origin": ORIGIN})
    assert label(answer) == expected
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert answer.headers["Vary"] == "Origin"
    for origin in ("https://evil.example.com", f"{ORIGIN}.evil.example", "null"):
        other = stranger.send("OPTIONS", url, headers={"Origin": origin, **asks})
        assert other.status_code == 405
        assert not {name for name in other.headers if name.lower().startswith("access-control")}


def test_a_label_alone_has_its_name(running: Running) -> None:
    image = datasets.load("digits", "test").pixels[:1].numpy()
    answer = running.gateway.send("POST", "/predictions/smoke-label", data=image.tobytes())
    assert set(answer.json()["predictions"][0]) == {"label", "name"}


def test_no_picture_is_no_5xx(door: Door) -> None:
    for data in (b"", b"\xff\xd8\xff", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"II*\0\x08\0\0\0", b"BM" + bytes(60)):
        answer = door.send("POST", f"/predictions/{MODEL}", data=data)
        assert 400 <= answer.status_code < 500, answer.text


def test_tritons_http_client(running: Running, photo: Path, expected: int) -> None:
    """At the gateway, with a client's key: all that it asks of a server."""
    where = running.gateway.url.removeprefix("https://")
    trust = {"ssl": True, "ssl_options": {"ca_certs": running.gateway.verify}, "insecure": False}
    headers = running.gateway.headers  # a copy for each call: the client writes a length into what it is given
    with triton.InferenceServerClient(where, network_timeout=30, **trust) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(MODEL)
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        metadata = client.get_model_metadata(MODEL, headers=dict(headers))
        assert [each["name"] for each in metadata["inputs"]] == ["images", "image"]
        picture = triton.InferInput("image", [1], "BYTES")
        picture.set_data_from_numpy(np.array([photo.read_bytes()], object))
        for outputs in (None, [triton.InferRequestedOutput("label"), triton.InferRequestedOutput("name")]):
            answer = client.infer(MODEL, [picture], outputs=outputs, headers=dict(headers))
            assert answer.as_numpy("label").tolist() == [expected]
            assert answer.as_numpy("name").tolist() == [str(expected).encode()]
        pixels = datasets.load("digits", "test").pixels[:2].numpy()
        for binary in (True, False):
            images = triton.InferInput("images", list(pixels.shape), "FP32")
            images.set_data_from_numpy(pixels, binary_data=binary)
            probabilities = client.infer(MODEL, [images], headers=dict(headers)).as_numpy("probabilities")
            assert probabilities.shape == (2, 10)
        wrong = triton.InferInput("images", [1, 3], "FP32")
        wrong.set_data_from_numpy(np.zeros((1, 3), np.float32))
        with pytest.raises(triton.InferenceServerException, match=r"expected FP32 .*got another shape"):
            client.infer(MODEL, [wrong], headers=dict(headers))
