"""An archive (.mar) before it is served: whether it is complete, and what it needs from the server.

TorchServe skips an archive that it cannot read with a line in its log and serves the rest, so the check comes
first.
"""

from __future__ import annotations

import base64
import json
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.errors import RefusedError

# any other word is looked up on PATH, and what stands there need not have TorchServe's packages
RUNTIME = "python"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
MANIFEST, CONFIG, GOLDEN = "MAR-INF/MANIFEST.json", "model-config.yaml", "golden.json"
# the header of a policy that names no other
PRINCIPAL = "Torchwarden-Principal"
SIDES = ("channels", "height", "width")
# the response rule that shows no probabilities
LABEL = "label"
# what TorchServe gives a worker for a batch where an archive names no responseTimeout
RESPONSE_SECONDS = 120


@dataclass(frozen=True)
class Archive:
    """What the launcher reads of an archive.

    `name` is the model's name in URLs, the file's stem; `workers` processes of `threads` threads each are
    what it starts with; `key_env` names the secret key's variable (None: no stage needs one); `exact` is
    whether all of a member's probabilities return as they are, without noise or a response rule; `image`
    holds one image's float32 little-endian bytes, and a right answer to it
    matches a row of `accepted`. `principal_header` is the header that names the client; `members` is how many
    graphs may answer, and `suspects` the share of benign images that the gate acts upon (None: no gate). `queue`
    requests may wait (None: as many as in config.properties), and a batch may take `response_seconds`. An image is of
    `shape` (C,H,W), `classes` are the classes' names, and answers have `probabilities` or not.
    """

    path: Path
    name: str
    workers: int
    threads: int
    key_env: str | None
    exact: bool
    image: bytes
    accepted: tuple[tuple[float, ...], ...]
    version: str = "1.0"
    principal_header: str = PRINCIPAL
    members: int = 1
    suspects: float | None = None
    queue: int | None = None
    response_seconds: int = RESPONSE_SECONDS
    shape: tuple[int, int, int] = (1, 1, 1)
    classes: tuple[str, ...] = ()
    probabilities: bool = True


def select(store: Path, names: Sequence[str] | None = None) -> list[Archive]:
    """The archives of a store that are named, or all of them, each read and checked whole.

    Raises `RefusedError` for an empty store, a name that is not in it, or an archive that is not as it
    should be.
    """
    known = {path.stem: path for path in sorted(store.glob("*.mar"))}
    if not known:
        raise RefusedError(f"no archives (*.mar) in {store.absolute()}; export some, or name their folder with --store")
    chosen = list(dict.fromkeys(names or known))
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise RefusedError(f"no archive of that name in {store}: {', '.join(unknown)}; there are {', '.join(known)}")
    return [read(known[name]) for name in chosen]


