"""TorchServe's worker process, in which torch is imported by its users and by nothing else.

Of all that a worker runs of TorchServe 0.12.0, one module has `import torch`: ts/protocol/otf_message_handler.py, to
ask of an answer that is neither bytes nor text whether it is a tensor, and to save it if so. That import takes some
300 MB a worker and most of its start. While that module is imported it is given a stand-in, `Deferred`; afterwards
`import torch` means what it always means, so a TorchScript archive gets the real one, and an error where there is none.

The stand-in is no less than torch: before torch is imported there is no tensor, so its `Tensor` is a class
without instances, and any other attribute comes from the real torch, imported then.

    python deploy/lean/worker.py SITE_PACKAGES/ts/model_service_worker.py ITS ARGUMENTS
"""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ASKS = "ts.protocol.otf_message_handler"


class NoTensor:
    """The type of the tensors in a process without torch: there are none."""

    def __new__(cls) -> NoTensor:
        raise TypeError("torch is not imported in this worker, so there are no tensors; import torch to make some")


class Deferred(ModuleType):
    """Stands for torch in a module that may never need it."""

    def __getattr__(self, name: str) -> Any:
        if name == "Tensor" and "torch" not in sys.modules:
            return NoTensor
        return getattr(importlib.import_module("torch"), name)


def defer() -> None:
    """Import TorchServe's protocol module with the stand-in for torch, and leave no trace of it elsewhere."""
    sys.modules["torch"] = Deferred("torch")
    try:
        importlib.import_module(ASKS)
    finally:
        del sys.modules["torch"]


def main() -> None:
    """Become the worker that the arguments name."""
    # Python puts a script's folder first; what the archive packs is to be found before anything of this checkout.
    here = Path(__file__).absolute().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).absolute() != here]
    del sys.argv[0]
    defer()
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
