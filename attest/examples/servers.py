"""Servers that are not ours, each in a venv of its own below build/peers: made, started and ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

VENVS = Path("build/peers")
# as ours, or runtimes would be compared and not servers
COMMON = tuple(f"{name}=={metadata.version(name)}" for name in ("onnxruntime", "pillow"))
# of an end before it is made one
END_S = 10.0


class PeerError(RuntimeError):
    """A server that cannot be installed, or does not answer; the message has the end of what it said."""


@dataclass(frozen=True)
class Peer:
    """module: what `python -m` starts. packages: of its venv, pinned, the library that serves first; (): it runs in
    ours. beside: a package that our venv lacks, without what that one depends on."""

    module: str
    packages: tuple[str, ...] = ()
    beside: str = ""


LITSERVE = Peer("attest.examples.litserve_server", ("litserve==0.2.19", *COMMON))
KSERVE = Peer("attest.examples.kserve_server", ("kserve==0.21.0", *COMMON))
PYTRITON = Peer("attest.examples.pytriton_server", ("nvidia-pytriton==0.7.0", *COMMON))
FASTAPI = Peer("attest.examples.fastapi_server")
# TorchServe's handlers import captum, and no package of TorchServe's asks for it
TORCHSERVE = Peer("attest.examples.torchserve_server", beside="captum==0.9.0")


@contextmanager
def started(
    peer: Peer, words: Sequence[str], *, log: Path, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Its process, and all that it starts, until the block ends. log: what it says. environ: beside ours. Raises
    PeerError where it cannot be installed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command, environment = [str(python(peer)), "-m", peer.module, *words], {**_environment(peer), **(environ or {})}
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        try:
            yield process
        finally:
            _end(process)


def python(peer: Peer) -> Path:
    """The interpreter of the peer's venv, made where it is missing or of other packages. Raises PeerError."""
    if not peer.packages:
        return Path(sys.executable)
    folder = VENVS / peer.packages[0]
    made, installed = folder / "bin/python", folder / ".installed"
    wanted = "\n".join(peer.packages)
    if not installed.exists() or installed.read_text("utf-8") != wanted:
        _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
        _uv("pip", "install", "--quiet", "--python", str(made), *peer.packages)
        installed.write_text(wanted, "utf-8")
    return made.absolute()


def last_line(log: Path) -> str:
    """The last error that a server named, or else the end of what it said."""
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|NoSuchFile)\b", line)]
    return (named or lines or ["its log is empty"])[-1]


def _environment(peer: Peer) -> dict[str, str]:
    """The environment of its server, with what it needs beside our own venv, installed where it is missing."""
    if not peer.beside:
        return dict(os.environ)
    folder = VENVS / peer.beside
    if not folder.is_dir():
        _uv("pip", "install", "--quiet", "--no-deps", "--target", str(folder), peer.beside)
    # our own rooms are named too: TorchServe hands its variables to workers that run elsewhere
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder.absolute()), str(Path.cwd())])}


def _uv(*words: str) -> None:
    """Run uv. Raises PeerError with what it says where it fails."""
    done = subprocess.run([sys.executable, "-m", "uv", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerError(done.stderr.strip() or f"`uv {' '.join(words)}` ended with {done.returncode}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """The server and all that it has started; it may have ended by itself."""
    if process.poll() is None:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for each in family:
            # one may have ended with another
            try:
                each.terminate()
            except psutil.NoSuchProcess:
                continue
        for each in psutil.wait_procs(family, timeout=END_S)[1]:
            each.kill()
