"""ModelInfer as the protocol has it over HTTP: a JSON text, and tensors as bytes behind it."""

from __future__ import annotations

import json
import struct
from typing import Any, NamedTuple

import numpy as np
from grpc import StatusCode

from deploy.grpc_front.messages import message
from deploy.grpc_front.refusals import Refused, Reply

# the header with the length of the JSON text
LENGTH = "Inference-Header-Content-Length"
TYPE = "application/octet-stream"
Response = message("ModelInferResponse")


class Asked(NamedTuple):
    """A request's body, and the length of the text that it begins with."""

    body: bytes
    text: int


def asked(request: Any) -> Asked:
    """What to ask over HTTP. Raises `Refused` for what cannot be written there; the handler judges the rest."""
    tensors = _tensors(request)
    inputs = [
        {
            "name": given.name,
            "datatype": given.datatype,
            "shape": list(given.shape),
            "parameters": {"binary_data_size": len(tensor)},
        }
        for given, tensor in zip(request.inputs, tensors, strict=True)
    ]
    head: dict[str, Any] = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    if request.id:
        head["id"] = request.id
    if request.outputs:
        head["outputs"] = [
            {"name": wanted.name, "parameters": _plain(wanted.parameters) | {"binary_data": True}}
            for wanted in request.outputs
        ]
    text = json.dumps(head).encode()
    return Asked(b"".join((text, *tensors)), len(text))


def answer(reply: Reply) -> Any:
    """The ModelInferResponse of a success. Raises `Refused` where it is none of the protocol's."""
    try:
        length = int(reply.headers[LENGTH])
        head, place = json.loads(reply.body[:length]), length
        response = Response(model_name=head["model_name"], model_version=head["model_version"], id=head.get("id", ""))
        for output in head["outputs"]:
            end = place + output["parameters"]["binary_data_size"]
            response.outputs.add(name=output["name"], datatype=output["datatype"], shape=output["shape"])
            response.raw_output_contents.append(reply.body[place:end])
            place = end
        if place != len(reply.body):
            raise ValueError("bytes are left or missing")
    except (LookupError, TypeError, ValueError) as error:
        raise Refused(StatusCode.INTERNAL, "the model's answer is none of the Open Inference Protocol") from error
    return response


def _tensors(request: Any) -> list[bytes]:
    """Each input's bytes."""
    if not request.raw_input_contents:
        return [_packed(given.datatype, given.contents) for given in request.inputs]
    raw = list(request.raw_input_contents)
    if len(raw) != len(request.inputs) or any(given.HasField("contents") for given in request.inputs):
        raise Refused(
            StatusCode.INVALID_ARGUMENT,
            f"expected an entry of raw_input_contents for each of {len(request.inputs)} inputs, and no contents",
        )
    return raw


def _packed(datatype: str, contents: Any) -> bytes:
    """Contents as the bytes that `raw_input_contents` has of them; none of a type that no model takes."""
    if datatype == "FP32":
        return np.array(contents.fp32_contents, "<f4").tobytes()
    if datatype == "UINT8":
        levels = np.array(contents.uint_contents, np.uint32)
        if levels.size and levels.max() > 255:
            raise Refused(StatusCode.INVALID_ARGUMENT, "expected whole numbers from 0 to 255")
        return levels.astype(np.uint8).tobytes()
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(each)) + each for each in contents.bytes_contents)
    return b""


def _plain(parameters: Any) -> dict[str, Any]:
    """Parameters as JSON has them."""
    kinds = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    return {name: getattr(parameters[name], kind) for name, kind in kinds.items() if kind}
