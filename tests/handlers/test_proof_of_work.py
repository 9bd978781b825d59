"""What the gate keeps from a client, and how a request is paid for, through a handler with real graphs and SQLite."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from altcha import Challenge, Payload, solve_challenge

from defenses.memory import Solution, StoreError
from handlers import wire
from handlers.errors import LoadError
from handlers.store import SqliteStore
from tests.defenses.policies import routed, section
from tests.handlers.archives import ENVIRON, KEY, WORK, gate, write_archive
from tests.handlers.worker import SHAPE, Worker, request

# distances from gray: S = 20 a^2 is 0.2, 1.25, 1.46 and 5
BENIGN, LOWEST, MIDDLE, HIGHEST = 0.1, 0.25, 0.27, 0.5
PRICES = {BENIGN: 0, LOWEST: 10, MIDDLE: 40, HIGHEST: 160}
WANTED = "this row is answered once the request's challenge is solved"

Make = Callable[..., Worker]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes workers of one instance, each of a policy `action`; they share a store."""
    for name, value in {**ENVIRON, "TORCHWARDEN_STATE": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHWARDEN_STORE", raising=False)
    workers: list[Worker] = []

    def make(action: str = "proof-of-work", *, work: dict[str, Any] | None = None, **changes: Any) -> Worker:
        folder = tmp_path / f"archive-{len(workers)}"
        policy = {"policy": "same", "gate": gate(action, **(work or {})), "key_env": "TORCHWARDEN_KEY", **changes}
        workers.append(Worker(write_archive(folder, section(**policy))))
        return workers[-1]

    yield make
    for worker in workers:
        store = getattr(worker.handler._toll, "_store", None)
        if isinstance(store, SqliteStore):
            store.close()


def rows(*distances: float) -> np.ndarray:
    """One image for each distance from gray, half of its pixels lighter."""
    signs = np.where(np.arange(np.prod(SHAPE)) % 2, 1, -1).reshape(SHAPE)
    return np.stack([0.5 + distance * signs for distance in distances]).astype(np.float32)


def solution(challenge: dict[str, Any]) -> str:
    asked = Challenge.from_dict(challenge)
    found = solve_challenge(asked)
    assert found is not None
    return str(Payload(asked, found).to_base64())


def with_solution(pixels: np.ndarray, payload: str, content_type: str = wire.RAW) -> tuple[dict[str, Any], bytearray]:
    headers, body = request(pixels, content_type)
    return {**headers, "Torchwarden-Solution": payload}, body


def price(challenge: dict[str, Any]) -> int:
    return int(challenge["parameters"]["data"]["hashes"])


@pytest.mark.parametrize("distance", [LOWEST, MIDDLE, HIGHEST])
def test_a_suspicious_row_is_answered_when_it_is_paid_for(made: Make, distance: float) -> None:
    worker, observed = made(), made("observe")
    pixels = rows(distance)
    ((status, body),) = worker.ask(request(pixels))
    assert worker.context.status[0] == (428, "Precondition Required")
    assert body["error"] == {"code": "proof_of_work", "message": WANTED, "row": 0}
    assert set(body) == {"error", "challenge"}
    assert price(body["challenge"]) == PRICES[distance]
    payload = solution(body["challenge"])
    assert worker.ask(with_solution(pixels, payload)) == observed.ask(request(pixels))
    assert worker.context.counts["rows_total"].counted == {"proof-of-work": 1, "paid": 1}
    ((status, body),) = worker.ask(with_solution(pixels, payload))
    assert (status, set(body)) == (403, {"error"})
    assert (body["error"]["code"], body["error"]["row"]) == ("solution_spent", None)


def test_a_benign_row_passes(made: Make) -> None:
    worker, plain = made(), made("observe", gate=None)
    assert worker.ask(request(rows(BENIGN))) == plain.ask(request(rows(BENIGN)))
    assert worker.context.counts["work_total"].counted == {}


def test_one_challenge_asks_for_all_rows_of_a_request_and_the_rest_are_answered(made: Make) -> None:
    worker, observed = made(), made("observe")
    pixels = rows(HIGHEST, BENIGN, LOWEST, BENIGN)
    ((_, everything),) = observed.ask(request(pixels))
    ((status, body),) = worker.ask(request(pixels))
    assert status == 200
    for place in (1, 3):
        assert body["predictions"][place] == everything["predictions"][place]
    for place in (0, 2):
        error = {"code": "proof_of_work", "message": WANTED, "row": place}
        assert body["predictions"][place] == {"error": error}
    assert price(body["challenge"]) == 160 + 10
    payload = solution(body["challenge"])
    assert worker.ask(with_solution(pixels, payload)) == [(200, everything)]
    assert worker.context.counts["rows_total"].counted == {"answer": 2, "proof-of-work": 2, "paid": 4}
    assert sum(worker.context.counts["scores_total"].counted.values()) == 4, "what is paid for is not scored"


def test_rows_that_cost_more_together_than_can_be_asked_for_are_refused_and_none_gets_a_discount(made: Make) -> None:
    """160 hashes the dearest in the fixture's policy; here as many as a challenge may ask for one and a half times."""
    worker = made(work={"mean_benign": WORK["mean_benign"] * 2**31 / 160 / 1.5})
    one, two = rows(HIGHEST), rows(HIGHEST, BENIGN, HIGHEST)
    ((status, body),) = worker.ask(request(one))
    assert (status, price(body["challenge"])) == (428, round(2**31 / 1.5))
    ((status, body),) = worker.ask(request(two))
    assert (status, "challenge" in body) == (200, False)
    assert "label" in body["predictions"][1], "a row that is free is answered whatever the other rows"
    for place in (0, 2):
        error = body["predictions"][place]["error"]
        assert (error["code"], error["row"]) == ("too_much_work", place)
        assert error["message"].endswith("than one challenge may ask for; send fewer rows")
    ((status, body),) = worker.ask(request(two[[0, 2]]))
    assert (status, set(body), body["error"]["code"]) == (413, {"error"}, "too_much_work")
    assert worker.context.counts["work_total"].counted == {"issued": 1}


def test_a_bad_row_next_to_one_that_must_pay(made: Make) -> None:
    worker = made()
    pixels = rows(HIGHEST, HIGHEST, BENIGN)
    pixels[0, 0, 0, 0] = 7
    ((status, body),) = worker.ask(request(pixels[:2]))
    assert status == 428, "the one that can be answered decides"
    assert (body["error"]["code"], body["error"]["row"]) == ("proof_of_work", 1)
    ((status, paid),) = worker.ask(with_solution(pixels[:2], solution(body["challenge"])))
    assert status == 200
    assert paid["predictions"][0]["error"]["code"] == "out_of_range"
    assert "label" in paid["predictions"][1]
    ((status, body),) = worker.ask(request(pixels))
    assert status == 200
    assert [each.get("error", {}).get("code") for each in body["predictions"]] == [
        "out_of_range",
        "proof_of_work",
        None,
    ]


def test_requests_of_a_batch_have_challenges_of_their_own(made: Make) -> None:
    worker = made()
    first, second = rows(HIGHEST, BENIGN), rows(LOWEST)
    (_, one), (_, two), (_, three) = worker.ask(request(first), request(second), request(rows(BENIGN)))
    assert (price(one["challenge"]), price(two["challenge"])) == (160, 10)
    assert "challenge" not in three
    spent = solution(two["challenge"])
    answers = worker.ask(
        with_solution(second, spent),
        with_solution(second, spent),
        with_solution(second, solution(one["challenge"])),
        with_solution(first, solution(one["challenge"])),
        request(rows(BENIGN)),
    )
    assert [status for status, _ in answers] == [200, 403, 403, 200, 200]
    assert [body["error"]["code"] for _, body in answers[1:3]] == ["solution_spent", "solution_invalid"]


def test_the_same_pixels_are_the_same_request_in_every_content_type(made: Make) -> None:
    worker = made()
    pixels = rows(HIGHEST)
    for asked, sent in ((wire.PNG, wire.RAW), (wire.RAW, wire.JSON), (wire.JSON, wire.PNG)):
        ((_, body),) = worker.ask(request(pixels, asked))
        ((status, _),) = worker.ask(with_solution(pixels, solution(body["challenge"]), sent))
        assert status == 200


def test_a_solution_pays_for_nothing_else(made: Make) -> None:
    worker, other = made(), made(policy="another")
    pixels = rows(HIGHEST)
    ((_, body),) = worker.ask(request(pixels))
    payload = solution(body["challenge"])
    brighter = pixels.copy()
    brighter[0, 0, 0, 0] += 1e-3
    for asked, sent in (
        (worker, with_solution(rows(HIGHEST, HIGHEST), payload)),
        (worker, with_solution(brighter, payload)),
        (worker, with_solution(1 - pixels, payload)),
        (other, with_solution(pixels, payload)),
        (worker, with_solution(pixels, payload[:-8])),
        (worker, with_solution(pixels, "")),
        (worker, with_solution(pixels, "\n[METRICS]forged.Count:1|#ModelName:x|#type:COUNTER")),
    ):
        ((status, answer),) = asked.ask(sent)
        assert (status, answer["error"]["code"], answer["error"]["row"]) == (403, "solution_invalid", None)
        assert "forged" not in json.dumps(answer)
    assert worker.ask(with_solution(pixels, payload))[0][0] == 200, "none of that has spent it"


def test_workers_of_an_instance_share_what_is_spent(made: Make) -> None:
    first, second = made(), made()
    pixels = rows(HIGHEST)
    ((_, body),) = first.ask(request(pixels))
    payload = solution(body["challenge"])
    assert second.ask(with_solution(pixels, payload))[0][0] == 200
    assert first.ask(with_solution(pixels, payload))[0][1]["error"]["code"] == "solution_spent"


def test_a_solution_that_comes_too_late_is_refused(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = made(work={"lifetime": 60})
    pixels = rows(HIGHEST)
    ((_, body),) = worker.ask(request(pixels))
    payload, toll = solution(body["challenge"]), worker.handler._toll
    assert toll is not None
    now = toll._clock()
    monkeypatch.setattr(toll, "_clock", lambda: now + 61)
    ((status, answer),) = worker.ask(with_solution(pixels, payload))
    assert (status, answer["error"]["code"]) == (403, "solution_expired")


def test_a_request_that_cannot_be_answered_spends_nothing(made: Make) -> None:
    worker = made()
    pixels = rows(HIGHEST)
    ((_, body),) = worker.ask(request(pixels))
    payload = solution(body["challenge"])
    headers, _ = with_solution(pixels, payload)
    assert worker.ask((headers, bytearray(b"x")))[0][1]["error"]["code"] == "wrong_shape"
    assert worker.ask(with_solution(pixels, payload))[0][0] == 200


def test_a_solution_that_was_not_needed_is_taken_all_the_same(made: Make) -> None:
    """The score of the first try does not bind the second: a request with a good solution is not scored."""
    worker = made()
    toll = worker.handler._toll
    assert toll is not None
    pixels = rows(BENIGN)
    digest = wire.Rows(pixels).digest
    assert worker.ask(with_solution(pixels, solution(toll.challenge(digest, 1))))[0][0] == 200
    assert worker.context.counts["rows_total"].counted == {"paid": 1}


def test_a_store_that_fails_costs_the_rows_that_must_pay_and_no_other(
    made: Make, caplog: pytest.LogCaptureFixture
) -> None:
    worker, observed = made(), made("observe")
    pixels = rows(HIGHEST)
    ((_, body),) = worker.ask(request(pixels))
    payload, toll = solution(body["challenge"]), worker.handler._toll
    assert toll is not None

    class Gone:
        def life(self) -> str:
            raise StoreError("Redis did not answer: ConnectionError")

        def spend(self, solutions: Sequence[Solution]) -> list[bool]:
            raise StoreError("Redis did not answer: ConnectionError")

    store = toll._store
    toll._store = Gone()
    with caplog.at_level(logging.INFO, "handlers"):
        unpaid, paid, mixed, benign = worker.ask(
            request(pixels), with_solution(pixels, payload), request(rows(HIGHEST, BENIGN)), request(rows(BENIGN))
        )
    message = "proof of work cannot be asked for or checked now; try again later"
    assert unpaid == (503, {"error": {"code": "store_failed", "message": message, "row": 0}})
    assert paid == (503, {"error": {"code": "store_failed", "message": message, "row": None}})
    assert mixed[0] == 200
    assert mixed[1]["predictions"][0] == unpaid[1]
    assert "challenge" not in mixed[1]
    assert [benign] == observed.ask(request(rows(BENIGN)))
    assert len(caplog.records) == 3
    assert all(line.startswith("store: StoreError at ") for line in caplog.messages)
    assert worker.context.counts["errors_total"].counted["store_failed"] == 3
    toll._store = store
    assert worker.ask(with_solution(pixels, payload))[0][0] == 200, "and it was not spent"


def test_a_rejected_row_is_a_403_and_its_neighbours_are_answered(made: Make) -> None:
    worker, observed = made("reject"), made("observe")
    error = {"code": "rejected", "message": "this row is refused", "row": 0}
    assert worker.ask(request(rows(HIGHEST))) == [(403, {"error": error})]
    ((status, body),) = worker.ask(request(rows(HIGHEST, BENIGN)))
    assert status == 200
    assert body["predictions"][0] == {"error": error}
    assert body["predictions"][1] == observed.ask(request(rows(HIGHEST, BENIGN)))[0][1]["predictions"][1]
    assert worker.context.counts["rows_total"].counted == {"reject": 2, "answer": 1}
    assert worker.context.counts["errors_total"].counted == {"rejected": 2}


def test_what_is_only_observed_is_answered_and_counted(made: Make) -> None:
    observed, plain = made("observe"), made("observe", gate=None)
    pixels = rows(HIGHEST, BENIGN)
    assert observed.ask(request(pixels)) == plain.ask(request(pixels))
    assert observed.context.counts["rows_total"].counted == {"observe": 1, "answer": 1}


@pytest.mark.parametrize("action", ["observe", "reject"])
def test_a_policy_without_proof_of_work_ignores_solutions_and_needs_no_store(
    made: Make, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    for name in ("TORCHWARDEN_STATE", "TORCHWARDEN_KEY"):
        monkeypatch.delenv(name)
    worker = made(action)
    plain = worker.ask(request(rows(HIGHEST, BENIGN)))
    assert worker.ask(with_solution(rows(HIGHEST, BENIGN), "AAAA")) == plain


def test_a_failed_stage_costs_its_rows_and_the_others_may_still_be_asked_to_pay(made: Make) -> None:
    worker = made()
    judge = worker.graphs["same"]

    def spoiled(pixels: np.ndarray) -> Any:
        outputs = judge(pixels)
        return {**outputs, "error": np.where(pixels[:, :1, 0, 1] > 0.9, np.nan, outputs["error"]).astype(np.float32)}

    worker.graphs["same"] = spoiled
    ((status, body),) = worker.ask(request(rows(HIGHEST, LOWEST, BENIGN)))
    assert status == 200
    codes = [each.get("error", {}).get("code") for each in body["predictions"]]
    assert codes == ["stage_failed", "proof_of_work", None]
    assert price(body["challenge"]) == 10


def test_metrics_count_scores_by_band_and_the_events_of_payment(made: Make) -> None:
    worker = made()
    pixels = rows(LOWEST)
    ((_, body),) = worker.ask(request(pixels))
    payload = solution(body["challenge"])
    for _ in range(3):
        worker.ask(with_solution(pixels, payload))
    worker.ask(with_solution(pixels, "AAAA"), request(rows(BENIGN, HIGHEST)))
    counted = {name: metric.counted for name, metric in worker.context.counts.items()}
    assert counted["work_total"] == {"issued": 2, "solved": 1, "replayed": 2, "invalid": 1}
    # S of 1.25, 0.2 and 5: 0.01 e^-2, 0.01^0.2 and 0.01 e^-32
    assert counted["scores_total"] == {"0.003": 1, "1": 1, "1e-06": 1}
    assert counted["rows_total"] == {"proof-of-work": 2, "paid": 1, "answer": 1}
    assert counted["errors_total"] == {"proof_of_work": 2, "solution_spent": 2, "solution_invalid": 1}
    assert {"admit", "gate"} < set(counted["stage_seconds"])


def test_a_gate_goes_with_a_route(made: Make) -> None:
    worker = made(**{key: value for key, value in routed().items() if key in ("members", "route")})
    ((_, body),) = worker.ask(request(rows(HIGHEST, BENIGN, LOWEST)))
    assert [set(each) for each in body["predictions"]] == [{"error"}, {"label", "name", "probabilities"}, {"error"}]


def test_no_answer_tells_scores_or_secrets(made: Make, caplog: pytest.LogCaptureFixture) -> None:
    worker = made()
    with caplog.at_level(logging.DEBUG):
        shown = [json.dumps(worker.ask(request(rows(distance, BENIGN)))) for distance in PRICES]
        shown.append(json.dumps(worker.handler.describe_handle()))
    assert json.loads(shown[-1])["gate"] == "proof-of-work"
    toll = worker.handler._toll
    assert toll is not None
    derived = [secret.hex() for secret in toll._secrets.values()]
    for text in [*shown, caplog.text, repr(toll), repr(worker.handler)]:
        for secret in [KEY.hex(), *derived]:
            assert secret not in text
    for text in shown:
        for word in ("score", "threshold", "tail", "calibration", "robust", "paper", "0.01"):
            assert word not in text.replace('"policy": "same"', "")


def test_without_a_place_for_the_store_the_archive_does_not_load(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHWARDEN_STATE")
    with pytest.raises(LoadError, match=r"neither \$TORCHWARDEN_STATE .* nor \$TORCHWARDEN_STORE"):
        made()


def test_a_redis_that_is_not_there_yet_is_no_load_error(made: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "handlers"):
        worker = made(store="redis://127.0.0.1:1/0")
    assert "store: Redis did not answer: ConnectionError; until it answers, rows that must pay get 503" in caplog.text
    (benign, suspicious) = worker.ask(request(rows(BENIGN)), request(rows(HIGHEST)))
    assert (benign[0], suspicious[0]) == (200, 503)
