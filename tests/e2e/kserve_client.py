"""What KServe's own client makes of a gateway: a program for an environment of its own (tests/e2e/test_kserve.py).

It reads an object of JSON, `url`, `grpc`, `certificate`, `login`, `model`, `picture` (a file's bytes in base64) and
`pixels` (nested lists, (n, C, H, W)), and prints one, what each of its calls came to.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import sys
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput


def tensors(asked: dict[str, Any], *, grpc: bool = False) -> dict[str, InferInput]:
    """A row in each of its forms. Listed bytes are base64 in JSON, and as they are in a message of gRPC."""
    pixels, file = np.array(asked["pixels"], np.float32), base64.b64decode(asked["picture"])
    binary, listed = (InferInput("images", list(pixels.shape), "FP32") for _ in range(2))
    binary.set_data_from_numpy(pixels)
    listed.set_data_from_numpy(pixels, binary_data=False)
    picture = InferInput("image", [1], "BYTES")
    picture.set_data_from_numpy(np.array([file], object))
    listed_picture = InferInput("image", [1], "BYTES", data=[file if grpc else asked["picture"]])
    return {"binary": binary, "listed": listed, "picture": picture, "listed picture": listed_picture}


def read(answer: Any) -> dict[str, Any]:
    """Its outputs by their names."""
    values = {output.name: output.as_numpy() for output in answer.outputs}
    return {
        name: [value.decode() if isinstance(value, bytes) else value for value in array.ravel().tolist()]
        for name, array in values.items()
    }


def wanted(*names: str) -> list[RequestedOutput]:
    return [RequestedOutput(name) for name in names]


async def version_1(asked: dict[str, Any], client: InferenceRESTClient, headers: dict[str, str]) -> dict[str, Any]:
    url, model = asked["url"], asked["model"]
    bodies = {
        "b64": {"instances": [{"b64": asked["picture"]}]},
        "image_bytes": {"instances": [{"image_bytes": {"b64": asked["picture"]}}]},
        "pixels": {"instances": asked["pixels"]},
    }
    found = {name: await client.infer(url, body, model_name=model, headers=headers) for name, body in bodies.items()}
    try:
        await client.infer(url, {"instances": [{"b64": "no picture"}]}, model_name=model, headers=headers)
    except httpx.HTTPStatusError as error:
        found["wrong"] = [error.response.status_code, str(error)]
    return {
        **found,
        "live": await client.is_server_live(url),
        "model ready": await client.is_model_ready(url, model),
    }


async def version_2(asked: dict[str, Any], client: InferenceRESTClient, headers: dict[str, str]) -> dict[str, Any]:
    url, model = asked["url"], asked["model"]
    found: dict[str, Any] = {}
    for name, given in tensors(asked).items():
        # a copy: the client writes the length of a binary request into what it is given
        answer = await client.infer(url, InferRequest(model, [given]), model_name=model, headers=dict(headers))
        found[name] = read(answer)
    for name, parameters in (("some outputs", None), ("binary outputs", {"binary_data_output": True})):
        given = tensors(asked)["binary"]
        request = InferRequest(model, [given], parameters=parameters, request_outputs=wanted("label", "probabilities"))
        found[name] = read(await client.infer(url, request, model_name=model, headers=dict(headers)))
    try:
        wrong = InferRequest(model, [InferInput("images", [1, 3], "FP32", data=[0.0, 0.0, 0.0])])
        await client.infer(url, wrong, model_name=model, headers=headers)
    except httpx.HTTPStatusError as error:
        found["wrong"] = [error.response.status_code, str(error)]
    return {
        **found,
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model ready": await client.is_model_ready(url, model),
        "stranger ready": await client.is_model_ready(url, "nobody"),
    }


async def over_grpc(asked: dict[str, Any], authorization: str) -> dict[str, Any]:
    model, metadata = asked["model"], (("authorization", authorization),)
    found: dict[str, Any] = {}
    async with InferenceGRPCClient(
        asked["grpc"], use_ssl=True, root_certificates=asked["certificate"], timeout=30
    ) as client:
        for name, given in tensors(asked, grpc=True).items():
            found[name] = read(await client.infer(InferRequest(model, [given]), headers=metadata))
        request = InferRequest(model, [tensors(asked)["listed"]], request_outputs=wanted("label"))
        found["some outputs"] = read(await client.infer(request, headers=metadata))
        try:
            wrong = InferInput("images", [1, 3], "FP32", data=[0.0, 0.0, 0.0])
            await client.infer(InferRequest(model, [wrong]), headers=metadata)
        except grpc.RpcError as error:
            found["wrong"] = [error.code().name, error.details()]
        return {
            **found,
            "live": await client.is_server_live(headers=metadata),
            "ready": await client.is_server_ready(headers=metadata),
            "model ready": await client.is_model_ready(model, headers=metadata),
        }


async def main() -> dict[str, Any]:
    asked = json.load(sys.stdin)
    trust = ssl.create_default_context(cafile=asked["certificate"])
    authorization = "Basic " + base64.b64encode(asked["login"].encode()).decode()
    headers = {"Authorization": authorization}
    found = {}
    for protocol, ask in (("v1", version_1), ("v2", version_2)):
        async with InferenceRESTClient(RESTConfig(protocol=protocol, verify=trust, timeout=30)) as client:
            found[protocol] = await ask(asked, client, headers)
    return {**found, "grpc": await over_grpc(asked, authorization)}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main())))
