from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from attest.target import table
from attest.target.table import TargetError
from tests.attest.service import KEY
from tests.attest.service import table as fields

ELSEWHERE = "https://staging.example.org/v1/classify"
TOMORROW = (datetime.now(timezone.utc).date() + timedelta(days=1)).isoformat()
YESTERDAY = (datetime.now(timezone.utc).date() - timedelta(days=1)).isoformat()


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "shop.toml"
    path.write_text(tomli_w.dumps({"target": {**fields("http://127.0.0.1:9/x"), **changes}}))
    return path


def test_what_the_file_leaves_out_is_what_its_way_of_sending_says(tmp_path: Path) -> None:
    target = table.read(write(tmp_path, send="torchserve", answer=""))
    assert (target.field, target.answer, target.scale) == ("data", "@", "top-k")
    assert target.class_names == tuple("0123456789")
    assert target.price(1500) == 3.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"send": "kserve"}, "send: did you mean 'kserve-v"),
        ({"format": "float32"}, "format: expected one of png, jpeg with send = 'picture', got 'float32'"),
        ({"rows": 2}, "rows: expected 1, picture with field = '' carries one picture, got 2"),
        (
            {"send": "json", "format": "uint8", "field": "rows", "rows": 2},
            "rows: expected 1, json with field = 'rows' ca",
        ),
        ({"answer": "a[["}, "answer: expected a JMESPath, got 'a[['"),
        ({"answer": ""}, "answer: expected a JMESPath to the numbers or the label with send = 'picture', got none"),
        ({"scale": "softmax"}, "scale: expected one of probabilities, logits, label, top-k, got 'softmax'"),
        ({"classes": 1}, "classes: expected at least 2 different names"),
        ({"rate": 0.0}, "rate: expected above 0, got 0.0"),
        ({"budget": 0}, "budget: expected at least 1, got 0"),
        ({"size": [28]}, "size: expected more than 1 values"),
        ({"sice": [28, 28]}, "unknown key 'sice'; did you mean 'size'?"),
        ({"rate": "fast"}, "rate: expected a number, got 'fast'"),
        ({"url": "ftp://127.0.0.1/x"}, "url: expected http://HOST/... or https://HOST/..., got 'ftp://127.0.0.1/x'"),
        ({"send": "kserve-v2-grpc", "url": "grpc://127.0.0.1:1"}, "url: expected the model's name behind the port"),
        ({"cacert": "none.pem"}, "cacert: none.pem: no such file"),
        ({"mean": [0.5]}, "mean, std: expected with format = 'float32' alone, got 'png'"),
        (
            {"url": ELSEWHERE},
            "owner: expected who allows it, for a host that is not this machine (staging.example.org)",
        ),
        ({"url": ELSEWHERE, "owner": "me"}, "authorised_until: expected a date, for a host that is not this machine"),
        (
            {"url": ELSEWHERE, "owner": "me", "authorised_until": YESTERDAY},
            f"authorised_until: expected a date that has not passed, got {YESTERDAY}",
        ),
        ({"authorised_until": "soon"}, "authorised_until: expected a date such as 2027-01-31, got 'soon'"),
        # a name that only resolves to this machine may resolve to another tomorrow
        ({"url": "http://localhost.example.org/x"}, "owner: expected who allows it"),
    ],
)
def test_faults_name_file_key_value_and_what_was_expected(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(TargetError) as fault:
        table.read(path)
    assert str(fault.value).startswith(f"{path}: [target]: ")
    assert said in str(fault.value)


def test_another_host_is_a_target_with_its_owner_s_leave(tmp_path: Path) -> None:
    target = table.read(write(tmp_path, url=ELSEWHERE, owner="Jo, ticket 7", authorised_until=TOMORROW))
    assert not target.loopback
    assert target.facts("shop", "0").owner == "Jo, ticket 7"


def test_a_secret_stands_nowhere_but_in_the_headers_that_are_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = table.read(write(tmp_path, headers={"X-Api-Key": "env:SHOP_KEY", "Accept": "application/json"}))
    with pytest.raises(TargetError, match="expected the variable SHOP_KEY in the environment, it is not set"):
        target.secrets()
    monkeypatch.setenv("SHOP_KEY", KEY)
    assert target.secrets() == {"X-Api-Key": KEY, "Accept": "application/json"}
    assert KEY not in repr(target) + repr(target.facts("shop", "0"))
    assert target.hidden(f"no such key: {KEY}") == "no such key: (X-Api-Key)"


def test_a_secret_in_the_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    for changes in ({"headers": {"Authorization": f"Bearer {KEY}"}}, {"url": f"http://me:{KEY}@127.0.0.1/x"}):
        with pytest.raises(TargetError) as fault:
            table.read(write(tmp_path, **changes))
        assert KEY not in str(fault.value)


def test_a_missing_file_names_those_there_are(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(TargetError, match=r"other.toml: no such file; .*there are: shop"):
        table.read(tmp_path / "other.toml")


def test_every_committed_target_can_be_read() -> None:
    files = sorted(table.FOLDER.glob("*.toml"))
    assert len(files) >= 6
    assert all(table.read(path).loopback for path in files)
