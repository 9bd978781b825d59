"""LitServe around an ONNX classifier: a PNG as base64 in JSON. Runs in a venv of its own (attest/examples/servers.py).

python -m attest.examples.litserve_server MODEL.onnx --port 8110 [--workers 2 --batch 16 --delay-ms 2]
"""

import base64

import litserve
import numpy as np

from attest.examples import onnx_file


class Pictures(litserve.LitAPI):
    """LitServe's steps; it stacks and unstacks rows where batches are asked for."""

    def __init__(self, model, batch, delay_ms):
        super().__init__(max_batch_size=batch, batch_timeout=delay_ms / 1000)
        self.model, self.batches = model, batch > 1

    def setup(self, device):
        self.classifier = onnx_file.Classifier(self.model)

    def decode_request(self, request):
        return self.classifier.decode(base64.b64decode(request["image"]))

    def predict(self, x):
        return self.classifier(x) if self.batches else self.classifier(x[np.newaxis])[0]

    def encode_response(self, output):
        return {"probabilities": output.tolist()}


if __name__ == "__main__":
    options = onnx_file.options("attest.examples.litserve_server", "LitServe around a classifier")
    served = Pictures(options.model, options.batch, options.delay_ms)
    server = litserve.LitServer(served, accelerator="cpu", workers_per_device=options.workers)
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False, log_level="warning")
