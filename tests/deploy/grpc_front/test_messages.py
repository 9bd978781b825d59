"""The messages are the protocol's: as protoc makes them of the committed text, and as tritonclient has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from deploy.grpc_front import messages

NAMES = (
    *("ServerLiveRequest", "ServerLiveResponse", "ServerReadyRequest", "ServerReadyResponse"),
    *("ModelReadyRequest", "ModelReadyResponse", "ServerMetadataRequest", "ServerMetadataResponse"),
    *("ModelMetadataRequest", "ModelMetadataResponse", "ModelInferRequest", "ModelInferResponse"),
    *("InferParameter", "InferTensorContents"),
)


def shown(descriptor: Any) -> dict[str, tuple[object, ...]]:
    """A message's fields, with those of the messages inside it."""
    fields: dict[str, tuple[object, ...]] = {}
    for field in descriptor.fields:
        inner = field.message_type
        one_of = None if field.containing_oneof is None else field.containing_oneof.name
        fields[field.name] = (field.number, field.type, field.is_repeated, inner and inner.full_name, one_of)
    for nested in descriptor.nested_types:
        fields |= {f"{nested.name}.{name}": facts for name, facts in shown(nested).items()}
    return fields


def test_the_committed_descriptor_is_that_of_the_text(tmp_path: Path) -> None:
    messages.compile_to(tmp_path / "again.binpb")
    assert (tmp_path / "again.binpb").read_bytes() == messages.COMPILED.read_bytes(), (
        "run `python -m deploy.grpc_front.messages`"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_message_has_the_fields_of_tritons(name: str) -> None:
    ours, theirs = shown(messages.message(name).DESCRIPTOR), shown(getattr(service_pb2, name).DESCRIPTOR)
    assert ours == theirs


def test_all_methods_of_the_protocol_are_there_and_no_message_is_unchecked() -> None:
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert theirs.full_name == messages.SERVICE
    for name, (takes, gives) in messages.methods().items():
        method = theirs.methods_by_name[name]
        assert takes.DESCRIPTOR.full_name == method.input_type.full_name
        assert gives.DESCRIPTOR.full_name == method.output_type.full_name
    assert len(messages.methods()) == 6
    written = messages.PROTO.read_text()
    assert sorted(line.split()[1] for line in written.splitlines() if line.startswith("message ")) == sorted(NAMES)
