"""A closed-loop gRPC client: each of its connections asks again once it is answered, as bench/closedloop.py over HTTP.

Messages are made beforehand and go out as the bytes that they are, and answers come in as bytes: what is left of the
client's cost is gRPC's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from time import perf_counter, process_time

import grpc
import numpy as np

from bench.closedloop import ANSWER_S, ClientError, Driven

INFER = "/inference.GRPCInferenceService/ModelInfer"
# or all channels of a process would share one connection
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


def drive(
    address: str, messages: Sequence[bytes], metadata: Mapping[str, str], *, clients: int, seconds: float
) -> Driven:
    """Send ModelInfer's `messages` in turn from `clients` connections for so long. Raises ClientError."""
    return asyncio.run(_drive(address, messages, metadata, clients, seconds))


def ask(address: str, message: bytes, metadata: Mapping[str, str]) -> bytes:
    """The answer to one message, as it came. Raises ClientError."""
    with grpc.insecure_channel(address) as channel:
        try:
            answer: bytes = channel.unary_unary(INFER)(
                message, metadata=tuple(metadata.items()), timeout=ANSWER_S, wait_for_ready=True
            )
        except grpc.RpcError as error:
            raise ClientError(f"{error.code().name}: {error.details()}") from error
    return answer


async def _drive(
    address: str, messages: Sequence[bytes], metadata: Mapping[str, str], clients: int, seconds: float
) -> Driven:
    channels = [grpc.aio.insecure_channel(address, options=OWN_CONNECTION) for _ in range(clients)]
    latencies: list[float] = []
    turns = cycle(messages)
    try:
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        cpu, begun = process_time(), perf_counter()
        await asyncio.gather(*(_client(channel, turns, metadata, begun + seconds, latencies) for channel in channels))
        return Driven(np.array(latencies), perf_counter() - begun, process_time() - cpu, {})
    except grpc.RpcError as error:
        raise ClientError(f"{error.code().name}: {error.details()}") from error
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))


async def _client(
    channel: grpc.aio.Channel,
    turns: Iterator[bytes],
    metadata: Mapping[str, str],
    until: float,
    latencies: list[float],
) -> None:
    call, sent = channel.unary_unary(INFER), tuple(metadata.items())
    while (begun := perf_counter()) < until:
        await call(next(turns), metadata=sent, timeout=ANSWER_S)
        latencies.append(1000 * (perf_counter() - begun))
