"""The gateway's certificate: the operator's, or one that the gateway signs itself to begin with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from deploy.errors import RefusedError

FILES = ("gateway.crt", "gateway.key")
DAYS = 90


def exists(certificate: Path, key: Path) -> bool:
    """Whether both files are there. Raises `RefusedError` for one alone, or a key that others can read."""
    found = [path.is_file() for path in (certificate, key)]
    if any(found) and not all(found):
        raise RefusedError(f"of certificate {certificate} and key {key} only one is there; expected both or neither")
    if all(found) and key.stat().st_mode & 0o077:
        raise RefusedError(f"{key}: others can read this private key; expected mode 600: chmod 600 {key}")
    return all(found)


def make(certificate: Path, key: Path, *, host: str) -> None:
    """Make a self-signed certificate for `host` and localhost, good for DAYS. Raises `RefusedError` without openssl."""
    program = shutil.which("openssl")
    if program is None:
        raise RefusedError(
            f"no certificate {certificate}, and no openssl to make one: name yours with --certificate and "
            "--certificate-key, or install openssl"
        )
    certificate.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    kind = "IP" if host.replace(".", "").isdecimal() else "DNS"
    key.unlink(missing_ok=True)
    key.touch(mode=0o600)
    done = subprocess.run(
        [
            *(program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"),
            *("-keyout", str(key), "-out", str(certificate), "-days", str(DAYS)),
            *("-subj", "/CN=torchwarden gateway", "-addext", f"subjectAltName=DNS:localhost,{kind}:{host}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RefusedError(f"openssl made no certificate: {done.stderr.strip()}")
