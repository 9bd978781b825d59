"""The gateway in front of TorchServe: nginx with TLS, one key a client, limits, and nothing but inference behind it.

    python -m deploy.gateway start [--instance NAME] [--upstreams NAME ...] [--secrets FOLDER]
    python -m deploy.gateway stop       answers under way are finished
    python -m deploy.gateway status
    python -m deploy.gateway reload     reread settings, certificate, keys and TorchServe's tokens
    python -m deploy.gateway rotate     renew TorchServe's tokens; no request fails of it
    python -m deploy.gateway reopen     put the logs aside and begin others
    python -m deploy.gateway add NAME | list | revoke LOGIN        the clients' keys

Exit codes: 0 done; 1 it did not; 2 refused, nothing was changed.
"""

from __future__ import annotations

import argparse
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from deploy import ports, settings
from deploy.errors import DeployError, RefusedError
from deploy.gateway import certificates, client_keys, configuration, nginx, servers
from deploy.gateway.configuration import Limits
from deploy.gateway.folder import GatewayFolder, GatewayRecord, put, workers_user
from deploy.gateway.servers import Upstream
from deploy.instance import Instance, process

ROOT = Path(__file__).absolute().parents[2]
# How long answers close their connection before the door shuts, so that clients in touch have left by themselves.
QUIET_SECONDS = 2.0
# of a web page, as browsers state it
ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?")
# Requests that began before a renewal was announced have sent their bodies by then, unless they are slow.
SETTLE_SECONDS = 0.5
# As many as nginx may have under way.
WAITING = 4096


