"""The README's commands and links exist: what it says can be typed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "docs/threat-model.md")


def text(page: str) -> str:
    return (CHECKOUT / page).read_text("utf-8")


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    commands = re.findall(
        r"make ((?:[a-z-]+ ?)+)", "\n".join(re.findall(r"`[^`]*`|```sh.*?```", text(page), re.DOTALL))
    )
    named = {word for command in commands for word in command.split() if not command.startswith("it ")}
    assert named or page == "docs/threat-model.md"
    assert named <= targets(), named - targets()


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_exist(page: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text(page)) if "://" not in link]
    for link in links:
        assert ((CHECKOUT / page).parent / link).exists(), link
    for path in re.findall(r"`((?:tests|training|defenses|handlers|zoo|export|deploy|attacks)/[\w/.-]+)`", text(page)):
        assert (CHECKOUT / path).exists(), path


def test_help_lists_every_target_a_person_would_call() -> None:
    shown = subprocess.run(["make", "help"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    described = set(re.findall(r"^  make ([a-z-]+)", shown, re.MULTILINE))
    assert described == targets()


def test_demo_recipe_is_the_one_the_readme_names() -> None:
    assert "RECIPE   ?= digits" in (CHECKOUT / "Makefile").read_text()
    assert (CHECKOUT / "recipes/digits.toml").exists()
