"""nvidia-pytriton (Triton) around an ONNX classifier: the Open Inference Protocol v2, pixels as bytes, over gRPC at the
port and over HTTP at the next. Runs in a venv of its own (attest/examples/servers.py).

    python -m attest.examples.pytriton_server MODEL.onnx --port 8130 [--workers 2 --delay-ms 2]
"""

import os
import sysconfig

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from attest.examples import onnx_file


def instance(classifier):
    """What Triton calls with a batch, one call at a time."""

    @batch
    def infer(images):
        return {"probabilities": classifier(images.astype(np.float32) / 255)}

    return infer


if __name__ == "__main__":
    # Triton's Python takes its library by name, and would take a system's of another patch version
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(
        filter(None, [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")])
    )
    options = onnx_file.options("attest.examples.pytriton_server", "Triton around a classifier", batch=64)
    classifiers = [onnx_file.Classifier(options.model) for _ in range(options.workers)]
    batcher = DynamicBatcher(max_queue_delay_microseconds=int(1000 * options.delay_ms))
    grpc, http, metrics = (options.port + place for place in range(3))
    config = TritonConfig(
        http_address="127.0.0.1", grpc_address="127.0.0.1", http_port=http, grpc_port=grpc, metrics_port=metrics
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="digits",
            infer_func=[instance(each) for each in classifiers],
            inputs=[Tensor(name="images", dtype=np.uint8, shape=classifiers[0].shape)],
            outputs=[Tensor(name="probabilities", dtype=np.float32, shape=(classifiers[0].classes,))],
            config=ModelConfig(max_batch_size=options.batch, batcher=batcher),
        )
        triton.serve()
