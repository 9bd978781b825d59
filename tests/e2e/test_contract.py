"""The HTTP contract, against a running server: every answer fits docs/api/openapi.yaml and says what it must."""

from __future__ import annotations

import base64
import io
import json
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import requests
import yaml
from openapi_spec_validator import validate
from PIL import Image

from handlers import wire
from tests.e2e.conftest import CHECKOUT, Served
from zoo import datasets

pytestmark = pytest.mark.server

RAW, PNG, JPEG, JSON = "application/octet-stream", "image/png", "image/jpeg", "application/json"
API: dict[str, Any] = yaml.safe_load((CHECKOUT / "docs/api/openapi.yaml").read_text())


def images(rows: int) -> np.ndarray:
    """Digits of the test split as the server gets them in a PNG: multiples of 1/255."""
    pixels = datasets.load("digits", "test").pixels[:rows].numpy()
    return (np.round(pixels * 255) / 255).astype(np.float32)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.round(image[0] * 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def resolved(described: dict[str, Any]) -> dict[str, Any]:
    """What a reference of the file names, or the thing itself."""
    while "$ref" in described:
        found: Any = API
        for name in described["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        described = found
    return described


def check(response: requests.Response, status: int, path: str = "/predictions/{model}", method: str = "post") -> Any:
    """The body of a response, proven to have this status and to fit the API's schema for it."""
    assert response.status_code == status, response.text
    described = resolved(API["paths"][path][method]["responses"][str(status)])
    schema = {**described["content"]["application/json"]["schema"], "components": API["components"]}
    body = response.json()
    jsonschema.validate(body, schema)
    return body


def fits(value: Any, name: str) -> None:
    """Proven to fit the API's schema of that name."""
    jsonschema.validate(value, {"$ref": f"#/components/schemas/{name}", "components": API["components"]})


def refused(response: requests.Response, status: int, code: str) -> dict[str, Any]:
    error: dict[str, Any] = check(response, status)["error"]
    assert error["code"] == code
    return error


def test_the_openapi_file_is_valid() -> None:
    validate(API)


@pytest.mark.parametrize("policy", ["undefended", "edm"])
def test_a_png_gets_a_label_and_probabilities(served: Served, policy: str) -> None:
    response = served.post(policy, png(images(1)[0]), PNG)
    answer = check(response, 200)["predictions"][0]
    assert response.headers["Content-Type"] == JSON
    assert len(answer["probabilities"]) == 10
    assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-4)
    assert answer["label"] == int(np.argmax(answer["probabilities"]))
    assert answer["name"] == str(answer["label"])


def test_a_label_only_policy_on_torchscript_returns_the_label_alone(served: Served) -> None:
    batch = images(8)
    shown = check(served.post("label", batch.tobytes(), RAW), 200)["predictions"]
    full = check(served.post("undefended", batch.tobytes(), RAW), 200)["predictions"]
    assert shown == [{"label": each["label"], "name": str(each["label"])} for each in full]


def test_the_same_pixels_get_the_same_answer_in_every_content_type(served: Served) -> None:
    image = images(1)
    bodies = {
        PNG: png(image[0]),
        RAW: image.tobytes(),
        JSON: json.dumps({"instances": image.tolist()}).encode(),
        "application/json; charset=utf-8": json.dumps({"instances": image[:, 0].tolist()}).encode(),
    }
    answers = [
        check(served.post("edm", body, kind), 200)["predictions"][0]["probabilities"] for kind, body in bodies.items()
    ]
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], atol=1e-5)


