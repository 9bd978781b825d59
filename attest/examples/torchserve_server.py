"""TorchServe's stock handlers around a classifier: a picture as it comes, the probabilities of its classes.

    python -m attest.examples.torchserve_server MODEL.ts.pt --port 8140
    python -m attest.examples.torchserve_server MODEL.onnx [--workers 2 --batch 16 --delay-ms 2]

TorchScript, of gray 28 x 28 digits, goes to image_classifier as it is, which answers the five best by name. That
handler resizes to 256, crops 224 and normalises as for ImageNet, three channels. A wrapper in TorchScript takes that
back, so the classifier sees the middle seven eighths of a digit, which costs it accuracy.

An ONNX file goes to the stock VisionHandler, with what torchserve_onnx.py has to change of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from attest.examples import onnx_file
from deploy import java

CONFIG = """inference_address=http://127.0.0.1:{port}
management_address=http://127.0.0.1:{management}
metrics_address=http://127.0.0.1:{metrics}
grpc_inference_port={grpc}
grpc_management_port={grpc_management}
disable_token_authorization=true
default_workers_per_model={workers}
install_py_dep_per_model=false
"""
YAML = """minWorkers: {workers}
maxWorkers: {workers}
batchSize: {batch}
maxBatchDelay: {delay_ms}
"""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Stock(nn.Module):
    """What the stock handler hands over, (N,3,224,224) normalised as for ImageNet, to the logits of `digits`."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, digits: nn.Module) -> None:
        super().__init__()
        self.digits = digits
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        gray = (images * self.std + self.mean).mean(dim=1, keepdim=True)
        small = F.interpolate(gray, size=(28, 28), mode="area").clamp(0, 1)
        # the handler takes the softmax itself
        logits: torch.Tensor = self.digits(small).clamp_min(1e-12).log()
        return logits


def wrapped(model: Path) -> torch.jit.ScriptModule:
    """The TorchScript of `Stock` around the TorchScript `model`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch says at each call that TorchScript will end
        stock = Stock(torch.jit.load(str(model)).eval()).eval()
        script: torch.jit.ScriptModule = torch.jit.trace(stock, torch.zeros(2, 3, 224, 224))
    return script


def archive(model: Path, folder: Path, *, workers: int, batch: int, delay_ms: int) -> None:
    """digits.mar, as `torch-model-archiver` makes it."""
    (folder / "model-config.yaml").write_text(YAML.format(workers=workers, batch=batch, delay_ms=delay_ms))
    if model.suffix == ".onnx":
        handled = ["--handler", str(Path(__file__).with_name("torchserve_onnx.py")), "--serialized-file", str(model)]
    else:
        wrapped(model).save(str(folder / "stock.ts.pt"))
        (folder / "index_to_name.json").write_text(json.dumps({str(kind): str(kind) for kind in range(10)}))
        handled = ["--handler", "image_classifier", "--serialized-file", str(folder / "stock.ts.pt")]
        handled += ["--extra-files", str(folder / "index_to_name.json")]
    subprocess.run(
        [
            *(sys.executable, "-m", "model_archiver.model_packaging", "--model-name", "digits", "--version", "1"),
            *("--config-file", str(folder / "model-config.yaml"), "--export-path", str(folder), "--force", *handled),
        ],
        check=True,
    )


def main() -> None:
    """Serve until it is interrupted."""
    options = onnx_file.options("attest.examples.torchserve_server", "TorchServe around a classifier", port=8140)
    port = options.port
    with tempfile.TemporaryDirectory(prefix="torchserve-") as name:
        folder = Path(name)
        archive(
            Path(options.model), folder, workers=options.workers, batch=options.batch, delay_ms=int(options.delay_ms)
        )
        numbers = ("management", "metrics", "grpc", "grpc_management")
        ports = {each: port + place for place, each in enumerate(numbers, start=1)}
        (folder / "config.properties").write_text(CONFIG.format(port=port, workers=options.workers, **ports))
        import ts

        home = Path(ts.__file__).parent
        subprocess.run(
            [
                *(str(java.find()), f"-Dmodel_server_home={home.parent}", "-cp", f"{home}/frontend/*"),
                *("org.pytorch.serve.ModelServer", "--python", sys.executable),
                *("-f", str(folder / "config.properties"), "-s", str(folder), "-m", "digits=digits.mar"),
            ],
            cwd=folder,
            check=False,
        )


if __name__ == "__main__":
    main()
