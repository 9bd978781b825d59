"""The handler TorchServe loads: requests in, answers out, one pipeline call a batch.

TorchServe wants a module with exactly one class, so everything else has a separate module. The class is
plain: TorchServe's BaseHandler fails a whole batch on one exception and obeys a `describe` header in ordinary
requests. Here a request at fault gets its own status, its neighbours' answers stay as they are, and nothing
that a client sent is logged: TorchServe takes metrics and commands from a worker's log lines.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from http import HTTPStatus
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson

from defenses.limits import SHARED, named
from handlers import audit, batch, bodies, wire
from handlers.errors import (
    BadPrincipal,
    Internal,
    RateLimited,
    RequestError,
    for_log,
)
from handlers.forms import Classes, Encoded, Form
from handlers.loading import load, open_audit_log, open_limiter, open_toll
from handlers.metrics import Metrics
from handlers.refusal import ASKED, redirected
from handlers.request import Request
from handlers.rows import Rows

# what refuses a request as a whole and goes to the audit log
REFUSED = frozenset(audit.KINDS)

_log = logging.getLogger(__name__)


class TorchWarden:
    """One archive's worker. State: the pipeline, the toll, the limiter and the metrics, made at load; what outlives a
    request, the solutions that are spent and the rows that were taken, is in their store."""

    def initialize(self, context: Any) -> None:
        """Load the unpacked archive and answer once. Raises LoadError."""
        properties = context.system_properties
        self._pipeline = load(Path(properties["model_dir"]), gpu=properties.get("gpu_id"))
        self._policy = self._pipeline.policy
        self._name = f"{self._policy.recipe}-{self._policy.policy}"
        self._toll = open_toll(self._policy)
        self._limiter = open_limiter(self._policy)
        self._audit_log = open_audit_log()
        self._metrics = Metrics(context.metrics, context.model_name, self._policy.members)
        self._classes = Classes.of(self._policy)
        # pictures are decoded in as many threads as a graph has: these wait while pictures are decoded
        threads = self._policy.threads
        self._each: bodies.Each = ThreadPoolExecutor(threads).map if threads > 1 else map

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """One body for each request of the batch, in order; status and headers go through the context."""
        started = perf_counter()
        messages, described = [], set()
        for index, row in enumerate(data):
            message = _message(context, index, row)
            # TorchServe describes without a body; with one, the header is a client's and means nothing
            if message.headers.get("describe") == "True" and not message.body and not message.parts:
                described.add(index)
            else:
                messages.append(message)
        seconds = {"decode": 0.0, **({} if self._limiter is None else {"limit": 0.0})}
        over: Counter[str] = Counter()
        asked = self._read(messages, over, seconds)
        if self._toll is not None:
            begun = perf_counter()
            asked = [
                request._replace(rows=batch.admitted(request.rows, request.solution, self._toll)) for request in asked
            ]
            seconds["admit"] = perf_counter() - begun
        requests = [request.rows for request in asked]
        outcome = batch.ask(self._pipeline, requests, [request.principal for request in asked])
        begun = perf_counter()
        replies = batch.replies(requests, outcome, self._classes, self._toll)
        seconds["encode"] = perf_counter() - begun
        if outcome.answers is not None:
            seconds.update(outcome.answers.seconds)
        places = [index for index in range(len(data)) if index not in described]
        audited = self._audit(context, places, asked, replies)
        seconds["handle"] = perf_counter() - started
        self._metrics.count(
            outcome.answers,
            [code for reply in replies for code in reply.codes],
            seconds,
            issued=sum(reply.challenged for reply in replies),
            solved=sum(rows.paid for rows in requests),
            limited=over,
            audited=audited,
        )
        in_order = iter(replies)
        return [
            _send(context, index, self._description() if index in described else next(in_order))
            for index in range(len(data))
        ]

    def describe_handle(self) -> dict[str, object]:
        """The policy's public facts."""
        return wire.describe(self._policy)

    def _description(self) -> batch.Reply:
        return batch.Reply(Encoded(HTTPStatus.OK, orjson.dumps(self.describe_handle())), ())

    def _read(self, messages: Sequence[bodies.Message], over: Counter[str], seconds: dict[str, float]) -> list[Request]:
        """The requests, each counted for its principal, and decoded only where that has room for a row.

        What is over a limit is counted in `over`: its rows, or 1 where it was not decoded. Times are added to
        `seconds`.
        """
        principals = [named(message.headers.get(self._policy.principal_header.lower())) for message in messages]
        requests: dict[int, Request] = {}
        for wave in self._waves(len(messages)):
            begun = perf_counter()
            refusals = [self._unread(principals[index]) for index in wave]
            checked = perf_counter()
            decoded = self._decode([messages[index] for index in wave], refusals)
            read = perf_counter()
            for index, refusal, rows in zip(wave, refusals, decoded, strict=True):
                if isinstance(refusal, RateLimited):
                    over[refusal.limit] += 1
                solution = messages[index].headers.get(wire.SOLUTION.lower())
                held = rows if refusal is None else None
                requests[index] = self._limited(Request(rows, held, principals[index] or SHARED, solution), over)
            seconds["decode"] += read - checked
            if self._limiter is not None:
                seconds["limit"] += checked - begun + perf_counter() - read
        return [requests[index] for index in range(len(messages))]

    def _waves(self, count: int) -> list[list[int]]:
        """The places of requests that are decoded side by side: one after the other where each is counted before the
        next is looked at."""
        places = list(range(count))
        return [places] if self._limiter is None else [[place] for place in places]

    def _unread(self, principal: str | None) -> RequestError | None:
        """What a request of `principal` is refused with before anyone looks at it."""
        if principal is None:
            return BadPrincipal("the gateway's header with the principal holds no name")
        return batch.unread(principal, self._limiter, open_=self._policy.on_stage_error == "open")

    def _decode(self, messages: Sequence[bodies.Message], refusals: Sequence[RequestError | None]) -> list[Rows]:
        """The rows of those that are not refused already, the pictures of all of them decoded side by side."""
        opened: list[Rows | bodies.Unread] = []
        for message, refusal in zip(messages, refusals, strict=True):
            form = bodies.form_of(message)
            opened.append(
                self._opened(message, form) if refusal is None else Rows.refused(refusal, self._policy.input, form)
            )
        return bodies.read(opened, self._policy.input, self._each)

    def _opened(self, message: bodies.Message, form: Form) -> Rows | bodies.Unread:
        try:
            if not isinstance(message.body, bytes | bytearray | None):
                raise TypeError(f"a body came as {type(message.body).__name__}: set decode_input_request=false")
            return bodies.opened(message, form, self._policy)
        except RequestError as error:
            return Rows.refused(error, self._policy.input, form)
        except MemoryError:
            raise
        except Exception as error:
            _log.error("a request could not be decoded: %s", for_log(error))
            return Rows.refused(Internal("this request could not be handled"), self._policy.input, form)

    def _limited(self, request: Request, over: Counter[str]) -> Request:
        """The request, counted for its principal; rows that are over a limit are counted in `over`."""
        open_ = self._policy.on_stage_error == "open"
        rows, limit = batch.limited(request.rows, request.principal, self._limiter, open_=open_)
        if limit is not None:
            over[limit] += len(request.rows.images) + len(request.rows.errors)
        return request._replace(rows=rows)

    def _audit(
        self, context: Any, places: Sequence[int], asked: Sequence[Request], replies: Sequence[batch.Reply]
    ) -> Mapping[str, int]:
        """Write the batch's lines; returns how many were written or failed."""
        if self._audit_log is None:
            return {}
        lines: list[dict[str, object]] = []
        for index, request, reply in zip(places, asked, replies, strict=True):
            refusals = REFUSED.intersection(reply.codes)
            if not reply.suspects and not refusals:
                continue
            common = {
                "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "request": context.get_request_id(index),
                "principal": request.principal,
                "policy": self._name,
            }
            for suspect in reply.suspects:
                judged = {"decision": suspect.decision, "score": suspect.score, "tail": suspect.tail}
                image = audit.digest(request.rows.images[suspect.image])
                lines.append({**common, "row": suspect.row, "rows": 1, **judged, "digest": image})
            for code in refusals:
                judged = {"decision": code, "score": None, "tail": None}
                decoded = request.decoded
                rows = None if decoded is None else len(decoded.images) + len(decoded.errors)
                digest = None if decoded is None else decoded.digest.hex()
                lines.append({**common, "row": None, "rows": rows, **judged, "digest": digest})
        if not lines:
            self._audit_log.settle()
            return {}
        return {"written" if self._audit_log.write(lines) else "failed": len(lines)}


