"""How networks were trained, from the facts that their graphs carry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evaluation.studies import training
from tests.conftest import Smoke
from tests.evaluation.studies.command import study

MEMBER = {
    "architecture": "lenet5",
    "parameters": 61_706,
    "temperature": 2.0,
    "alpha": 0.3,
    "lambda_attacker": 0.05,
    "epoch": 5,
    "validation_accuracy": 0.98,
    "augmented_accuracy": 0.83,
    "attacker_divergence": 0.2,
    "attacker_agreement": 0.9,
}


def misleader(**changes: Any) -> dict[str, Any]:
    """The facts of a checkpoint as training/misleader.py leaves them, as far as they are read."""
    plain: dict[str, Any] = {
        "settings": {
            "victim": {"optimisation": {"epochs": 4}},
            "misleader": {"optimisation": {"epochs": 6}, "lambda_diversity": 0.1},
        },
        "metrics": {
            "validation_accuracy": 0.97,
            "ensemble_accuracy": 0.98,
            "diversity": 0.9,
            "members": [MEMBER, {**MEMBER, "architecture": "lenet5-half", "lambda_attacker": 0.001}],
        },
        "device": "cpu",
    }
    return {**plain, **changes}


def test_misleader_s_checkpoint_is_a_row_and_one_of_each_member() -> None:
    facts = misleader(search=[{"step": "short", "kept": [True, False]}])
    row = training.training("mnist", "misleader", 2, facts, 120.0)
    assert (row.epochs, row.seconds_per_epoch, row.lambda_diversity) == (6, 20.0, 0.1)
    assert (row.validation_accuracy, row.diversity, row.coherence) == (0.97, 0.9, None)
    assert row.search == ({"step": "short", "kept": [True, False]},)
    rows = training.each("mnist", "misleader", facts)
    assert [(row.member, row.architecture, row.lambda_attacker) for row in rows] == [
        (0, "lenet5", 0.05),
        (1, "lenet5-half", 0.001),
    ]
    assert {(row.recipe, row.predictor, row.epoch) for row in rows} == {("mnist", "misleader", 5)}
    assert training.table(facts) == facts["settings"]["misleader"]


def test_what_was_not_searched_or_reported_is_absent() -> None:
    facts = misleader(metrics={"validation_accuracy": 0.97})
    row = training.training("mnist", "misleader", 2, facts, None)
    assert (row.diversity, row.coherence, row.search, row.seconds_per_epoch) == (None, None, (), None)
    assert training.line(row) == "mnist/misleader: 6 epochs on cpu"
    assert training.each("mnist", "misleader", facts) == []


def test_what_members_give_away_is_said() -> None:
    facts = misleader(
        metrics={"validation_accuracy": 0.97, "leak": 0.5, "signatures": [{"class": 3, "share": 0.78}]},
        settings={"edm": {"optimisation": {"epochs": 6}}},
    )
    row = training.training("mnist", "edm", 2, facts, 120.0)
    assert (row.leak, row.signatures) == (0.5, ({"class": 3, "share": 0.78},))
    assert "off the task the members mostly answer 3 (78%): a label reveals 50% of its member" in training.line(row)


def test_the_program(smoke: Smoke, tmp_path: Path) -> None:
    words = ("--policies", "undefended", "edm", "label", "--runs", str(smoke.runs))
    report = study("training", *words, run=tmp_path, store=smoke.store)
    rows = {row.predictor: row for row in report.training}
    assert {name: (row.members, row.epochs) for name, row in rows.items()} == {"victim": (1, 8), "edm": (3, 8)}
    assert all(row.seconds_per_epoch for row in rows.values()), "which training wrote next to the checkpoints"
    assert rows["edm"].coherence is not None
    assert rows["victim"].coherence is None
    assert report.members == ()
    assert report.run.settings["trained.edm"]["auxiliary"] == "china"
    assert "auxiliary" not in report.run.settings["trained.victim"]


def test_wall_time_is_read_next_to_the_checkpoint_or_in_an_older_graph(tmp_path: Path) -> None:
    timing = tmp_path / "victim.timing.json"
    assert training.seconds(timing, {}) is None
    assert training.seconds(timing, {"seconds": 12.5}) == 12.5
    timing.write_text('{"seconds": 3.5}')
    assert training.seconds(timing, {"seconds": 12.5}) == 3.5


def test_a_policy_that_the_recipe_has_not_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no \[policies.nothing\]; it has undefended, edm, label"):
        study("training", "--policies", "nothing", run=tmp_path, store=tmp_path)
