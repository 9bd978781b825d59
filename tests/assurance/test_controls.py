"""The threat model's table of controls and assurance/controls.toml list the same controls, and the tool that removes
them distinguishes a test that notices from one that does not."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import yaml

from assurance import controls
from assurance.controls import BROKEN, CAUGHT, CHECKOUT, FAILING, LATE, MISSED, Removal

REMOVALS = controls.read()
THREATS = CHECKOUT / "docs/threat-model.md"
COLUMNS = ["control", "against", "carried by", "shown by", "framework"]


def rows() -> dict[str, dict[str, str]]:
    """The table of controls, by the name that each row begins with."""
    section = re.search(r"^## Controls$(.*?)^## ", THREATS.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert section is not None
    lines = [line.strip("|").split("|") for line in section[1].splitlines() if line.startswith("|")]
    head, _, *body = [[cell.strip() for cell in line] for line in lines]
    assert head == COLUMNS
    found = {}
    for cells in body:
        assert len(cells) == len(COLUMNS), cells
        name = re.match(r"\*\*([a-z-]+)\*\*: ", cells[0])
        assert name is not None, f"a row begins with **name**: , got {cells[0]!r}"
        assert name[1] not in found, f"{name[1]} has two rows"
        found[name[1]] = dict(zip(COLUMNS, cells, strict=True))
    return found


def test_every_row_of_the_threat_model_has_removals_and_every_removal_a_row() -> None:
    table = rows()
    assert len(table) > 20
    assert set(table) == {removal.control for removal in REMOVALS}


@pytest.mark.parametrize("name", sorted({removal.control for removal in REMOVALS}))
def test_a_row_names_what_carries_its_control_and_the_tests_that_miss_it(name: str) -> None:
    row = rows()[name]
    for removal in REMOVALS:
        if removal.control == name:
            assert named(removal.file, row["carried by"]), f"{name}: carried by: {removal.file} is missing"
            for test in removal.tests:
                assert named(test.partition("::")[0], row["shown by"]), f"{name}: shown by: {test} is missing"
    for path in re.findall(r"`([^`]+)`", row["carried by"] + row["shown by"]):
        if "/" in path:
            assert (CHECKOUT / path).exists(), f"{name}: no such file: {path}"


def named(file: str, cell: str) -> bool:
    """Whether a cell names a file, or a folder that holds it."""
    paths = re.findall(r"`([^`]+)`", cell)
    return any(file == path or file.startswith(f"{path.rstrip('/')}/") for path in paths)


@pytest.mark.parametrize("removal", REMOVALS, ids=lambda removal: f"{removal.control}: {removal.what}")
def test_what_carries_a_control_is_there_once_and_the_rest_is_still_a_file(removal: Removal, tmp_path: Path) -> None:
    assert removal.stale(CHECKOUT) is None
    assert removal.old != removal.new
    target = tmp_path / removal.file
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes((CHECKOUT / removal.file).read_bytes())
    removal.apply(tmp_path)
    if target.suffix == ".py":
        ast.parse(target.read_text("utf-8"))
    elif target.suffix == ".yml":
        yaml.safe_load(target.read_text("utf-8"))
    assert removal.stale(tmp_path) is not None or removal.old in removal.new


def test_no_removal_stands_there_twice() -> None:
    names = Counter((removal.control, removal.what) for removal in REMOVALS)
    assert max(names.values()) == 1
    changes = Counter((removal.file, removal.old, removal.new) for removal in REMOVALS)
    assert max(changes.values()) == 1


def test_every_test_that_must_fail_exists() -> None:
    tests = {test for removal in REMOVALS for test in removal.tests}
    found = {
        f"{file}::{node.name}"
        for file in {test.partition("::")[0] for test in tests}
        for node in ast.parse((CHECKOUT / file).read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    assert tests <= found


PRODUCT = {
    "shop/__init__.py": "",
    "shop/price.py": "def price(rows):\n    assert rows >= 0\n    return 3 * rows\n",
    "tests/__init__.py": "",
    "tests/test_price.py": """
import time
import pytest
from shop.price import price

