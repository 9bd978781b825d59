"""The gateway's nginx.conf: templates of deploy/nginx with their places filled, and the numbers that stand in them.

Nothing is decided here that is written elsewhere: sizes and queues are config.properties' and the archives', addresses
config.properties'. Of what TorchServe can hold at once, large bodies get what Java's direct memory bounds, and all
others what is left of the shortest queue, so that no queue fills.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import RefusedError
from deploy.gateway import refusals
from deploy.gateway.folder import put
from deploy.gateway.servers import Upstream

TEMPLATES = Path(__file__).absolute().parents[1] / "nginx"
ANSWERS, ENTRANCE = "answers.conf", "entrance.conf"
# What nginx would read another meaning into.
SAFE = re.compile(r"[A-Za-z0-9_./+@:=,-]+")
PLACE = re.compile(r"@([A-Z_]+)@")
# Until a queue is full, and then the batches under way: an answer that took longer than twice what a worker may take
# for a batch comes from a server that is in trouble.
PATIENCE = 2
MOST_CONNECTIONS = 4096
# bytes, of the longest body that is not large
MIDDLE = 1_000_000
# bytes that gRPC puts before a message
FRAME = 5
# in the gateway's folder: where the gRPC front asks nginx, and where nginx calls the front
FRONT_ASKS, FRONT_LISTENS = "grpc/http", "grpc/front"
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass(frozen=True)
class Limits:
    """large, small: requests that one TorchServe is asked at once, with bodies from 1 MB up and below. address: at once
    from one address. rate: a second from one address. burst: at once above the rate. body: bytes. principal,
    principal_large: at once of one principal, and those of them with large bodies. principal_rate: a second of one
    principal; principal_middle_rate, principal_large_rate: a minute, of those with bodies from 100 kB, and from
    1 MB up."""

    large: int
    small: int
    address: int
    rate: int
    burst: int
    body: int
    principal: int
    principal_large: int
    principal_rate: int
    principal_middle_rate: int
    principal_large_rate: int

    @classmethod
    def of(cls, settings: Mapping[str, str], upstreams: Sequence[Upstream]) -> Limits:
        """What config.properties and the archives say. Raises `RefusedError` for a setting that is no number."""
        body, rate = number(settings, "max_request_size"), number(settings, "gateway_rate")
        queue = min(upstream.queue for upstream in upstreams)
        # A body takes its length in direct memory, and as much again while Java reads it together.
        large = max(1, min(direct_memory(settings) // (2 * body), queue // 2))
        small = max(1, queue - large)
        both = len(upstreams) * (large + small)
        share = number(settings, "gateway_principal_share")
        sent = number(settings, "gateway_principal_bytes")
        if share > 100:
            raise RefusedError(f"config.properties: gateway_principal_share: expected at most 100 percent, got {share}")
        # Those whose bodies are still on their way count as well, so this is no share of what TorchServe holds.
        return cls(
            large,
            small,
            address=both,
            rate=rate,
            burst=both,
            body=body,
            principal=max(1, both * share // 100),
            principal_large=max(1, len(upstreams) * large * share // 100),
            principal_rate=number(settings, "gateway_principal_rate"),
            principal_middle_rate=max(1, 60 * sent // MIDDLE),
            principal_large_rate=max(1, 60 * sent // body),
        )


def number(settings: Mapping[str, str], key: str) -> int:
    """A setting that counts something. Raises `RefusedError`."""
    value = settings.get(key, "")
    if not value.isdecimal() or int(value) < 1:
        raise RefusedError(f"config.properties: {key}: expected a whole number from 1 up, got {value!r}")
    return int(value)


def direct_memory(settings: Mapping[str, str]) -> int:
    """Bytes of -XX:MaxDirectMemorySize. Raises `RefusedError` where vmargs does not bound it."""
    found = re.search(r"-XX:MaxDirectMemorySize=(\d+)([kmg]?)\b", settings.get("vmargs", ""), re.IGNORECASE)
    if found is None:
        raise RefusedError(
            "config.properties: vmargs: expected -XX:MaxDirectMemorySize=N[kmg], which bounds how many large bodies "
            f"are sent on at once, got {settings.get('vmargs', '')!r}"
        )
    return int(found[1]) * UNITS[found[2].lower()]


def patience(upstreams: Sequence[Upstream]) -> int:
    """Seconds until an answer is given up."""
    return PATIENCE * max(upstream.seconds for upstream in upstreams)


def write(
    folder: Path,
    *,
    to: str,
    upstreams: Sequence[Upstream],
    limits: Limits,
    listen: str,
    status: str,
    health: Sequence[str],
    grpc: str | None,
    certificate: Path,
    certificate_key: Path,
    user: str | None,
    origins: Sequence[str] = (),
) -> Path:
    """Write nginx's settings to the file `to` of the gateway's folder, and what they include; returns its path.

    listen, status, health, grpc: HOST:PORT; no `health`, no `grpc`: those do not exist. user: of nginx's workers, where
    its master is root. origins: SCHEME://HOST[:PORT] of web pages that may ask.
    """
    for path in (folder, certificate, certificate_key):
        if not SAFE.fullmatch(str(path)):
            raise RefusedError(f"path {str(path)!r}: nginx.conf takes {SAFE.pattern} only; choose another place")
    names = [upstream.name for upstream in upstreams]
    headers = sorted({header for upstream in upstreams for header in upstream.principal_headers})
    common = {"FOLDER": str(folder), "LARGE": str(limits.large), "SMALL": str(limits.small)}
    files = _files()
    places = common | {
        "FRONT": f"        listen unix:{folder}/{FRONT_ASKS};" if grpc else "",
        "GRPC": _grpc(grpc, common, limits, upstreams) if grpc else "",
        "USER": "" if user is None else f"user {user};",
        "FILES": str(files),
        "CONNECTIONS": str(files // 2),
        "PATIENCE": str(patience(upstreams)),
        "SHARES": _lines(_shares(names)),
        "OTHERS": _lines(f"{name} {names[(place + 1) % len(names)]};" for place, name in enumerate(names)),
        "UPSTREAMS": _blocks(common, upstreams, health),
        "PRINCIPALS": _lines(f"proxy_set_header {header} $principal;" for header in headers),
        "HEALTH": _filled("health.conf.in", common | {"BURST": str(limits.burst)}) if health else "",
        "LISTEN": listen,
        "STATUS": status,
        "CERTIFICATE": str(certificate),
        "CERTIFICATE_KEY": str(certificate_key),
        **_bounds(limits),
        "ORIGINS": _lines(f'"{origin}" $http_origin;' for origin in origins),
        "REFUSED": refusals.verdicts(),
        "HANDLERS": refusals.handlers(),
    }
    # what the gateway answers itself has places too
    text = _filled(
        "nginx.conf.in", places | {"ERRORS": PLACE.sub(lambda place: places[place[1]], refusals.locations())}
    )
    put(folder / ANSWERS, (TEMPLATES / ANSWERS).read_text())
    put(folder / ENTRANCE, _filled(ENTRANCE, common))
    return put(folder / to, text)


def _files() -> int:
    """That nginx may have open: two a connection."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 2 * MOST_CONNECTIONS if most == resource.RLIM_INFINITY else min(most, 2 * MOST_CONNECTIONS)


