"""What runs a graph: ONNX Runtime or TorchScript.

A backend opens a file once, with a stated number of threads, and is then a callable: images (N,C,H,W) float32
in [0, 1], and what further inputs the graph has, in its order -> outputs by name, float32 with N rows. Workers x
threads is the deployment's budget of cores, so a graph never takes more threads than it was given. Each backend
imports its runtime when it is first used: serving ONNX graphs needs no torch.
"""

from __future__ import annotations

import functools
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


def cuda() -> bool:
    """Whether the installed onnxruntime offers CUDA."""
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


class OnnxGraph:
    """An ONNX file on ONNX Runtime, on CUDA where the installed onnxruntime offers it.

    gpu: which CUDA device, the first if None. Threads do not spin while they wait: on a machine that is
    shared with the server's own processes spinning costs throughput. All sessions of a process take what a run needs
    from one arena (`_one_arena`).
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
        options.add_session_config_entry("session.use_env_allocators", "1")
        _one_arena()
        providers: list[object] = ["CPUExecutionProvider"]
        if cuda():
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


@functools.cache
def _one_arena() -> None:
    """Give this process the arena that its sessions share.

    With one of its own each session keeps as much as its largest run took, and an ensemble has many of them. Without
    any, memory is asked of the system and given back at each run, which cost a fifth of a small network's rows.
    """
    import onnxruntime

    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(memory, None)


class TorchScriptGraph:
    """A TorchScript file; on CUDA where torch offers it.

    A graph with several outputs returns a dict and so names them; one with a single output returns it bare,
    and that is `probabilities`. gpu: which CUDA device, the first if None. What it answers is torch's answer up to
    rounding (`_in_one_layout`).
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
            if self.device == "cpu":
                self._module = _in_one_layout(self._torch, self._module)
        self.metadata: Mapping[str, str] = json.loads(extra["metadata.json"] or "{}")

    def __call__(self, images: Images, /, *more: NDArray[np.float32]) -> Outputs:
        # torch warns of memory it may not write to, which is what a view of a request's bytes can be
        writeable = images if images.flags.writeable else images.copy()
        with self._torch.inference_mode():
            answer = self._module(*(self._torch.from_numpy(each).to(self.device) for each in (writeable, *more)))
        named = answer if isinstance(answer, dict) else {"probabilities": answer}
        return {name: np.asarray(values.cpu()) for name, values in named.items()}


def _in_one_layout(torch: Any, module: Any) -> Any:
    """The module rewritten for oneDNN where that pays, else as it is.

    torch.jit.optimize_for_inference keeps images in oneDNN's own layout from the first convolution on: classifiers then
    answer up to twice as many rows. An operator that oneDNN does not have (a rounding, a batch norm behind a
    concatenation) is reached by a conversion out and another one back, which may cost more than is gained: such graphs
    stay as they are. So do those on CUDA, where there is no oneDNN.
    """
    try:
        rewritten = torch.jit.optimize_for_inference(module)
    except RuntimeError:  # a module that cannot be frozen
        return module
    nodes = rewritten.graph.findAllNodes
    return rewritten if len(nodes(_INTO_ONEDNN)) == 1 and not nodes("aten::batch_norm") else module


_INTO_ONEDNN = "aten::to_mkldnn"

BACKENDS: dict[str, type[Backend]] = {
    "onnxruntime": OnnxGraph,
    "torchscript": TorchScriptGraph,
}
