"""The handler with a budget: an account whose queries are too surprising together is treated as its policy says."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handlers import wire
from handlers.errors import LoadError
from handlers.ledger import SqliteLedger
from tests.defenses.policies import section
from tests.handlers.archives import ENVIRON, WORK, gate, write_archive
from tests.handlers.test_limited import audited, of
from tests.handlers.test_proof_of_work import BENIGN, HIGHEST, LOWEST, price, rows, solution
from tests.handlers.worker import Worker, request

Make = Callable[..., Worker]
# images that are far from gray, each another
SURPRISING = np.linspace(0.45, HIGHEST, 12).tolist()
SPENT = "this account is answered no more; its operator knows why"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes workers of one instance, each of a policy whose budget has this `then`."""
    files = {"TORCHWARDEN_BUDGETS": "budgets.sqlite3", "TORCHWARDEN_STATE": "", "TORCHWARDEN_AUDIT": "audit.jsonl"}
    for name, value in {**ENVIRON, **{name: str(tmp_path / file) for name, file in files.items()}}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHWARDEN_STORE", raising=False)
    workers: list[Worker] = []

    def make(then: str, *, action: str = "observe", **changes: Any) -> Worker:
        folder = tmp_path / f"archive-{len(workers)}"
        budget: dict[str, Any] = {"level": 0.001, "then": then}
        if then == "price" and action != "proof-of-work":
            budget["work"] = WORK
        policy = {"gate": gate(action), "budget": budget, "key_env": "TORCHWARDEN_KEY", **changes}
        workers.append(Worker(write_archive(folder, section(**policy))))
        return workers[-1]

    yield make
    for worker in workers:
        ledger = getattr(worker.handler._accounts, "_ledger", None)
        if isinstance(ledger, SqliteLedger):
            ledger.close()


def spend(worker: Worker, principal: str = "thief") -> None:
    """Make a principal's account spend its budget."""
    worker.ask(of(principal, rows(*SURPRISING)))


def test_an_account_is_answered_with_labels_from_the_batch_on_that_spends_its_budget(made: Make) -> None:
    worker = made("label")
    plain = worker.ask(of("thief", rows(HIGHEST, 0.44)))
    assert "probabilities" in plain[0][1]["predictions"][0]
    thief, other, same = worker.ask(
        of("thief", rows(*SURPRISING)), of("other", rows(BENIGN)), of("thief", rows(BENIGN))
    )
    assert [thief[0], other[0], same[0]] == [200, 200, 200]
    for _, body in (thief, same):
        assert all(set(each) == {"label", "name"} for each in body["predictions"])
    assert "probabilities" in other[1]["predictions"][0]
    ((_, later),) = worker.ask(of("thief", rows(BENIGN)))
    assert set(later["predictions"][0]) == {"label", "name"}
    assert worker.context.counts["budget_total"].counted == {"spent": 1, "label": 12 + 1 + 1}


def test_labels_are_those_that_probabilities_came_with(made: Make) -> None:
    worker = made("label")
    pixels = rows(BENIGN, LOWEST, HIGHEST)
    ((_, before),) = worker.ask(of("honest", pixels))
    spend(worker)
    ((_, after),) = worker.ask(of("thief", pixels))
    assert [each["label"] for each in after["predictions"]] == [each["label"] for each in before["predictions"]]


@pytest.mark.parametrize("content_type", [wire.RAW, wire.JSON])
def test_an_account_is_refused_as_a_whole(made: Make, content_type: str) -> None:
    worker = made("refuse")
    spend(worker)
    refused, other = worker.ask(of("thief", rows(BENIGN, BENIGN), content_type), of("other", rows(BENIGN)))
    assert (refused[0], other[0]) == (403, 200)
    assert refused[1]["error"] == {"code": "budget_spent", "message": SPENT, "row": None}
    assert worker.context.counts["errors_total"].counted == {"budget_spent": 2}


def test_every_row_of_an_account_has_the_highest_price(made: Make) -> None:
    worker = made("price")
    spend(worker)
    pixels = rows(BENIGN, BENIGN)
    ((status, body),) = worker.ask(of("thief", pixels))
    assert status == 428
    assert price(body["challenge"]) == 2 * 160
    ((status, _),) = worker.ask(of("other", pixels))
    assert status == 200
    headers, content = of("thief", pixels)
    paid = {**headers, "Torchwarden-Solution": solution(body["challenge"])}
    ((status, body),) = worker.ask((paid, content))
    assert (status, len(body["predictions"])) == (200, 2)


def test_the_gate_s_price_is_the_account_s_where_it_has_one(made: Make) -> None:
    worker = made("price", action="proof-of-work")
    spend(worker)
    ((status, body),) = worker.ask(of("thief", rows(BENIGN, LOWEST)))
    assert (status, price(body["challenge"])) == (428, 160 + 160)


def test_a_paid_row_is_counted_once(made: Make, tmp_path: Path) -> None:
    worker = made("observe", action="proof-of-work")
    pixels = rows(LOWEST)
    ((_, body),) = worker.ask(of("acme", pixels))
    headers, content = of("acme", pixels)
    assert worker.ask(({**headers, "Torchwarden-Solution": solution(body["challenge"])}, content))[0][0] == 200
    assert queries(tmp_path, "acme") == 1


