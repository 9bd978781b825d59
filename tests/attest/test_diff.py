"""What changed between two attests: words, exit codes by thresholds, and no comparison of unlike runs in silence."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from attest import diff, measured
from attest.measured import Felt, Resistance
from tests.attest.synthetic import curve, made

OLD = made()
WORSE_SERVICE = dataclasses.replace(OLD.utility, accuracy=0.95, low=0.94, high=0.96)
BETTER = made(curves=(curve("knockoff", 0.2, 0.5), *OLD.curves[1:2]))
LIAR = made(resistance=Resistance(failed=5000))


def words(old: Any, new: Any) -> dict[str, str]:
    return {each.what: each.word for each in diff.changes(old, new)}


def broken(new: Any, old: Any = OLD, **thresholds: Any) -> list[str]:
    return list(diff.breaches(old, new, diff.Thresholds(**thresholds)))


def test_nothing_changed() -> None:
    assert set(words(OLD, OLD).values()) == {"same"}
    assert diff.differences(OLD, OLD) == {}
    assert not broken(OLD, bought=0.0, accuracy_loss=0.0, clone=0.0, p99=1.0, word=True)


def test_better_worse_and_noise() -> None:
    found = words(
        OLD, made(utility=WORSE_SERVICE, curves=(curve("knockoff", 0.95), curve("jbda", 0.5, no_query_accuracy=0.4)))
    )
    assert found["accuracy of the service"] == "worse"
    assert found["clone of knockoff"] == "better (within noise)"
    assert found["clone of jbda"] == "better"
    held = words(OLD, made(curves=(curve("knockoff", 0.12),)))
    assert (held["verdict"], held["bought by the best thief"]) == ("better", "better")


def test_never_is_later_than_any_query() -> None:
    """OLD was throttled after 2,211 queries."""
    never = words(OLD, made(resistance=Resistance()))
    assert never["first throttled after queries"] == "worse"
    both = made(resistance=Resistance(throttled=1, throttled_after=10, refused=1, refused_after=7))
    assert words(OLD, both)["first throttled after queries"] == "better"
    assert words(OLD, both)["first refused after queries"] == "better"
    assert "first flagged after queries" not in words(OLD, both)


@pytest.mark.parametrize(
    ("threshold", "new", "most", "message"),
    [
        ("bought", OLD, 0.2, "bought: +"),
        ("clone", OLD, 0.2, "clone of knockoff: +46.2 points, expected at most +20.0"),
        (
            "accuracy_loss",
            dataclasses.replace(OLD, utility=WORSE_SERVICE),
            0.034,
            "loss of accuracy: +3.5 points, expected at",
        ),
        (
            "p99",
            made(felt=(Felt("campaign", 9, 0.0, 1.0, 9.0, 89.0),)),
            2.0,
            "p99: 89.0 ms, 2.02 times as long, expected at",
        ),
        ("word", OLD, True, "verdict: 'partly copied' became 'copied'"),
    ],
)
def test_each_threshold_from_both_sides(threshold: str, new: Any, most: Any, message: str) -> None:
    old = made(curves=(curve("knockoff", 0.5), *OLD.curves[2:4])) if threshold in ("bought", "clone", "word") else OLD
    assert [line for line in broken(new, old, **{threshold: most}) if line.startswith(message)]
    assert not broken(new, old)
    wide = {"bought": 0.9, "clone": 0.5, "accuracy_loss": 0.035, "p99": 2.03, "word": False}[threshold]
    assert not [line for line in broken(new, old, **{threshold: wide}) if line.startswith(message.split(":")[0])]


def test_what_is_no_longer_measured_passes_its_threshold() -> None:
    """A thief that was left out, or users that were not asked, are no improvement."""
    fewer = made(curves=OLD.curves[:2], felt=())
    assert "clone of jbda: OLD has one, NEW has none, so it cannot be compared" in broken(fewer, clone=1.0)
    assert broken(fewer, p99=100.0) == ["p99: users were not measured in both"]
    assert broken(OLD, LIAR, bought=1.0) == ["bought: was not measured in both"]


def test_no_verdict_always_fails() -> None:
    assert broken(LIAR)[0].startswith("No verdict: 50.0 %")
    assert words(OLD, LIAR)["verdict"] == "changed"


UNLIKE = {
    "target": dataclasses.replace(OLD.target, url="https://other.example.org"),
    "budget": dataclasses.replace(OLD.target, budget=7),
    "seeds": dataclasses.replace(OLD.run, seeds=(5,)),
    "images": dataclasses.replace(OLD.run, images_sha256="1" * 64),
    "settings": dataclasses.replace(OLD.run, settings={"attacks": "knockoff"}),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_unlike_runs_are_named(name: str) -> None:
    where = "target" if name in ("target", "budget") else "run"
    found = diff.differences(OLD, dataclasses.replace(OLD, **{where: UNLIKE[name]}))
    assert list(found) == [name]
    assert found[name].startswith(f"different {name}: ")


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "attest.diff", *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, check=False)


def test_the_program_s_exit_codes(tmp_path: Path) -> None:
    runs = {"old": OLD, "better": BETTER, "budget": dataclasses.replace(BETTER, target=UNLIKE["budget"])}
    for name, content in runs.items():
        measured.write(content, tmp_path / name)
    old, better, budget = (tmp_path / name for name in runs)
    kept = command(old, better, "--max-bought", "0", "--max-clone", "0.5")
    assert (kept.returncode, "FAILED" in kept.stdout) == (1, True), kept.stdout
    assert "clone of jbda: OLD has one" in kept.stdout
    assert command(old, better, "--max-bought", "0", "--word").returncode == 0
    assert command(better, old, "--max-bought", "1").returncode == 1
    refused = command(old, budget)
    assert refused.returncode == 2
    assert "different budget: 10000 and 7" in refused.stdout
    assert "name what may differ: --although budget" in refused.stderr
    although = command(old, budget, "--although", "budget")
    assert (although.returncode, "different budget" in although.stdout) == (0, True)
    assert command(old, tmp_path / "none").returncode == 2
