"""What the written pages say can be typed and followed: targets, links, paths. test_snippets.py tries commands."""

from __future__ import annotations

import re
import subprocess

import pytest

import recipes
from recipes.rules import rules
from tests.pages import CHECKOUT, MAKE, WRITTEN, text


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", MAKE, re.MULTILINE))


def studies() -> set[str]:
    """What the rules of some recipe make."""
    found = [rules(recipes.read(name)) for name in recipes.known()]
    return set(re.findall(r"^((?:reproduce|over-http)-[a-z0-9-]+):", "\n".join(found), re.MULTILINE))


@pytest.mark.parametrize("page", WRITTEN)
def test_make_targets_exist(page: str) -> None:
    commands = re.findall(
        r"make ((?:[a-z][a-z0-9-]* ?)+)", "\n".join(re.findall(r"`[^`\n]*`|```sh.*?```", text(page), re.DOTALL))
    )
    named = {word for command in commands for word in command.split()}
    known = targets() | studies() | {"reproduce-"}  # `make reproduce-NAME`
    assert named <= known, named - known


def test_the_readme_names_the_targets_that_a_newcomer_needs() -> None:
    for target in ("setup", "demo", "help", "serve", "stop", "attack", "check"):
        assert f"make {target}" in text("README.md")


@pytest.mark.parametrize("page", WRITTEN)
def test_links_and_paths_exist(page: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text(page)) if "://" not in link]
    for link in links:
        assert ((CHECKOUT / page).parent / link).exists(), link
    for path in re.findall(r"`((?:tests|training|defenses|handlers|zoo|export|deploy|attacks)/[\w/.-]+)`", text(page)):
        assert (CHECKOUT / path).exists(), path


@pytest.mark.parametrize("page", WRITTEN)
def test_links_into_a_page_find_their_heading(page: str) -> None:
    for path, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", text(page)):
        if "://" in path:
            continue
        target = (CHECKOUT / page).parent / path if path else CHECKOUT / page
        heads = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}, anchor


@pytest.mark.parametrize("page", WRITTEN)
def test_a_page_can_be_read_in_one_go(page: str) -> None:
    assert len(text(page).splitlines()) <= (150 if page == "README.md" else 400)


def test_the_readme_leads_to_every_written_page() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]+)", text("README.md")))
    assert {page for page in WRITTEN if page.startswith("docs/")} <= linked


def test_help_lists_every_target_a_person_would_call() -> None:
    shown = subprocess.run(["make", "help"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    described = set(re.findall(r"^  make ([a-z-]+)", shown, re.MULTILINE))
    assert described == targets()


def test_demo_recipe_is_the_one_the_readme_names() -> None:
    assert "RECIPE   ?= digits" in (CHECKOUT / "Makefile").read_text()
    assert (CHECKOUT / "recipes/digits.toml").exists()
