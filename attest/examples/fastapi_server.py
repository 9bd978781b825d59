"""A FastAPI classifier as many are: a picture as a form's file or as the body, JSON out, a key in a header.

    python -m attest.examples.fastapi_server MODEL.onnx [--port 8100] [--workers 2]

An endpoint that is `async` computes on its process' only thread, so a process has one thread that computes.
"""

from __future__ import annotations

import os
from typing import Annotated

import uvicorn
from fastapi import FastAPI, File, Header, HTTPException, Request, UploadFile
from fastapi.responses import JSONResponse

from attest.examples import onnx_file

# what uvicorn's processes are told by: they import this file and call `service`
MODEL, KEY = "EXAMPLE_MODEL", "EXAMPLE_KEY"


def app(model: str, key: str = "") -> FastAPI:
    """The service. key: what X-Api-Key has to say; "": whatever."""
    classifier = onnx_file.Classifier(model)
    made = FastAPI()

    def scores(picture: bytes, said: str) -> list[float]:
        if said != key:
            raise HTTPException(401, "unknown key")
        found: list[float] = classifier(classifier.decode(picture)[None])[0].tolist()
        return found

    async def classify(file: Annotated[UploadFile, File()], x_api_key: Annotated[str, Header()] = "") -> JSONResponse:
        return JSONResponse({"predictions": [{"scores": scores(await file.read(), x_api_key)}]})

    async def predict(request: Request) -> JSONResponse:
        return JSONResponse({"scores": scores(await request.body(), request.headers.get("x-api-key", ""))})

    made.add_api_route("/classify", classify, methods=["POST"])
    made.add_api_route("/predict", predict, methods=["POST"])
    return made


def service() -> FastAPI:
    """The service of a process of uvicorn's."""
    return app(os.environ[MODEL], os.environ.get(KEY, ""))


def main() -> None:
    """Serve until it is interrupted."""
    options = onnx_file.options("attest.examples.fastapi_server", "a classifier's server")
    os.environ[MODEL] = options.model
    where = f"{__spec__.name}:{service.__name__}"
    # a process that starts on a busy machine takes longer than uvicorn's five seconds
    settings = {"log_level": "warning", "timeout_worker_healthcheck": 60}
    uvicorn.run(where, factory=True, host="127.0.0.1", port=options.port, workers=options.workers, **settings)


if __name__ == "__main__":
    main()
