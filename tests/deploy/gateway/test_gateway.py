"""The gateway's parts: keys, numbers, templates that nginx takes, certificates, tokens, and where its files lie."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from deploy import ports, settings
from deploy.errors import DeployError, RefusedError
from deploy.gateway import certificates, client_keys, configuration, nginx, refusals, servers
from deploy.gateway.commands import main
from deploy.gateway.configuration import Limits
from deploy.gateway.folder import GatewayFolder, enterable, workers_user
from deploy.gateway.servers import Upstream

ROOT = Path(__file__).parents[3]
COMMITTED = settings.read(ROOT / "config.properties")
MODES = "chmod 600"


def upstream(name: str = "peer1", **changes: object) -> Upstream:
    plain = Upstream(
        name=name,
        given="default",
        address="127.0.0.1:18080",
        key_file=Path("/nowhere/key_file.json"),
        management="http://127.0.0.1:18081",
        queue=100,
        seconds=30,
        principal_headers=("Torchwarden-Principal",),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def key_file(path: Path, token: str) -> Path:
    path.write_text(json.dumps({"inference": {"key": token}, "API": {"key": "api"}}))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[GatewayFolder]:
    made = GatewayFolder.make(tmp_path / "run", "default")
    yield made
    shutil.rmtree(made.path)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    made = (tmp_path / "secrets" / "gateway.crt", tmp_path / "secrets" / "gateway.key")
    certificates.make(*made, host="127.0.0.1")
    return made


def test_a_key_is_kept_as_a_salted_hash_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "gateway.keys"
    login, key = client_keys.add(path, "acme@example.org")
    assert login == "acme@example.org"
    assert len(base64.urlsafe_b64decode(key + "=")) == 32
    name, _, stored = path.read_text().strip().partition(":{SSHA}")
    digest = base64.b64decode(stored)
    assert name == login
    assert digest[:20] == hashlib.sha1(key.encode() + digest[20:]).digest()
    assert len(digest[20:]) == 16
    assert key not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_client_changes_from_one_key_to_the_other(tmp_path: Path) -> None:
    path = tmp_path / "gateway.keys"
    logins = [client_keys.add(path, name)[0] for name in ("acme", "acme", "globex", "acme")]
    assert logins == ["acme", "acme+2", "globex", "acme+3"]
    client_keys.revoke(path, "acme")
    assert sorted(client_keys.read(path)) == ["acme+2", "acme+3", "globex"]
    assert client_keys.add(path, "acme")[0] == "acme"
    with pytest.raises(RefusedError, match=r"no key of login 'acme\+4' in .*; there are "):
        client_keys.revoke(path, "acme+4")


def test_keys_that_are_made_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "gateway.keys"
    with ThreadPoolExecutor(8) as pool:
        logins = list(pool.map(lambda _: client_keys.add(path, "acme")[0], range(16)))
    assert sorted(client_keys.read(path)) == sorted(logins)
    assert len(set(logins)) == 16


@pytest.mark.parametrize("name", ["", "a" * 65, "acme:x", "acme+2", "ac me", "acme\n", "ümlaut"])
def test_a_name_that_is_no_principals_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RefusedError, match="expected 1 to 64 of the characters"):
        client_keys.add(tmp_path / "gateway.keys", name)


def test_keys_that_others_can_read_or_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "gateway.keys"
    client_keys.add(path, "acme")
    path.chmod(0o640)
    with pytest.raises(RefusedError, match=f"has mode 640.*{MODES}"):
        client_keys.read(path)
    path.chmod(0o600)
    for line in ("acme:secret", "ac me:{SSHA}x", path.read_text().strip()):
        path.write_text(path.read_text() + line + "\n")
        with pytest.raises(RefusedError, match=r"line 2: expected LOGIN:\{SSHA\}"):
            client_keys.read(path)
        path.write_text(path.read_text().splitlines()[0] + "\n")


def test_the_numbers_are_those_of_the_settings_and_the_archives() -> None:
    given = COMMITTED | {"max_request_size": "1000", "gateway_rate": "7", "vmargs": "-XX:MaxDirectMemorySize=10k"}
    found = Limits.of(given, [upstream(queue=100), upstream("peer2", queue=40)])
    assert found == Limits(
        large=5,
        small=35,
        address=80,
        rate=7,
        burst=80,
        body=1000,
        principal=40,
        principal_large=5,
        principal_rate=2000,
        principal_middle_rate=600,
        principal_large_rate=600_000,
    )
    all_of_it = Limits.of(given | {"gateway_principal_share": "100"}, [upstream(queue=100)])
    assert (all_of_it.principal, all_of_it.principal_large) == (100, 5)
    little = Limits.of(given | {"gateway_principal_share": "1"}, [upstream(queue=2)])
    assert (little.principal, little.principal_large) == (1, 1), "nobody is kept out"
    assert Limits.of(given, [upstream(queue=4)]).large == 2, "half the queue at most"
    assert Limits.of(given, [upstream(queue=1)]).small == 1
    now = Limits.of(COMMITTED, [upstream(queue=200)])
    assert now.large + now.small == 200
    assert (now.principal_middle_rate, now.principal_large_rate) == (600, 31)
    slow = Limits.of(COMMITTED | {"gateway_principal_bytes": "1"}, [upstream()])
    assert (slow.principal_middle_rate, slow.principal_large_rate) == (1, 1), "nobody is kept out"
    assert now.large * now.body * 2 <= 512 << 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gateway_rate": "fast"}, "gateway_rate: expected a whole number from 1 up, got 'fast'"),
        ({"gateway_principal_rate": "0"}, "gateway_principal_rate: expected a whole number from 1 up, got '0'"),
        ({"gateway_principal_bytes": "0"}, "gateway_principal_bytes: expected a whole number from 1 up, got '0'"),
        ({"gateway_principal_share": "101"}, "gateway_principal_share: expected at most 100 percent, got 101"),
        ({"max_request_size": "0"}, "max_request_size: expected a whole number"),
        ({"vmargs": "-Xmx1g"}, r"vmargs: expected -XX:MaxDirectMemorySize=.*got '-Xmx1g'"),
    ],
)
def test_a_setting_that_is_none_is_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        Limits.of(COMMITTED | change, [upstream()])


def write(
    folder: GatewayFolder, certificate: tuple[Path, Path], count: int, health: int, *, grpc: bool = False
) -> Path:
    upstreams = [
        upstream(f"peer{number}", address=f"127.0.0.1:{18080 + number}", principal_headers=(f"P-{number}", "P-1"))
        for number in range(1, count + 1)
    ]
    user = workers_user()
    listen, status, calls, *probes = ports.free([ports.Endpoint("health", "127.0.0.1", 1)] * (3 + health))
    return configuration.write(
        folder.path,
        to="nginx.conf",
        upstreams=upstreams,
        limits=Limits.of(COMMITTED, upstreams),
        listen=listen.address,
        status=status.address,
        health=[probe.address for probe in probes],
        grpc=calls.address if grpc else None,
        certificate=certificate[0],
        certificate_key=certificate[1],
        user=None if user is None else user.pw_name,
    )


@pytest.mark.parametrize(("count", "health", "grpc"), [(1, 0, False), (1, 1, True), (2, 2, False), (3, 1, True)])
def test_nginx_takes_the_filled_templates(
    folder: GatewayFolder, certificate: tuple[Path, Path], count: int, health: int, grpc: bool
) -> None:
    path = write(folder, certificate, count, health, grpc=grpc)
    nginx.check(folder, path)
    text = path.read_text()
    assert re.search(r"@[A-Z_]+@", text) is None
    assert text.count("max_conns=") == 2 * count
    sent = re.findall(r"^        proxy_set_header (\S+)", text, re.MULTILINE)
    fixed = ["Host", "Connection", "Content-Type", "Accept", "Inference-Header-Content-Length", "Torchwarden-Solution"]
    fixed += ["Torchwarden-Refusals", "Authorization"]
    assert sent == fixed + [f"P-{number}" for number in range(1, count + 1)]
    assert ("/v2/health" in text) is bool(health)
    assert ("ssl http2;" in text) is grpc
    assert (f"listen unix:{folder.path}/grpc/http;" in text) is grpc
    assert ("limit_conn grpc " in text) is grpc
    shares = re.findall(r"([0-9.]+)% peer", text)
    assert shares == {1: [], 2: ["50.00"], 3: ["33.33", "33.33"]}[count]


def test_nginx_says_what_is_wrong_with_settings(folder: GatewayFolder, certificate: tuple[Path, Path]) -> None:
    path = write(folder, certificate, 1, 0)
    path.write_text(path.read_text().replace("limit_req zone=rate", "limit_req zone=other"))
    with pytest.raises(RefusedError, match=r'(?s)nginx does not take .*zone.* "other"'):
        nginx.check(folder, path)


def test_the_errors_have_the_services_body() -> None:
    """Or on the paths of the Open Inference Protocol its own, a text with the same code."""
    assert '{"error"' not in (ROOT / "deploy/nginx/nginx.conf.in").read_text()
    text = refusals.locations() + refusals.verdicts()
    returned = re.findall(r"return (\d{3}) '(\{.*?\})';", text)
    assert len(returned) == 2 * (len(refusals.REFUSALS) + len(refusals.VERDICTS))
    errors = [(status, json.loads(body)["error"]) for status, body in returned]
    texts = {(status, error) for status, error in errors if isinstance(error, str)}
    objects = [(status, error) for status, error in errors if isinstance(error, dict)]
    for status, error in objects:
        assert list(error) == ["code", "message", "row"]
        assert error["row"] is None
        assert (status, f"{error['message']} ({error['code']})") in texts
    statuses = {status for status, _ in objects}
    assert statuses == {"400", "401", "404", "405", "411", "413", "414", "415", "429", "431", "500", "503", "504"}


def test_a_path_that_nginx_would_misread_is_refused(folder: GatewayFolder, certificate: tuple[Path, Path]) -> None:
    for name in ("a b.crt", 'a";b.crt', "$uri.crt", "a\n.crt"):
        with pytest.raises(RefusedError, match="choose another place"):
            write(folder, (certificate[0].with_name(name), certificate[1]), 1, 0)


def test_a_certificate_is_made_for_the_address(certificate: tuple[Path, Path]) -> None:
    returned = subprocess.run(
        ["openssl", "x509", "-in", str(certificate[0]), "-noout", "-text"], capture_output=True, text=True, check=True
    ).stdout
    assert "IP Address:127.0.0.1" in returned
    assert "DNS:localhost" in returned
    assert "prime256v1" in returned
    assert certificates.exists(*certificate)
    assert certificate[1].stat().st_mode & 0o777 == 0o600
    certificate[1].chmod(0o644)
    with pytest.raises(RefusedError, match=f"others can read this private key.*{MODES}"):
        certificates.exists(*certificate)
    certificate[1].unlink()
    with pytest.raises(RefusedError, match="only one is there"):
        certificates.exists(*certificate)


def test_a_token_changes_between_two_requests(folder: GatewayFolder, tmp_path: Path) -> None:
    keys = [key_file(tmp_path / f"{number}.json", token) for number, token in enumerate(("aB-_1234", "xx"))]
    both = [upstream(key_file=keys[0]), upstream("peer2", key_file=keys[1])]
    servers.link(folder, both)
    assert [(folder.token / name).resolve().name for name in ("peer1", "peer2")] == ["aB-_1234", "xx"]
    key_file(keys[0], "new-one")
    servers.link(folder, both)
    assert (folder.token / "peer1").resolve().name == "new-one"
    assert sorted(path.name for path in folder.tokens.iterdir()) == ["new-one", "xx"]
    for text in ("{}", "[]", "none", json.dumps({"inference": {"key": "../../etc"}})):
        keys[0].write_text(text)
        with pytest.raises(DeployError, match=r"expected TorchServe's key_file\.json"):
            servers.link(folder, both)
    assert (folder.token / "peer1").resolve().name == "new-one", "as it was"


def test_the_folder_is_closed_to_others_and_keeps_its_logs(tmp_path: Path) -> None:
    made = GatewayFolder.make(tmp_path / "run", "default")
    made.access_log.write_text("old")
    made.keys.touch()
    (made.temp / "body").mkdir()
    again = GatewayFolder.make(tmp_path / "run", "default")
    try:
        assert again.path == made.path
        assert again.access_log.read_text() == "old"
        assert not again.keys.exists()
        assert list(again.temp.iterdir()) == []
        assert again.path.stat().st_mode & 0o066 == 0, "nobody else sees names"
        assert again.tokens.stat().st_mode & 0o067 == 0
        user = workers_user()
        assert user is None or enterable(again.tokens, user)
        again.clear()
        assert [path.name for path in again.path.iterdir()] == ["logs"]
    finally:
        shutil.rmtree(made.path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_where_workers_cannot_come_another_place_is_linked(tmp_path: Path) -> None:
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o700)
    made = GatewayFolder.make(shut, "default")
    try:
        assert made.place.is_symlink()
        assert made.path.name.startswith("torchwarden-gateway-")
    finally:
        shutil.rmtree(made.path)


def test_another_machines_torchserve_is_named_by_its_address(tmp_path: Path) -> None:
    key = key_file(tmp_path / "key_file.json", "abc")
    (found,) = servers.find(tmp_path, [f"10.0.0.7:8080={key}"], COMMITTED)
    assert (found.address, found.token(), found.management) == ("10.0.0.7:8080", "abc", None)
    assert found.queue == int(COMMITTED["job_queue_size"])
    with pytest.raises(RefusedError, match=r"instance absent is not running.*deploy\.server start --instance absent"):
        servers.find(tmp_path, ["absent"], COMMITTED)


def test_the_gateways_addresses_move_as_the_servers_do() -> None:
    found = ports.read_gateway(COMMITTED)
    assert found["gateway"].url.startswith("https://")
    assert found["health"].url.startswith("http://")
    moved = ports.chosen(found.values(), offset=20000, any_=False)
    assert [each.port for each in moved] == [each.port + 20000 for each in found.values()]
    with (
        socket.create_server((moved[0].host, moved[0].port)),
        pytest.raises(RefusedError, match=r"taken: .*\(gateway\)"),
    ):
        ports.chosen(found.values(), offset=20000, any_=False)
    with pytest.raises(RefusedError, match="gateway_address: expected https://HOST:PORT"):
        ports.read_gateway(COMMITTED | {"gateway_address": "http://127.0.0.1:8443"})


def test_commands_need_a_gateway_that_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--run-folder", str(tmp_path / "run")]
    for command in ("reload", "rotate", "reopen"):
        assert main([command, *place]) == 2
        assert "the gateway of instance default is not running; `start` starts it" in capsys.readouterr().err
    assert main(["start", *place, "--secrets", str(tmp_path)]) == 2
    assert "instance default is not running" in capsys.readouterr().err
    assert main(["status", *place]) == 1
    assert main(["stop", *place]) == 0
    assert "was not running" in capsys.readouterr().out
    assert list(tmp_path.glob("**/gateway.crt")) == [], "nothing was made"


def test_keys_are_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--secrets", str(tmp_path / "secrets"), "--run-folder", str(tmp_path / "run")]
    assert main(["add", "acme", *place]) == 0
    login, key = capsys.readouterr().out.strip().split(":")
    assert (login, len(key)) == ("acme", 43)
    assert main(["list", *place]) == 0
    assert capsys.readouterr().out == "acme\n"
    assert main(["revoke", "acme", *place]) == 0
    assert main(["list", *place]) == 0
    assert capsys.readouterr().out == ""
    assert main(["revoke", "acme", *place]) == 2