def _blocks(common: Mapping[str, str], upstreams: Sequence[Upstream], health: Sequence[str]) -> str:
    """nginx's groups of servers: each TorchServe by itself, and what says whether they are well."""
    blocks = [
        _filled("upstream.conf.in", {**common, "NAME": upstream.name, "ADDRESS": upstream.address})
        for upstream in upstreams
    ]
    if health:
        blocks.append(
            "    upstream health {\n" + _lines(f"server {each} max_fails=0;" for each in health) + "\n    }\n"
        )
    return "".join(blocks)


def _bounds(limits: Limits) -> dict[str, str]:
    """The limits by their places."""
    return {
        "RATE": str(limits.rate),
        "BURST": str(limits.burst),
        "ADDRESS": str(limits.address),
        "PRINCIPAL": str(limits.principal),
        "PRINCIPAL_LARGE": str(limits.principal_large),
        "PRINCIPAL_RATE": str(limits.principal_rate),
        "PRINCIPAL_MIDDLE_RATE": str(limits.principal_middle_rate),
        "PRINCIPAL_LARGE_RATE": str(limits.principal_large_rate),
        "MAX_BODY": str(limits.body),
    }


def _grpc(listen: str, common: Mapping[str, str], limits: Limits, upstreams: Sequence[Upstream]) -> str:
    """The server for gRPC. Twice as many calls as there may be large bodies: each may be one, most are none."""
    places = {
        "GRPC_LISTEN": listen,
        "GRPC_BODY": str(limits.body + FRAME),
        "GRPC_CALLS": str(2 * len(upstreams) * limits.large),
        "GRPC_PRINCIPAL": str(2 * limits.principal_large),
        "PATIENCE": str(patience(upstreams)),
    }
    return _filled("grpc.conf.in", {**common, **_bounds(limits), **places})


def _shares(names: Sequence[str]) -> list[str]:
    """The first choice: as many for each."""
    return [*(f"{100 / len(names):.2f}% {name};" for name in names[1:]), f"* {names[0]};"]


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(f"        {line}" for line in lines)


def _filled(name: str, places: Mapping[str, str]) -> str:
    """A template with its places filled. A place left unfilled is a bug of ours."""
    return PLACE.sub(lambda place: places[place[1]], (TEMPLATES / name).read_text())
