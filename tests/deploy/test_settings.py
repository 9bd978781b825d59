"""The committed settings are what TorchServe knows and what they claim; the format survives a round trip."""

from __future__ import annotations

import importlib.util
import json
import re
import struct
import zipfile
from pathlib import Path

import pytest
import yaml

from deploy import ports, settings
from deploy.errors import RefusedError

ROOT = Path(__file__).parents[2]
COMMITTED = settings.read(ROOT / "config.properties")


def test_every_key_is_one_torchserve_reads() -> None:
    found = importlib.util.find_spec("ts")
    assert found is not None
    assert found.origin is not None
    with zipfile.ZipFile(Path(found.origin).parent / "frontend" / "model-server.jar") as jar:
        known = jar.read("org/pytorch/serve/util/ConfigManager.class")
    # A class file holds a string as its length in two bytes and the text.
    unknown = [key for key in COMMITTED if struct.pack(">H", len(key)) + key.encode() not in known]
    assert set(unknown) == settings.LAUNCHERS, "keys TorchServe would ignore are the launcher's, and it knows them"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("disable_token_authorization", "false"),
        ("enable_model_api", "false"),
        ("enable_envvars_config", "false"),
        ("use_env_allowed_urls", "false"),
        ("install_py_dep_per_model", "false"),
        ("decode_input_request", "false"),
        ("metrics_mode", "prometheus"),
    ],
)
def test_the_hardened_settings_stand(key: str, value: str) -> None:
    assert COMMITTED[key] == value


def test_everything_listens_on_loopback() -> None:
    endpoints = ports.read(COMMITTED)
    assert len(endpoints) == 5
    ours = ports.read_gateway(COMMITTED)
    assert len(ours) == 5
    assert {endpoint.host for endpoint in (*endpoints, *ours.values())} == {"127.0.0.1"}
    assert len({endpoint.port for endpoint in (*endpoints, *ours.values())}) == 10


@pytest.mark.parametrize("url", ["", "x.war", "http://127.0.0.1/x.mar", "https://host/x", "file:///etc/passwd"])
def test_no_url_is_allowed(url: str) -> None:
    assert re.fullmatch(COMMITTED["allowed_urls"], url) is None


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("AWS_SECRET_ACCESS_KEY", True),
        ("HF_TOKEN", True),
        ("TORCHWARDEN_KEY", False),
        ("TORCHWARDEN_KEY_FILE", False),
    ],
)
def test_workers_see_our_key_and_no_other(name: str, hidden: bool) -> None:
    assert (re.fullmatch(COMMITTED["blacklist_env_vars"], name) is not None) is hidden


def test_a_full_request_fits_as_raw_floats_and_as_json() -> None:
    rows, channels, side = 256, 3, 32
    # The longest text a float32 in [0, 1] takes once it is a Python float: 17 digits and an exponent.
    longest = max((struct.unpack("<f", struct.pack("<I", bits))[0] for bits in range(1, 1 << 30, 99991)), key=_text)
    image = json.dumps([[[longest] * side] * side] * channels)
    as_json = len('{"instances": []}') + rows * len(f"{image}, ")
    limit = int(COMMITTED["max_request_size"])
    assert rows * channels * side * side * 4 <= as_json <= limit
    assert as_json > 0.9 * limit, "the limit is meant to be close to what a full request needs"


def test_our_metrics_have_the_dimensions_that_handlers_fill() -> None:
    model = yaml.safe_load((ROOT / COMMITTED["metrics_config"]).read_text())["model_metrics"]
    ours = {
        metric["name"]: (kind, metric["dimensions"])
        for kind, metrics in model.items()
        for metric in metrics
        if metric["name"].startswith("torchwarden_")
    }
    assert ours == {
        "torchwarden_rows_total": ("counter", ["ModelName", "decision"]),
        "torchwarden_member_rows_total": ("counter", ["ModelName", "member"]),
        "torchwarden_errors_total": ("counter", ["ModelName", "code"]),
        "torchwarden_scores_total": ("counter", ["ModelName", "tail"]),
        "torchwarden_work_total": ("counter", ["ModelName", "event"]),
        "torchwarden_limited_rows_total": ("counter", ["ModelName", "limit"]),
        "torchwarden_budget_total": ("counter", ["ModelName", "event"]),
        "torchwarden_audit_total": ("counter", ["ModelName", "event"]),
        "torchwarden_marked_rows_total": ("counter", ["ModelName", "strength"]),
        "torchwarden_stage_seconds": ("histogram", ["ModelName", "stage"]),
    }


def test_a_round_trip_keeps_values_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "config.properties"
    given = {
        "allowed_urls": r"https://host/models\\.mar,(?!)",
        "a": "b=c",
        "path": settings.escaped(r"/jos\é"),
    }
    settings.write(path, given, comment="made")
    assert settings.read(path) == given
    assert path.read_bytes().startswith(b"# made\n")
    assert given["path"] == r"/jos\\\u00e9"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=1\nnonsense\n", "line 2: expected key=value, got 'nonsense'"),
        ("a=1\n\na=2\n", "line 3: a is set twice"),
    ],
)
def test_a_line_it_cannot_read_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.properties"
    path.write_text(text)
    with pytest.raises(RefusedError, match=message):
        settings.read(path)


def _text(number: float) -> int:
    return len(repr(number))
