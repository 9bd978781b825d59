"""KServe's model server around the examples' classifier: the Open Inference Protocol v2, and v1, which is the predict
API of TensorFlow Serving: rows of numbers, or files as {"b64": ...}. Runs in a venv of its own
(attest/examples/peers.py).

    python attest/examples/kserve_server.py MODEL.onnx PORT
"""

import base64
import io
import sys

import kserve
import numpy as np
import onnxruntime
from PIL import Image


def pixels(row):
    """(1,28,28) of a row of KServe's first protocol."""
    if not isinstance(row, dict):
        return row
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(row["b64"], validate=True))).convert("L"))[None]


class Digits(kserve.Model):
    """Bytes (N,1,28,28) in, probabilities (N,10) out, in either protocol."""

    def __init__(self, name):
        super().__init__(name)
        self.session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        first = isinstance(payload, dict)
        levels = np.asarray([pixels(row) for row in payload["instances"]] if first else payload.inputs[0].as_numpy())
        scores = self.session.run(["probabilities"], {"images": levels.astype(np.float32) / 255})[0]
        if first:
            return {"predictions": scores.tolist()}
        output = kserve.InferOutput("probabilities", list(scores.shape), "FP32")
        output.set_data_from_numpy(scores, binary_data=False)
        return kserve.InferResponse(payload.id or "", self.name, [output])


if __name__ == "__main__":
    server = kserve.ModelServer(http_port=int(sys.argv[2]), enable_grpc=False, workers=1)
    server.start([Digits("digits")])
