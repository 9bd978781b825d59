"""A FastAPI classifier as many are: one picture as a form's file, probabilities as JSON, a key in a header.

python -m attest.examples.fastapi_server MODEL.onnx [--port 8100]
"""

from __future__ import annotations

import argparse
import io
import os
from typing import Annotated

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, File, Header, HTTPException, UploadFile
from PIL import Image


def app(model: str, key: str = "") -> FastAPI:
    """The service. key: what X-Api-Key has to say; "": whatever."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    service = FastAPI()

    def classify(file: Annotated[UploadFile, File()], x_api_key: Annotated[str, Header()] = "") -> dict[str, object]:
        if x_api_key != key:
            raise HTTPException(401, "unknown key")
        picture = Image.open(io.BytesIO(file.file.read())).convert("L").resize((28, 28))
        pixels = np.asarray(picture, np.float32)[None, None] / 255
        (scores,) = session.run(["probabilities"], {"images": pixels})[0]
        return {"predictions": [{"scores": scores.tolist()}]}

    service.add_api_route("/classify", classify, methods=["POST"])
    return service


def main() -> None:
    """Serve until it is interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m attest.examples.fastapi_server", description="a classifier's server"
    )
    parser.add_argument("model", help="ONNX file: images (N,1,28,28) in [0, 1] to probabilities (N,10)")
    parser.add_argument("--port", type=int, default=8100, help="on 127.0.0.1 (8100)")
    options = parser.parse_args()
    uvicorn.run(
        app(options.model, os.environ.get("EXAMPLE_KEY", "")), host="127.0.0.1", port=options.port, log_level="warning"
    )


if __name__ == "__main__":
    main()
