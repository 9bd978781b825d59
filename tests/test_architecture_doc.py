"""The architecture page shows the rooms that there are, with the imports that the table allows them."""

from __future__ import annotations

import re

import pytest

from tests.test_boundaries import CHECKOUT, ROOMS

PAGE = (CHECKOUT / "docs/architecture.md").read_text("utf-8")
DRAWING = (CHECKOUT / "docs/architecture.svg").read_text("utf-8")
# each room's row of the page: what it imports of ours
IMPORTS = dict(re.findall(r"^\| `([a-z]+)/` \| .* \| ([^|]*) \|$", PAGE, re.MULTILINE))


def test_every_room_is_on_the_page_and_in_the_drawing() -> None:
    assert set(IMPORTS) == set(ROOMS)
    assert set(re.findall(r">([a-z]+)/</text>", DRAWING)) == set(ROOMS)


@pytest.mark.parametrize("name", ROOMS)
def test_the_page_says_what_a_room_may_import(name: str) -> None:
    allowed = {entry.split(".")[0] for entry in ROOMS[name].ours}
    said = {room for room in ROOMS if re.search(rf"\b{room}\b", IMPORTS[name])}
    assert said == allowed


def test_the_files_that_the_page_names_exist() -> None:
    names = re.findall(r"`([a-z]+/[\w/.]*)`", PAGE)
    assert len(names) > 40
    assert [name for name in names if not (CHECKOUT / name).exists()] == []
