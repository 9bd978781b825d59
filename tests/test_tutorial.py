"""docs/tutorial.md, as a reader follows it: every command in order, in a copy of the checkout, at a smaller size.

The environment is the tests' own and counts as set up, so `make setup` finds nothing to do. It would otherwise download
every package again.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.pages import blocks, copy_checkout, environment

pytestmark = pytest.mark.drill

PAGE = "docs/tutorial.md"
# what makes the recipe small: at most so many epochs and queries, one clone, no clock that a busy machine would miss
SMALLER = (
    (r"\bepochs = (\d+)", lambda found: f"epochs = {min(int(found[1]), 6)}"),
    (r"\bbudget = \d+", lambda _: "budget = 400"),
    (r"\bseeds = \[0, 1\]", lambda _: "seeds = [0]"),
    (r"\bfractions = \[.*\]", lambda _: "fractions = [1.0]"),
    (r"\bp99_ms = .*", lambda _: "p99_ms = 20000.0"),
    (r"\bbenign_accuracy = .*", lambda _: "benign_accuracy = 0.3"),
)


def smaller(recipe: str) -> str:
    for pattern, new in SMALLER:
        recipe, changed = re.subn(pattern, new, recipe)
        assert changed, pattern
    return recipe


def shape(line: str) -> str:
    """A line of the page's expected output as a pattern: figures may differ, and `...` is anything."""
    parts = re.split(r"\.\.\.", " ".join(line.split()))
    return ".*".join(re.sub(r"\d+(\\\.\d+)?(e-\d+)?", r"[\\d.e+-]+", re.escape(part)) for part in parts)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str]:
    """The exit code of all the page's commands in one shell that ends at the first failure, and what they printed."""
    checkout = copy_checkout(tmp_path_factory.mktemp("tutorial"))
    recipe = checkout / "recipes/digits.toml"
    recipe.write_text(smaller(recipe.read_text("utf-8")), "utf-8")
    script = "".join(body for language, body in blocks(PAGE) if language == "sh")
    # its own key, and ports that nobody has
    variables = {**environment(), "PORTS": "--free-ports"}
    log = checkout / "tutorial.log"
    try:
        with log.open("wb") as output:
            shell = subprocess.Popen(
                ["bash", "-euxo", "pipefail", "-c", script],
                cwd=checkout,
                env=variables,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = shell.wait(timeout=1200)
            finally:
                if shell.poll() is None:
                    os.killpg(shell.pid, signal.SIGKILL)
                    shell.wait()
    finally:
        # where a command failed between `make serve` and `make stop`; else it says that there is no such instance
        subprocess.run(["make", "stop"], cwd=checkout, env=variables, capture_output=True, timeout=120, check=False)
    return code, log.read_text(errors="replace").replace("\r", "\n")


def test_every_command_of_the_tutorial_succeeds(followed: tuple[int, str]) -> None:
    code, printed = followed
    assert code == 0, printed[-5000:]


def test_the_commands_print_what_the_tutorial_says(followed: tuple[int, str]) -> None:
    _, printed = followed
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    expected = [line for language, body in blocks(PAGE) if language == "text" for line in body.splitlines()]
    assert len(expected) > 10
    missing = [line for line in expected if not any(re.fullmatch(shape(line), each) for each in lines)]
    assert not missing, printed[-5000:]


def test_the_tutorial_has_every_step() -> None:
    script = "".join(body for language, body in blocks(PAGE) if language == "sh")
    for step in (
        "make setup",
        "make archive",
        "make serve",
        "docs/api/client.py",
        "curl",
        "make attack",
        "make stop report",
    ):
        assert step in script


def test_a_shape_leaves_figures_open_and_nothing_else() -> None:
    assert re.fullmatch(shape("a.b: accuracy 0.9767 ..."), "a.b: accuracy 1.5e-05 (9 s)")
    assert not re.fullmatch(shape("a.b: accuracy 0.9767 ..."), "a.b: agreement 0.9 (9 s)")


def test_a_copy_has_an_environment_that_make_leaves_alone(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path)
    done = subprocess.run(
        ["make", "setup"], cwd=checkout, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "make: Nothing to be done for 'setup'.\n"
