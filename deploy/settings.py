"""config.properties, TorchServe's settings: read, changed and written as Java's properties format.

Values are carried as the text they were read, so an escape in the file means to Java what it meant before.
A path that is put in goes through `escaped`. Continuation lines are not read: config.properties holds one
setting a line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from deploy.errors import RefusedError

# What the launcher reads and Java does not get.
LAUNCHERS = frozenset(
    (
        "vmargs",
        "gateway_address",
        "gateway_grpc_address",
        "gateway_status_address",
        "health_address",
        "grpc_front_address",
        "gateway_rate",
        "gateway_principal_rate",
        "gateway_principal_bytes",
        "gateway_principal_share",
        "gateway_health",
        "gateway_origins",
    )
)


def read(path: Path) -> dict[str, str]:
    """A file's settings, in its order. Raises `RefusedError` for a line it cannot read or a key set twice."""
    settings: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="latin-1").splitlines(), start=1):
        text = line.strip()
        if not text or text[0] in "#!":
            continue
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key:
            raise RefusedError(f"{path}, line {number}: expected key=value, got {text!r}")
        if key in settings:
            raise RefusedError(f"{path}, line {number}: {key} is set twice, first to {settings[key]!r}")
        settings[key] = value
    return settings


def write(path: Path, settings: Mapping[str, str], *, comment: str) -> None:
    """Write settings under a comment of one line, whole or not at all."""
    text = f"# {comment}\n" + "".join(f"{key}={value}\n" for key, value in settings.items())
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="latin-1")
    temporary.replace(path)


def escaped(value: str | os.PathLike[str]) -> str:
    """A text as a properties value: Java reads the file as Latin-1 and takes a backslash for an escape."""
    units = os.fspath(value).replace("\\", "\\\\").encode("utf-16-be")
    codes = [int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2)]
    return "".join(chr(code) if 0x20 <= code < 0x7F else f"\\u{code:04x}" for code in codes)
