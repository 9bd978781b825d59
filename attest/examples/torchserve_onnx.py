"""TorchServe's stock VisionHandler with an ONNX file: packed by torchserve_server.py, run by TorchServe's worker.

BaseHandler opens an ONNX file, with as many threads as there are processors in each worker, but its `inference` calls
`.to(device)` on the rows and the session as if it were a module: every owner of such a file overrides both. How a
picture is read and how an answer is written are the stock handler's.
"""

import onnxruntime
import torch
from torchvision import transforms
from ts.torch_handler.vision_handler import VisionHandler


class OnnxPictures(VisionHandler):
    """Pictures' files to probabilities (N,K)."""

    image_processing = transforms.ToTensor()

    def initialize(self, context):
        super().initialize(context)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.model = onnxruntime.InferenceSession(self.model_pt_path, options, providers=["CPUExecutionProvider"])
        # captum differentiates no session, and would keep the first one
        self.ig = None
        # what comes of a picture's file is torch's
        torch.set_num_threads(1)

    def inference(self, data, *args, **kwargs):
        return self.model.run(["probabilities"], {"images": data.numpy()})[0]
