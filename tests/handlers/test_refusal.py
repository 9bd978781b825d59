"""Refusals as a gateway asks for them, and as everyone else gets them."""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest

from deploy.gateway import refusals
from handlers import errors, wire
from handlers.forms import Encoded
from handlers.refusal import ASKED, LONGEST, REDIRECT, STATUSES, TRUE, redirected
from tests.defenses.policies import section
from tests.handlers.archives import write_archive
from tests.handlers.worker import Worker, images, request

BODY = b'{"error":{"code":"rejected","message":"this row is refused","row":0}}'


def test_every_refusal_has_its_place_in_the_gateway() -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type)]
    statuses = {each.status for each in kinds if issubclass(each, errors.RequestError) and hasattr(each, "status")}
    assert {status for status in statuses if status < 500} == STATUSES == set(refusals.HANDLERS)
    for status in STATUSES:
        assert f"location @refusal_{status} {{" in refusals.handlers()
        assert f"return {status} ${'upstream_http_' + TRUE.lower().replace('-', '_')};" in refusals.handlers()


def test_the_true_status_and_body_go_in_headers() -> None:
    refused = Encoded(403, BODY, headers={"Torchwarden-Challenge": "abc"})
    place = {"X-Accel-Redirect": "@refusal_403", TRUE: BODY.decode()}
    wanted = Encoded(HTTPStatus.OK, b"", headers={"Torchwarden-Challenge": "abc", **place})
    assert redirected(refused, REDIRECT) == wanted


@pytest.mark.parametrize("asked", [None, "", "Redirect", "yes", {"content-type": REDIRECT}])
def test_who_does_not_ask_sees_the_status(asked: object) -> None:
    assert redirected(Encoded(403, BODY), asked) == Encoded(403, BODY)


@pytest.mark.parametrize(
    "encoded",
    [
        Encoded(200, BODY),
        Encoded(500, BODY),
        Encoded(503, BODY),
        Encoded(400, b"two\r\nX-Accel-Redirect: @ask"),
        Encoded(400, b"\x00"),
        Encoded(400, "Größe".encode()),
        Encoded(400, b"x" * (LONGEST + 1)),
    ],
)
def test_what_is_no_refusal_or_no_headers_value_stays_as_it_is(encoded: Encoded) -> None:
    assert redirected(encoded, REDIRECT) == encoded


def test_the_handler_tells_one_request_of_a_batch_apart_from_its_neighbours(tmp_path: Path) -> None:
    worker = Worker(write_archive(tmp_path / "undefended", section(policy="undefended")))
    spoiled = images(1)
    spoiled[:] = np.nan
    headers, body = request(spoiled)
    asking = {**headers, ASKED: REDIRECT}
    worker.context.requests = [headers, asking, asking]
    _, good = request(images(1))
    bodies = worker.handler.handle([{"body": body}, {"body": body}, {"body": good}], worker.context)
    assert [worker.context.status[index] for index in range(3)] == [(400, "Bad Request"), (200, "OK"), (200, "OK")]
    plain, hidden, answered = (worker.context.sent[index] for index in range(3))
    assert bodies[1] == b""
    assert hidden.pop(TRUE) == bodies[0].decode()
    assert hidden.pop("X-Accel-Redirect") == "@refusal_400"
    assert hidden == plain
    assert json.loads(bodies[0])["error"]["code"] == plain[wire.ANSWER] == "not_finite"
    assert set(json.loads(bodies[2])) == {"predictions"}
    assert answered[wire.ANSWER] == "ok"
