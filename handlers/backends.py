"""What runs a graph: ONNX Runtime or TorchScript.

A backend opens a file once, with a stated number of threads, and is then a callable: images (N,C,H,W) float32
in [0, 1], and what further inputs the graph has, in its order -> outputs by name, float32 with N rows. Workers x
threads is the deployment's budget of cores, so a graph never takes more threads than it was given. Each backend
imports its runtime when it is first used: serving ONNX graphs needs no torch.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from defenses.pipeline import Images
from defenses.routing import Outputs


class Backend(Protocol):
    """What BACKENDS holds."""

    suffix: ClassVar[str]

    def __init__(self, path: Path, *, threads: int, gpu: int | None) -> None: ...

    @property
    def device(self) -> str: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...

    def __call__(self, images: Images, /, *more: NDArray[np.float32]) -> Outputs: ...


class OnnxGraph:
    """An ONNX file on ONNX Runtime, on CUDA where the installed onnxruntime offers it.

    gpu: which CUDA device, the first if None. Threads do not spin while they wait: on a machine that is
    shared with the server's own processes spinning costs throughput.
    """

    suffix: ClassVar[str] = ".onnx"

    def __init__(self, path: Path, *, threads: int, gpu: int | None) -> None:
        # read at import; the Linux wheels from 1.29 on report to their maker otherwise
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[object] = ["CPUExecutionProvider"]
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            onnxruntime.preload_dlls()  # CUDA's libraries from the packages that bring them: nothing else loads them
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": gpu or 0}))
        self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        self._inputs = [each.name for each in self._session.get_inputs()]
        self._outputs = [output.name for output in self._session.get_outputs()]

    @property
    def device(self) -> str:
        """The provider that the session really runs on."""
        return str(self._session.get_providers()[0])

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the exporter wrote into the graph's metadata: its checkpoint's digest, architecture and facts."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def __call__(self, images: Images, /, *more: NDArray[np.float32]) -> Outputs:
        given = dict(zip(self._inputs, (images, *more), strict=True))
        return dict(zip(self._outputs, self._session.run(self._outputs, given), strict=True))


class TorchScriptGraph:
    """A TorchScript file; on CUDA where torch offers it.

    A graph with several outputs returns a dict and so names them; one with a single output returns it bare,
    and that is `probabilities`. gpu: which CUDA device, the first if None.
    """

    suffix: ClassVar[str] = ".ts.pt"

    def __init__(self, path: Path, *, threads: int, gpu: int | None) -> None:
        import torch

        self._torch: Any = torch
        torch.set_num_threads(threads)
        self.device = f"cuda:{gpu or 0}" if torch.cuda.is_available() else "cpu"
        with warnings.catch_warnings():
            # torch 2.15 announces the end of TorchScript; until then it serves
            warnings.filterwarnings("ignore", r".*torch\.jit\.", FutureWarning)
            warnings.filterwarnings("ignore", r".*torch\.jit\.", DeprecationWarning)
            extra = {"metadata.json": ""}  # filled by the call
            self._module = self._torch.jit.load(path, map_location=self.device, _extra_files=extra).eval()
        self.metadata: Mapping[str, str] = json.loads(extra["metadata.json"] or "{}")

    def __call__(self, images: Images, /, *more: NDArray[np.float32]) -> Outputs:
        # torch warns of memory it may not write to, which is what a view of a request's bytes can be
        writeable = images if images.flags.writeable else images.copy()
        with self._torch.inference_mode():
            answer = self._module(*(self._torch.from_numpy(each).to(self.device) for each in (writeable, *more)))
        named = answer if isinstance(answer, dict) else {"probabilities": answer}
        return {name: np.asarray(values.cpu()) for name, values in named.items()}


BACKENDS: dict[str, type[Backend]] = {
    "onnxruntime": OnnxGraph,
    "torchscript": TorchScriptGraph,
}
