"""TorchServe's workers without torch: a server of ONNX graphs needs none, installed or in memory."""
