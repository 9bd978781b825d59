"""The Open Inference Protocol over gRPC, in front of an instance or of its gateway.

    python -m deploy.grpc_front [--instance NAME] [--run-folder FOLDER] [--listen HOST:PORT] [--health URL ...]

Without TLS and without a check of its own: it listens on loopback or on a unix socket, and clients send TorchServe's
token as `authorization`. `python -m deploy.gateway start --grpc` starts one for clients with keys.

Exit codes: 0 ended by SIGTERM or SIGINT; 2 refused.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc.aio

from deploy import ports, settings
from deploy.errors import DeployError, RefusedError
from deploy.gateway.configuration import number
from deploy.grpc_front.service import Service, handler
from deploy.grpc_front.upstream import UNIX, Upstream
from deploy.instance import Instance

ROOT = Path(__file__).absolute().parents[2]
# for calls under way, once it is to end
GRACE_SECONDS = 10.0
# of a call's metadata: a solution has 6,000, a key some 200; grpc's own bound is 8 KiB for all
METADATA = 16_384


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal ends it; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        given = settings.read(ROOT / "config.properties")
        listen = private(options.listen or ports.read_gateway(given)["grpc_front"].address)
        health = [ports.read_gateway(given)["health"].url] if options.health is None else options.health
        to = options.to or _instance(options)
        asyncio.run(serve(listen, to, health, most=number(given, "max_request_size")))
    except DeployError as error:
        print(f"grpc: {error}", file=sys.stderr)
        return error.exit_code
    return 0


async def serve(listen: str, to: str, health: Sequence[str], *, most: int) -> None:
    """Answer at `listen` until SIGTERM or SIGINT. most: bytes of a message. Raises `RefusedError`."""
    stop = asyncio.Event()
    for number_ in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number_, stop.set)
    async with Upstream(to, health) as upstream:
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", most),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", METADATA),
                ("grpc.absolute_max_metadata_size", 2 * METADATA),
                # or a second one would share the port unseen
                ("grpc.so_reuseport", 0),
            ]
        )
        server.add_generic_rpc_handlers((handler(Service(upstream)),))
        try:
            server.add_insecure_port(listen)
        except RuntimeError as error:
            raise RefusedError(f"--listen {listen}: it cannot be listened on; choose another address") from error
        await server.start()
        print(f"grpc: {listen}, before {to}", file=sys.stderr, flush=True)
        await stop.wait()
        await server.stop(GRACE_SECONDS)


def _instance(options: argparse.Namespace) -> str:
    record = Instance(options.run_folder, options.instance).record()
    if record is None or record.process() is None:
        raise RefusedError(
            f"instance {options.instance} is not running; start it "
            f"(`python -m deploy.server start --instance {options.instance}`)"
        )
    return record.inference


def private(listen: str) -> str:
    """An address that only this machine reaches. Raises `RefusedError`."""
    if listen.startswith(UNIX):
        return listen
    host, _, port = listen.rpartition(":")
    try:
        fine = port.isdecimal() and ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        fine = False
    if not fine:
        raise RefusedError(
            f"--listen: expected 127.0.0.1:PORT or unix:PATH, got {listen!r}: it has no TLS and checks no key; "
            "for other machines, `python -m deploy.gateway start --grpc`"
        )
    return listen


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.grpc_front", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--instance", default="default", metavar="NAME", help="default: default")
    parser.add_argument("--run-folder", type=Path, default=Path("run"), metavar="FOLDER", help="default: run")
    parser.add_argument(
        "--listen", metavar="HOST:PORT", help="or unix:PATH; default: config.properties' grpc_front_address"
    )
    parser.add_argument(
        "--health",
        nargs="*",
        metavar="URL",
        help="of python -m deploy.health; default: config.properties' health_address",
    )
    parser.add_argument("--to", metavar="URL", help="http://HOST:PORT or unix:PATH to ask in place of the instance")
    return parser


if __name__ == "__main__":
    sys.exit(main())