def read(path: Path) -> Archive:
    """Read an archive and check every member's checksum. Raises `RefusedError` naming archive and reason."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            if broken is not None:
                raise ValueError(f"checksum of {broken} is wrong")
            absent = [member for member in (MANIFEST, CONFIG, GOLDEN) if member not in archive.namelist()]
            if absent:
                raise ValueError(f"expected {', '.join(absent)} in it")
            manifest = json.loads(archive.read(MANIFEST))
            runtime = manifest.get("runtime")
            if runtime != RUNTIME:
                raise ValueError(f"{MANIFEST}: runtime: expected {RUNTIME!r}, the server's own, got {runtime!r}")
            config = yaml.safe_load(archive.read(CONFIG))
            golden = json.loads(archive.read(GOLDEN))
        return _archive(path, manifest, config, golden)
    # zlib.error and EOFError are what a damaged member raises before its checksum is reached.
    except (
        OSError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        yaml.YAMLError,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RefusedError(f"archive {path} is not usable: {reason}. Build it again.") from error


def remember(path: Path, archives: Sequence[Archive]) -> None:
    """Write what is being served, so that `status` expects that, whatever the store holds by then."""
    kept = [
        asdict(archive) | {"path": str(archive.path), "image": base64.b64encode(archive.image).decode()}
        for archive in archives
    ]
    path.write_text(json.dumps(kept), encoding="utf-8")


def recall(path: Path) -> list[Archive]:
    """What `remember` wrote."""
    return [
        Archive(
            **kept
            | {
                "path": Path(kept["path"]),
                "image": base64.b64decode(kept["image"]),
                "accepted": tuple(tuple(row) for row in kept["accepted"]),
                "shape": tuple(kept["shape"]),
                "classes": tuple(kept["classes"]),
            }
        )
        for kept in json.loads(path.read_text(encoding="utf-8"))
    ]


def budget(archives: Sequence[Archive], cores: int) -> str:
    """One line: the threads that all workers together run, against the cores there are."""
    threads = sum(archive.workers * archive.threads for archive in archives)
    workers = sum(archive.workers for archive in archives)
    line = f"budget: workers {workers}, their threads {threads}, cores {cores}"
    if threads > cores:
        line += (
            "; warning: more threads than cores, so workers that are busy together slow one another down "
            f"(lower minWorkers or handler.threads in an archive's {CONFIG}, or serve fewer with --models)"
        )
    return line


def _archive(path: Path, manifest: Any, config: Any, golden: Any) -> Archive:
    if not NAME.fullmatch(path.stem):
        raise ValueError(f"its name must match {NAME.pattern}, because it becomes part of a URL")
    handler = _field(config, "handler", dict, CONFIG)
    # TorchServe ignores minWorkers where maxWorkers is not set too.
    _field(config, "maxWorkers", int, CONFIG)
    key_env = handler.get("key_env")
    if not (key_env is None or (isinstance(key_env, str) and key_env.isidentifier())):
        raise ValueError(f"{CONFIG}: handler.key_env: expected a variable's name or null, got {key_env!r}")
    rule = _field(_field(handler, "response", dict, CONFIG), "rule", str, f"{CONFIG}: handler.response")
    principal = handler.get("principal_header", PRINCIPAL)
    if not (isinstance(principal, str) and HEADER.fullmatch(principal)):
        raise ValueError(f"{CONFIG}: handler.principal_header: expected a header's name, got {principal!r}")
    gate = handler.get("gate")
    return Archive(
        path=path.absolute(),
        name=path.stem,
        workers=_positive(config, "minWorkers", CONFIG),
        threads=_positive(handler, "threads", f"{CONFIG}: handler"),
        key_env=key_env,
        exact=rule == "soft" and handler.get("perturb") is None and handler.get("mark") is None,
        image=base64.b64decode(_field(golden, "image", str, GOLDEN), validate=True),
        accepted=_rows(_field(golden, "accepted", list, GOLDEN)),
        version=_field(_field(manifest, "model", dict, MANIFEST), "modelVersion", str, f"{MANIFEST}: model"),
        principal_header=principal,
        members=len(handler.get("members") or [None]),
        suspects=None if gate is None else float(_field(gate, "false_positive_rate", float, f"{CONFIG}: gate")),
        queue=_positive(config, "jobQueueSize", CONFIG) if "jobQueueSize" in config else None,
        response_seconds=_positive({"responseTimeout": RESPONSE_SECONDS} | config, "responseTimeout", CONFIG),
        shape=_shape(_field(handler, "input", dict, f"{CONFIG}: handler")),
        classes=tuple(map(str, _field(handler, "class_names", list, f"{CONFIG}: handler"))),
        probabilities=rule != LABEL,
    )


def _field(table: Any, key: str, kind: type, where: str) -> Any:
    value = table.get(key) if isinstance(table, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{where}: {key}: expected {kind.__name__}, got {value!r}")
    return value


def _positive(table: Any, key: str, where: str) -> int:
    value = int(_field(table, key, int, where))
    if value < 1:
        raise ValueError(f"{where}: {key}: expected at least 1, got {value}")
    return value


def _shape(input_: Any) -> tuple[int, int, int]:
    channels, height, width = (_positive(input_, side, f"{CONFIG}: handler.input") for side in SIDES)
    return channels, height, width


def _rows(accepted: list[Any]) -> tuple[tuple[float, ...], ...]:
    try:
        rows = tuple(tuple(float(value) for value in row) for row in accepted)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{GOLDEN}: accepted: expected rows of numbers ({error})") from error
    if not rows or not rows[0] or len({len(row) for row in rows}) != 1:
        raise ValueError(f"{GOLDEN}: accepted: expected rows of one length, got lengths {[len(r) for r in rows]}")
    return rows
