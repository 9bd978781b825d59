"""The commands of the written pages parse: shell, make's targets and variables, programs and their options.

tests/test_tutorial.py runs those of the tutorial. The others train, serve or need what a test does not have.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from export.adopt import written
from export.adopt.adoption import Adopted
from export.adopt.asked import Asked
from export.adopt.model import Model
from pictures.model_input import ModelInput
from tests.pages import CHECKOUT, WRITTEN, blocks, commands, copy_checkout, environment

pytestmark = pytest.mark.drill

SHELL = [(page, body) for page in WRITTEN for language, body in blocks(page) if language == "sh"]
LINES = sorted({line for _, body in SHELL for line in commands(body)})
MAKE = [line for line in LINES if line.startswith("make ")]
# programs that hand their last arguments to another: what follows is the other's
WRAPPERS = {"torch.distributed.run": "-m"}


def programs() -> dict[tuple[str, ...], set[str]]:
    """By the words that call a program of ours, or one of its commands: the options that the pages give it."""
    found: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for line in LINES:
        called = re.match(r"(?:\.venv/bin/)?python (?:-m )?([\w./]+)( .*|$)", line)
        if called is None:
            continue
        name, arguments = called[1], called[2]
        words = shlex.split(re.split(r" [|>] ?| -- ", arguments)[0])
        if name in WRAPPERS:
            words = words[: words.index(WRAPPERS[name])]
        # the word behind the program may be one of its commands
        command = words[:1] if words and re.fullmatch(r"[a-z]+", words[0]) and takes_commands(name) else []
        call = (name,) if name.endswith(".py") else ("-m", name)
        found[(*call, *command)] |= {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    return found


def takes_commands(module: str) -> bool:
    path = CHECKOUT / module.replace(".", "/")
    files = path.glob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    return any("add_subparsers" in file.read_text("utf-8") for file in files if file.exists())


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, with what the pages ask a reader to write: recipes for his own images and his own classifier."""
    folder = copy_checkout(tmp_path_factory.mktemp("snippets"))
    (folder / "models").mkdir()
    for name in ("mine", "photos", "keras", "binary"):  # as `make adopt` leaves them
        (folder / f"models/{name}.onnx").touch()
        (folder / f"recipes/{name}.toml").write_text(adopted(folder / f"models/{name}.onnx"))
    digits = (folder / "recipes/digits.toml").read_text()
    (folder / "recipes/images.toml").write_text(digits.replace('name = "digits"', 'name = "imagefolder:/data/mine"'))
    return folder


def adopted(file: Path) -> str:
    """The recipe of a large model."""
    model = Model(str(file), ("keep", "reject"), ModelInput(224, resize=256), gives="logits")
    return written.recipe(file.stem, Asked(file, Path("/data/photos")), Adopted(model, lambda folder: folder, []))


def test_there_is_something_to_try() -> None:
    assert len(MAKE) > 30
    assert len(programs()) > 12


@pytest.mark.parametrize(("page", "body"), SHELL, ids=[f"{page}-{number}" for number, (page, _) in enumerate(SHELL)])
def test_a_block_is_shell(page: str, body: str) -> None:
    done = subprocess.run(["bash", "-n"], input=body, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{page}: {done.stderr}"


def made(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["make", *words]
    return subprocess.run(
        command, cwd=checkout, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )


def dry(checkout: Path, words: Sequence[str], seen: set[tuple[str, ...]]) -> None:
    """Have make say what it would do for these goals, and the makes that it would call in turn.

    `make -n` alone runs every line that names another make, and so whatever else is on it. Here the shell does nothing.
    """
    if tuple(words) in seen:
        return
    seen.add(tuple(words))
    given = dict(word.split("=", 1) for word in words if "=" in word)
    recipe, tier = given.get("RECIPE", "digits"), given.get("TIER", "")
    rules = f"build/rules/{recipe}{tier and '-'}{tier}.mk"
    if not (checkout / rules).exists():
        done = made(checkout, rules, f"RECIPE={recipe}", f"TIER={tier}")
        assert done.returncode == 0, done.stderr
    done = made(checkout, "-n", "SHELL=true", *words)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        if line.startswith("make "):
            # variables of the command line are handed on
            goals = shlex.split(line.partition(" ||")[0])[1:]
            dry(
                checkout,
                [*goals, *(f"{name}={value}" for name, value in given.items() if f"{name}=" not in line)],
                seen,
            )


@pytest.mark.parametrize("line", MAKE)
def test_make_knows_the_targets_and_what_they_need(checkout: Path, line: str) -> None:
    words = shlex.split(line.partition("|")[0])[1:]
    # the reader's own images, with the recipe of digits; mine.toml is of his own classifier
    dry(checkout, ["RECIPE=images" if words[0] == "demo" and word == "RECIPE=mine" else word for word in words], set())


@pytest.mark.parametrize("call", sorted(programs()), ids=" ".join)
def test_a_program_has_the_options(checkout: Path, call: tuple[str, ...]) -> None:
    done = subprocess.run(
        [".venv/bin/python", *call, "--help"],
        cwd=checkout,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0 or done.stderr.startswith("usage: "), done.stderr
    # the options that a locustfile adds are not in Locust's help
    text = done.stdout + ((CHECKOUT / "loadtests/users/plan.py").read_text() if "locust" in call else "")
    known = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", text))
    assert programs()[call] <= known, programs()[call] - known


@pytest.mark.parametrize("line", [line for line in LINES if " -c '" in line and "python" in line])
def test_a_line_of_python_compiles(line: str) -> None:
    (code,) = re.findall(r"-c '([^']*)'", line)
    compile(code, line, "exec")


def test_commands_are_split_as_a_shell_would() -> None:
    assert list(commands("make a \\\n  B=1  # why\n\n# nothing\nmake b && make c #x\n")) == [
        "make a    B=1",
        "make b",
        "make c",
    ]
