"""The container's Python environment in miniature: what its requirements name and nothing else, linked, not copied.

There is no torch in it, nor anything else of ours, of training or of the tests.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
REQUIREMENTS = CHECKOUT / "deploy" / "container" / "requirements.txt"


def pins(path: Path = REQUIREMENTS) -> dict[str, str]:
    """Package to version, of every line `name==version` of a requirements file."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", path.read_text("utf-8"), re.MULTILINE)
    return {canonical(name): version for name, version in found}


def canonical(name: str) -> str:
    """A package's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def make(folder: Path) -> Path:
    """Make the environment in `folder`; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    scheme = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", scheme="venv", vars=scheme))
    for name in pins():
        if name == "async-timeout" and sys.version_info >= (3, 11, 3):
            continue  # Redis's client wants it of an older Python, as the container's is
        distribution = metadata.distribution(name)
        files = distribution.files
        assert files, f"{name}: its installation lists no files"
        for entry in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            link = packages / entry
            if not link.exists():
                link.symlink_to(str(distribution.locate_file(entry)))
    return folder / "bin" / "python"
