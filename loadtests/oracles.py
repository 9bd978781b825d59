"""The two ways to a victim: an archive's own code in this process, and HTTP. Both answer as attacks.oracle says.

Both encode and decode with handlers.wire and meet the same decoder, pipeline and encoder behind it, so for a
deterministic policy they give equal answers; only TorchServe lies between them. Threads of torch and ONNX Runtime
are the caller's and the policy's business.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

import handlers
from attacks.oracle import REFUSED, Answers
from handlers import batch, loading, wire
from handlers.backends import BACKENDS
from handlers.errors import RequestError

CHECKOUT = Path(handlers.__file__).resolve().parent.parent
PACKED_ROOMS = ("handlers", "defenses")

Post = Callable[[bytes, str], tuple[int, bytes]]
"""(body, content type) -> (HTTP status, body of the answer)"""


class OracleError(RuntimeError):
    """The service did not answer as an oracle should: the request as a whole failed, or the archive is unusable."""


class HttpOracle:
    """Asks through `post`, at most `rows` images a request, in one of wire.CONTENT_TYPES.

    post: sends a body with its content type and the client's token, and returns status and body; it may raise.
    Rows that were refused come back as REFUSED. Raises OracleError where a request failed as a whole: that says
    something about the set-up, not about the defense, and must not pass as a refusal.
    """

    def __init__(self, post: Post, *, rows: int, content_type: str = wire.RAW) -> None:
        self._post = post
        self._rows = rows
        self._content_type = content_type

    def __call__(self, images: torch.Tensor) -> Answers:
        """Answers for images float32 (N, C, H, W) in [0, 1], N >= 1."""
        parts = [self._ask(part) for part in images.split(self._rows)]
        shown = [part.probabilities for part in parts if part.probabilities is not None]
        classes = shown[0].shape[1] if shown else 0
        return Answers(
            torch.cat([part.labels for part in parts]),
            torch.cat([_padded(part, classes) for part in parts]) if shown else None,
        )

    def _ask(self, images: torch.Tensor) -> Answers:
        status, body = self._post(wire.encode_rows(images.numpy(), self._content_type), self._content_type)
        if status == 200:
            labels, probabilities, errors = wire.decode_answers(body)
            labels[list(errors)] = REFUSED
            shown = None if probabilities is None else torch.from_numpy(probabilities)
            return Answers(torch.from_numpy(labels), shown)
        try:
            fault = wire.decode_error(body)
        except wire.WireError as error:
            raise OracleError(f"the service answered {status}, {error}") from error
        if fault.row is None:
            raise OracleError(f"the service answered {status} {fault.code}: {fault.message}")
        # every row of this request was at fault, and the body shows the first row's
        return Answers(torch.full((len(images),), REFUSED))


class InProcessOracle:
    """An archive's answers without a server: the handler's own code on the archive's own graphs.

    Unpacks `archive` (.mar) to a temporary folder of its own, checks that the code inside is byte for byte this
    checkout's, and loads it as the server's worker would (the deployment's key comes from the environment). seed: of
    what a response rule draws, so that the same questions get the same answers; None: fresh, as a server's are. Use as
    a context manager, or `close` it. Raises OracleError, or handlers' LoadError.
    """

    def __init__(self, archive: Path, *, seed: int | None = None) -> None:
        if not archive.is_file():
            raise OracleError(f"{archive}: no such archive; build it first (make archive)")
        self._folder = tempfile.TemporaryDirectory(prefix="torchwarden-")
        try:
            _unpack(archive, self.folder)
            self.pipeline = loading.load(self.folder, seed=seed)
        except BaseException:
            self.close()
            raise
        self._oracle = HttpOracle(self.post, rows=self.pipeline.policy.max_rows)

    @property
    def folder(self) -> Path:
        """Where the archive lies unpacked until `close`."""
        return Path(self._folder.name)

    def __call__(self, images: torch.Tensor) -> Answers:
        """Answers for images float32 (N, C, H, W) in [0, 1], N >= 1."""
        return self._oracle(images)

    def members(self, images: torch.Tensor) -> torch.Tensor:
        """Which member answers each image, int64 (N,); a client never learns this."""
        rows = self.pipeline.policy.max_rows
        return torch.cat([torch.from_numpy(self.pipeline(part.numpy()).members) for part in images.split(rows)])

    def everyone(self, images: torch.Tensor) -> torch.Tensor:
        """What every member would answer, float32 (N, members, K); a client never learns this either."""
        graphs, rows = self.pipeline.graphs, self.pipeline.policy.max_rows
        told = [
            np.stack([graphs[member](part)["probabilities"] for member in self.pipeline.policy.members], axis=1)
            for part in (part.numpy() for part in images.split(rows))
        ]
        return torch.from_numpy(np.concatenate(told))

    def trained(self, member: str) -> dict[str, Any]:
        """What a member's graph says of the training of its checkpoint (training/session.py)."""
        policy = self.pipeline.policy
        backend = BACKENDS[policy.backend]
        graph = backend(self.folder / "graphs" / f"{member}{backend.suffix}", threads=1, gpu=None)
        told: dict[str, Any] = json.loads(graph.metadata["facts"])
        return told

    def post(self, body: bytes, content_type: str) -> tuple[int, bytes]:
        """Status and body of one request, as the handler answers it without TorchServe around it."""
        try:
            rows = wire.decode(body, content_type, expects=self.pipeline.policy)
        except RequestError as error:
            rows = wire.Rows.refused(error, self.pipeline.policy.input)
        reply = batch.replies([rows], batch.ask(self.pipeline, [rows]))[0]
        return int(reply.status), reply.body

    def close(self) -> None:
        """Remove the unpacked files."""
        self._folder.cleanup()

    def __enter__(self) -> InProcessOracle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _padded(answers: Answers, classes: int) -> torch.Tensor:
    """Probabilities (N, K), NaN throughout for a request of which every row was refused."""
    if answers.probabilities is not None:
        return answers.probabilities
    return torch.full((len(answers.labels), classes), torch.nan)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack, then hold the code against this checkout. Raises OracleError."""
    try:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
    except zipfile.BadZipFile as error:
        raise OracleError(f"{archive}: not an archive: {error}; build it again (make archive)") from error
    for room in PACKED_ROOMS:
        packed_code, our_code = _sources(folder / room), _sources(CHECKOUT / room)
        different = sorted(
            name for name in packed_code.keys() | our_code.keys() if packed_code.get(name) != our_code.get(name)
        )
        if different:
            raise OracleError(
                f"{archive}: packed from other code than this checkout ({room}/{different[0]} differs, "
                f"{len(different)} in {room}/); rebuild it (make archive)"
            )


def _sources(room: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(room.glob("*.py"))}
