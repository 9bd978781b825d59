"""Every committed results file is read by the one schema, and what is read is written and read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from report import older
from report.schema import ResultError, read, write

RESULTS = Path(__file__).resolve().parents[2] / "results"
# the section that each file of a shape of its own is there for
SECTIONS = {
    "bench-attacks": "attack_speeds",
    "controls": "controls",
    "faults": "faults",
    "fusing": "fusing",
    "fuzz": "fuzz",
    "profile": "profiles",
    "selftest": "selftest",
    "serving-memory": "memory",
    "soak": "soak",
}


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_committed_file_is_read_and_written_and_read(path: Path, tmp_path: Path) -> None:
    report = read(path)
    assert report.counts()
    if path.stem in SECTIONS:
        assert SECTIONS[path.stem] in report.counts()
    write(tmp_path / path.name, report)
    assert read(tmp_path / path.name) == report


def before(name: str, content: dict[str, Any]) -> dict[str, Any]:
    """A file of today's shape as it was written before there was one schema."""
    run, rows = content["run"], content[SECTIONS[name]]
    if name == "soak":
        return {**rows[0], "run": run}
    if name == "fuzz":
        doors = {row["door"]: {key: value for key, value in row.items() if key != "door"} for row in rows}
        return {door: doors[door] for door in older.DOORS}
    return {"run": run, {"fusing": "rows", "selftest": "findings"}[name]: rows}


@pytest.mark.parametrize("name", ["soak", "fuzz", "fusing", "selftest"])
def test_every_older_shape_is_lifted(name: str, tmp_path: Path) -> None:
    write(tmp_path / "new.json", read(RESULTS / f"{name}.json"))
    new = json.loads((tmp_path / "new.json").read_text("utf-8"))
    old = before(name, new)
    assert SECTIONS[name] not in old
    assert sorted(older.lifted(old)[SECTIONS[name]], key=str) == sorted(new[SECTIONS[name]], key=str)


def test_rows_of_training_said_nothing_of_leaks() -> None:
    lifted = older.lifted({"training": [{"recipe": "mnist"}, "no row"]})
    assert lifted == {"training": [{"leak": None, "signatures": [], "recipe": "mnist"}, "no row"]}


def test_the_new_shape_is_left_as_it_is(tmp_path: Path) -> None:
    for path in RESULTS.glob("*.json"):
        write(tmp_path / path.name, read(path))
        content = json.loads((tmp_path / path.name).read_text("utf-8"))
        assert older.lifted(content) == content


def test_both_doors_of_fuzz_keep_their_runs() -> None:
    old = before("fuzz", json.loads((RESULTS / "fuzz.json").read_text("utf-8")))
    old["direct"]["run"].update(commit="a" * 40, started="2026-11-24T14:01:39+00:00", seconds=169.5)
    old["gateway"]["run"].update(commit="b" * 40, started="2026-11-24T14:04:11+00:00", seconds=176.5)
    lifted = older.lifted(old)
    assert {row["door"]: row["run"]["commit"] for row in lifted["fuzz"]} == {"direct": "a" * 40, "gateway": "b" * 40}
    assert lifted["run"]["commit"] == "b" * 40
    assert lifted["run"]["started"] == "2026-11-24T14:01:39+00:00"
    assert lifted["run"]["seconds"] == 346.0


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("soak", lambda content: content.pop("run"), "expected the sections run"),
        ("soak", lambda content: content["samples"][2].update(at="late"), r"samples\[2\].at: expected a number"),
        ("fuzz", lambda content: content["direct"].pop("run"), r"fuzz\[0\]: missing key 'run'"),
        ("fuzz", lambda content: content["gateway"].update(cases="all"), r"fuzz\[1\]: cases: expected an integer"),
        ("fusing", lambda content: content["rows"][1].update(batch=None), r"fusing\[1\]: batch: expected an integer"),
        ("selftest", lambda content: content["findings"][0].update(verdict="?"), r"selftest\[0\]: verdict: expected o"),
    ],
)
def test_a_fault_in_an_older_file_is_named_by_its_place(name: str, edit: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.json"
    write(path, read(RESULTS / f"{name}.json"))
    content = before(name, json.loads(path.read_text("utf-8")))
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ResultError, match=message):
        read(path)


def test_rows_of_agreement_were_of_plain_attacks() -> None:
    lifted = older.lifted({"agreement": [{"attack": "knockoff"}, {"attack": "near", "adaptive": "matched"}]})
    assert [row["adaptive"] for row in lifted["agreement"]] == [None, "matched"]
