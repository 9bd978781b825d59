"""A real worker whose machine answers otherwise than the one that exported: it does not start, and says why."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from export.archive import pack
from tests.defenses.policies import section
from tests.deploy.test_server import server
from tests.e2e.fronted import build_policy
from tests.handlers.archives import spoil_guard

pytestmark = pytest.mark.server
NARROW: dict[str, Any] = section(policy="narrow", precision="int8")


def started(store: Path, runs: Path) -> tuple[int, str]:
    """The exit code of a start of the archive in `store`, and what it said; the server is stopped."""
    place = ("--instance", "guard", "--run-folder", runs)
    try:
        done = server("start", *place, "--store", store, "--free-ports", "--models", "digits-narrow")
    finally:
        server("stop", *place)
    return done.returncode, done.stderr


def test_a_stored_row_that_is_answered_otherwise_keeps_a_worker_from_starting(tmp_path: Path) -> None:
    store = tmp_path / "store"
    build_policy(store, tmp_path, NARROW)
    code, said = started(store, tmp_path / "run")
    assert code == 0, said
    staged = tmp_path / "spoilt"
    with zipfile.ZipFile(store / "digits-narrow.mar") as packed:
        packed.extractall(staged)
    shutil.rmtree(staged / "MAR-INF")
    spoil_guard(staged, member="victim", row=17, by=0.5)
    pack(staged, "digits-narrow", store / "digits-narrow.mar")
    code, said = started(store, tmp_path / "run")
    assert code == 1
    assert "graph 'victim': row 17 of the 32 of guard.json: expected the answer of the export within 0.0100" in said
    assert "build the archive on this machine" in said
