"""KServe's model server around the examples' classifier: the Open Inference Protocol v2, and v1, which is the predict
API of TensorFlow Serving: rows of numbers, or files as {"b64": ...}. Runs in a venv of its own
(attest/examples/servers.py).

    python -m attest.examples.kserve_server MODEL.onnx --port 8120
"""

import base64

import kserve
import numpy as np

from attest.examples import onnx_file


class Digits(kserve.Model):
    """Bytes (N,1,28,28) in, probabilities (N,10) out, in either protocol."""

    def __init__(self, name, model):
        super().__init__(name)
        self.classifier = onnx_file.Classifier(model)
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        first = isinstance(payload, dict)
        rows = [self.pixels(row) for row in payload["instances"]] if first else payload.inputs[0].as_numpy() / 255
        scores = self.classifier(np.asarray(rows, np.float32))
        if first:
            return {"predictions": scores.tolist()}
        output = kserve.InferOutput("probabilities", list(scores.shape), "FP32")
        output.set_data_from_numpy(scores, binary_data=False)
        return kserve.InferResponse(payload.id or "", self.name, [output])

    def pixels(self, row):
        """(1,28,28) in [0, 1] of a row of the first protocol."""
        if isinstance(row, dict):
            return self.classifier.decode(base64.b64decode(row["b64"], validate=True))
        return np.asarray(row, np.float32) / 255


if __name__ == "__main__":
    options = onnx_file.options("attest.examples.kserve_server", "KServe's server around a classifier")
    server = kserve.ModelServer(http_port=options.port, enable_grpc=False, workers=1)
    server.start([Digits("digits", options.model)])