def test_a_jpeg_is_an_image_too(served: Served) -> None:
    file = io.BytesIO()
    Image.fromarray(np.round(images(1)[0, 0] * 255).astype(np.uint8)).save(file, "JPEG", quality=100)
    decoded = check(served.post("undefended", file.getvalue(), JPEG), 200)["predictions"][0]
    lossless = check(served.post("undefended", png(images(1)[0]), PNG), 200)["predictions"][0]
    assert decoded["label"] == lossless["label"]
    np.testing.assert_allclose(decoded["probabilities"], lossless["probabilities"], atol=0.05)


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "bearer {token}", "{token}"])
def test_without_the_token_nothing_is_answered(served: Served, authorization: str) -> None:
    body = check(
        served.post("edm", png(images(1)[0]), PNG, Authorization=authorization.format(token=served.token)), 400
    )
    assert body["type"] == "InvalidKeyException"
    assert "predictions" not in body


def test_what_is_refused_says_why(served: Served) -> None:
    cut = png(images(1)[0])[:60]
    assert "cannot be decoded" in refused(served.post("edm", cut, PNG), 400, "undecodable")["message"]
    small = np.zeros((1, 8, 8), np.float32)
    assert "28" in refused(served.post("edm", png(small), PNG), 400, "wrong_shape")["message"]
    refused(served.post("edm", b"", RAW), 400, "no_rows")
    refused(served.post("edm", b"\0" * 100, RAW), 400, "wrong_shape")
    refused(served.post("edm", b'{"instances": [', JSON), 400, "undecodable")
    refused(served.post("edm", b'{"instances": ' + b"[" * 100_000, JSON), 400, "undecodable")
    refused(served.post("edm", np.full((1, 1, 28, 28), np.nan, np.float32).tobytes(), RAW), 400, "not_finite")
    refused(served.post("edm", np.full((1, 1, 28, 28), 1.5, np.float32).tobytes(), RAW), 400, "out_of_range")
    refused(served.post("edm", images(1).tobytes(), "application/x-npy"), 415, "unsupported_content_type")


def test_too_many_rows_and_too_many_bytes(served: Served) -> None:
    error = refused(served.post("edm", np.zeros((300, 1, 28, 28), np.float32).tobytes(), RAW), 413, "too_many_rows")
    assert "32" in error["message"]
    try:
        status = served.post("edm", b"\0" * 30_000_000, RAW).status_code
    except requests.ConnectionError:
        status = 413  # TorchServe closes the connection on a client that is still sending
    assert status == 413


def test_a_bad_row_leaves_its_neighbours_as_they_are(served: Served) -> None:
    batch = images(3)
    alone = [check(served.post("edm", row.tobytes(), RAW), 200)["predictions"][0] for row in batch]
    batch[1] = np.inf
    mixed = check(served.post("edm", batch.tobytes(), RAW), 200)["predictions"]
    assert mixed[1]["error"]["code"] == "not_finite"
    assert mixed[1]["error"]["row"] == 1
    for row in (0, 2):
        assert mixed[row]["label"] == alone[row]["label"]
        np.testing.assert_allclose(mixed[row]["probabilities"], alone[row]["probabilities"], atol=1e-5)


def test_requests_that_share_a_batch_do_not_touch_each_other(served: Served) -> None:
    batch = images(24)
    alone = [check(served.post("edm", row.tobytes(), RAW), 200)["predictions"][0]["probabilities"] for row in batch]
    good = [(row.tobytes(), RAW) for row in batch]
    bad = [(b"\0" * 10, RAW), (b"no image", PNG), (b"{", JSON), (b"x", "text/plain")] * 6
    both = [pair for each in zip(good, bad, strict=True) for pair in each]
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(lambda pair: served.post("edm", *pair), both))
    for row, response in enumerate(responses[::2]):
        got = check(response, 200)["predictions"][0]["probabilities"]
        np.testing.assert_allclose(got, alone[row], atol=1e-5)
    for response in responses[1::2]:
        assert response.status_code in (400, 415)
        check(response, response.status_code)


def test_a_describe_header_changes_no_answer(served: Served) -> None:
    body = png(images(1)[0])
    plain = check(served.post("edm", body, PNG), 200)
    assert check(served.post("edm", body, PNG, describe="True"), 200) == plain
    assert check(served.post("edm", body, PNG, explain="True"), 200) == plain


