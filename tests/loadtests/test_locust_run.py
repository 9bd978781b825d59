"""Real Locust runs against the handler's own code on loopback: the programs from command line to report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from attacks.transfer import TransferSet
from loadtests import locust_run
from loadtests.locust_run import TrafficError
from report.schema import read
from tests.conftest import RECIPE, Smoke
from tests.evaluation.stub import Stub

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def stub(smoke: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    archives = {f"smoke-{policy}": smoke.archive(policy) for policy in ("undefended", "edm")}
    with Stub(archives, tmp_path_factory.mktemp("run")) as server:
        yield server


def program(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"loadtests.{name}", str(RECIPE), *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
        check=False,
    )


def test_benign_and_hostile_users_agree_with_a_good_server(stub: Stub, tmp_path: Path) -> None:
    run = ("--policies", "undefended", "edm", "--run", tmp_path, "--run-folder", stub.run_folder, "--seconds", "5")
    done = program("load", *run)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "load-undefended-edm.json").read_text())
    roles = {kind["role"] for kind in summary["kinds"]}
    assert roles == {"benign", "hostile"}
    assert sum(kind["requests"] for kind in summary["kinds"]) > 50
    assert summary["seconds"] == pytest.approx(5, abs=1.5), "the run time must not start before the users do"
    assert summary["failure_ratio"] == 0
    bench = read(tmp_path / "report.json").bench
    assert {row.policy for row in bench} == {"undefended", "edm"}
    assert {row.batch for row in bench} >= {1, 8}
    assert all(row.path == "http" and row.p50_ms <= row.p99_ms for row in bench)


def test_an_attacker_a_second_look_and_a_report(stub: Stub, smoke: Smoke, tmp_path: Path) -> None:
    words = ("--policies", "edm", "--run", tmp_path, "--run-folder", stub.run_folder, "--store", smoke.store)
    words = (*words, "--quiet", "1")
    stub.thieves_wait_s = 0.2
    done = program("attack", *words)
    stub.thieves_wait_s = 0.0
    assert done.returncode == 0, done.stderr
    rows = read(tmp_path / "report.json").attacks
    assert [(row.policy, row.labels, row.queries) for row in rows] == [("edm", "soft", 300), ("edm", "hard", 300)]
    assert {row.path for row in rows} == {"http"}
    assert "smoke-edm: 300 queries in" in done.stdout
    (stolen,) = (tmp_path / "transfer").glob("knockoff-*/transfer.npz")
    assert TransferSet.load(stolen).charged == 300
    impact = read(tmp_path / "report.json").felt
    assert [(row.stretch, row.stolen, row.sent, row.rejections, row.errors) for row in impact] == [
        ("before", 300, 300, 0, 0),
        ("during", 300, 300, 0, 0),
    ]
    assert all(row.requests > 0 and row.p50_ms is not None and 0 < row.p50_ms <= row.p99_ms for row in impact)

    asked = stub.queries
    again = program("attack", *words)
    assert again.returncode == 0, again.stderr
    assert "not stolen again" in again.stdout
    assert "2 of 2 clones were trained by an earlier run" in again.stdout
    # one request, to see that the answers are still the same
    assert stub.queries == asked + 1
    assert read(tmp_path / "report.json").attacks == rows
    assert read(tmp_path / "report.json").felt == impact

    page = subprocess.run(
        [sys.executable, "-m", "report.html", tmp_path],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=True,
    )
    assert page.stdout.splitlines()[-1] == f"report: {tmp_path / 'report.html'}"


def test_an_attacker_that_is_over_a_limit_waits_for_retry_after_and_gets_all_its_answers(
    stub: Stub, smoke: Smoke, tmp_path: Path
) -> None:
    stub.turned_away = {"thief-0", "thief-1"}
    words = ("--policies", "edm", "--run", tmp_path, "--run-folder", stub.run_folder, "--store", smoke.store)
    done = program("attack", *words, "--quiet", "1", "--clients", "2", "--labels", "hard")
    assert done.returncode == 0, done.stderr
    assert not stub.turned_away, "each client is a principal of its own"
    (row,) = read(tmp_path / "report.json").attacks
    assert (row.queries, row.rejected) == (300, 0)


def test_settings_of_the_user_s_shell_and_home_change_nothing(stub: Stub, smoke: Smoke, tmp_path: Path) -> None:
    """Locust's settings in every place where it reads them, a proxy that nobody listens at, and relative paths."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    for path in (home / ".locust.conf", here / "locust.conf"):
        path.write_text("tags = checkout\nprocesses = 2\ncsv = stray\n")
    (here / "pyproject.toml").write_text('[tool.locust]\nexclude-tags = ["benign"]\ncsv = "stray"\n')
    (here / "run").symlink_to(stub.run_folder)
    (here / "store").symlink_to(smoke.store)
    hostile = {
        "HOME": str(home),
        "LOCUST_MODE_MASTER": "1",
        "LOCUST_TAGS": "checkout",
        "LOCUST_CSV": "stray",
        **dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"), "http://127.0.0.1:9"),
        "no_proxy": "",
        "PYTHONPATH": str(ROOT),
    }

    def run(name: str, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", f"loadtests.{name}", str(RECIPE), "--run", "report", "--run-folder", "run", *words],
            capture_output=True,
            text=True,
            cwd=here,
            env={**os.environ, "OMP_NUM_THREADS": "1", **hostile},
            timeout=120,
            check=False,
        )
        log = "".join(path.read_text() for path in here.rglob("*.log"))
        assert done.returncode == 0, done.stderr + log
        return done.stdout

    run("load", "--policies", "undefended", "--seconds", "3")
    words = ("--policies", "edm", "--store", "store", "--quiet", "1", "--labels", "hard")
    run("attack", *words)
    assert "not stolen again" in run("attack", *words), (
        "the look at an earlier run's answers goes straight to the server"
    )
    report = read(here / "report/report.json")
    assert {row.policy for row in report.bench} == {"undefended"}
    assert [row.queries for row in report.attacks] == [300]
    assert not list(tmp_path.rglob("stray*"))


