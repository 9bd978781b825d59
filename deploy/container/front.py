"""The gateway as a container's program: it starts before the pod's TorchServe, follows changes, and drains at SIGTERM.

    python -m deploy.container.front --mounted FOLDER --secrets FOLDER [--run-folder FOLDER] [--grpc] [--quiet SECONDS]

A mounted Secret's files belong to root and can be read by a group, which `deploy.gateway` refuses of keys, so they are
copied to a folder of this container. What may change while it runs, and then is read again: the mounted files (clients'
keys, the certificate), and TorchServe's tokens, which are others after each of its starts. Logs are put aside when they
have grown. With --grpc the gateway has gRPC's port too. Where nginx or a program beside it has ended by itself, this
ends as well, and the container is started again. Both containers share the run folder and the pod's process namespace,
so that each sees whether the other's process runs.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from deploy.gateway import certificates, client_keys, commands
from deploy.gateway.folder import GatewayFolder, put
from deploy.instance import Instance, process

FILES = (client_keys.FILE, *certificates.FILES)
LOOK_SECONDS = 1.0
LOG_BYTES = 64_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM, which drains (0), or until nginx or one of its helpers has ended by itself (1)."""
    options = _parser().parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    instance = Instance(options.run_folder, options.instance)
    folder = GatewayFolder(options.run_folder, options.instance)
    seen = (take(options.mounted, options.secrets), _tokens(instance))
    where = ["--instance", options.instance, "--run-folder", str(options.run_folder)]
    more = ["--grpc"] if options.grpc else []
    started = commands.main(["start", *where, "--secrets", str(options.secrets), *_certificate(options.secrets), *more])
    if started:
        return started
    while not stop.wait(LOOK_SECONDS):
        running = folder.running()
        if running is None:
            print("front: nginx has ended; see its error.log", file=sys.stderr)
            return 1
        if any(process(*helper) is None for helper in running.helpers):
            print(f"front: a helper of nginx has ended; see {folder.logs}", file=sys.stderr)
            commands.main(["stop", *where, "--quiet", "0"])
            return 1
        now = (take(options.mounted, options.secrets), _tokens(instance))
        # While TorchServe starts again there is no token to be had.
        if now != seen and now[1] and commands.main(["reload", *where]) == 0:
            seen = now
        if folder.access_log.exists() and folder.access_log.stat().st_size > LOG_BYTES:
            commands.main(["reopen", *where])
    return commands.main(["stop", *where, "--quiet", str(options.quiet)])


def take(mounted: Path, secrets: Path) -> tuple[bytes, ...]:
    """Copy what is mounted of FILES, readable by this user alone; returns what they hold."""
    secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    held = []
    for name in FILES:
        content = (mounted / name).read_bytes() if (mounted / name).exists() else b""
        copy = secrets / name
        if content and (not copy.exists() or copy.read_bytes() != content):
            put(copy, content.decode("ascii"), 0o600)
        held.append(content)
    return tuple(held)


def _certificate(secrets: Path) -> list[str]:
    certificate, key = (secrets / name for name in certificates.FILES)
    return ["--certificate", str(certificate), "--certificate-key", str(key)]


def _tokens(instance: Instance) -> bytes:
    """What TorchServe's token file holds, nothing where there is none."""
    try:
        return instance.key_file.read_bytes()
    except FileNotFoundError:
        return b""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.container.front", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--instance", default="default", metavar="NAME", help="default: default")
    parser.add_argument("--run-folder", type=Path, default=Path("run"), metavar="FOLDER", help="default: run")
    parser.add_argument("--mounted", type=Path, required=True, metavar="FOLDER", help=f"holds {', '.join(FILES)}")
    parser.add_argument("--secrets", type=Path, required=True, metavar="FOLDER", help="for this container's copies")
    parser.add_argument("--grpc", action="store_true", help="also the Open Inference Protocol over gRPC")
    parser.add_argument(
        "--quiet", type=float, default=10.0, metavar="SECONDS", help="said to be not ready before the door shuts; 10"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
