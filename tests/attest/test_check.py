"""`python -m loadtests.target check`: what it sends, what it shows, what it says when nothing is understood."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from attest.target import check
from tests.attest.service import KEY, Answer, Means, Reply, Service, honest
from tests.attest.service import table as fields


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str, **table: object) -> str:
    """The command's output, and its message where it fails."""
    (folder / "shop.toml").write_text(tomli_w.dumps({"target": table}))
    monkeypatch.setattr(sys, "argv", ["target", "check", "shop", "--targets", str(folder), *words])
    try:
        check.main()
    except SystemExit as end:
        return f"exit: {end}"
    return ""


@pytest.fixture(scope="module")
def model() -> Means:
    return Means()


def test_it_shows_what_it_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: Means
) -> None:
    with Service(model=model) as service:
        assert run(tmp_path, monkeypatch, "--images", "digits", **fields(service.url)) == ""
        assert len(service.seen) == 10
    shown = capsys.readouterr().out
    assert "answers: 10 x 200 answered" in shown
    assert "form: probabilities, 10 numbers, sums 1.000 to 1.000" in shown
    assert "of 10" in shown.splitlines()[-1]


def test_a_dry_run_sends_nothing_reads_no_secret_and_says_the_price(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: Means
) -> None:
    monkeypatch.delenv("SHOP_KEY", raising=False)
    headers = {"X-Api-Key": "env:SHOP_KEY"}
    with Service(model=model) as service:
        assert run(tmp_path, monkeypatch, "--dry-run", **fields(service.url, headers=headers, rate=4.0)) == ""
        assert service.seen == []
    shown = capsys.readouterr().out
    assert "X-Api-Key: (env:SHOP_KEY)" in shown
    assert "these 10: 10 queries, 0.02 EUR, at least 2 s at 4 a second" in shown
    assert "the whole budget: 400 queries, 0.80 EUR, at least 100 s" in shown


def elsewhere(service: Service, pixels: np.ndarray) -> Reply:
    return 307, {"Location": "http://127.0.0.1:1/?token=secret"}, b""


def unknown_key(service: Service, pixels: np.ndarray) -> Reply:
    return 401, {}, f"no such key: {service.headers.get('X-Api-Key')}".encode()


def other_place(service: Service, pixels: np.ndarray) -> Reply:
    return 200, {}, b'{"scores": [1, 0]}'


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (elsewhere, "307, a redirection to 'http://127.0.0.1:1/' is not followed"),
        (unknown_key, "401 'no such key: (X-Api-Key)'; is the header with the key right?"),
        (
            other_place,
            "nothing at 'predictions[0].scores' in '{\"scores\": [1, 0]}'; are answer, scale",
        ),
    ],
)
def test_where_nothing_is_understood_it_says_where_to_look(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: Means,
    answer: Answer,
    said: str,
) -> None:
    monkeypatch.setenv("SHOP_KEY", KEY)
    with Service(answer, model) as service:
        message = run(tmp_path, monkeypatch, **fields(service.url, headers={"X-Api-Key": "env:SHOP_KEY"}))
    assert said in message
    assert KEY not in message + capsys.readouterr().out


def test_probabilities_that_are_called_logits_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: Means
) -> None:
    def flat(service: Service, pixels: np.ndarray) -> Reply:
        return 200, {}, b'{"predictions": [{"scores": [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]}]}'

    with Service(flat, model) as service:
        assert run(tmp_path, monkeypatch, **fields(service.url, scale="logits")) == ""
    assert "were they probabilities already?" in capsys.readouterr().out


def test_the_command_of_loadtests_is_this_one(tmp_path: Path, model: Means) -> None:
    with Service(honest, model) as service:
        (tmp_path / "shop.toml").write_text(tomli_w.dumps({"target": fields(service.url)}))
        command = [sys.executable, "-m", "loadtests.target", "check", "shop", "--targets", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "answers: 10 x 200 answered" in done.stdout
