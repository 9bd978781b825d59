"""The handler TorchServe loads: requests in, answers out, one pipeline call a batch.

TorchServe wants a module with exactly one class, so everything else has a module of its own. The class is
plain: TorchServe's BaseHandler fails a whole batch on one exception and obeys a `describe` header in ordinary
requests. Here a request at fault gets its own status, its neighbours' answers stay as they are, and nothing
that a client sent is logged: TorchServe takes metrics and commands from a worker's log lines.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson

from handlers import batch, wire
from handlers.errors import Internal, RequestError, for_log
from handlers.loading import load, open_toll
from handlers.metrics import Metrics

_log = logging.getLogger(__name__)


class TorchWarden:
    """One archive's worker. State: the pipeline, the toll and the metrics, made at load; what outlives a request, the
    solutions that are spent, is in the toll's store."""

    def initialize(self, context: Any) -> None:
        """Load the unpacked archive and answer once. Raises LoadError."""
        properties = context.system_properties
        self._pipeline = load(Path(properties["model_dir"]), gpu=properties.get("gpu_id"))
        self._policy = self._pipeline.policy
        self._toll = open_toll(self._policy)
        self._metrics = Metrics(context.metrics, context.model_name, self._policy.members)

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """One body for each request of the batch, in order; status and headers go through the context."""
        started = perf_counter()
        requests, solutions, described = [], [], set()
        for index, row in enumerate(data):
            headers, body = _headers(context, index), row.get("body")
            # TorchServe describes without a body; beside one, the header is a client's and means nothing
            if headers.get("describe") == "True" and not body:
                described.add(index)
            else:
                requests.append(self._decode(body, headers.get("content-type", "")))
                solutions.append(headers.get(wire.SOLUTION.lower()))
        seconds = {"decode": perf_counter() - started}
        if self._toll is not None:
            started = perf_counter()
            requests = [batch.admitted(*each, self._toll) for each in zip(requests, solutions, strict=True)]
            seconds["admit"] = perf_counter() - started
        outcome = batch.ask(self._pipeline, requests)
        started = perf_counter()
        replies = batch.replies(requests, outcome, self._toll)
        seconds["encode"] = perf_counter() - started
        if outcome.answers is not None:
            seconds.update(outcome.answers.seconds)
        self._metrics.count(
            outcome.answers,
            [code for reply in replies for code in reply.codes],
            seconds,
            issued=sum(reply.challenged for reply in replies),
            solved=sum(rows.paid for rows in requests),
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
        return batch.Reply(HTTPStatus.OK, orjson.dumps(self.describe_handle()), ())

    def _decode(self, body: Any, content_type: str) -> wire.Rows:
        try:
            if not isinstance(body, bytes | bytearray | None):
                raise TypeError(f"a body came as {type(body).__name__}: set decode_input_request=false")
            return wire.decode(body or b"", content_type, expects=self._policy)
        except RequestError as error:
            return wire.Rows.refused(error, self._policy.input)
        except MemoryError:
            raise
        except Exception as error:
            _log.error("a request could not be decoded: %s", for_log(error))
            return wire.Rows.refused(Internal("this request could not be handled"), self._policy.input)


def _headers(context: Any, index: int) -> dict[str, str]:
    """A request's headers by lower-case name: TorchServe keeps the case that the client sent."""
    headers = context.get_all_request_header(index)
    return {name.lower(): value for name, value in headers.items() if isinstance(value, str)}


def _send(context: Any, index: int, reply: batch.Reply) -> bytes:
    """Set what goes beside a body."""
    context.set_response_content_type(index, wire.JSON)
    context.set_response_header(index, "Cache-Control", "no-store")
    context.set_response_status(code=int(reply.status), phrase=HTTPStatus(reply.status).phrase, idx=index)
    return reply.body
