"""The graphs of a policy whose precision is not float32, as they will be served: what its gate is calibrated on.

export/quantise.py makes them, build/RECIPE/<graph>-<precision>.onnx. A gate compares what they answer with what its own
networks say, so scores of the float32 network's answers would be another policy's.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch

from recipes.policies import suffixed
from training.black_box import GRAPH, digest_of, opened
from training.checkpoint import CheckpointError


def graphs(predictor: str, precision: str, folder: Path) -> list[Path]:
    """The files of a predictor's members among the graphs of a recipe, in their order. Raises CheckpointError."""
    alone = folder / f"{suffixed(predictor, precision)}{GRAPH}"
    if alone.is_file():
        return [alone]
    found: list[Path] = []
    for number in count():
        path = folder / f"{suffixed(f'{predictor}-{number}', precision)}{GRAPH}"
        if not path.is_file():
            break
        found.append(path)
    if not found:
        raise CheckpointError(f"no graph at {alone}: make it first (python -m export.quantise RECIPE)")
    return found


def served(
    predictor: str, perturbation: str | None, precision: str, folder: Path
) -> tuple[Callable[[torch.Tensor], torch.Tensor], str, tuple[int, int, int]]:
    """What the members answer, (N,M,K) to images (N,C,H,W), behind the perturbation where there is one, under noise of
    one generator; the digest of the graphs; and the shape (C,H,W) of an image. Raises CheckpointError."""
    paths = graphs(predictor, precision, folder)
    behind = [] if perturbation is None else [folder / f"{suffixed(perturbation, precision)}{GRAPH}"]
    digest = digest_of([*paths, *behind])
    members, perturb = [opened(path) for path in paths], [opened(path) for path in behind]
    shape = tuple(members[0].get_inputs()[0].shape[1:])
    generator = torch.Generator().manual_seed(0)

    def answer(images: torch.Tensor) -> torch.Tensor:
        shown = images.cpu().contiguous().numpy()
        for session in perturb:
            noise = torch.randn(len(shown), *session.get_inputs()[1].shape[1:], generator=generator).numpy()
            shown = session.run(["perturbed"], {"images": shown, "noise": noise})[0].reshape(shown.shape)
        responses = [session.run(["probabilities"], {"images": shown})[0] for session in members]
        return torch.stack([torch.from_numpy(each) for each in responses], dim=1).to(images.device)

    return answer, digest, (shape[0], shape[1], shape[2])
