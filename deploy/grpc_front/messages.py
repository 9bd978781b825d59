"""The protocol's messages, made at the start from what protoc wrote of inference.proto.

    python -m deploy.grpc_front.messages     writes inference.binpb again; needs the package grpcio-tools

They lie in a pool of their own: tritonclient and kserve register the same names, and one process may hold both.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PROTO = Path(__file__).with_name("inference.proto")
COMPILED = PROTO.with_suffix(".binpb")
SERVICE = "inference.GRPCInferenceService"


@cache
def _pool() -> Any:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(COMPILED.read_bytes()).file:
        pool.Add(file)
    return pool


def message(name: str) -> Any:
    """The class of one of the protocol's messages."""
    return GetMessageClass(_pool().FindMessageTypeByName(f"inference.{name}"))


def methods() -> dict[str, tuple[Any, Any]]:
    """What each method of the service takes and gives."""
    return {
        method.name: (GetMessageClass(method.input_type), GetMessageClass(method.output_type))
        for method in _pool().FindServiceByName(SERVICE).methods
    }


def compile_to(path: Path) -> None:
    """Have protoc write what `COMPILED` holds."""
    from grpc_tools import protoc

    code = protoc.main(["protoc", f"-I{PROTO.parent}", f"--descriptor_set_out={path}", PROTO.name])
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    compile_to(COMPILED)
