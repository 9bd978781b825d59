"""The addresses TorchServe and its gateway listen on: read from the settings, moved together, checked, waited for."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from deploy.errors import RefusedError

REST = {"inference": "inference_address", "management": "management_address", "metrics": "metrics_address"}
GRPC = {
    "grpc_inference": ("grpc_inference_address", "grpc_inference_port"),
    "grpc_management": ("grpc_management_address", "grpc_management_port"),
}
# The gateway's and what belongs to it.
GATEWAY = {
    "gateway": "gateway_address",
    "gateway_grpc": "gateway_grpc_address",
    "gateway_status": "gateway_status_address",
    "health": "health_address",
    "grpc_front": "grpc_front_address",
}
# those with TLS
TLS = ("gateway", "gateway_grpc")


@dataclass(frozen=True)
class Endpoint:
    """One listening address; `name` is a key of REST, GRPC or GATEWAY, `port` lies in [1, 65535]."""

    name: str
    host: str
    port: int

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise RefusedError(f"port of {self.name}: expected 1 to 65535, got {self.port}")

    @property
    def url(self) -> str:
        """What a client dials: http://host:port, https://host:port for the gateway's, or host:port for gRPC."""
        return self.address if self.name in GRPC else f"{_scheme(self.name)}://{self.address}"

    @property
    def address(self) -> str:
        """host:port."""
        return f"{self.host}:{self.port}"


def read(settings: Mapping[str, str]) -> list[Endpoint]:
    """TorchServe's five endpoints. Raises `RefusedError` for a missing key or an address of another form."""
    return [_rest(name, key, settings) for name, key in REST.items()] + [
        _grpc(name, keys, settings) for name, keys in GRPC.items()
    ]


def read_gateway(settings: Mapping[str, str]) -> dict[str, Endpoint]:
    """The gateway's endpoints by their names. Raises `RefusedError` as `read` does."""
    return {name: _rest(name, key, settings) for name, key in GATEWAY.items()}


def chosen(endpoints: Iterable[Endpoint], *, offset: int, any_: bool) -> list[Endpoint]:
    """The endpoints moved by an offset, or on any ports that are free. Raises `RefusedError` where one is taken."""
    if any_:
        return free(endpoints)
    moved = shifted(endpoints, offset)
    busy = taken(moved)
    if busy:
        raise RefusedError(
            f"taken: {', '.join(f'{endpoint.address} ({endpoint.name})' for endpoint in busy)}. "
            "Choose other ports with --port-offset N or --free-ports, or in config.properties."
        )
    return moved


def written(settings: Mapping[str, str], endpoints: Iterable[Endpoint]) -> dict[str, str]:
    """The settings with these endpoints in them."""
    changed = dict(settings)
    for endpoint in endpoints:
        if endpoint.name in REST:
            changed[REST[endpoint.name]] = endpoint.url
        else:
            host, port = GRPC[endpoint.name]
            changed[host], changed[port] = endpoint.host, str(endpoint.port)
    return changed


def shifted(endpoints: Iterable[Endpoint], offset: int) -> list[Endpoint]:
    """Every port moved by the same offset."""
    return [replace(endpoint, port=endpoint.port + offset) for endpoint in endpoints]


def free(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """The same addresses on ports that are free now, and no two alike."""
    with contextlib.ExitStack() as held:
        return [
            replace(endpoint, port=held.enter_context(_bound(endpoint.host, 0)).getsockname()[1])
            for endpoint in endpoints
        ]


def taken(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Those that cannot be listened on. Raises `RefusedError` for a host that is not this machine's."""
    busy = []
    for endpoint in endpoints:
        try:
            _bound(endpoint.host, endpoint.port).close()
        except socket.gaierror as error:
            raise RefusedError(f"{endpoint.name}: host {endpoint.host!r} is unknown here ({error})") from error
        except OSError:
            busy.append(endpoint)
    return busy


def wait_free(endpoints: Iterable[Endpoint], *, seconds: float) -> list[Endpoint]:
    """Wait until all can be listened on; those that still cannot after so many seconds."""
    deadline = time.monotonic() + seconds
    busy = taken(endpoints)
    while busy and time.monotonic() < deadline:
        time.sleep(0.1)
        busy = taken(busy)
    return busy


def _scheme(name: str) -> str:
    return "https" if name in TLS else "http"


def _bound(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET)
    # As Java does on Linux: a port whose last connections merely linger in TIME_WAIT is free.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _setting(key: str, settings: Mapping[str, str]) -> str:
    if key not in settings:
        raise RefusedError(f"config.properties: {key} is missing; the ports are written there and nowhere else")
    return settings[key]


def _rest(name: str, key: str, settings: Mapping[str, str]) -> Endpoint:
    value, scheme = _setting(key, settings), _scheme(name)
    address = re.fullmatch(rf"{scheme}://([^/:]+):(\d+)", value)
    if address is None:
        raise RefusedError(
            f"config.properties: {key}: expected {scheme}://HOST:PORT (TLS ends in the gateway), got {value!r}"
        )
    return Endpoint(name, address[1], int(address[2]))


def _grpc(name: str, keys: tuple[str, str], settings: Mapping[str, str]) -> Endpoint:
    host, port = (_setting(key, settings) for key in keys)
    if not port.isdecimal():
        raise RefusedError(f"config.properties: {keys[1]}: expected a port number, got {port!r}")
    return Endpoint(name, host, int(port))
