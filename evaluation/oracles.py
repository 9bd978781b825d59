"""The two ways to a victim: an archive's own code in this process, and HTTP. Both answer as attacks.oracle says.

Both encode and decode with handlers.wire and use the same decoder, pipeline and encoder behind it, so for a
deterministic policy they give equal answers; only TorchServe lies between them. Threads of torch and ONNX Runtime
are the caller's and the policy's business.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

import handlers
from attacks.oracle import REFUSED, Answers, joined
from defenses.budget import Accounts
from defenses.limits import SHARED
from evaluation.payment import Credit, Solver, on_credit, price
from handlers import batch, bodies, budgets, loading, wire
from handlers.backends import BACKENDS
from handlers.errors import BudgetSpent, RequestError, WorkWanted
from handlers.forms import Classes
from handlers.ledger import BUDGETS
from handlers.request import Request

CHECKOUT = Path(handlers.__file__).resolve().parent.parent
PACKED_ROOMS = ("handlers", "defenses")

Post = Callable[..., tuple[int, bytes]]
"""(body, content type[, further headers by name]) -> (HTTP status, body of the answer)"""


class OracleError(RuntimeError):
    """The service did not answer as an oracle should: the request as a whole failed, or the archive is unusable."""


class HttpOracle:
    """Asks through `post`, at most `rows` images a request, in one of wire.CONTENT_TYPES.

    post: sends a body with its content type and the client's token, and returns status and body; it may raise.
    solver: pays where rows want a proof of work; without one, or where it gives up, they come back as REFUSED, as rows
    do that were refused. paid: expected hashes of all challenges that were solved so far; attempts: hashes it took.
    Raises OracleError where a request failed as a whole: that says something about the set-up, not about the defense,
    and must not pass as a refusal.
    """

    def __init__(self, post: Post, *, rows: int, content_type: str = wire.RAW, solver: Solver | None = None) -> None:
        self._post = post
        self._rows = rows
        self._content_type = content_type
        self._solver = solver
        self.paid = 0.0
        self.attempts = 0

    def __call__(self, images: torch.Tensor) -> Answers:
        """Answers for images float32 (N, C, H, W) in [0, 1], N >= 1."""
        return joined([self._ask(part) for part in images.split(self._rows)])

    def _ask(self, images: torch.Tensor) -> Answers:
        body = wire.encode_rows(images.numpy(), self._content_type)
        status, response = self._post(body, self._content_type)
        challenge = wire.decode_challenge(response)
        if challenge is None or self._solver is None:
            return _read(status, response, len(images))
        paid = self._solver(challenge)
        if paid is None:
            return _read(status, response, len(images))
        self.paid += price(challenge)
        self.attempts += paid.attempts
        charged = _charged(status, response, len(images))
        status, response = self._post(body, self._content_type, {wire.SOLUTION: paid.solution})
        answers = _read(status, response, len(images))
        # the challenge names the request's price alone: its charged rows share it
        work = charged.double() * price(challenge) / charged.sum()
        return Answers(answers.labels, answers.probabilities, work)


class InProcessOracle:
    """An archive's answers without a server: the handler's own code on the archive's own graphs.

    Unpacks `archive` (.mar) to a temporary folder of its own, checks that the code inside is byte for byte this
    checkout's, and loads it as the server's worker would (the deployment's key comes from `environ`). seed: of
    what a response rule draws, so that the same questions get the same answers; None: fresh, as a server's are. pay:
    answer rows that want a proof of work, and note its price (`Answers.work`), though nobody hashes; else they are
    REFUSED. principal: whose answers they are. counted: by the policy's budget, if it has one, in an account that is
    new with this oracle; else every query is a new customer's. Use as a context manager, or `close` it. Raises
    OracleError, or handlers' LoadError.
    """

    def __init__(
        self,
        archive: Path,
        *,
        seed: int | None = None,
        pay: bool = False,
        principal: str = SHARED,
        counted: bool = False,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        if not archive.is_file():
            raise OracleError(f"{archive}: no such archive; build it first (make archive)")
        self._folder = tempfile.TemporaryDirectory(prefix="torchwarden-")
        try:
            _unpack(archive, self.folder)
            self.pipeline = loading.load(self.folder, environ=environ, seed=seed)
            self._accounts = self._opened() if counted else None
        except BaseException:
            self.close()
            raise
        self._principal = principal
        self._till = Credit() if pay else None
        rows = self.pipeline.policy.max_rows
        self._oracle = HttpOracle(self.post, rows=rows, solver=on_credit if pay else None)

    @property
    def folder(self) -> Path:
        """Where the archive lies unpacked until `close`."""
        return Path(self._folder.name)

    def __call__(self, images: torch.Tensor) -> Answers:
        """Answers for images float32 (N, C, H, W) in [0, 1], N >= 1."""
        return self._oracle(images)

    def members(self, images: torch.Tensor) -> torch.Tensor:
        """Which member answers each image, int64 (N,), -1 for all; a client never learns this."""
        rows = self.pipeline.policy.max_rows
        return torch.cat([torch.from_numpy(self.pipeline(part.numpy()).members) for part in images.split(rows)])

    def everyone(self, images: torch.Tensor) -> torch.Tensor:
        """What every member would answer, float32 (N, members, K); a client never learns this either."""
        graphs, rows = self.pipeline.graphs, self.pipeline.policy.max_rows
        answers = [
            np.stack([graphs[member](part)["probabilities"] for member in self.pipeline.policy.members], axis=1)
            for part in (part.numpy() for part in images.split(rows))
        ]
        return torch.from_numpy(np.concatenate(answers))

    @property
    def gate_graph(self) -> str:
        """The name of the gate's graph. Raises OracleError where the archive has none."""
        policy = self.pipeline.policy
        if policy.gate is None:
            raise OracleError(f"{policy.recipe}-{policy.policy}: expected a policy with a gate, got none")
        return policy.gate.graph

    def trained(self, member: str) -> dict[str, Any]:
        """What a member's graph says of the training of its checkpoint (training/session.py)."""
        policy = self.pipeline.policy
        backend = BACKENDS[policy.backend]
        graph = backend(self.folder / "graphs" / f"{member}{backend.suffix}", threads=1, gpu=None)
        facts: dict[str, Any] = json.loads(graph.metadata["facts"])
        return facts

    def post(self, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body of one request, as the handler answers it without TorchServe around it."""
        reply = self.reply(body, {**(headers or {}), "Content-Type": content_type})
        return int(reply.status), reply.body

    def reply(self, body: bytes, headers: Mapping[str, str]) -> batch.Reply:
        """The same with all that its headers ask for."""
        policy = self.pipeline.policy
        message = bodies.Message({name.lower(): value for name, value in headers.items()}, body, model=policy.policy)
        form = bodies.form_of(message)
        try:
            rows = bodies.read([bodies.opened(message, form, policy)], policy.input)[0]
        except RequestError as error:
            rows = wire.Rows.refused(error, policy.input, form)
        (rows,) = batch.admitted([rows], [headers.get(wire.SOLUTION)], self._till)
        outcome = batch.ask(self.pipeline, [rows], [self._principal])
        charged = budgets.charged([Request(rows, rows, self._principal, None)], outcome, self._accounts, policy)
        classes, treatments = Classes.of(policy), charged.treatments
        return batch.replies([rows], outcome, classes, self._till, treatments=treatments, price=policy.price)[0]

    def _opened(self) -> Accounts | None:
        """The accounts of the policy's budget, all of them new, whatever store a server's are in; None where it has
        none."""
        own = dataclasses.replace(self.pipeline.policy, store=None)
        return loading.open_accounts(own, {BUDGETS: str(self.folder / "accounts.sqlite3")})

    def close(self) -> None:
        """Remove the unpacked files."""
        self._folder.cleanup()

    def __enter__(self) -> InProcessOracle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _read(status: int, body: bytes, rows: int) -> Answers:
    """What one request's answer says of its rows. Raises OracleError."""
    if status == 200:
        labels, probabilities, errors = wire.decode_answers(body)
        labels[list(errors)] = REFUSED
        return Answers(torch.from_numpy(labels), None if probabilities is None else torch.from_numpy(probabilities))
    try:
        fault = wire.decode_error(body)
    except wire.WireError as error:
        raise OracleError(f"the service answered {status}, {error}") from error
    if fault.row is None and fault.code != BudgetSpent.code:
        raise OracleError(f"the service answered {status} {fault.code}: {fault.message}")
    # every row of this request was at fault, and the body shows one row's; or the account is answered no more
    return Answers(torch.full((rows,), REFUSED))


def _charged(status: int, body: bytes, rows: int) -> torch.Tensor:
    """bool (rows,): which rows a challenge is about; all of them where none was answered."""
    charged = torch.full((rows,), status != 200)
    if status == 200:
        faults = wire.decode_answers(body).errors
        charged[[row for row, fault in faults.items() if fault.code == WorkWanted.code]] = True
    return charged


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
    return {path.relative_to(room).as_posix(): path.read_bytes() for path in sorted(room.rglob("*.py"))}