def _message(context: Any, index: int, row: Mapping[str, Any]) -> bodies.Message:
    """A request: TorchServe keeps the case of its headers, and has the parts of a multipart body in place of it. A
    part's own headers are a table, and none of the request's."""
    headers = {
        name.lower(): value for name, value in context.get_all_request_header(index).items() if isinstance(value, str)
    }
    body = row.get("body")
    if body is not None:
        return bodies.Message(headers, body, model=context.model_name)
    parts = {name: part for name, part in row.items() if isinstance(part, bytes | bytearray)}
    return bodies.Message(headers, None, parts, context.model_name)


def _send(context: Any, index: int, reply: batch.Reply) -> bytes:
    """Set the headers and status of a body. TorchServe adds a `Cache-Control` of its own in place of any of ours."""
    encoded = redirected(reply.encoded, context.get_request_header(index, ASKED))
    context.set_response_content_type(index, encoded.content_type)
    context.set_response_header(index, wire.ANSWER, reply.codes[0] if reply.codes and reply.status != 200 else "ok")
    for name, value in encoded.headers.items():
        context.set_response_header(index, name, value)
    if reply.retry_after:
        context.set_response_header(index, "Retry-After", str(reply.retry_after))
    context.set_response_status(code=int(encoded.status), phrase=HTTPStatus(encoded.status).phrase, idx=index)
    return encoded.body