@pytest.fixture
def thing():
    return price(1)

@pytest.mark.parametrize("rows", [0, 1])
def test_three_each(rows):
    assert price(rows) == 3 * rows

def test_within_a_second():
    begun = time.monotonic()
    price(1)
    assert time.monotonic() - begun < 60

def test_nothing():
    price(2)

def test_thing(thing):
    assert thing == 3

def test_refuses():
    with pytest.raises(AssertionError):
        price(-1)

def test_raised_within_an_assertion():
    assert [price(1), price(2)]

def test_wrong():
    assert price(1) == 4
""",
    "pyproject.toml": "[tool.pytest.ini_options]\npythonpath = ['.']\n",
}
BY = "return 3 * rows"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shop")
    for name, text in PRODUCT.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    (root / "ignored").mkdir()
    (root / "ignored/big").write_text("not of the checkout")
    (root / ".gitignore").write_text("ignored\n")
    return root


def removal(test: str, new: str, old: str = BY) -> Removal:
    return Removal("price", f"{test} {new}", "shop/price.py", old, new, (f"tests/test_price.py::{test}",))


@pytest.mark.parametrize(
    ("entry", "verdict", "said"),
    [
        (removal("test_three_each", "return 4 * rows"), CAUGHT, "assert 4 == (3 * 1)"),
        (removal("test_nothing", "return 4 * rows"), MISSED, ""),
        (removal("test_nothing", "raise KeyError(rows)"), BROKEN, "KeyError: 2"),
        (removal("test_nothing", "return ("), BROKEN, "error: "),
        (removal("test_thing", "raise KeyError(rows)"), BROKEN, "error: "),
        (removal("test_three_each", "return missing"), BROKEN, "NameError: name 'missing'"),
        (removal("test_raised_within_an_assertion", "raise OSError"), CAUGHT, "assert [price(1), price(2)]: OSError"),
        (removal("test_wrong", "return 5 * rows"), FAILING, "assert 3 == 4"),
        (removal("test_gone", "return 5 * rows"), FAILING, "did not run"),
        (removal("test_refuses", "rows += 0", "assert rows >= 0"), CAUGHT, "Failed: DID NOT RAISE"),
    ],
)
def test_verdicts(shop: Path, tmp_path: Path, entry: Removal, verdict: str, said: str) -> None:
    (row,) = controls.run(shop, [entry], unfinished=tmp_path / "unfinished.json", seconds=60)
    assert (row.verdict, row.said if not said else said in row.said) == (verdict, said if not said else True), row
    assert (shop / "shop/price.py").read_text() == PRODUCT["shop/price.py"], "the checkout itself is left alone"


def test_a_test_without_an_end_is_late(shop: Path, tmp_path: Path) -> None:
    entry = removal("test_within_a_second", "import time; time.sleep(600)")
    (row,) = controls.run(shop, [entry], unfinished=tmp_path / "unfinished.json", seconds=5)
    assert row.verdict == LATE
    assert row.without_s < 60


def test_a_run_goes_on_where_it_was_unless_a_file_has_changed(shop: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished.json"
    good, bad = removal("test_three_each", "return 4 * rows"), removal("test_nothing", "return 4 * rows")
    first = controls.run(shop, [good, bad], unfinished=unfinished, seconds=60)
    assert [row.verdict for row in first] == [CAUGHT, MISSED]
    content = unfinished.read_text()
    assert controls.run(shop, [good], unfinished=unfinished, seconds=0.0) == first[:1], "nothing was run"
    unfinished.write_text(content)
    (shop / "README.md").write_text("changed")
    (again,) = controls.run(shop, [good], unfinished=unfinished, seconds=0.0)
    assert again.verdict == LATE


def test_an_unknown_control_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert controls.main(["--only", "gates"]) == 2
    assert "no control named gates; there are diverse-members, " in capsys.readouterr().err


def test_the_files_are_those_that_git_knows_and_new_ones(shop: Path) -> None:
    names = controls.files(shop)
    assert "shop/price.py" in names
    assert not [name for name in names if name.startswith("ignored/")]
