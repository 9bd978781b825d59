"""Where the front listens, and what it refuses before it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.errors import RefusedError
from deploy.gateway import nginx
from deploy.grpc_front.__main__ import main, private
from deploy.server import main as server


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:8085", "192.0.2.1:8085", "example.org:1", "8085", "127.0.0.1:x", "[::]:80"]
)
def test_it_listens_on_this_machine_alone(listen: str) -> None:
    with pytest.raises(RefusedError, match="it has no TLS and checks no key"):
        private(listen)


@pytest.mark.parametrize("listen", ["127.0.0.1:8085", "[::1]:8085", "unix:/run/front"])
def test_addresses_of_this_machine_are_taken(listen: str) -> None:
    assert private(listen) == listen


def test_an_instance_that_does_not_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run-folder", str(tmp_path), "--instance", "absent"]) == 2
    assert "deploy.server start --instance absent" in capsys.readouterr().err


def test_an_address_that_is_taken_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listen = f"unix:{tmp_path}/absent/socket"
    assert main(["--run-folder", str(tmp_path), "--listen", listen, "--to", "http://127.0.0.1:9"]) == 2
    assert "cannot be listened on; choose another address" in capsys.readouterr().err


def test_a_server_without_a_gateway_has_no_grpc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert server(["start", "--run-folder", str(tmp_path), "--store", str(tmp_path), "--grpc"]) == 2
    assert "--grpc: expected --gateway too" in capsys.readouterr().err


def test_packages_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nginx.check_front()
    monkeypatch.setattr(nginx, "FRONT_NEEDS", ("grpc", "nobodys_package"))
    with pytest.raises(RefusedError, match="--grpc: not installed: nobodys_package"):
        nginx.check_front()
