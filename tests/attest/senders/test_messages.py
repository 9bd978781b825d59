from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w
from cryptography.fernet import Fernet, InvalidToken

from attest.senders import messages
from attest.target.table import Target
from attest.target.wires import WireError
from tests.attest.service import KEY, table

BODY = bytes(range(256))


def test_a_message_is_what_was_said_whatever_its_bytes() -> None:
    for body in (b"", b"\n", BODY):
        assert messages.parted(messages.joined({"a": [1, "\n"]}, body)) == ({"a": [1, "\n"]}, body)


def test_without_the_key_nothing_is_read_or_made() -> None:
    key, other = Fernet(Fernet.generate_key()), Fernet(Fernet.generate_key())
    sealed = messages.seal(key, {"number": 7}, BODY)
    assert messages.unseal(key, sealed) == ({"number": 7}, BODY)
    assert b"number" not in sealed
    for changed in (sealed[:-5], sealed[:40] + b"A" + sealed[41:], b"", messages.seal(other, {"number": 7})):
        with pytest.raises(InvalidToken):
            messages.unseal(key, changed)


@pytest.mark.parametrize(("value", "found"), [("", "none"), ("short", "5 letters")])
def test_a_key_that_is_none_is_said_without_it(monkeypatch: pytest.MonkeyPatch, value: str, found: str) -> None:
    monkeypatch.setenv(messages.KEY, value)
    with pytest.raises(WireError, match=f"expected the key that all machines of the campaign share, got {found}; make"):
        messages.key_of_environment()


def test_terms_tell_another_secret_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target(**table("http://127.0.0.1:1/x", headers={"X-Api-Key": "env:SHOP_KEY"}))
    monkeypatch.setenv("SHOP_KEY", KEY)
    mine = messages.terms(target, "0" * 64, "key")
    assert mine == messages.terms(target, "0" * 64, "key")
    assert mine["headers"] != messages.terms(target, "0" * 64, "another")["headers"]
    assert KEY not in repr(mine)
    monkeypatch.setenv("SHOP_KEY", KEY + "0")
    assert messages.terms(target, "0" * 64, "key")["headers"] != mine["headers"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--senders", "-1"], "senders: expected 0 or more, got -1 and 0 remote"),
        (["--remote-senders", "1"], "senders-address: expected this machine's HOST:PORT, which other machines reach"),
        (["--remote-senders", "1", "--senders-address", "10.0.0.1:5557"], f"{messages.KEY}: expected the key that all"),
    ],
)
def test_a_campaign_says_what_senders_it_cannot_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.delenv(messages.KEY, raising=False)
    path = tmp_path / "shop.toml"
    path.write_text(tomli_w.dumps({"target": table("http://127.0.0.1:1/x")}))
    command = [sys.executable, "-m", "attest", str(path), "--images", "digits", "--reports", str(tmp_path), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_gevent_stays_out_of_the_campaign_s_process_and_torch_out_of_the_senders() -> None:
    for module, stranger in (("attest.__main__", "gevent"), ("attest.senders.worker", "torch")):
        code = f"import sys, {module}; sys.exit({stranger!r} in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], timeout=100, check=False).returncode == 0, module
