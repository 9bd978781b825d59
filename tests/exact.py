"""Where ONNX Runtime gives a row the same bits alone and in any batch, what is built on it has to as well.

Its CPU kernels do for most operators (export/graphs.py names those that do not), on every processor that was looked at.
Whether they do on this one is asked of the runtime itself, so that a test of ours fails for what is ours.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
from numpy.typing import ArrayLike, NDArray

ROUNDING = 1e-5


def exact(archive: Path, images: NDArray[np.float32]) -> bool:
    """Whether the archive's graphs, of one input, say the same of each image alone, in sevens and all together."""
    with TemporaryDirectory() as folder, zipfile.ZipFile(archive) as packed:
        names = [name for name in packed.namelist() if name.endswith(".onnx")]
        assert names, "of an archive that ONNX Runtime serves"
        for name in names:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            session = onnxruntime.InferenceSession(
                packed.extract(name, folder), options, providers=["CPUExecutionProvider"]
            )
            if len(session.get_inputs()) > 1:
                continue
            whole = session.run(None, {"images": images})
            for size in (1, 7):
                parts = [session.run(None, {"images": images[at : at + size]}) for at in range(0, len(images), size)]
                for output, rows in zip(zip(*parts, strict=True), whole, strict=True):
                    if not np.array_equal(np.concatenate(output), rows):
                        return False
    return True


def assert_same(got: ArrayLike, expected: ArrayLike, *, exact: bool) -> None:
    """Bit for bit where the runtime is exact, up to rounding elsewhere."""
    if exact:
        np.testing.assert_array_equal(got, expected)
    else:
        np.testing.assert_allclose(got, expected, rtol=0, atol=ROUNDING)
