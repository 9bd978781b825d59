"""The command line and the environment of TorchServe's Java process.

Java is started directly: TorchServe's own launcher exits with 0 when Java could not bind its ports, and
dies of SIGTERM without passing it on. Java hands its environment to the workers, so it gets a short list of
variables and no others. Above all no PYTHONPATH: TorchServe puts the caller's before the archive's, and the
working tree would be served in its place.
"""

from __future__ import annotations

import importlib.util
import shlex
import stat
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from deploy.archive import Archive
from deploy.errors import RefusedError
from deploy.instance import CLASSES

LOG4J = Path(__file__).with_name("log4j2.xml")
# Starts the interpreter that runs this as a worker that imports torch only where it is used.
WORKER_PYTHON = Path(__file__).with_name("lean") / "python"

INHERITED = (
    *("PATH", "HOME", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"),
    "TORCHWARDEN_STORE",  # the Redis that remembers what is spent and taken (handlers/store.py)
)
FIXED = {
    # Java reads and writes file names in the locale's encoding; C.UTF-8 is there on any Linux.
    "LANG": "C.UTF-8",
    # Official onnxruntime wheels report usage from 1.29 on.
    "ORT_DISABLE_TELEMETRY": "1",
    # Threads belong to the budget: a policy's `threads` sets those of its graphs, and nothing else adds some.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # A TorchScript graph's own threads sleep at a barrier: spinning there, they starve each other where cores are few.
    "OMP_WAIT_POLICY": "PASSIVE",
    # glibc raises this bound to 32 MiB by itself and then keeps what a graph's file and weights took at its opening:
    # half of all that a ResNet18's worker holds. Fixed at 1 MiB, such blocks go back when they are freed.
    "MALLOC_MMAP_THRESHOLD_": "1048576",
    # torch announces TorchScript's end of life at each load.
    "PYTHONWARNINGS": "ignore::FutureWarning",
}


def command(java: Path, config: Path, *, vmargs: str, temp: Path, log: str) -> list[str]:
    """Java's command line, for the instance's folder. `log` is an appender of log4j2.xml: file or console."""
    packages = site_packages()
    return [
        str(java),
        f"-Dmodel_server_home={packages}",
        f"-Djava.io.tmpdir={temp}",
        f"-Dlog4j.configurationFile={LOG4J.absolute().as_uri()}",
        f"-Dtorchwarden.log={log}",
        "-XX:ErrorFile=logs/hs_err.log",
        *shlex.split(vmargs),
        "-cp",
        # relative to the instance's folder, where Java starts: of two classes of one name the first is taken
        f"{CLASSES}:{packages}/ts/frontend/*",
        "org.pytorch.serve.ModelServer",
        "--python",
        str(WORKER_PYTHON.absolute()),
        "-f",
        str(config),
        # Without it Java restores a snapshot of an earlier run in place of the settings.
        "--no-config-snapshot",
    ]


def environment(
    keys: Mapping[str, str], *, temp: Path, state: Path, audit: Path, budgets: Path, environ: Mapping[str, str]
) -> dict[str, str]:
    """What Java and its workers see: `keys` as `key_variables` finds them, INHERITED, FIXED, and no more.

    state: a folder for what the workers remember together, as long as the server runs. audit: the file of the audit
    log, where $TORCHWARDEN_AUDIT does not name another one. budgets: likewise of the accounts, $TORCHWARDEN_BUDGETS.
    """
    inherited = {name: environ[name] for name in INHERITED if name in environ}
    folders = {"TMPDIR": str(temp), "TEMP": str(temp), "TORCHWARDEN_STATE": str(state)}
    kept = {"TORCHWARDEN_AUDIT": audit, "TORCHWARDEN_BUDGETS": budgets}
    # workers run in another folder
    chosen = {name: str(Path(environ.get(name) or path).absolute()) for name, path in kept.items()}
    ours = {"TORCHWARDEN_PYTHON": sys.executable, **chosen}
    return inherited | FIXED | folders | ours | dict(keys)


def key_variables(archives: Iterable[Archive], environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that carry the archives' secret keys, and no others.

    A policy's `key_env` NAME is looked up as handlers.key does: the file that $NAME_FILE names, else $NAME.
    A path is made absolute, because workers run in another folder. Raises `RefusedError` where an archive's
    key is in neither.
    """
    found: dict[str, str] = {}
    for archive in archives:
        if archive.key_env is None:
            continue
        file_variable = f"{archive.key_env}_FILE"
        if environ.get(file_variable):
            path = Path(environ[file_variable]).absolute()
            if not path.is_file():
                raise RefusedError(
                    f"${file_variable} names no file: {path}. Make a key there with `python -m handlers.key {path}`."
                )
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:  # the workers would refuse it too, one after the other
                raise RefusedError(f"key file {path}: expected mode 0600, got {mode:04o}. Run `chmod 600 {path}`.")
            found[file_variable] = str(path)
        elif environ.get(archive.key_env):
            found[archive.key_env] = environ[archive.key_env]
        else:
            raise RefusedError(
                f"archive {archive.path.name} needs a secret key, and neither ${file_variable} (a path) nor "
                f"${archive.key_env} is set. Make a key with `python -m handlers.key PATH`, then "
                f"`export {file_variable}=PATH`."
            )
    return found


def site_packages() -> Path:
    """Where TorchServe is installed. Raises `RefusedError` where it is not."""
    found = importlib.util.find_spec("ts")
    if found is None or found.origin is None:
        raise RefusedError(f"TorchServe is not installed for {sys.executable}: `pip install torchserve==0.12.0`")
    return Path(found.origin).parent.parent