def test_describe_returns_the_public_facts_and_no_more(served: Served) -> None:
    keys = json.loads(Path(served.facts["key_file"]).read_text())
    response = requests.get(
        f"{served.facts['management']}/models/smoke-edm?customized=true",
        headers={"Authorization": f"Bearer {keys['management']['key']}"},
        timeout=20,
    )
    facts = response.json()[0]["customizedMetadata"]
    facts = json.loads(facts) if isinstance(facts, str) else facts
    assert facts["policy"] == "edm"
    assert facts["input"] == {"channels": 1, "height": 28, "width": 28, "fit": "exact"}
    assert set(facts["content_types"]) == set(wire.CONTENT_TYPES)
    text = json.dumps(facts)
    for secret in ("hash", "route", "bins", "TORCHWARDEN_KEY", "edm-0", served.smoke.key_file.read_text().strip()):
        assert secret not in text


TEXT = base64.b64encode(png(images(1)[0])).decode()
STOCK = "application/vnd.torchserve+json"
INFER = "/v2/models/{model}/infer"
BINARY = "Inference-Header-Content-Length"


def asked(served: Served, path: str, method: str = "POST", policy: str = "edm", **more: Any) -> requests.Response:
    """A request at a path of the file, with the token."""
    headers = {"Authorization": f"Bearer {served.token}", **more.pop("headers", {})}
    url = served.facts["inference"] + path.replace("{model}", f"smoke-{policy}")
    return requests.request(method, url, headers=headers, timeout=20, **more)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_every_format_and_every_way_of_sending_it_is_answered(served: Served, form: str) -> None:
    out = io.BytesIO()
    Image.fromarray(np.rint(images(1)[0, 0] * 255).astype(np.uint8)).save(out, form)
    file, text = out.getvalue(), base64.b64encode(out.getvalue()).decode()
    path = "/predictions/{model}"
    alone = check(asked(served, path, data=file), 200)
    for response in (
        asked(served, path, data=file, headers={"Content-Type": "image/jpg"}),
        asked(served, path, data=file, headers={"Content-Type": RAW if form in ("PNG", "JPEG", "WEBP") else ""}),
        asked(served, path, files={"data": file}),
        asked(served, path, json={"instances": [{"b64": text}]}),
        asked(served, path, json={"data": text}),
        asked(served, path, json={"instances": [{"image_bytes": {"b64": f"data:image/x;base64,{text}"}}]}),
    ):
        assert check(response, 200) == alone
    for response in (asked(served, path, "PUT", data=file), asked(served, path, "PUT", files={"a": file})):
        assert check(response, 200, method="put") == alone
    first = asked(served, "/v1/models/{model}:predict", json={"instances": [{"b64": text}]})
    assert check(first, 200, "/v1/models/{model}:predict") == alone


def test_parts_are_rows_and_parts_of_one_name_are_refused(served: Served) -> None:
    file = png(images(1)[0])
    rows = check(asked(served, "/predictions/{model}", files={"a": file, "b": b"none", "c": file}), 200)["predictions"]
    assert rows[0] == rows[2]
    assert rows[1]["error"]["code"] == "undecodable"
    large = [("a", file + bytes(5000)), ("a", file + bytes(5000))]
    refused(asked(served, "/predictions/{model}", files=large), 400, "undecodable")
    refused(asked(served, "/predictions/{model}", data={"a": "b"}), 415, "unsupported_content_type")


def test_a_compressed_body_and_too_many_pixels_say_what_to_do(served: Served) -> None:
    packed = served.post("edm", png(images(1)[0]), PNG, **{"Content-Encoding": "gzip"})
    assert "no Content-Encoding" in refused(packed, 415, "unsupported_content_type")["message"]
    out = io.BytesIO()
    Image.new("1", (4000, 4000)).save(out, "PNG")  # of at most 13 megapixels
    large = refused(served.post("fitted", out.getvalue(), PNG), 413, "too_many_pixels")
    assert "at most 13 megapixels, got 16" in large["message"]


