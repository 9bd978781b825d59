"""The search for MISLEADER's lambdas, on real trainings of seconds and on results that are made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Smoke
from tests.reached import Reached
from tests.training.test_misleader import MEMBERS, TABLE, training
from training import checkpoint
from training.misleader import Member, Misleader
from training.misleader_search import _kept, _lowered
from zoo.augment import Augmentation

SEARCHED = """
[misleader]
augment = { affine = { degrees = 10.0 } }
augmented_batch = 16
optimisation = { epochs = 1, lr = 3e-3, batch_size = 128 }
search_rows = 256
search_epochs = 1
allowed_drop = ALLOWED
allowed_augmented_drop = ALLOWED
DIVERSITY
members = [
    { architecture = "lenet5-half", lambda_attacker = HERE },
    { architecture = "lenet5-fifth", lambda_attacker = HERE },
]
"""


def searched(*, allowed: float, here: str = "[0.01, 0.1]", diversity: str = "") -> str:
    text = SEARCHED.replace("ALLOWED", str(allowed)).replace("HERE", here)
    return TABLE + text.replace("DIVERSITY", diversity)


def test_the_largest_lambdas_that_keep_the_rule_are_published(
    tmp_path: Path, smoke_runs: Smoke, capsys: pytest.CaptureFixture[str]
) -> None:
    text = searched(allowed=0.99)
    runs = training(tmp_path, smoke_runs, text)
    facts = checkpoint.facts(runs / "misleader.safetensors")
    assert [member["lambda_attacker"] for member in facts["settings"]["misleader"]["members"]] == [0.1, 0.1]
    assert [step["lambda_attacker"] for step in facts["search"]] == [[0.0, 0.0], [0.01, 0.01], [0.1, 0.1]]
    assert all(step["step"] == "short" and step["kept"] == [True, True] for step in facts["search"])
    made = {file: file.stat().st_mtime_ns for file in (runs / "search").glob("*.safetensors")}
    capsys.readouterr()
    training(tmp_path, smoke_runs, text)
    assert {file: file.stat().st_mtime_ns for file in (runs / "search").glob("*.safetensors")} == made
    assert capsys.readouterr().err.count("trained with these settings already") == len(made) + 1 == 5


def test_one_strength_of_diversity_for_all(tmp_path: Path, smoke_runs: Smoke) -> None:
    text = searched(allowed=0.99, here="0.05", diversity="lambda_diversity = [0.1]")
    facts = checkpoint.facts(training(tmp_path, smoke_runs, text) / "misleader.safetensors")
    table = facts["settings"]["misleader"]
    assert table["lambda_diversity"] == 0.1
    assert [member["lambda_attacker"] for member in table["members"]] == [0.05, 0.05]
    assert [step["lambda_diversity"] for step in facts["search"]] == [0.0, 0.1]


def test_members_who_bear_nothing_are_told_of(tmp_path: Path, smoke_runs: Smoke, reached: Reached, seed: int) -> None:
    # a weight that leaves nothing of the task
    with pytest.raises(ValueError, match=r"\[misleader\] lambda: a member bears none of lenet5-half .* give smaller"):
        training(tmp_path, smoke_runs, searched(allowed=0.0001, here="[500.0]"), seed=seed)
    search = tmp_path / "runs/misled/search"
    before, after = (
        checkpoint.facts(search / f"misleader-{step}-step.safetensors")["metrics"]["members"][0]["validation_accuracy"]
        for step in (0, 1)
    )
    reached("what the first member loses", before - after, above=0.0001)


def test_a_search_needs_the_plain_ensemble(tmp_path: Path, smoke_runs: Smoke) -> None:
    with pytest.raises(ValueError, match=r"distilled.safetensors: the search starts from it; train it first"):
        training(tmp_path, smoke_runs, searched(allowed=0.99).replace(TABLE, ""))


def test_each_member_is_held_to_both_rules() -> None:
    table = Misleader(MEMBERS, Augmentation(), allowed_drop=0.005, allowed_augmented_drop=0.01)

    def seen(*members: tuple[float, float]) -> dict[str, object]:
        return {"members": [{"validation_accuracy": one, "augmented_accuracy": other} for one, other in members]}

    reference = seen((0.99, 0.95), (0.99, 0.95))
    assert _kept(table, reference, seen((0.9851, 0.9401), (0.995, 0.96))) == [True, True]
    assert _kept(table, reference, seen((0.984, 0.95), (0.99, 0.939))) == [False, False]


def test_who_breaks_the_rule_goes_a_rung_down() -> None:
    members = tuple(Member(member.architecture, lambda_attacker=(0.1, 0.2)) for member in MEMBERS)
    table = Misleader(members, Augmentation())
    assert _lowered(table, [2, 1], [False, True]) == [1, 1]
    assert [member.lambda_attacker for member in table.at([2, 0]).members] == [0.2, 0.0]
    shared = replace(table, members=MEMBERS, lambda_diversity=(0.1, 0.2))
    assert _lowered(shared, [2, 2], [True, False]) == [1, 1]
    assert shared.at([1, 1]).lambda_diversity == 0.1
    assert shared.at([0, 0]).lambda_diversity == 0.0
