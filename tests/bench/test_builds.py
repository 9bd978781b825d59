"""Two commits trained, packed and served by their own code and held against each other, for moments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import builds
from bench.overhttp import BenchError
from evaluation.oracles import CHECKOUT


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.strip()


def another() -> str:
    """A commit of HEAD's own files, which no branch has: a build that is as fast, in a clone of any depth."""
    who = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    return git(*who, "commit-tree", "HEAD^{tree}", "-m", "the same files")


def test_a_checkout_has_the_commit_s_files_and_leaves_nothing() -> None:
    commit, before = git("rev-parse", "HEAD"), git("worktree", "list")
    with builds.checkout(commit) as folder:
        assert (folder / "Makefile").read_text() == git("show", "HEAD:Makefile") + "\n"
    assert not folder.parent.exists()
    assert git("worktree", "list") == before


@pytest.mark.parametrize(
    ("against", "message"),
    [
        ("HEAD", "bench.builds: --against HEAD: expected another commit than HEAD"),
        ("no-such-commit", r"bench.builds: `git rev-parse --verify no-such-commit\^\{commit\}` ended with 128"),
    ],
)
def test_another_commit_is_wanted(against: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["builds", "--against", against, "--output", str(tmp_path / "builds.json")])
    with pytest.raises(SystemExit, match=message):
        builds.main()
    assert not list(tmp_path.iterdir())


def test_what_fails_in_a_checkout_is_shown(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "victim.py").write_text("raise SystemExit('no such recipe')")
    with pytest.raises(BenchError, match=r"-m training.victim digits` ended with 1: no such recipe"):
        builds.packed(tmp_path)


@pytest.mark.drill
def test_two_builds_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "WARM_S", 1.0)
    commits = [another(), git("rev-parse", "HEAD")]
    rows = builds.measured(commits, np.zeros((2, 1, 28, 28), np.float32), rounds=2, seconds=0.3)
    assert [(row.commit, row.clients) for row in rows] == [
        (commit, clients) for clients in builds.CLIENTS for commit in commits
    ]
    assert min(value for row in rows for value in (*row.p50_rounds, *row.rate_rounds)) > 0
