"""Clients that pay are answered, on credit and in earnest, and payments reach the report from the oracle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import requests
import torch

from attacks.oracle import REFUSED, Answers, Ledger
from attacks.transfer import TransferSet
from evaluation import payment
from evaluation.oracles import HttpOracle, InProcessOracle, OracleError
from handlers import loading, wire
from handlers.errors import Rejected
from handlers.forms import Classes
from loadtests import locust_run
from tests.answers import encode_answers, encode_error
from tests.evaluation import gated
from tests.evaluation.stub import TOKEN, Stub
from tests.handlers.archives import ENVIRON
from zoo import datasets

MODEL = "made-up-same"

CLASSES = Classes(tuple(map(str, range(10))))


@cache
def some_digits() -> torch.Tensor:
    return datasets.load("digits", "test").pixels[:24]


@cache
def some_flowers() -> torch.Tensor:
    return datasets.load("flower", "train", size=28, channels=1).pixels[:24]


@cache
def mixed() -> torch.Tensor:
    return torch.cat([some_digits(), some_flowers()])


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    store = tmp_path_factory.mktemp("store")
    return {
        "charging": gated.archive(store, "same", gate=gated.CHARGING, key_env="TORCHWARDEN_KEY"),
        "observing": gated.archive(store, "observing", gate=gated.GATE),
    }


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRON, "TORCHWARDEN_STATE": str(tmp_path_factory.mktemp("state"))}.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def stub(archives: dict[str, Path], environ: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    """A server that charges in earnest."""
    with Stub({MODEL: archives["charging"]}, tmp_path_factory.mktemp("run")) as server:
        oracle = server.oracles[MODEL]
        oracle._till = toll = loading.open_toll(oracle.pipeline.policy)
        yield server
        toll._store.close()  # type: ignore[union-attr]


def post(stub: Stub) -> Any:
    def send(body: bytes, kind: str, more: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": kind, **(more or {})}
        answer = requests.post(f"{stub.url}/predictions/{MODEL}", data=body, headers=headers, timeout=30)
        return answer.status_code, answer.content

    return send


@pytest.fixture(scope="module")
def everything(archives: dict[str, Path]) -> Answers:
    with InProcessOracle(archives["observing"]) as oracle:
        return oracle(mixed())


@pytest.fixture(scope="module")
def prices(archives: dict[str, Path], environ: None) -> torch.Tensor:
    """float64 (N,): what the policy asks for each image."""
    with InProcessOracle(archives["charging"]) as oracle:
        work = torch.from_numpy(oracle.pipeline(mixed().numpy()).work)
    assert (work[:24] > 0).sum() < 3 < 12 < (work[24:] > 0).sum() < 24, "most flowers are suspicious, and few digits"
    return work


def test_without_a_purse_charged_rows_are_refused(
    archives: dict[str, Path], environ: None, prices: torch.Tensor, everything: Answers, stub: Stub
) -> None:
    with InProcessOracle(archives["charging"]) as oracle:
        inside = oracle(mixed())
    for answers in (inside, HttpOracle(post(stub), rows=16)(mixed())):
        assert torch.equal(answers.refused, prices > 0)
        assert torch.equal(answers.labels[prices == 0], everything.labels[prices == 0])
        assert answers.work is None


def test_on_credit_every_row_is_answered_and_its_price_noted(
    archives: dict[str, Path], environ: None, prices: torch.Tensor, everything: Answers
) -> None:
    with InProcessOracle(archives["charging"], pay=True) as oracle:
        together = oracle(mixed())
        alone = [oracle(image[None]) for image in some_flowers()[:8]]
        free = oracle(some_digits()[:4])
    assert torch.equal(together.labels, everything.labels)
    assert together.probabilities is not None
    assert everything.probabilities is not None
    torch.testing.assert_close(together.probabilities, everything.probabilities, rtol=0, atol=1e-6)
    assert together.work is not None
    torch.testing.assert_close(together.work.sum(), prices.sum())
    assert torch.equal(together.work > 0, prices > 0), "the request's price is shared by the rows that are charged"
    assert len(together.work.unique()) == 2
    work = torch.cat([torch.zeros(1).double() if each.work is None else each.work for each in alone])
    torch.testing.assert_close(work, prices[24:32])
    assert free.work is None


def test_in_earnest_the_same_is_answered_and_hashes_are_made(
    stub: Stub, prices: torch.Tensor, everything: Answers
) -> None:
    oracle = HttpOracle(post(stub), rows=16, solver=payment.solve)
    answers = oracle(mixed())
    assert torch.equal(answers.labels, everything.labels)
    assert answers.work is not None
    assert torch.equal(answers.work > 0, prices > 0)
    asked = [round(float(part.sum())) for part in prices.split(16) if part.sum() > 0]
    assert oracle.paid == sum(asked)
    assert float(answers.work.sum()) == pytest.approx(sum(asked))
    assert len(asked) <= oracle.attempts <= sum(2 * hashes - 1 for hashes in asked)


def test_a_client_that_gives_up_is_refused(stub: Stub, prices: torch.Tensor) -> None:
    oracle = HttpOracle(post(stub), rows=16, solver=lambda challenge: None)
    answers = oracle(mixed())
    assert torch.equal(answers.refused, prices > 0)
    assert (answers.work, oracle.paid, oracle.attempts) == (None, 0, 0)


def test_a_payment_that_is_refused_is_no_refusal_of_rows(stub: Stub) -> None:
    oracle = HttpOracle(post(stub), rows=16, solver=lambda challenge: payment.Paid("AAAA", 1))
    with pytest.raises(OracleError, match="the service answered 403 solution_invalid: this solves no challenge"):
        oracle(some_flowers())


def test_a_request_of_which_nothing_is_answered_is_charged_for_all_its_rows() -> None:
    challenge = {"parameters": {"data": {"hashes": 90}}}
    sent: list[dict[str, str]] = []

    def answer(body: bytes, kind: str, more: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        sent.append(dict(more or {}))
        if more:
            return 200, encode_answers(torch.zeros(3).long().numpy(), None, {}, classes=CLASSES)
        return 428, encode_error(Rejected("of whatever code", row=0), challenge)

    oracle = HttpOracle(answer, rows=8, solver=lambda asked: payment.Paid("solved", 7))
    answers = oracle(some_digits()[:3])
    assert sent == [{}, {wire.SOLUTION: "solved"}]
    assert answers.labels.tolist() == [0, 0, 0]
    assert answers.work is not None
    assert answers.work.tolist() == [30, 30, 30]
    assert (oracle.paid, oracle.attempts) == (90, 7)


def test_a_challenge_that_expires_first_is_given_up(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    toll = stub.oracles[MODEL]._till
    assert toll is not None
    challenge = toll.challenge(bytes(32), 2**30)
    now = challenge["parameters"]["expiresAt"]
    monkeypatch.setattr("evaluation.payment.time.time", lambda: now - 0.05)
    assert payment.solve(challenge) is None
    monkeypatch.setattr("evaluation.payment.time.time", lambda: now + 5)
    assert payment.solve(challenge) is None


def test_what_is_too_dear_is_not_solved() -> None:
    challenge = {"parameters": {"data": {"hashes": 100}}}
    assert payment.affordable(challenge, 100)
    assert not payment.affordable(challenge, 99.5)
    assert not payment.affordable(None, 99.5)


def test_a_ledger_adds_up_what_was_paid(archives: dict[str, Path], environ: None, prices: torch.Tensor) -> None:
    with InProcessOracle(archives["charging"], pay=True) as oracle:
        ledger = Ledger(oracle, 100)
        ledger(mixed())
        ledger(some_digits())
    assert ledger.work == pytest.approx(float(prices.sum() + prices[:24].sum()))
    assert ledger.refused == 0


def test_a_campaign_pays_in_earnest_and_so_do_its_neighbours(stub: Stub, tmp_path: Path) -> None:
    recipe = gated.RECIPE + "\n[loadtest]\nbenign_accuracy = 0.0\nwarm_up_s = 0.0\nthink_ms = 5.0\np99_ms = 30000.0\n"
    summary = locust_run.run(
        {"ThiefUser": 2, "BenignUser": 1},
        {
            "recipe": gated.recipe(tmp_path, recipe),
            "policies": "same",
            "run_folder": stub.run_folder,
            "attack": "knockoff",
            "budgets": "120",
            "clients": 2,
            "dilution": 50,
            "quiet": 1,
            "outcome": tmp_path / "theft",
        },
        summary=tmp_path / "summary.json",
    )
    assert summary["broken"] == []
    hashes = sum(kind["hashes"] for kind in summary["kinds"] if kind["role"] == "thief")
    transfer = TransferSet.load(tmp_path / "theft" / "transfer.npz")
    assert (len(transfer), transfer.charged) == (120, 120), "every image was answered"
    assert not (transfer.labels == REFUSED).any()
    # attempts are uniform on 1 to twice the price; four requests or so asked for them
    assert 0.05 * transfer.paid < hashes < 2 * transfer.paid
    assert transfer.paid > 60 * 800 * 0.5
    assert json.loads((tmp_path / "summary.json").read_text())["attack"]["sent"] == 240
