"""LitServe around the examples' classifier: a PNG as base64 in JSON. Runs in a venv of its own
(attest/examples/peers.py).

python attest/examples/litserve_server.py MODEL.onnx PORT
"""

import base64
import io
import sys

import litserve
import numpy as np
import onnxruntime
from PIL import Image


class Digits(litserve.LitAPI):
    """LitServe's four steps."""

    def setup(self, device):
        self.session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])

    def decode_request(self, request):
        picture = Image.open(io.BytesIO(base64.b64decode(request["image"]))).convert("L")
        return np.asarray(picture, np.float32)[None, None] / 255

    def predict(self, x):
        return self.session.run(["probabilities"], {"images": x})[0]

    def encode_response(self, output):
        return {"probabilities": output[0].tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Digits(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