def test_a_wrong_answer_ends_the_run_and_is_named(stub: Stub, tmp_path: Path) -> None:
    stub.lie = True
    try:
        done = program("load", "--policies", "edm", "--run", tmp_path, "--run-folder", stub.run_folder)
    finally:
        stub.lie = False
    assert done.returncode == 1
    assert "failure_ratio" in done.stderr
    assert "first: a label is not the argmax of its probabilities" in done.stderr
    summary = json.loads((tmp_path / "load-edm.json").read_text())
    # it stopped early: the run was meant to take 20 seconds
    assert summary["seconds"] < 15
    assert not (tmp_path / "report.json").exists()


def test_an_instance_that_does_not_run_is_one_line(tmp_path: Path) -> None:
    for name in ("load", "attack"):
        done = program(name, "--policies", "edm", "--run", tmp_path, "--run-folder", tmp_path)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "is the instance running? (make serve)" in done.stderr


def test_a_run_that_cannot_begin_says_why(stub: Stub, tmp_path: Path) -> None:
    options = {"recipe": RECIPE, "policies": "meco", "run_folder": stub.run_folder}
    with pytest.raises(
        TrafficError, match=r"before its run began; .*does not serve 'smoke-meco', only smoke-undefended"
    ):
        locust_run.run({"BenignUser": 1}, options, summary=tmp_path / "load.json", seconds=1)


def test_the_command_line_holds_no_secret_and_no_empty_option() -> None:
    words = locust_run.command({"ThiefUser": 1, "HostileUser": 0}, {"recipe": "digits", "data": None}, seconds=None)
    assert "--data" not in words
    assert "--run-time" not in words
    assert words[-1] == "ThiefUser"
    assert not any("token" in word.lower() or "bearer" in word.lower() for word in words)
