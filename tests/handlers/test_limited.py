"""The handler with limits: refused as a whole, by principal and in total, and every refusal leaves its line."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handlers import audit, bodies, wire
from handlers.errors import LoadError
from handlers.store import SqliteStore
from tests.defenses.policies import section
from tests.handlers.archives import ENVIRON, gate, write_archive
from tests.handlers.test_proof_of_work import BENIGN, HIGHEST, rows, solution, with_solution
from tests.handlers.worker import Worker, images, request

Make = Callable[..., Worker]
LIMITS = {"rows": 20, "total": 30, "window": 60}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes workers of one instance, with limits and the changes of a policy that are given."""
    audit = tmp_path / "audit.jsonl"
    for name, value in {**ENVIRON, "TORCHWARDEN_STATE": str(tmp_path), "TORCHWARDEN_AUDIT": str(audit)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHWARDEN_STORE", raising=False)
    workers: list[Worker] = []

    def make(**changes: Any) -> Worker:
        folder = tmp_path / f"archive-{len(workers)}"
        workers.append(Worker(write_archive(folder, section(**{"limits": LIMITS, **changes}))))
        return workers[-1]

    yield make
    for worker in workers:
        for stage in (worker.handler._limiter, worker.handler._toll):
            store = getattr(stage, "_meter", getattr(stage, "_store", None))
            if isinstance(store, SqliteStore):
                store.close()


def of(principal: str | None, pixels: np.ndarray, content_type: str = wire.RAW) -> tuple[dict[str, Any], bytearray]:
    headers, body = request(pixels, content_type)
    return (headers if principal is None else {**headers, "torchwarden-PRINCIPAL": principal}), body


def audited(tmp_path: Path) -> list[dict[str, Any]]:
    files = [tmp_path / name for name in ("audit.jsonl", "audit.limited.jsonl", "audit.solutions.jsonl")]
    return [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]


def test_a_principal_over_its_limit_is_refused_and_others_are_not(made: Make, tmp_path: Path) -> None:
    worker = made()
    first, second, third, other = worker.ask(
        of("acme", images(12)), of("acme", images(9, 1)), of("acme", images(8, 2)), of("other", images(4, 3))
    )
    assert [first[0], second[0], third[0], other[0]] == [200, 429, 200, 200]
    error = second[1]["error"]
    assert (error["code"], error["row"]) == ("rate_limited", None)
    seconds = int(worker.context.sent[1]["Retry-After"])
    assert 55 < seconds <= 66
    assert error["message"] == f"enough rows were asked for now; try again in {seconds} s"
    assert worker.context.sent[1]["Torchwarden-Answer"] == "rate_limited"
    assert worker.context.sent[0]["Torchwarden-Answer"] == "ok"
    assert "Retry-After" not in worker.context.sent[0]
    assert worker.context.counts["limited_rows_total"].counted == {"principal": 9}
    assert worker.context.counts["errors_total"].counted == {"rate_limited": 1}
    assert worker.context.counts["audit_total"].counted == {"written": 1}
    (line,) = audited(tmp_path)
    digest = hashlib.sha256(b"(9, 1, 4, 5)" + images(9, 1).tobytes()).hexdigest()
    assert line.pop("time").endswith("Z")
    assert line == {
        "request": "request-1",
        "principal": "acme",
        "policy": "digits-undefended",
        "row": None,
        "rows": 9,
        "decision": "rate_limited",
        "score": None,
        "tail": None,
        "digest": digest,
        "count": 1,
    }


def test_all_principals_share_the_total_and_those_without_a_name_one_account(made: Make) -> None:
    worker = made()
    replies = worker.ask(
        of("a", images(14)), of("b", images(12)), of(None, images(5)), of(None, images(4)), of("c", images(1))
    )
    assert [status for status, _ in replies] == [200, 200, 429, 200, 429]
    assert worker.context.counts["limited_rows_total"].counted == {"total": 6}


def test_workers_of_one_instance_and_policies_of_one_recipe_count_together(made: Make) -> None:
    first, second = made(), made(policy="other")
    assert first.ask(of("acme", images(12)))[0][0] == 200
    assert second.ask(of("acme", images(9)))[0][0] == 429


def test_a_full_principal_is_refused_before_anyone_looks_at_its_request(
    made: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = made()
    decoded = []
    real = bodies.opened
    monkeypatch.setattr(bodies, "opened", lambda *args, **more: decoded.append(1) or real(*args, **more))
    replies = worker.ask(of("acme", images(16)), of("acme", images(4)), of("acme", images(1)), of("other", images(1)))
    assert [status for status, _ in replies] == [200, 200, 429, 200]
    assert len(decoded) == 4, "the third was full only by those before it in the batch"
    headers, _ = of("acme", images(1))
    garbage = (headers, bytearray(b"no row at all"))
    replies = worker.ask(garbage, of("other", images(1)), garbage)
    assert [status for status, _ in replies] == [429, 200, 429]
    error = replies[0][1]["error"]
    assert (error["code"], error["row"]) == ("rate_limited", None)
    assert int(worker.context.sent[0]["Retry-After"]) > 55
    assert len(decoded) == 5, "the other's"
    assert worker.context.counts["limited_rows_total"].counted == {"principal": 3}, "1 for what nobody counted"
    assert [(line["decision"], line["rows"]) for line in audited(tmp_path)] == [("rate_limited", 1)], (
        "and the others are counted"
    )
    assert [record["count"] for record in audit.counted(tmp_path / "audit.jsonl")] == [2]


def test_where_all_together_are_full_nobody_is_decoded(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = made()
    for name, count in (("a", 16), ("b", 14)):
        assert worker.ask(of(name, images(count)))[0][0] == 200
    monkeypatch.setattr(bodies, "opened", None)
    assert worker.ask(of("c", images(1)))[0][0] == 429
    assert worker.context.counts["limited_rows_total"].counted == {"total": 1}


def test_a_batch_is_one_transaction_for_its_rows_and_one_for_its_solutions(made: Make) -> None:
    worker = made(policy="same", gate=gate("proof-of-work"), key_env="TORCHWARDEN_KEY")
    dear = rows(HIGHEST, BENIGN)
    replies = worker.ask(*[of("acme", dear)] * 3)
    paid = [with_solution(dear, solution(body["challenge"])) for _, body in replies]
    written: list[str] = []
    for store in (worker.handler._limiter._meter, worker.handler._toll._store):
        store._file._connection.set_trace_callback(written.append)
    plain = [of(name, rows(BENIGN, BENIGN)) for name in ("acme", "other", "third")]
    assert [status for status, _ in worker.ask(*paid, *plain)] == [200] * 6
    verbs = Counter(statement.split()[0] for statement in written)
    assert (verbs["BEGIN"], verbs["COMMIT"]) == (2, 2)
    assert sum("INTO taken" in statement for statement in written) == 12, "six requests, two accounts each"
    assert sum("INTO spent" in statement for statement in written) == 3
    written.clear()
    assert [status for status, _ in worker.ask(*plain[1:])] == [200] * 2
    assert [statement for statement in written if statement.startswith(("BEGIN", "COMMIT"))] == [
        "BEGIN IMMEDIATE",
        "COMMIT",
    ], "and none for solutions that nobody brought"


def test_a_principal_that_is_none_is_not_decoded(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = made()
    monkeypatch.setattr(bodies, "opened", None)
    assert worker.ask(of("a b", images(1)))[0][1]["error"]["code"] == "bad_principal"


def test_bad_rows_count_as_good_ones_do(made: Make) -> None:
    worker = made()
    spoiled = images(16)
    spoiled[:12] = 7
    assert worker.ask(of("acme", spoiled))[0][0] == 200
    garbage = {"content-type": "image/png", "torchwarden-principal": "acme"}
    for _ in range(2):
        assert worker.ask((garbage, bytearray(b"none")))[0][0] == 400
    assert worker.ask(({**garbage, "content-type": "text/html"}, bytearray(b"none")))[0][0] == 415
    assert worker.ask(of("acme", np.zeros((17, *images(1).shape[1:]), np.float32)))[0][0] == 413
    assert worker.ask((garbage, bytearray(b"none")))[0][0] == 429
    assert worker.ask(of("other", images(10)))[0][0] == 200, "all of it was counted for all together as well"
    assert worker.ask(of("third", images(1)))[0][0] == 429


def test_bad_rows_may_count_for_more(made: Make) -> None:
    worker = made(limits={"rows": 96, "window": 60, "bad_rows": 6})
    spoiled = images(16)
    spoiled[:] = 7
    assert worker.ask(of("acme", spoiled))[0][0] == 400
    assert worker.ask(of("acme", images(1)))[0][0] == 429


def test_where_bad_rows_count_for_nothing_only_good_ones_do(made: Make) -> None:
    worker = made(limits={"rows": 16, "window": 60, "bad_rows": 0})
    spoiled = images(16)
    spoiled[:12] = 7
    for _ in range(4):
        assert worker.ask(of("acme", spoiled))[0][0] == 200
    assert worker.ask(({"content-type": "image/png"}, bytearray(b"none")))[0][0] == 400
    assert worker.ask(of("acme", images(1)))[0][0] == 429


def test_what_is_over_the_limit_is_not_evaluated(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = made()
    assert worker.ask(of("acme", images(16)), of("acme", images(4)))[1][0] == 200
    monkeypatch.setattr(worker.handler, "_pipeline", None)
    assert worker.ask(of("acme", images(1)))[0][0] == 429


def test_a_solution_is_not_spent_on_a_request_over_the_limit(made: Make) -> None:
    worker = made(
        policy="same", gate=gate("proof-of-work"), key_env="TORCHWARDEN_KEY", limits={"rows": 16, "window": 1}
    )
    pixels = rows(HIGHEST)
    paid = with_solution(pixels, solution(worker.ask(of(None, pixels))[0][1]["challenge"]))
    assert worker.ask(of(None, np.repeat(rows(BENIGN), 15, 0)))[0][0] == 200
    status, body = worker.ask(paid)[0]
    assert (status, body["error"]["code"]) == (429, "rate_limited")
    import time

    time.sleep(int(worker.context.sent[0]["Retry-After"]) + 0.1)
    assert worker.ask(paid)[0][0] == 200


def test_a_header_that_no_gateway_would_set_is_refused(made: Make) -> None:
    worker = made(limits=None)
    for name in ("", "a b", "x" * 65, "a,b"):
        status, body = worker.ask(of(name, images(1)))[0]
        assert (status, body["error"]["code"]) == (400, "bad_principal")
        assert name not in body["error"]["message"] or not name


def test_where_rows_cannot_be_counted_nobody_is_answered_unless_the_policy_says_so(
    made: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "handlers"):
        closed = made(store="redis://127.0.0.1:1/0")
        open_ = made(store="redis://127.0.0.1:1/0", on_stage_error="open")
    assert "until it answers, every request gets 503" in caplog.text
    assert "until it answers, rows are not limited" in caplog.text
    status, body = closed.ask(of("acme", images(2)))[0]
    assert (status, body["error"]["code"]) == (503, "store_failed")
    assert body["error"]["message"] == "rows cannot be counted now; try again later"
    assert open_.ask(of("acme", images(2)))[0][0] == 200
    assert open_.context.counts["limited_rows_total"].counted == {"unchecked": 2}


def test_a_store_that_fails_between_the_look_and_the_count_answers_nobody(
    made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = made(store="redis://127.0.0.1:1/0")
    monkeypatch.setattr(worker.handler._limiter, "full", lambda principals: [None] * len(principals))
    status, body = worker.ask(of("acme", images(2)))[0]
    assert (status, body["error"]["code"]) == (503, "store_failed")


@pytest.mark.parametrize(("action", "status"), [("observe", 200), ("reject", 403), ("proof-of-work", 428)])
def test_every_suspected_row_leaves_a_line_and_no_image(made: Make, tmp_path: Path, action: str, status: int) -> None:
    key = "TORCHWARDEN_KEY" if action == "proof-of-work" else None
    worker = made(policy="same", gate=gate(action), key_env=key, limits=None)
    pixels = rows(BENIGN, HIGHEST, BENIGN, HIGHEST)
    pixels[0, 0, 0, 0] = np.nan
    assert worker.ask(of("acme", pixels), of(None, pixels[1:2]))[1][0] == status
    lines = audited(tmp_path)
    assert [(line["request"], line["principal"], line["row"], line["rows"]) for line in lines] == [
        ("request-0", "acme", 1, 1),
        ("request-0", "acme", 3, 1),
        ("request-1", "-", 0, 1),
    ]
    for line in lines:
        assert (line["policy"], line["decision"]) == ("digits-same", action)
        assert line["score"] > 1
        assert 0 < line["tail"] < 0.01
        assert line["digest"] == hashlib.sha256(pixels[1].tobytes()).hexdigest()
        assert set(line) == {
            "time",
            "request",
            "principal",
            "policy",
            "row",
            "rows",
            "decision",
            "score",
            "tail",
            "digest",
            "count",
        }
    assert worker.context.counts["audit_total"].counted == {"written": 3}


def test_a_refused_solution_leaves_a_line(made: Make, tmp_path: Path) -> None:
    worker = made(policy="same", gate=gate("proof-of-work"), key_env="TORCHWARDEN_KEY", limits=None)
    assert worker.ask(with_solution(rows(HIGHEST), "bm90aGluZw=="))[0][0] == 403
    (line,) = audited(tmp_path)
    assert (line["decision"], line["row"], line["rows"]) == ("solution_invalid", None, 1)


def test_an_audit_log_that_fails_costs_nobody_the_answer(made: Make, tmp_path: Path) -> None:
    worker = made(policy="same", gate=gate("reject"), limits=None)
    (tmp_path / "audit.jsonl").unlink()
    (tmp_path / "audit.jsonl").mkdir()
    replies = worker.ask(of("acme", rows(HIGHEST)), of("acme", rows(BENIGN)))
    assert [status for status, _ in replies] == [403, 200]
    assert worker.context.counts["audit_total"].counted == {"failed": 1}


def test_an_audit_log_that_cannot_be_written_is_a_load_error(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHWARDEN_AUDIT", "/proc/nowhere/audit.jsonl")
    with pytest.raises(LoadError, match=r"\$TORCHWARDEN_AUDIT: /proc/nowhere/audit\.jsonl cannot be written to"):
        made()
