"""The protocol's six calls, each one request over HTTP."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import grpc
from grpc import StatusCode

from deploy.archive import NAME
from deploy.grpc_front import inference
from deploy.grpc_front.messages import SERVICE, message, methods
from deploy.grpc_front.refusals import UNKNOWN_MODEL, Refused, Reply, refusal
from deploy.grpc_front.upstream import Upstream

# of what a client sends beside its message, this goes on: metadata -> header
PASSED = {"authorization": "Authorization", "torchwarden-solution": "Torchwarden-Solution"}

Method = Callable[[Any, Any], Awaitable[Any]]


class Service:
    """Methods have the protocol's names, and take a request and its metadata. They raise `Refused`."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def ServerLive(self, request: Any, sent: Any) -> Any:  # noqa: N802 - the protocol's
        """Whether the server runs and answers."""
        return message("ServerLiveResponse")(live=_so(await self._upstream.look("/v2/health/live")))

    async def ServerReady(self, request: Any, sent: Any) -> Any:  # noqa: N802
        """Whether every model is ready."""
        return message("ServerReadyResponse")(ready=_so(await self._upstream.look("/v2/health/ready")))

    async def ModelReady(self, request: Any, sent: Any) -> Any:  # noqa: N802
        """Whether a model is."""
        path = f"{_path(request.name, request.version)}/ready"
        return message("ModelReadyResponse")(ready=_so(await self._upstream.look(path)))

    async def ServerMetadata(self, request: Any, sent: Any) -> Any:  # noqa: N802
        """Name, version and extensions."""
        return message("ServerMetadataResponse")(**_found(await self._upstream.look("/v2")))

    async def ModelMetadata(self, request: Any, sent: Any) -> Any:  # noqa: N802
        """What a model takes and gives. The names of classes have no place in these messages; over HTTP they have."""
        facts = _found(await self._upstream.look(_path(request.name, request.version)))
        facts.pop("parameters", None)
        return message("ModelMetadataResponse")(**facts)

    async def ModelInfer(self, request: Any, sent: Any) -> Any:  # noqa: N802
        """A model's answer to pictures."""
        path = _path(request.model_name, request.model_version)
        if request.model_version:  # TorchServe would have it in another path, which the gateway does not pass
            _found(await self._upstream.look(path))
        asked = inference.asked(request)
        headers = {PASSED[name]: value for name, value in sent if name in PASSED}
        headers |= {"Content-Type": inference.TYPE, inference.LENGTH: str(asked.text)}
        # By its own name among TorchServe's paths: the handler knows the protocol by the body.
        reply = await self._upstream.post(f"/predictions/{request.model_name}", asked.body, headers)
        if reply.status != HTTPStatus.OK:
            raise refusal(reply)
        return inference.answer(reply)


def handler(service: Service) -> grpc.GenericRpcHandler:
    """The service for `grpc.aio`'s server."""
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            name: grpc.unary_unary_rpc_method_handler(
                _guarded(getattr(service, name)),
                request_deserializer=takes.FromString,
                response_serializer=gives.SerializeToString,
            )
            for name, (takes, gives) in methods().items()
        },
    )


def _guarded(method: Method) -> Method:
    """A method whose failures are statuses. grpc would show and log an error of ours with what a client sent in it."""

    async def answer(request: Any, context: Any) -> Any:
        try:
            return await method(request, context.invocation_metadata())
        except Refused as refused:
            await context.abort(refused.code, refused.message, refused.metadata)
        except Exception as error:
            print(f"grpc: {type(error).__name__} while answering", file=sys.stderr, flush=True)
            await context.abort(StatusCode.INTERNAL, "this request could not be handled")

    return answer


def _path(name: str, version: str) -> str:
    """A model's path. Raises `Refused` for what can be no model's name."""
    if not NAME.fullmatch(name) or not (version == "" or NAME.fullmatch(version)):
        raise Refused(StatusCode.NOT_FOUND, UNKNOWN_MODEL)
    return f"/v2/models/{name}" + (f"/versions/{version}" if version else "")


def _so(reply: Reply) -> bool:
    """Whether it is so. Raises `Refused` where there is no such model."""
    if reply.status not in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE):
        raise refusal(reply)
    return reply.status == HTTPStatus.OK


def _found(reply: Reply) -> dict[str, Any]:
    if reply.status != HTTPStatus.OK:
        raise refusal(reply)
    found: dict[str, Any] = json.loads(reply.body)
    return found
