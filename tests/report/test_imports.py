"""Printing needs neither torch nor what measures: a fresh interpreter imports every page and has not loaded them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = sorted(path.stem for path in (CHECKOUT / "report/pages").glob("*.py") if path.stem != "__init__")
UNWANTED = ("torch", "evaluation", "loadtests", "bench", "assurance", "zoo", "defenses", "handlers", "attacks.registry")


def loaded(modules: str) -> set[str]:
    """What an interpreter has loaded once these modules are imported."""
    code = f"import sys, {modules}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_pages_load_neither_torch_nor_the_programs() -> None:
    assert len(PAGES) > 8
    found = loaded(", ".join(["report.html", "report.check", *(f"report.pages.{name}" for name in PAGES)]))
    assert "report.pages.same" in found
    assert not found & set(UNWANTED)


def test_the_check_can_fail() -> None:
    assert loaded("attacks.registry") >= {"torch", "zoo", "attacks.registry"}
