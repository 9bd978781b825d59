"""TorchServe's workers without torch: who serves ONNX graphs needs none, installed or in memory."""
