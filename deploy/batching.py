"""A batch that waits for nobody: `maxBatchDelay: 0`, which TorchServe 0.12.0 cannot serve as it comes.

A worker that is free takes what waits, up to the batch's size, and goes. Rows that come meanwhile are the next batch:
batches grow with the load by themselves, and a client who is alone waits for nothing. In TorchServe two lines stand
against it:

    ModelManager.createModel   delay > 0 ? delay : 100      a file's 0 is read as no setting at all
    Model.pollBatch            if (delay <= 0) break;       after the second request: with 0 no batch is larger than two

The frontend is not developed any more and takes no plug-in there, and the API that would set 0 is shut.
So both classes are copied from the installed jar into the instance's folder, with `>= 0` in the first and without the
second's break, and stand before the jar on Java's class path. Where a batch's delay is over, what waits still joins it:
`poll` with no time left takes what is there and does not wait. A class of another SHA-256 than 0.12.0's is refused, not
guessed at.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import RefusedError

JAR = "ts/frontend/model-server.jar"


@dataclass(frozen=True)
class Change:
    """A class of the jar, the SHA-256 that it has in 0.12.0, and the bytes of it, there once, that others replace."""

    member: str
    sha256: str
    before: bytes
    after: bytes


CHANGES = (
    Change(
        "org/pytorch/serve/wlm/ModelManager.class",
        "c32ec7d1b524cc3992b068659874274c0611c2472dfe94eaadcabdc14a5c51bf",
        # getMaxBatchDelay(); istore 8; iload 8; ifle -> iflt
        bytes.fromhex("b601e0 3608 1508 9e"),
        bytes.fromhex("b601e0 3608 1508 9b"),
    ),
    Change(
        "org/pytorch/serve/wlm/Model.class",
        "7c5523f1fe77fe79aa32665469e17725e70518692abcf4987989ef72f10d4cff",
        # lload 6; lconst_0; lcmp; ifgt 379 -> iconst_1; nop; nop; nop; ifgt 379
        bytes.fromhex("1606 09 94 9d 0006 a7"),
        bytes.fromhex("0400 00 00 9d 0006 a7"),
    ),
)


def changed(packages: Path) -> dict[str, bytes]:
    """The changed classes, by their names in the jar. packages: where TorchServe is installed.

    Raises `RefusedError` where it is not 0.12.0, whose classes these are.
    """
    jar = packages / JAR
    with zipfile.ZipFile(jar) as frontend:
        return {change.member: _made(change, frontend.read(change.member), jar) for change in CHANGES}


def write(classes: Mapping[str, bytes], folder: Path) -> None:
    """Put classes into `folder`, which is then an entry of a class path."""
    for member, content in classes.items():
        target = folder / member
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _made(change: Change, found: bytes, jar: Path) -> bytes:
    digest = hashlib.sha256(found).hexdigest()
    if digest != change.sha256:
        raise RefusedError(
            f"{jar}: {change.member}: expected that of torchserve 0.12.0, SHA-256 {change.sha256}, got {digest}. "
            "Install the locked one: `make setup`."
        )
    return found.replace(change.before, change.after)