def test_a_policy_of_any_size_takes_photographs(served: Served) -> None:
    out = io.BytesIO()
    Image.fromarray(np.rint(images(1)[0, 0] * 255).astype(np.uint8)).resize((640, 480)).save(out, "JPEG")
    (answer,) = check(served.post("fitted", out.getvalue(), JPEG), 200)["predictions"]
    assert 0 <= answer["label"] < 10
    refused(served.post("edm", out.getvalue(), JPEG), 400, "wrong_shape")


def test_torchserves_form_is_asked_for_by_accept(served: Served) -> None:
    body = images(2).tobytes()
    plain = check(served.post("edm", body, RAW), 200)["predictions"]
    stock = check(served.post("edm", body, RAW, Accept=STOCK), 200)
    for row, each in zip(stock, plain, strict=True):
        fits(row, "Stock")
        assert len(row) == 5
        assert row == {name: pytest.approx(each["probabilities"][int(name)], abs=1e-6) for name in row}
        assert next(iter(row)) == each["name"]
    one = check(served.post("label", body[: len(body) // 2], RAW, Accept=STOCK), 200)
    assert one == {plain[0]["name"]: 1.0}


def test_the_open_inference_protocol_in_json(served: Served) -> None:
    plain = check(served.post("edm", images(2).tobytes(), RAW), 200)["predictions"]
    tensor = {"name": "images", "datatype": "FP32", "shape": [2, 1, 28, 28], "data": images(2).ravel().tolist()}
    request = {"id": "a", "inputs": [tensor]}
    fits(request, "InferenceRequest")
    answer = check(asked(served, INFER, json=request), 200, INFER)
    outputs = {each["name"]: each["data"] for each in answer["outputs"]}
    assert (answer["model_name"], answer["id"]) == ("smoke-edm", "a")
    assert outputs["label"] == [each["label"] for each in plain]
    assert outputs["name"] == [each["name"] for each in plain]
    shown = np.reshape(outputs["probabilities"], (2, 10))
    np.testing.assert_allclose(shown, [each["probabilities"] for each in plain], atol=1e-6)
    picture = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [TEXT]}]}
    labels = check(asked(served, INFER, policy="label", json=picture), 200, INFER)
    assert [each["name"] for each in labels["outputs"]] == ["label", "name"]


def test_the_open_inference_protocol_in_binary(served: Served) -> None:
    file = png(images(1)[0])
    head = {
        "inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(file) + 4}}
        ],
        "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "label"}],
    }
    fits(head, "InferenceRequest")
    text = json.dumps(head).encode()
    body = text + struct.pack("<I", len(file)) + file
    response = asked(served, INFER, data=body, headers={BINARY: str(len(text)), "Content-Type": RAW})
    assert (response.status_code, response.headers["Content-Type"]) == (200, RAW)
    length = int(response.headers[BINARY])
    answer = json.loads(response.content[:length])
    fits(answer, "InferenceAnswer")
    (plain,) = check(served.post("edm", file, PNG), 200)["predictions"]
    shown = np.frombuffer(response.content[length:], "<f4")
    np.testing.assert_allclose(shown, plain["probabilities"], atol=1e-6)
    assert answer["outputs"][1]["data"] == [plain["label"]]


def test_an_error_of_the_open_inference_protocol_is_a_text(served: Served) -> None:
    shape = {"inputs": [{"name": "images", "datatype": "FP32", "shape": [1, 8, 8], "data": [0.0] * 64}]}
    wrong = check(asked(served, INFER, json=shape), 400, INFER)
    fits(wrong, "InferenceError")
    assert wrong["error"].startswith("expected FP32 (n, 1, 28, 28)")
    assert wrong["error"].endswith("(wrong_shape)")
    lying = asked(served, INFER, data=b'{"inputs": []}', headers={BINARY: "999"})
    assert "at most the body's 14 bytes" in check(lying, 400, INFER)["error"]
    check(asked(served, INFER, policy="nobody", json=shape), 404, INFER)
