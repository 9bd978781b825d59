"""A classifier of gray digits as its owner has it: NAME.onnx and NAME.ts.pt, no defense, and labelled pictures.

    python -m attest.examples.classifier [--dataset digits] [--folder build/examples]

Both files take images (N,1,28,28) float32 in [0, 1] and give probabilities (N,10): a LeNet5, some seconds of one core
for scikit-learn's digits. The pictures are `images/train/CLASS/*.png` and `images/test/CLASS/*.png`; other data sets
are named by themselves (--images mnist) and have none.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from attacks.seeded import from_seed
from handlers.images import write_image
from report.atomic import replacing
from zoo import datasets, models

FOLDER, DIGITS = Path("build/examples"), "digits"
EPOCHS, BATCH, LR = 15, 64, 3e-3


def train(dataset: str = DIGITS, *, seed: int = 0, epochs: int = EPOCHS) -> nn.Module:
    """The network in evaluation mode, logits (N,10)."""
    data = datasets.load(dataset, "train", size=28, channels=1)
    assert data.labels is not None, "a classifier is trained on labelled images"
    generator = torch.Generator().manual_seed(seed)
    with from_seed(seed, torch.device("cpu")):
        network = models.build("lenet5", classes=10, channels=1, size=28, mean=[0.5], std=[0.5])
        optimiser = torch.optim.AdamW(network.parameters(), LR)
        for _ in range(epochs):
            for rows in torch.randperm(len(data), generator=generator).split(BATCH):
                optimiser.zero_grad(set_to_none=True)
                F.cross_entropy(network(data.pixels[rows]), data.labels[rows]).backward()
                optimiser.step()
    return network.eval()


def write(network: nn.Module, folder: Path, name: str = DIGITS) -> tuple[Path, Path]:
    """NAME.onnx and NAME.ts.pt, whole or not at all."""
    whole = nn.Sequential(network, nn.Softmax(dim=1)).eval()
    onnx, script = folder / f"{name}.onnx", folder / f"{name}.ts.pt"
    example = torch.zeros(2, 1, 28, 28)
    with replacing(onnx) as unfinished:
        torch.onnx.export(
            whole,
            (example,),
            str(unfinished),
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("rows")},),
            external_data=False,
            verbose=False,
        )
    with replacing(script) as unfinished, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch says at each call that TorchScript will end
        torch.jit.trace(whole, example).save(str(unfinished))
    return onnx, script


def write_pictures(folder: Path) -> None:
    """Every digit as a PNG, whole or not at all."""
    with replacing(folder) as unfinished:
        for split in ("train", "test"):
            data = datasets.load(DIGITS, split)
            assert data.labels is not None, "digits are labelled"
            for number, (pixels, label) in enumerate(zip(data.pixels.numpy(), data.labels.tolist(), strict=True)):
                path = unfinished / split / str(label) / f"{number:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(write_image(pixels, "png"))


def main() -> None:
    """Write the files, unless they are there; images that are not on this machine are a message and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m attest.examples.classifier", description="a classifier to serve")
    parser.add_argument("--dataset", default=DIGITS, help="ten classes of gray images (digits)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"of its training ({EPOCHS})")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where to ({FOLDER})")
    options = parser.parse_args()
    files = [options.folder / f"{options.dataset}{ending}" for ending in (".onnx", ".ts.pt")]
    if not all(file.exists() for file in files):
        torch.set_num_threads(1)
        try:
            trained = train(options.dataset, epochs=options.epochs)
        except datasets.DatasetError as error:
            sys.exit(f"attest.examples.classifier: {error}")
        write(trained, options.folder, options.dataset)
    if options.dataset == DIGITS:
        files.append(options.folder / "images")
        if not files[-1].is_dir():
            write_pictures(files[-1])
    print(", ".join(map(str, files)))


if __name__ == "__main__":
    main()
