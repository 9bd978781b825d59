"""The handler TorchServe loads: requests in, answers out, one pipeline call a batch.

TorchServe wants a module with exactly one class, so everything else has a separate module. The class is
plain: TorchServe's BaseHandler fails a whole batch on one exception and obeys a `describe` header in ordinary
requests. Here a request at fault gets its own status, its neighbours' answers stay as they are, and nothing
that a client sent is logged: TorchServe takes metrics and commands from a worker's log lines.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from http import HTTPStatus
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson

from defenses.budget import Standing
from defenses.limits import SHARED, named
from handlers import audit, batch, bodies, budgets, wire
from handlers.errors import (
    BadPrincipal,
    Internal,
    RateLimited,
    RequestError,
    for_log,
)
from handlers.forms import Classes, Encoded, Form
from handlers.loading import load, open_accounts, open_audit_log, open_limiter, open_toll
from handlers.metrics import Metrics
from handlers.refusal import ASKED, redirected
from handlers.request import Request
from handlers.rows import Rows

# what refuses a request as a whole and goes to the audit log
REFUSED = frozenset(audit.KINDS)

_log = logging.getLogger(__name__)


class TorchWarden:
    """One archive's worker. State: the pipeline, the toll, the limiter and the metrics, made at load; what outlives a
    request, the solutions that are spent, the rows that were taken and how accounts stand, is in their store."""

    def initialize(self, context: Any) -> None:
        """Load the unpacked archive and answer once. Raises LoadError."""
        properties = context.system_properties
        self._pipeline = load(Path(properties["model_dir"]), gpu=properties.get("gpu_id"))
        self._policy = self._pipeline.policy
        self._name = f"{self._policy.recipe}-{self._policy.policy}"
        self._toll = open_toll(self._policy)
        self._limiter = open_limiter(self._policy)
        self._accounts = open_accounts(self._policy)
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
            paid = batch.admitted(
                [request.rows for request in asked], [request.solution for request in asked], self._toll
            )
            asked = [request._replace(rows=rows) for request, rows in zip(asked, paid, strict=True)]
            seconds["admit"] = perf_counter() - begun
        requests = [request.rows for request in asked]
        outcome = batch.ask(self._pipeline, requests, [request.principal for request in asked])
        begun = perf_counter()
        charged = budgets.charged(asked, outcome, self._accounts, self._policy)
        if self._accounts is not None:
            seconds["budget"] = perf_counter() - begun
        begun = perf_counter()
        replies = batch.replies(
            requests, outcome, self._classes, self._toll, treatments=charged.treatments, price=self._policy.price
        )
        seconds["encode"] = perf_counter() - begun
        if outcome.answers is not None:
            seconds.update(outcome.answers.seconds)
        places = [index for index in range(len(data)) if index not in described]
        audited = self._audit(context, places, asked, replies, charged.crossed)
        seconds["handle"] = perf_counter() - started
        self._metrics.count(
            outcome.answers,
            [code for reply in replies for code in reply.codes],
            seconds,
            issued=sum(reply.challenged for reply in replies),
            solved=sum(rows.paid for rows in requests),
            limited=over,
            audited=audited,
            budgets=_budget_events(requests, charged),
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
        begun = perf_counter()
        principals = [named(message.headers.get(self._policy.principal_header.lower())) for message in messages]
        refusals = self._unread(principals)
        over.update(refusal.limit for refusal in refusals if isinstance(refusal, RateLimited))
        checked = perf_counter()
        decoded = self._decode(messages, refusals)
        read = perf_counter()
        requests = [
            Request(
                rows, rows if refusal is None else None, principal or SHARED, message.headers.get(wire.SOLUTION.lower())
            )
            for message, principal, refusal, rows in zip(messages, principals, refusals, decoded, strict=True)
        ]
        requests = self._limited(requests, over)
        seconds["decode"] += read - checked
        if self._limiter is not None:
            seconds["limit"] += checked - begun + perf_counter() - read
        return requests

    def _unread(self, principals: Sequence[str | None]) -> list[RequestError | None]:
        """What requests of these principals are refused with before anyone looks at them."""
        known = [principal for principal in principals if principal is not None]
        found = iter(batch.unread(known, self._limiter, open_=self._policy.on_stage_error == "open"))
        nameless = "the gateway's header with the principal holds no name"
        return [BadPrincipal(nameless) if principal is None else next(found) for principal in principals]

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

    def _limited(self, requests: Sequence[Request], over: Counter[str]) -> list[Request]:
        """The requests, each counted for its principal; rows that are over a limit are counted in `over`."""
        asked, principals = [request.rows for request in requests], [request.principal for request in requests]
        found = batch.limited(asked, principals, self._limiter, open_=self._policy.on_stage_error == "open")
        for rows, (_, limit) in zip(asked, found, strict=True):
            if limit is not None:
                over[limit] += len(rows.images) + len(rows.errors)
        return [request._replace(rows=rows) for request, (rows, _) in zip(requests, found, strict=True)]

    def _audit(
        self,
        context: Any,
        places: Sequence[int],
        asked: Sequence[Request],
        replies: Sequence[batch.Reply],
        crossed: Mapping[int, Standing],
    ) -> Mapping[str, int]:
        """Write the batch's lines; returns how many were written or failed."""
        if self._audit_log is None:
            return {}
        lines: list[dict[str, object]] = []
        for number, (index, request, reply) in enumerate(zip(places, asked, replies, strict=True)):
            refusals = REFUSED.intersection(reply.codes)
            standing = crossed.get(number)
            if not reply.suspects and not refusals and standing is None:
                continue
            common = {
                "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "request": context.get_request_id(index),
                "principal": request.principal,
                "policy": self._name,
            }
            if standing is not None:
                capital = {"score": math.log10(standing.capital), "tail": min(1.0, 1 / standing.capital)}
                lines.append(
                    {**common, "row": None, "rows": standing.queries, "decision": "budget", **capital, "digest": None}
                )
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


def _budget_events(requests: Sequence[Rows], charged: budgets.Charged) -> Counter[str]:
    """Accounts whose budget this batch has spent, and rows by what their accounts' budgets made of them."""
    events = Counter({"spent": len(charged.crossed)} if charged.crossed else {})
    for rows, treatment in zip(requests, charged.treatments, strict=True):
        if treatment is not None:
            events[treatment] += len(rows.images)
    return events


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
