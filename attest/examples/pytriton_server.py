"""nvidia-pytriton (Triton) around the examples' classifier: the Open Inference Protocol v2 over gRPC. Runs in a venv of
its own (attest/examples/peers.py).

    python attest/examples/pytriton_server.py MODEL.onnx PORT
"""

import sys

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

if __name__ == "__main__":
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])

    @batch
    def infer(images):
        return {"probabilities": session.run(["probabilities"], {"images": images.astype(np.float32) / 255})[0]}

    grpc = int(sys.argv[2])
    config = TritonConfig(http_address="127.0.0.1", grpc_address="127.0.0.1", http_port=grpc + 1, grpc_port=grpc)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="digits",
            infer_func=infer,
            inputs=[Tensor(name="images", dtype=np.uint8, shape=(1, 28, 28))],
            outputs=[Tensor(name="probabilities", dtype=np.float32, shape=(10,))],
            config=ModelConfig(max_batch_size=64),
        )
        triton.serve()
