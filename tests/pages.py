"""The pages that people write, and the commands on them. `make documents` renders all others from results."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from assurance.controls import files

CHECKOUT = Path(__file__).resolve().parents[1]
RENDERED = {"performance.md", "resilience.md", "serving-memory.md", "your-model-costs.md"}
WRITTEN = (
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{path.name}" for path in (CHECKOUT / "docs").glob("*.md") if path.name not in RENDERED),
    *sorted(f"docs/api/{path.name}" for path in (CHECKOUT / "docs/api").glob("*.md")),
)


# the Makefile, and what it includes but for the recipes' rules
MAKE = "\n".join(path.read_text("utf-8") for path in (CHECKOUT / "Makefile", *sorted((CHECKOUT / "make").glob("*.mk"))))


def text(page: str) -> str:
    return (CHECKOUT / page).read_text("utf-8")


def blocks(page: str) -> list[tuple[str, str]]:
    """A page's fenced blocks: their languages and texts, in order; lists indent them."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", text(page), re.DOTALL | re.MULTILINE)
    return [(language, re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)) for indent, language, body in found]


def commands(shell: str) -> Iterator[str]:
    """The commands of a block of shell: without comments, continued lines joined, those behind `&&` by themselves."""
    for line in shell.replace("\\\n", " ").splitlines():
        for command in re.sub(r"(^|\s)#.*", "", line).split(" && "):
            if command.strip():
                yield command.strip()


def copy_checkout(folder: Path) -> Path:
    """A copy of the checkout in `folder`, with this interpreter's environment as its .venv, already set up.

    The environment's entries are linked one by one: make sees an .installed of the copy's own, newer than
    requirements.lock, and so installs nothing into the environment that the tests run in.
    """
    for name in files(CHECKOUT):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, target)
    environment = folder / ".venv"
    environment.mkdir()
    for entry in Path(sys.prefix).iterdir():
        if not entry.name.startswith("."):
            (environment / entry.name).symlink_to(entry)
    (environment / ".installed").touch()
    return folder


def environment() -> dict[str, str]:
    """This process's, without a deployment's settings, and without those of a make that started the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("TORCHWARDEN", "MAKE", "MFLAGS"))}