def test_a_probe_that_asks_the_same_image_for_ever_is_no_thief(made: Make, tmp_path: Path) -> None:
    worker = made("refuse")
    for _ in range(20):
        replies = worker.ask(of("readiness", rows(HIGHEST, HIGHEST)), of("readiness", rows(HIGHEST)))
        assert [status for status, _ in replies] == [200, 200]
    assert queries(tmp_path, "readiness") == 1


def test_an_observed_account_is_answered_and_written_down_once(made: Make, tmp_path: Path) -> None:
    worker, plain = made("observe"), made("observe", budget=None)
    spend(worker)
    assert worker.ask(of("thief", rows(BENIGN))) == plain.ask(of("thief", rows(BENIGN)))
    lines = [line for line in audited(tmp_path) if line["decision"] == "budget"]
    assert len(lines) == 1
    line = lines[0]
    assert (line["principal"], line["row"], line["rows"], line["digest"]) == ("thief", None, 12, None)
    assert line["score"] >= 3
    assert line["tail"] == pytest.approx(10.0 ** -line["score"])
    assert worker.context.counts["budget_total"].counted == {"spent": 1, "observe": 12 + 1}


def test_the_gate_s_own_word_stands(made: Make) -> None:
    worker = made("label", action="reject")
    ((status, body),) = worker.ask(of("acme", rows(BENIGN, HIGHEST)))
    assert (status, body["predictions"][1]["error"]["code"]) == (200, "rejected")
    spend(worker, "acme")
    ((_, body),) = worker.ask(of("acme", rows(BENIGN, HIGHEST)))
    assert set(body["predictions"][0]) == {"label", "name"}
    assert body["predictions"][1]["error"]["code"] == "rejected"


def test_refused_rows_are_counted_too_and_policies_of_one_recipe_share_accounts(made: Make, tmp_path: Path) -> None:
    first, second = made("label", action="reject"), made("refuse", policy="other")
    spend(first)
    assert queries(tmp_path, "thief") == 12
    assert second.ask(of("thief", rows(BENIGN)))[0][0] == 403


def test_clients_without_a_name_share_an_account(made: Make) -> None:
    worker = made("refuse")
    worker.ask(of(None, rows(*SURPRISING)))
    assert worker.ask(of(None, rows(BENIGN)), of("acme", rows(BENIGN)))[0][0] == 403


def test_a_new_worker_knows_the_accounts(made: Make) -> None:
    spend(made("label"))
    ((_, body),) = made("label").ask(of("thief", rows(BENIGN)))
    assert set(body["predictions"][0]) == {"label", "name"}


def test_rows_that_cannot_be_counted_are_refused(made: Make, tmp_path: Path) -> None:
    worker = made("observe")
    worker.ask(of("acme", rows(BENIGN)))
    with sqlite3.connect(tmp_path / "budgets.sqlite3") as file:
        file.execute("DROP TABLE accounts")
    file.close()
    answer, bad = worker.ask(of("acme", rows(BENIGN)), (of("acme", rows(BENIGN))[0], bytearray(b"no row")))
    assert (answer[0], answer[1]["error"]["code"]) == (503, "store_failed")
    assert bad[0] == 400, "a request without a row needs no account"
    assert worker.context.counts["rows_total"].counted == {"answer": 2}, "the pipeline had answered"


def test_an_open_policy_answers_what_it_cannot_count(made: Make, tmp_path: Path) -> None:
    worker = made("refuse", on_stage_error="open")
    spend(worker)
    with sqlite3.connect(tmp_path / "budgets.sqlite3") as file:
        file.execute("DROP TABLE accounts")
    file.close()
    assert worker.ask(of("thief", rows(BENIGN)))[0][0] == 200
    assert worker.context.counts["budget_total"].counted["unchecked"] == 1


def test_a_policy_without_a_budget_opens_no_file(made: Make, tmp_path: Path) -> None:
    worker = made("label", budget=None)
    assert worker.ask(request(rows(BENIGN)))[0][0] == 200
    assert not (tmp_path / "budgets.sqlite3").exists()


def test_without_a_place_for_accounts_the_load_error_says_what_to_do(
    made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHWARDEN_BUDGETS")
    with pytest.raises(LoadError, match=r"neither \$TORCHWARDEN_BUDGETS"):
        made("label")


def queries(folder: Path, principal: str) -> int:
    """What the file says an account has asked."""
    with sqlite3.connect(folder / "budgets.sqlite3") as file:
        ((state,),) = file.execute("SELECT state FROM accounts WHERE name = ?", (f"digits/budget/{principal}",))
    file.close()
    return int(np.frombuffer(state[:8], "<f8")[0])


def test_nothing_that_a_client_sent_is_in_the_audit_line(made: Make, tmp_path: Path) -> None:
    worker = made("refuse")
    spend(worker)
    worker.ask(of("thief", rows(BENIGN)))
    known = {"time", "request", "principal", "policy", "row", "rows", "decision", "score", "tail", "digest", "count"}
    lines = audited(tmp_path)
    assert {line["decision"] for line in lines} == {"observe", "budget", "budget_spent"}
    assert all(set(line) == known for line in lines)
    assert json.dumps(lines)
