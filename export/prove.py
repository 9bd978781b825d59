"""Prove a staged archive: run in a fresh isolated interpreter, it loads the folder as TorchServe's worker would.

    python -I -B export/prove.py FOLDER

Checks what TorchServe's loader asks for (one class with initialize and handle), that our other packages are not needed,
that torch is imported by no one but the TorchScript backend, and that the golden image gets a right answer: where
images are perturbed, a right label. Where the response rule moves labels, a member's answer is not what is served:
`accepted` in golden.json becomes what the rule makes of each member's, or of their mean. Imports only our code that the
folder holds.
"""

from __future__ import annotations

import base64
import dataclasses
import importlib
import inspect
import json
import os
import sys
from pathlib import Path
from typing import Any

OURS_ELSEWHERE = ("recipes", "zoo", "training", "export", "attacks", "loadtests", "deploy")
TOLERANCE = 1e-3


def main(folder: Path) -> None:
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    for room in OURS_ELSEWHERE:
        sys.modules[room] = None  # type: ignore[assignment]  # any import of it fails, naming it

    import numpy as np

    handler = importlib.import_module("handler")
    classes = [each for _, each in inspect.getmembers(handler, inspect.isclass) if each.__module__ == "handler"]
    assert len(classes) == 1, f"TorchServe wants exactly one class in handler.py, found {classes}"
    assert hasattr(classes[0], "initialize"), f"{classes[0]} has no initialize"
    assert hasattr(classes[0], "handle"), f"{classes[0]} has no handle"

    pipeline = importlib.import_module("handlers.loading").load(folder)
    golden = json.loads((folder / "golden.json").read_text())
    size = pipeline.policy.input
    image = np.frombuffer(base64.b64decode(golden["image"]), "<f4")
    image = image.reshape(1, size.channels, size.height, size.width)
    if not pipeline.policy.response.build().keeps_label:
        golden["accepted"] = [served(pipeline, members, image) for members in answering(pipeline.policy)]
        (folder / "golden.json").write_text(json.dumps(golden))
    answers = pipeline(image)
    accepted = np.array(golden["accepted"])
    assert answers.labels[0] in accepted.argmax(1), f"golden image: label {answers.labels[0]} is no member's answer"
    if pipeline.policy.response.rule == "soft" and pipeline.policy.perturb is None and pipeline.policy.mark is None:
        distance = np.abs(accepted - answers.probabilities[0]).max(1).min()
        assert distance <= TOLERANCE, f"golden image: probabilities are {distance:.1e} from every member's answer"
    assert answers.decisions[0] == "answer", f"golden image: the gate's decision is {answers.decisions[0]!r}"
    if pipeline.policy.backend == "onnxruntime":
        assert "torch" not in sys.modules, "serving ONNX graphs must not import torch"


def answering(policy: Any) -> list[tuple[str, ...]]:
    """The members that answer a row together: all of them, or any one."""
    return [policy.members] if policy.average else [(member,) for member in policy.members]


def served(pipeline: Any, members: tuple[str, ...], image: Any) -> list[float]:
    """What the archive's response rule shows of these members' answer to the image without noise."""
    import numpy as np

    alone = dataclasses.replace(
        pipeline.policy, members=members, route=None, perturb=None, gate=None, mark=None, key_env=None
    )
    graphs = {name: pipeline.graphs[name] for name in alone.graphs}
    clock, random = (lambda: 0.0), np.random.default_rng(0)
    asked = type(pipeline)(alone, graphs, key=None, now=clock, clock=clock, random=random, entropy=os.urandom)
    row: list[float] = asked(image).probabilities[0].tolist()
    return row


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