@dataclass(frozen=True)
class Door:
    """What a start decides: whose gateway it is and where it listens."""

    root: Path
    name: str
    upstreams: Sequence[str]
    secrets: Path
    certificate: Path | None
    certificate_key: Path | None
    port_offset: int = 0
    free_ports: bool = False
    grpc: bool = False


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.action(options))
    except DeployError as error:
        print(f"gateway {options.command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def start(options: argparse.Namespace) -> int:
    """Start nginx before the instance, or before several (--upstreams); returns when it answers."""
    door = Door(
        options.run_folder,
        options.instance,
        options.upstreams or [options.instance],
        options.secrets,
        options.certificate,
        options.certificate_key,
        options.port_offset,
        options.free_ports,
        options.grpc,
    )
    record = open_(door)
    print(f"{record.url}/predictions/NAME, certificate: {record.certificate}")
    if record.grpc is not None:
        print(f"gRPC: {record.grpc.removeprefix('https://')}")
    if not client_keys.read(Path(record.secrets) / client_keys.FILE):
        print(f"no client has a key yet: python -m deploy.gateway add NAME --instance {options.instance}")
    return 0


def stop(options: argparse.Namespace) -> int:
    """Let answers under way finish, then stop; that it was not running is no error."""
    pid = nginx.drain(GatewayFolder(options.run_folder, options.instance), quiet=options.quiet)
    text = "was not running" if pid is None else f"has stopped (pid {pid})"
    print(f"the gateway of instance {options.instance} {text}")
    return 0


def status(options: argparse.Namespace) -> int:
    """Print where it listens; 0 if nginx runs and answers."""
    text, fine = describe(GatewayFolder(options.run_folder, options.instance))
    print(text or f"the gateway of instance {options.instance} is not running")
    return 0 if fine and text else 1


def reload(options: argparse.Namespace) -> int:
    """Read settings, certificate, keys and TorchServe's tokens again; answers under way are finished."""
    folder, record, _ = _running(options)
    renew_settings(options.run_folder, folder, record)
    return 0


def rotate(options: argparse.Namespace) -> int:
    """Renew TorchServe's inference tokens; requests during the change wait for it."""
    folder, record, _ = _running(options)
    upstreams = servers.find(options.run_folder, record.upstreams, settings.read(ROOT / "config.properties"))
    local = [upstream for upstream in upstreams if upstream.management is not None]
    if not local:
        raise RefusedError(
            f"{', '.join(record.upstreams)} are other machines'; renew their tokens there, then `reload` here"
        )
    waiting = folder.wait / "socket"
    waiting.unlink(missing_ok=True)
    with closing(socket.socket(socket.AF_UNIX)) as door:
        door.bind(str(waiting))
        door.listen(WAITING)
        waiting.chmod(0o660)
        folder.give(waiting)
        folder.renewing.touch()
        try:
            time.sleep(SETTLE_SECONDS)
            for upstream in local:
                upstream.renew()
        finally:
            servers.link(folder, upstreams)
    # Closing the socket has sent those who waited to ask again; who comes from now on finds the new token at once.
    waiting.unlink(missing_ok=True)
    folder.renewing.unlink(missing_ok=True)
    print(f"renewed the inference token of {', '.join(upstream.given for upstream in local)}")
    return 0


def reopen(options: argparse.Namespace) -> int:
    """Put access.log and error.log aside, five of each, and begin others."""
    folder, _, master = _running(options)
    nginx.reopen(folder, master)
    return 0


def add(options: argparse.Namespace) -> int:
    """Make a key for a client and show it, this once; a client that has one gets a second, to change over."""
    login, key = client_keys.add(options.secrets / client_keys.FILE, options.name)
    _spread(options)
    print(f"{login}:{key}")
    return 0


def list_(options: argparse.Namespace) -> int:
    """Print the logins that have a key."""
    for login in sorted(client_keys.read(options.secrets / client_keys.FILE)):
        print(login)
    return 0


def revoke(options: argparse.Namespace) -> int:
    """Forget a login's key: its next request is refused."""
    client_keys.revoke(options.secrets / client_keys.FILE, options.login)
    _spread(options)
    return 0


def open_(door: Door) -> GatewayRecord:
    """Start what a door needs and wait until it answers, or raise with all of it ended again."""
    with Instance(door.root, door.name).starting(".gateway"):
        running = GatewayFolder(door.root, door.name).running()
        if running is not None:
            raise RefusedError(
                f"the gateway of instance {door.name} is running already: pid {running.pid}, {running.url}. "
                "`reload` gives it new settings, `stop` stops it."
            )
        nginx.end_helpers(GatewayFolder(door.root, door.name))
        given = settings.read(ROOT / "config.properties")
        nginx.program()
        if door.grpc:
            nginx.check_front()
        upstreams = servers.find(door.root, door.upstreams, given)
        named = ports.read_gateway(given)
        wanted = ["gateway", "gateway_status", "health", *(["gateway_grpc"] if door.grpc else [])]
        public, status_, health, *grpc = ports.chosen(
            [named[name] for name in wanted], offset=door.port_offset, any_=door.free_ports
        )
        certificate, key = _certificate(door, public.host)
        keys = client_keys.read(door.secrets / client_keys.FILE)
        folder = GatewayFolder.make(door.root, door.name)
        asked = _health(given) or door.grpc
        probed = [upstream.given for upstream in upstreams if upstream.management] if asked else []
        # One instance's is as in config.properties; those of more are between them and nginx alone.
        probes = [health, *ports.free([health] * len(probed))][: len(probed)]
        record = GatewayRecord(
            instance=door.name,
            url=public.url,
            status=f"{status_.url}/status",
            health=[probe.url for probe in probes],
            upstreams=list(door.upstreams),
            secrets=str(door.secrets.absolute()),
            certificate=str(certificate),
            certificate_key=str(key),
            patience=configuration.patience(upstreams),
            pid=0,
            started=0.0,
            helpers=[],
            grpc=grpc[0].url if grpc else None,
        )
        settings_ = _write(folder, record, upstreams, given)
        nginx.check(folder, settings_)
        settings_.replace(folder.conf)
        servers.link(folder, upstreams)
        _give_keys(folder, keys)
        master = None
        helpers: list[tuple[int, float]] = []
        try:
            for name, probe in zip(probed, probes, strict=True):
                helpers.append(nginx.run_health(door.root, name, probe.address, folder))
            if record.grpc is not None:
                helpers.append(nginx.run_front(folder, record.health))
                nginx.admit(folder, helpers[-1])
            master = nginx.run(folder)
            created = psutil.Process(master.pid).create_time()
            record = replace(record, pid=master.pid, started=created, helpers=helpers)
            folder.announce(record)
            nginx.wait(master, record, folder)
        except BaseException:
            nginx.end(master, helpers)
            folder.clear()
            raise
        return record


def renew_settings(root: Path, folder: GatewayFolder, record: GatewayRecord) -> None:
    """Rewrite a running gateway's settings, check them, and let nginx read them."""
    master = record.process()
    assert master is not None
    given = settings.read(ROOT / "config.properties")
    upstreams = servers.find(root, record.upstreams, given)
    keys = client_keys.read(Path(record.secrets) / client_keys.FILE)
    written = _write(folder, record, upstreams, given)
    nginx.check(folder, written)
    written.replace(folder.conf)
    _give_keys(folder, keys)
    servers.link(folder, upstreams)
    nginx.reload(master)
    folder.announce(replace(record, patience=configuration.patience(upstreams)))


def describe(folder: GatewayFolder) -> tuple[str | None, bool]:
    """A line about a gateway, None where none was started, and whether it is as it should be."""
    record = folder.record()
    if record is None:
        return None, True
    if record.process() is None:
        return f"gateway {record.url} has ended; see {folder.logs}", False
    fine = nginx.answers(record.status) and all(process(*each) for each in record.helpers)
    before = ", ".join(record.upstreams)
    where = record.url + (f", gRPC {record.grpc}" if record.grpc else "")
    return (
        f"gateway {where}, pid {record.pid}, before {before}{'' if fine else ', does not answer in all its parts'}",
        fine,
    )


def _health(given: Mapping[str, str]) -> bool:
    choice = given.get("gateway_health")
    if choice not in ("open", "closed"):
        raise RefusedError(f"config.properties: gateway_health: expected open or closed, got {choice!r}")
    return choice == "open"


def _origins(given: Mapping[str, str]) -> list[str]:
    origins = given.get("gateway_origins", "").split()
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            raise RefusedError(
                f"config.properties: gateway_origins: expected https://HOST[:PORT], nothing behind it, got {origin!r}"
            )
    return origins


def _certificate(door: Door, host: str) -> tuple[Path, Path]:
    """The certificate and its key; where none is named and none is there, one is made."""
    if (door.certificate is None) != (door.certificate_key is None):
        raise RefusedError("--certificate and --certificate-key: expected both or neither")
    if door.certificate is not None and door.certificate_key is not None:
        certificate, key = door.certificate.absolute(), door.certificate_key.absolute()
        if not certificates.exists(certificate, key):
            raise RefusedError(f"no certificate {certificate} and key {key}; leave the options out to have one made")
        return certificate, key
    certificate, key = (door.secrets.absolute() / name for name in certificates.FILES)
    if not certificates.exists(certificate, key):
        certificates.make(certificate, key, host=host)
        print(f"made a self-signed certificate, good for {certificates.DAYS} days: {certificate}")
    return certificate, key


def _write(
    folder: GatewayFolder, record: GatewayRecord, upstreams: Sequence[Upstream], given: Mapping[str, str]
) -> Path:
    user = workers_user()
    return configuration.write(
        folder.path,
        to="nginx.conf.new",
        upstreams=upstreams,
        limits=Limits.of(given, upstreams),
        listen=record.url.removeprefix("https://"),
        status=record.status.removeprefix("http://").removesuffix("/status"),
        health=[url.removeprefix("http://") for url in record.health] if _health(given) else [],
        grpc=None if record.grpc is None else record.grpc.removeprefix("https://"),
        certificate=Path(record.certificate),
        certificate_key=Path(record.certificate_key),
        user=None if user is None else user.pw_name,
        origins=_origins(given),
    )


def _give_keys(folder: GatewayFolder, keys: Mapping[str, str]) -> None:
    """Let nginx's workers have the keys, whole or as they were."""
    written = put(folder.path / "keys.new", client_keys.written(keys), 0o600)
    folder.give(written)
    written.replace(folder.keys)


def _spread(options: argparse.Namespace) -> None:
    """Give a running gateway the keys that have changed, where they are its own."""
    folder = GatewayFolder(options.run_folder, options.instance)
    record = folder.running()
    if record is not None and Path(record.secrets) == options.secrets.absolute():
        _give_keys(folder, client_keys.read(options.secrets / client_keys.FILE))


def _running(options: argparse.Namespace) -> tuple[GatewayFolder, GatewayRecord, psutil.Process]:
    folder = GatewayFolder(options.run_folder, options.instance)
    record = folder.record()
    master = record.process() if record is not None else None
    if record is None or master is None:
        raise RefusedError(f"the gateway of instance {options.instance} is not running; `start` starts it")
    return folder, record, master


def add_start_options(command: argparse.ArgumentParser) -> None:
    """What a start of the gateway takes, here and in deploy.server."""
    command.add_argument("--secrets", type=Path, default=Path("secrets"), metavar="FOLDER", help="default: secrets")
    command.add_argument("--certificate", type=Path, metavar="PEM", help="with its chain; default: made, self-signed")
    command.add_argument("--certificate-key", type=Path, metavar="PEM", help="its private key, mode 600")
    command.add_argument("--grpc", action="store_true", help="also the Open Inference Protocol over gRPC")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.gateway", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for action in (start, stop, status, reload, rotate, reopen, add, list_, revoke):
        command = commands.add_parser(action.__name__.rstrip("_"), help=action.__doc__)
        command.set_defaults(action=action)
        command.add_argument("--instance", default="default", metavar="NAME", help="default: default")
        command.add_argument("--run-folder", type=Path, default=Path("run"), metavar="FOLDER", help="default: run")
        if action in (add, list_, revoke):
            command.add_argument(
                "--secrets", type=Path, default=Path("secrets"), metavar="FOLDER", help="with the keys"
            )
    commands.choices["add"].add_argument("name", metavar="NAME", help="the principal")
    commands.choices["revoke"].add_argument("login", metavar="LOGIN", help="as `list` prints it: NAME, NAME+2")
    commands.choices["stop"].add_argument(
        "--quiet", type=float, default=QUIET_SECONDS, metavar="SECONDS", help="before the door shuts; default: 2"
    )
    start_ = commands.choices["start"]
    start_.add_argument(
        "--upstreams", nargs="+", metavar="NAME", help="instances, or HOST:PORT=KEY_FILE; default: the instance"
    )
    add_start_options(start_)
    moved = start_.add_mutually_exclusive_group()
    moved.add_argument("--port-offset", type=int, default=0, metavar="N", help="added to every port")
    moved.add_argument("--free-ports", action="store_true", help="take ports that are free; gateway.json lists them")
    return parser
