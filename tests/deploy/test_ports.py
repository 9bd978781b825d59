"""The five endpoints move together, and a port somebody holds is found before Java would trip over it."""

from __future__ import annotations

import socket

import pytest

from deploy import ports
from deploy.errors import RefusedError

SETTINGS = {
    "inference_address": "http://127.0.0.1:18080",
    "management_address": "http://127.0.0.1:18081",
    "metrics_address": "http://127.0.0.1:18082",
    "grpc_inference_address": "127.0.0.1",
    "grpc_inference_port": "17070",
    "grpc_management_address": "127.0.0.1",
    "grpc_management_port": "17071",
}


def test_shifting_moves_every_port_and_writing_reads_back() -> None:
    moved = ports.written(SETTINGS | {"other": "kept"}, ports.shifted(ports.read(SETTINGS), 100))
    assert moved == {
        "inference_address": "http://127.0.0.1:18180",
        "management_address": "http://127.0.0.1:18181",
        "metrics_address": "http://127.0.0.1:18182",
        "grpc_inference_address": "127.0.0.1",
        "grpc_inference_port": "17170",
        "grpc_management_address": "127.0.0.1",
        "grpc_management_port": "17171",
        "other": "kept",
    }


def test_urls_are_what_clients_dial() -> None:
    urls = {endpoint.name: endpoint.url for endpoint in ports.read(SETTINGS)}
    assert urls["management"] == "http://127.0.0.1:18081"
    assert urls["grpc_inference"] == "127.0.0.1:17070"


def test_free_ports_differ_and_can_be_listened_on() -> None:
    chosen = ports.free(ports.read(SETTINGS))
    assert len({endpoint.port for endpoint in chosen}) == 5
    assert ports.taken(chosen) == []


def test_a_taken_port_is_found_and_waited_for() -> None:
    endpoints = ports.free(ports.read(SETTINGS))
    with socket.create_server((endpoints[1].host, endpoints[1].port)):
        assert ports.taken(endpoints) == [endpoints[1]]
        assert ports.wait_free(endpoints, seconds=0.2) == [endpoints[1]]
    assert ports.wait_free(endpoints, seconds=5) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"inference_address": "https://127.0.0.1:8443"},
            r"inference_address: expected http://HOST:PORT .*8443",
        ),
        ({"metrics_address": "http://127.0.0.1"}, r"metrics_address: expected http://HOST:PORT"),
        ({"grpc_inference_port": "http"}, r"grpc_inference_port: expected a port number, got 'http'"),
        ({"grpc_management_port": "70710"}, r"port of grpc_management: expected 1 to 65535, got 70710"),
    ],
)
def test_an_address_of_another_form_is_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        ports.read(SETTINGS | change)


def test_a_missing_address_is_refused() -> None:
    settings = {key: value for key, value in SETTINGS.items() if key != "management_address"}
    with pytest.raises(RefusedError, match="management_address is missing"):
        ports.read(settings)


def test_an_offset_out_of_range_is_refused() -> None:
    with pytest.raises(RefusedError, match="port of inference: expected 1 to 65535, got 78080"):
        ports.shifted(ports.read(SETTINGS), 60000)
