"""Over HTTP: a clone of one account's answers is traced to that account by one command, and an honest model is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import requests
import torch

from attacks.clone import RECIPES
from attacks.transfer import TransferSet
from evaluation.marks.thieves import Lesson, asked, fitted
from handlers import wire
from tests.conftest import RECIPE, Smoke
from tests.e2e.conftest import run
from zoo import datasets

pytestmark = pytest.mark.server

# Locust's clients call themselves thief-0 and so on (loadtests/users/thief.py)
ACCOUNTS = ("alice", "bob", "carol", "dave", "mallory", "thief-0", "-")
THIEF = "mallory"
EPOCHS = 25


@dataclass(frozen=True)
class Server:
    smoke: Smoke
    folder: Path
    inference: str
    token: str

    def ask(self, images: np.ndarray, principal: str | None) -> np.ndarray:
        """(N,K): what the account is answered, 32 rows a request."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": wire.RAW}
        if principal is not None:
            headers[wire.PRINCIPAL] = principal
        parts = []
        for start in range(0, len(images), 32):
            body = wire.encode_rows(images[start : start + 32], wire.RAW)
            answer = requests.post(self.url, body, headers=headers, timeout=30)
            assert answer.status_code == 200, answer.text
            parts.append(wire.decode_answers(answer.content).probabilities)
        return np.concatenate(parts)

    @property
    def url(self) -> str:
        return f"{self.inference}/predictions/smoke-marked"


@pytest.fixture(scope="module")
def server(marked: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("ownership") / "run"
    instance = ("--instance", "ownership", "--run-folder", folder)
    only = ("--models", "smoke-marked")
    started = run("deploy.server", "start", *instance, "--store", marked.store, "--free-ports", *only)
    try:
        assert started.returncode == 0, started.stderr
        facts = json.loads((folder / "ownership" / "server.json").read_text())
        token = json.loads(Path(facts["key_file"]).read_text())["inference"]["key"]
        yield Server(marked, folder, facts["inference"], token)
    finally:
        stopped = run("deploy.server", "stop", *instance)
    assert stopped.returncode == 0, stopped.stderr


def clone(images: torch.Tensor, targets: torch.Tensor, path: Path) -> Path:
    """A LeNet5 that learnt the targets, as an ONNX file."""
    network = fitted(images, targets, Lesson(asked, RECIPES["adamw"]), classes=10, epochs=EPOCHS, seed=0)
    network = torch.nn.Sequential(network, torch.nn.Softmax(1)).eval()
    batch = torch.export.Dim("batch", min=1, max=1024)
    torch.onnx.export(
        network, (images[:2],), str(path), input_names=["images"], output_names=["probabilities"],
        dynamic_shapes=({0: batch},), dynamo=True,
    )  # fmt: skip
    return path


def owned(server: Server, suspect: str | Path, *more: str | Path) -> str:
    """What the command says."""
    where = ("--recipe", RECIPE, "--store", server.smoke.store, "--keys", server.smoke.key_file)
    done = run("assurance.ownership", suspect, "smoke-marked", *where, *more, "--accounts", *ACCOUNTS)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_accounts_see_the_same_labels_and_other_probabilities(server: Server) -> None:
    images = datasets.load("digits", "test").pixels.numpy()[:64]
    one, other = server.ask(images, "alice"), server.ask(images, "bob")
    assert np.array_equal(one, server.ask(images, "alice"))
    assert (one.argmax(1) == other.argmax(1)).all()
    assert np.abs(one - other).sum(1).mean() > 0.1


def test_a_clone_is_traced_to_the_account_that_asked_and_an_honest_model_is_not(server: Server, tmp_path: Path) -> None:
    train = datasets.load("digits", "train")
    assert train.labels is not None
    answers = torch.from_numpy(server.ask(train.pixels.numpy(), THIEF))
    said = owned(server, clone(train.pixels, answers, tmp_path / "clone.onnx"), "--output", tmp_path / "tries.json")
    assert f"learnt from answers to {THIEF} (p times 7 tries" in said
    tries = json.loads((tmp_path / "tries.json").read_text())["tries"]
    assert [each["claimed"] <= 0.01 for each in tries] == [each["account"] == THIEF for each in tries]
    honest = owned(server, clone(train.pixels, train.labels, tmp_path / "honest.onnx"))
    assert "not enough evidence: 7 tries" in honest
    own = owned(server, server.smoke.build / "smoke" / "victim.onnx")
    assert "not enough evidence: 7 tries, least p times tries 1," in own


def test_a_clone_of_a_locust_campaign_is_traced_to_its_client(server: Server, tmp_path: Path) -> None:
    where = ("--instance", "ownership", "--run-folder", server.folder, "--store", server.smoke.store)
    asked = ("--attacks", "in-distribution", "--quiet", "1", "--run", tmp_path)
    done = run("loadtests.attack", RECIPE, "--policies", "marked", *asked, *where)
    assert done.returncode == 0, done.stdout + done.stderr
    (bought,) = (tmp_path / "transfer").glob("*/transfer.npz")
    transfer = TransferSet.load(bought)
    assert transfer.probabilities is not None
    said = owned(server, clone(transfer.images, transfer.probabilities, tmp_path / "clone.onnx"))
    assert "learnt from answers to thief-0 (p times 7 tries" in said


def test_a_suspect_that_is_served_is_asked_over_http(server: Server, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(server.token)
    said = owned(server, server.url, "--token", token)
    assert "learnt from answers to - (p times 7 tries" in said, "who names no principal shares one account"
