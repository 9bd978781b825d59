"""The handler over real graphs, with a context that records what TorchServe would receive."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from defenses.pipeline import ANSWER_OPEN
from handlers import bodies, wire
from handlers.errors import LoadError
from handlers.handler import TorchWarden
from tests.defenses.policies import FRESH, KEYED, routed, section
from tests.handlers.archives import ENVIRON, KEY, write_archive
from tests.handlers.worker import Context, Worker, images, request

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    return Worker(write_archive(tmp_path / "edm", routed()))


def mixed() -> list[tuple[dict[str, Any], Any]]:
    """Eight requests: good ones of every content type, and a bad one next to each."""
    spoiled = images(3, 5)
    spoiled[1, 0, 0, 0] = np.nan
    truncated = request(images(1, 6), wire.PNG)
    del truncated[1][60:]
    return [
        request(images(4, 1)),
        truncated,
        request(images(1, 2), wire.PNG),
        request(images(17, 3)),
        request(spoiled),
        ({"content-type": "text/plain"}, bytearray(b"\n[METRICS]forged.Count:1|#ModelName:x|#type:COUNTER")),
        request(images(2, 4), wire.JSON),
        ({"CONTENT-TYPE": "application/json"}, bytearray(b'{"instances": [[1, 2')),
    ]


def test_a_mixed_batch_is_answered_as_each_request_alone(worker: Worker) -> None:
    together = worker.ask(*mixed())
    assert [status for status, _ in together] == [200, 400, 200, 413, 200, 415, 200, 400]
    assert [body["error"]["code"] for status, body in together if status != 200] == [
        "undecodable",
        "too_many_rows",
        "unsupported_content_type",
        "undecodable",
    ]
    assert [len(body["predictions"]) for status, body in together if status == 200] == [4, 1, 3, 2]
    for index, alone in enumerate(mixed()):
        assert worker.ask(alone) == [together[index]]


def test_good_rows_are_what_the_pipeline_says(worker: Worker) -> None:
    pixels = images(12)
    status, body = worker.ask(request(pixels))[0]
    answers = worker.handler._pipeline(pixels)
    assert status == 200
    labels, probabilities, errors = wire.decode_answers(json.dumps(body).encode())
    assert labels.tolist() == answers.labels.tolist()
    assert len(set(answers.members.tolist())) > 1
    np.testing.assert_array_equal(probabilities, answers.probabilities)
    assert errors == {}


def test_a_batch_is_one_pipeline_call_and_a_single_raw_request_is_not_copied(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    pipeline = worker.handler._pipeline

    def spy(asked: np.ndarray, **more: Any) -> Any:
        seen.append(asked)
        return pipeline(asked, **more)

    monkeypatch.setattr(worker.handler, "_pipeline", spy)
    worker.ask(*mixed())
    assert [len(asked) for asked in seen] == [4 + 1 + 2 + 2]
    headers, body = request(images(3))
    worker.ask((headers, body))
    assert np.shares_memory(seen[1], np.frombuffer(body, np.uint8))
    worker.ask(mixed()[1], mixed()[3])
    assert len(seen) == 2, "nothing to ask, nothing asked"


def test_status_and_headers_of_every_answer(worker: Worker) -> None:
    answers = ("ok", "undecodable", "ok", "too_many_rows", "ok", "unsupported_content_type", "ok", "undecodable")
    worker.ask(*mixed())
    assert worker.context.status[0] == (200, "OK")
    assert worker.context.status[1] == (400, "Bad Request")
    assert worker.context.status[5] == (415, "Unsupported Media Type")
    for index in range(8):
        sent = {"content-type": "application/json", "Torchwarden-Answer": answers[index]}
        assert worker.context.sent[index] == sent


def test_a_bad_row_stands_at_its_place_and_all_bad_rows_are_the_requests_own_error(worker: Worker) -> None:
    pixels = images(3)
    pixels[1] = 2
    ((status, body),) = worker.ask(request(pixels))
    assert status == 200
    fault = {"code": "out_of_range", "message": "expected values in [0, 1], got 2.0 to 2.0", "row": 1}
    assert body["predictions"][1] == {"error": fault}
    assert [set(body["predictions"][row]) for row in (0, 2)] == [{"label", "name", "probabilities"}] * 2
    pixels[:] = 2
    pixels[0, 0, 0, 0] = np.nan
    ((status, body),) = worker.ask(request(pixels))
    assert status == 400
    assert body == {"error": {"code": "not_finite", "message": "expected finite values, got NaN or infinity", "row": 0}}


def broken(pixels: np.ndarray) -> Any:
    raise RuntimeError("member lost\n[METRICS]forged.Count:1|#ModelName:x|#type:COUNTER")


def test_a_failed_member_costs_its_own_rows_only(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    first, second = images(12, 1), images(12, 2)
    first[0] = 7  # a row of the client's own fault before the others shifts nothing
    whole = worker.ask(request(first), request(second))
    members = worker.handler._pipeline(np.concatenate([first[1:], second])).members
    member = int(np.bincount(members).argmax())
    lost: list[list[int]] = [[], []]
    for place, each in enumerate(members.tolist()):
        if each == member:
            lost[place >= 11].append(place + 1 if place < 11 else place - 11)
    assert 0 < len(lost[0]) < 11
    assert 0 < len(lost[1]) < 12
    worker.graphs[f"edm-{member}"] = broken
    with caplog.at_level(logging.INFO, "handlers"):
        answers = worker.ask(request(first), request(second))
    for index, (status, body) in enumerate(answers):
        assert status == 200
        for row, prediction in enumerate(body["predictions"]):
            if row in lost[index]:
                message = "this row could not be answered; try again later"
                assert prediction == {"error": {"code": "stage_failed", "message": message, "row": row}}
            else:
                assert prediction == whole[index][1]["predictions"][row]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"stage predict, rows failed: {len(lost[0] + lost[1])}: RuntimeError at ")
    assert "\n" not in said
    assert worker.context.counts["errors_total"].counted["stage_failed"] == len(lost[0] + lost[1])


def test_a_row_that_one_member_spoils_is_refused_where_all_answer(tmp_path: Path) -> None:
    policy = routed(policy="averaged", route=None, average=True, key_env=None)
    averaged = Worker(write_archive(tmp_path / "averaged", policy))
    first, second = images(3, 1), images(2, 2)
    whole = averaged.ask(request(first), request(second))
    member = averaged.graphs["edm-2"]

    def spoiling(pixels: np.ndarray) -> Any:
        outputs = member(pixels)["probabilities"].copy()
        outputs[(pixels == first[1]).all((1, 2, 3))] = np.nan
        return {"probabilities": outputs}

    averaged.graphs["edm-2"] = spoiling
    answers = averaged.ask(request(first), request(second))
    assert answers[1] == whole[1]
    status, body = answers[0]
    assert (status, body["predictions"][1]["error"]["code"]) == (200, "stage_failed")
    assert [body["predictions"][row] for row in (0, 2)] == [whole[0][1]["predictions"][row] for row in (0, 2)]
    averaged.graphs["edm-2"] = broken
    assert [status for status, _ in averaged.ask(request(first), request(second))] == [503, 503]


def test_a_failed_route_is_a_503_and_an_open_one_is_counted_and_logged(
    worker: Worker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker.graphs["hash"] = broken
    ((status, body),) = worker.ask(request(images(2)))
    assert status == 503
    assert (body["error"]["code"], body["error"]["row"]) == ("stage_failed", 0)
    assert "hash" not in json.dumps(body)
    opened = Worker(write_archive(tmp_path / "open", routed(on_stage_error="open")))
    opened.graphs["hash"] = broken
    with caplog.at_level(logging.INFO, "handlers"):
        ((status, body),) = opened.ask(request(images(2)))
    assert status == 200
    assert "stage route, rows failed: 2: RuntimeError at " in caplog.text
    assert opened.context.counts["rows_total"].counted == {ANSWER_OPEN: 2}
    assert opened.context.counts["member_rows_total"].counted == {"edm-0": 2}


def test_a_bug_in_decoding_is_a_500_for_that_request_and_is_logged_on_one_line(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = bodies.opened

    def fail(message: bodies.Message, *others: Any) -> Any:
        if message.media_type == wire.JPEG:
            assert message.body is not None
            raise KeyError(message.body.decode())
        return real(message, *others)

    monkeypatch.setattr(bodies, "opened", fail)
    client = "\n[METRICS]forged.Count:1|#ModelName:x|#type:COUNTER" + "x" * 1000
    good = request(images(2))
    alone = worker.ask(good)
    with caplog.at_level(logging.INFO, "handlers"):
        answers = worker.ask(good, ({"content-type": "image/jpeg"}, client.encode()), good)
    assert [answers[0], answers[2]] == alone * 2
    error = {"code": "internal", "message": "this request could not be handled", "row": None}
    assert answers[1] == (500, {"error": error})
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("a request could not be decoded: KeyError at ")
    assert "\n" not in said
    assert len(said) < 500


def test_a_body_that_torchserve_has_decoded_is_ours_to_mend(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    ((status, body),) = worker.ask(({"content-type": "application/json"}, {"instances": []}))
    assert (status, body["error"]["code"]) == (500, "internal")
    assert "a body came as dict: set decode_input_request=false" in caplog.text


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_what_no_request_is_to_blame_for_passes(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(bodies, "opened", fail)
        with pytest.raises(error):
            worker.ask(request(images(1)))
    worker.graphs["hash"] = fail
    with pytest.raises(error):
        worker.ask(request(images(1)))


def test_metrics_count_rows_members_codes_and_seconds(worker: Worker) -> None:
    worker.ask(*mixed())
    counted = {name: metric.counted for name, metric in worker.context.counts.items()}
    assert counted["rows_total"] == {"answer": 9}
    assert sum(counted["member_rows_total"].values()) == 9
    assert set(counted["member_rows_total"]) <= {f"edm-{number}" for number in range(5)}
    assert counted["errors_total"] == {
        "undecodable": 2,
        "too_many_rows": 1,
        "not_finite": 1,
        "unsupported_content_type": 1,
    }
    assert set(counted["stage_seconds"]) == {"decode", "route", "predict", "respond", "encode", "handle"}
    assert all(0 < seconds < 10 for seconds in counted["stage_seconds"].values())


@pytest.fixture
def noisy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    return Worker(write_archive(tmp_path / "noisy", routed(perturb=KEYED)))


def test_a_mixed_batch_with_keyed_noise_is_answered_as_each_request_alone(noisy: Worker, worker: Worker) -> None:
    together = noisy.ask(*mixed())
    for index, alone in enumerate(mixed()):
        assert noisy.ask(alone) == [together[index]]
    plain = worker.ask(*mixed())
    assert [status for status, _ in together] == [status for status, _ in plain]
    assert together[0] != plain[0]


def test_noise_counts_nothing_but_its_own_seconds(noisy: Worker, worker: Worker) -> None:
    for each in (noisy, worker):
        each.ask(*mixed())
    for name in ("rows_total", "member_rows_total", "errors_total"):
        assert noisy.context.counts[name].counted == worker.context.counts[name].counted
    stages = {"decode", "route", "perturb", "predict", "respond", "encode", "handle"}
    assert set(noisy.context.counts["stage_seconds"].counted) == stages


def test_the_same_image_in_one_request_has_noise_of_its_own_each_time(tmp_path: Path) -> None:
    fresh = Worker(write_archive(tmp_path / "fresh", section(perturb=FRESH)))
    ((status, body),) = fresh.ask(request(np.repeat(images(1), 8, axis=0)))
    assert status == 200
    assert len({json.dumps(each["probabilities"]) for each in body["predictions"]}) == 8


def test_a_failed_perturbation_costs_its_own_rows_and_no_row_is_answered_without(
    noisy: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = images(6, 1), images(6, 2)
    first[:, 0, 0, 0] = second[:, 0, 0, 0] = 0
    second[[1, 4], 0, 0, 0] = 1
    whole, perturbation = noisy.ask(request(first), request(second)), noisy.graphs["perturbation"]

    def spoiled(pixels: np.ndarray, noise: np.ndarray) -> Any:
        perturbed = perturbation(pixels, noise)["perturbed"].copy()
        perturbed[pixels[:, 0, 0, 0] == 1] = np.nan
        return {"perturbed": perturbed}

    noisy.graphs["perturbation"] = spoiled
    with caplog.at_level(logging.INFO, "handlers"):
        answers = noisy.ask(request(first), request(second))
    assert answers[0] == whole[0]
    for row, prediction in enumerate(answers[1][1]["predictions"]):
        if row in (1, 4):
            assert prediction["error"]["code"] == "stage_failed"
            assert prediction["error"]["message"] == "this row could not be answered; try again later"
        else:
            assert prediction == whole[1][1]["predictions"][row]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("stage perturb, rows failed: 2: GraphError at ")
    noisy.graphs["perturbation"] = lambda *_: broken(first)
    ((status, body),) = noisy.ask(request(first))
    assert (status, body["error"]["code"], body["error"]["row"]) == (503, "stage_failed", 0)


@pytest.mark.parametrize("body", [None, b"", bytearray()])
def test_a_describe_request_has_no_body_and_gets_the_public_facts(worker: Worker, body: Any) -> None:
    good = request(images(2))
    answers = worker.ask(good, ({"describe": "True"}, body), good)
    assert answers[1] == (200, worker.handler.describe_handle())
    assert [answers[0], answers[2]] == worker.ask(good) * 2
    assert worker.ask(({"describe": "True"}, body)) == [answers[1]]


def test_a_describe_header_beside_a_body_is_a_clients_and_means_nothing(worker: Worker) -> None:
    headers, body = request(images(2))
    for described in ({**headers, "describe": "True"}, {"Describe": "True", **headers, "explain": "True"}):
        assert worker.ask((described, body)) == worker.ask((headers, body))
    ((status, answer),) = worker.ask(({"describe": "False", "content-type": wire.RAW}, b""))
    assert (status, answer["error"]["code"]) == (400, "no_rows")


def texts(worker: Worker) -> Iterator[str]:
    """Everything that a client or a log might be shown."""
    worker.graphs["edm-1"] = broken
    yield json.dumps(worker.ask(*mixed(), ({"describe": "True"}, None)))
    yield json.dumps(worker.handler.describe_handle())
    yield str(worker.context.sent) + str(worker.context.status)
    for shown in (worker.handler, worker.handler._pipeline, worker.handler._policy):
        yield repr(shown)


def test_no_answer_and_no_repr_holds_a_secret(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    router = worker.handler._pipeline._router
    assert router is not None
    secrets = [KEY.hex(), repr(KEY), base64.b64encode(KEY).decode(), str(router.table.tolist()), str(router.table)]
    with caplog.at_level(logging.DEBUG):
        shown = list(texts(worker))
    for text in [*shown, caplog.text]:
        for secret in secrets:
            assert secret not in text
    for text in shown[:3]:  # what clients see
        for word in ("hash", "edm-", "member", "route", "TORCHWARDEN_KEY", "key"):
            assert word not in text.replace("and no other key", "")


def test_no_answer_and_no_repr_tells_of_noise(noisy: Worker, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        shown = list(texts(noisy))
        noisy.graphs["perturbation"] = lambda *_: broken(images(1))
        failed = list(texts(noisy))
    for text in [*shown, *failed, caplog.text]:
        for secret in (KEY.hex(), repr(KEY), base64.b64encode(KEY).decode()):
            assert secret not in text
    for text in shown[:3] + failed[:3]:  # what clients see
        for word in ("perturb", "noise", "keyed", "perceptual", "period", "grid"):
            assert word not in text


def test_a_label_only_policy_sends_no_probabilities(tmp_path: Path) -> None:
    plain = Worker(write_archive(tmp_path / "plain", section(response={"rule": "label"})))
    ((status, body),) = plain.ask(request(images(2)))
    assert status == 200
    assert [set(prediction) for prediction in body["predictions"]] == [{"label", "name"}] * 2


def test_a_server_without_our_metrics_does_not_load(tmp_path: Path) -> None:
    folder = write_archive(tmp_path / "plain", section())
    context = Context(folder)
    del context.counts["errors_total"]
    with pytest.raises(LoadError, match="metric 'torchwarden_errors_total' is not in"):
        TorchWarden().initialize(context)


SERVED = """
import json, logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
import warnings; warnings.simplefilter("ignore")
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.model_loader import ModelLoaderFactory
folder, metrics, body = sys.argv[1:]
cache = MetricsCacheYamlImpl(metrics); cache.initialize_cache(); cache.model_name = "digits-edm"
loader = ModelLoaderFactory.get_model_loader()
service = loader.load("digits-edm", folder, "handler.py", None, 4, None, True, cache)
service.set_cl_socket(None)
def ask(number, headers, body):
    headers = [{"name": name.encode(), "value": value.encode()} for name, value in headers.items()]
    sent = [] if body is None else [{"name": "body", "contentType": "", "value": bytearray(body)}]
    return {"requestId": str(number).encode(), "headers": headers, "parameters": sent}
