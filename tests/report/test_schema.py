"""The schema: what it refuses, and how rows of several commands come together in one file."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
from datetime import datetime, timezone
from pathlib import Path

import pytest

from report.atomic import write_json
from report.schema import Report, ResultError, commit, merge, read, run_info
from tests.report import synthetic
from tests.report.synthetic import attack_row, bench_row, policy_row
from training import checkpoint


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.json"
    merge(path, synthetic.report())
    assert read(path) == synthetic.report()
    assert [file.name for file in path.parent.iterdir()] == ["report.json"]


def test_new_rows_replace_their_scope_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    merge(path, Report(synthetic.RUN, attacks=(attack_row(budget=1000), attack_row(budget=4000)), bench=(bench_row(),)))
    later = dataclasses.replace(synthetic.RUN, started="2026-02-02T00:00:00+00:00", settings={"loadtest": {}})
    merge(
        path,
        Report(
            later,
            attacks=(attack_row(budget=2000), attack_row(policy="edm")),
            policies=(policy_row(),),
            bench=(bench_row(path="pipeline"),),
        ),
    )
    merged = read(path)
    assert [(row.policy, row.budget) for row in merged.attacks] == [("undefended", 2000), ("edm", 4000)]
    assert [row.path for row in merged.bench] == ["http", "pipeline"]
    assert merged.policies == (policy_row(),)
    assert merged.run.started == synthetic.RUN.started
    assert merged.run.seconds == 25.0
    assert merged.run.settings.keys() == {"classes", "clone", "loadtest"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clone_accuracy": 1.2}, r"clone_accuracy: expected a fraction in \[0, 1\], got 1.2"),
        ({"held_out": float("nan")}, "held_out: expected a fraction"),
        ({"labels": "both"}, "labels: expected 'soft' or 'hard', got 'both'"),
    ],
)
def test_a_row_out_of_range_cannot_be_made(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ResultError, match=message):
        attack_row(**changes)


def test_an_unknown_path_to_an_answer_cannot_be_made() -> None:
    with pytest.raises(ResultError, match="path: expected one of onnxruntime, pipeline, http, grpc, got 'pigeon'"):
        bench_row(path="pigeon")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accuracy": 1.01}, "accuracy: expected a fraction"),
        ({"stretch": "after"}, "stretch: expected one of before, during, got 'after'"),
        ({"rejections": 150, "errors": 51}, "expected at most 200 rejections and errors"),
    ],
)
def test_impossible_impacts_on_benign_users(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ResultError, match=message):
        synthetic.felt_row(**changes)


def test_a_file_from_before_a_section_still_reads(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    merge(path, synthetic.report())
    content = json.loads(path.read_text())
    del content["felt"]
    path.write_text(json.dumps(content))
    assert read(path) == synthetic.report(felt=())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ('{"run": {}}', "run: missing key 'commit'"),
        ('{"rum": {}}', "expected the sections run, attacks"),
    ],
)
def test_a_malformed_file_is_an_error_that_names_it(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(ResultError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)


def test_a_malformed_row_is_an_error_that_names_its_place(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    merge(path, synthetic.report())
    content = json.loads(path.read_text())
    content["attacks"][3]["clone_accuracy"] = -1
    path.write_text(json.dumps(content))
    with pytest.raises(ResultError, match=r"attacks\[3\]: clone_accuracy: expected a fraction"):
        read(path)


def test_a_missing_file_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"no such file; run `make attack`"):
        read(tmp_path / "report.json")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"fine": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"not": float("nan")})
    assert json.loads(path.read_text()) == {"fine": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


def test_checkpoints_and_results_name_the_commit_alike() -> None:
    named = commit()
    assert named is not None
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", named)
    assert checkpoint.commit() == named


def test_run_facts_hold_neither_host_nor_paths() -> None:
    own = {"dataset": {"name": f"imagefolder:{Path.cwd()}/cats"}}
    facts = run_info(seed=3, started=datetime.now(timezone.utc), settings=own)
    text = json.dumps(dataclasses.asdict(facts))
    assert facts.seed == 3
    assert facts.settings == {"dataset": {"name": "imagefolder:cats"}}
    assert facts.versions["torch"] != "absent"
    assert socket.gethostname() not in text.split()
    assert str(Path.cwd()) not in text
    assert str(Path.home()) not in text