raw = {"Content-Type": "application/octet-stream"}
sent = service.predict([ask(0, raw, bytes.fromhex(body)), ask(1, raw, b"x"), ask(2, {"describe": "True"}, None)])
print("ANSWER", sent.hex())
"""


def test_torchserves_own_loader_and_service_serve_it(tmp_path: Path) -> None:
    folder = write_archive(tmp_path / "edm", routed())
    for room in ("handlers", "defenses", "pictures"):
        (folder / room).symlink_to(ROOT / room)
    (folder / "handler.py").symlink_to(ROOT / "handlers" / "handler.py")
    metrics = ROOT / "deploy" / "metrics.yaml"
    environment = {**os.environ, **ENVIRON, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", SERVED, str(folder), str(metrics), images(2).tobytes().hex()]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = bytes.fromhex(next(line for line in done.stdout.splitlines() if line.startswith("ANSWER"))[7:])
    assert b"Prediction success" in answer
    for part in (
        b'{"predictions":[{"label":',
        b'"code":"wrong_shape"',
        b'"recipe":"digits"',
        b"Bad Request",
    ):
        assert part in answer
    assert "[METRICS]torchwarden_rows_total.Count:2|#ModelName:digits-edm,decision:answer|" in done.stdout
    assert "[METRICS]torchwarden_errors_total.Count:1|#ModelName:digits-edm,code:wrong_shape|" in done.stdout
    assert KEY.hex() not in done.stdout + done.stderr
