"""The search for a strength: on synthetic results, and on EDM's and MISLEADER's trainings of seconds."""

from __future__ import annotations

import argparse
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RECIPE, Smoke
from tests.reached import Reached
from tests.training.test_misleader import MEMBERS, TABLE, training
from training import checkpoint, edm
from training.members import Member, Misleader
from training.search import Metrics, Rungs, Search, Trail, lowered, metrics
from zoo.augment import Augmentation

# synthetic results


@dataclass
class Made:
    """A method whose trainings cost no time: `lost(kind, part, rung)` is the accuracy that a part loses."""

    folder: Path
    lost: Callable[[str, int, int], float]
    trained: list[str] = field(default_factory=list)

    def checkpoint(self, kind: str, rungs: Rungs, facts: dict[str, Any]) -> Path:
        name = f"{kind}-{'-'.join(map(str, rungs))}"
        self.trained.append(name)
        losses = [self.lost(kind, part, rung) for part, rung in enumerate(rungs)]
        path = self.folder / f"{name}.safetensors"
        checkpoint.save(path, [], [], {"metrics": {"lost": losses, "rung": max(rungs)}, **facts})
        return path

    def step(self, path: Path, rungs: Rungs) -> Path:
        return self.checkpoint("short", rungs, {"below": path.stem})

    def train(self, rungs: Rungs, trail: Trail) -> Path:
        return self.checkpoint("full", rungs, {"search": trail})

    def kept(self, reference: Metrics, seen: Metrics) -> list[bool]:
        return [after - before <= 0.01 + 1e-9 for before, after in zip(reference["lost"], seen["lost"], strict=True)]

    def entry(self, kind: str, rungs: Rungs, reference: Metrics, seen: Metrics, kept: Sequence[bool]) -> dict[str, Any]:
        return {"step": kind, "rungs": list(rungs), "of": reference["lost"], "lost": seen["lost"], "kept": list(kept)}

    def search(self, *, rungs: int = 3, parts: int = 1, full: float = 0.0, **options: Any) -> Path | None:
        search = Search(
            rungs=rungs, parts=parts, step=self.step, train=self.train, kept=self.kept, entry=self.entry, **options
        )
        return search.run(self.folder / "start.safetensors", {"lost": [full] * parts})


def test_the_largest_strength_that_keeps_the_rule_is_trained_in_full(tmp_path: Path) -> None:
    # a short training costs 0.05 by itself: what counts is what a rung costs on top of that
    made = Made(tmp_path, lambda kind, part, rung: 0.004 * rung + 0.05 * (kind == "short"))
    path = made.search()
    assert path is not None
    assert path.stem == "full-2"
    assert made.trained == ["short-0", "short-1", "short-2", "short-3", "full-2"]
    trail = checkpoint.facts(path)["search"]
    assert [(entry["rungs"], entry["kept"]) for entry in trail] == [
        ([0], [True]),
        ([1], [True]),
        ([2], [True]),
        ([3], [False]),
    ]
    assert all(entry["step"] == "short" and entry["of"] == trail[0]["lost"] for entry in trail)


def test_every_short_training_goes_on_from_the_rung_below(tmp_path: Path) -> None:
    Made(tmp_path, lambda kind, part, rung: 0.0).search()
    below = [checkpoint.facts(tmp_path / f"short-{rung}.safetensors")["below"] for rung in range(4)]
    assert below == ["start", "start", "short-1", "short-2"]


def test_the_climb_ends_at_the_first_rung_that_breaks_the_rule(tmp_path: Path) -> None:
    # a rung above it that would keep the rule is not tried
    made = Made(tmp_path, lambda kind, part, rung: 1.0 if rung == 2 else 0.0)
    path = made.search()
    assert path is not None
    assert made.trained == ["short-0", "short-1", "short-2", "full-1"]


def test_the_climb_ends_where_a_rung_was_not_worth_while(tmp_path: Path) -> None:
    asked = []

    def worthwhile(before: Metrics, after: Metrics) -> bool:
        asked.append((before["rung"], after["rung"]))
        return bool(after["rung"] < 2)

    made = Made(tmp_path, lambda kind, part, rung: 0.0)
    path = made.search(worthwhile=worthwhile)
    assert asked == [(0, 1), (1, 2)]
    # the rung itself kept the rule
    assert path is not None
    assert path.stem == "full-2"


def test_full_trainings_go_down_until_the_rule_is_kept(tmp_path: Path) -> None:
    made = Made(tmp_path, lambda kind, part, rung: 0.02 * rung if kind == "full" else 0.0)
    path = made.search(full=0.01)
    assert path is not None
    assert made.trained[4:] == ["full-3", "full-2", "full-1"]
    tail = checkpoint.facts(path)["search"][4:]
    assert [(entry["step"], entry["rungs"], entry["of"]) for entry in tail] == [
        ("full", [3], [0.01]),
        ("full", [2], [0.01]),
    ]
    assert not any(entry["kept"][0] for entry in tail)


def test_where_no_rung_keeps_the_rule_there_is_no_checkpoint(tmp_path: Path) -> None:
    short = Made(tmp_path, lambda kind, part, rung: float(rung))
    assert short.search() is None
    assert short.trained == ["short-0", "short-1"]
    full = Made(tmp_path, lambda kind, part, rung: float(kind == "full"))
    assert full.search(rungs=2) is None
    assert full.trained == ["short-0", "short-1", "short-2", "full-2", "full-1"]


def test_every_part_has_a_rung_of_its_own(tmp_path: Path) -> None:
    # the first bears one rung less than the second, and one less again in full
    def lost(kind: str, part: int, rung: int) -> float:
        bears = (2, 3)[part] - (kind == "full" and part == 0)
        return 0.0 if rung <= bears else 1.0

    made = Made(tmp_path, lost)
    path = made.search(rungs=4, parts=2)
    assert path is not None
    assert made.trained == ["short-0-0", "short-1-1", "short-2-2", "short-3-3", "short-4-4", "full-2-3", "full-1-3"]


def test_parts_that_share_a_rung_go_up_and_down_together(tmp_path: Path) -> None:
    def lost(kind: str, part: int, rung: int) -> float:
        bears = (2, 3)[part] - (kind == "full" and part == 1) * 2
        return 0.0 if rung <= bears else 1.0

    made = Made(tmp_path, lost)
    path = made.search(rungs=4, parts=2, together=True)
    assert path is not None
    assert made.trained[5:] == ["full-2-2", "full-1-1"]


def test_a_part_that_breaks_the_rule_goes_a_rung_down() -> None:
    assert lowered((2, 1), [False, True], together=False) == (1, 1)
    assert lowered((2, 2), [True, False], together=True) == (1, 1)


def test_a_checkpoint_that_must_be_there_says_how_to_make_it(tmp_path: Path) -> None:
    path = tmp_path / "victim.safetensors"
    with pytest.raises(
        ValueError, match=r"victim.safetensors: the search starts from it; train it first \(make it RECIPE\)"
    ):
        metrics(path, "make it")


# EDM: one part, each step going on from the last

TRAINED = "held_out = 100\noptimisation = { epochs = 2, lr = 3e-3, batch_size = 64 }\n"


def recipe(folder: Path, lambdas: str, *, allowed: float, rows: int = 300) -> Path:
    """The smoke recipe with candidates, in a separate file."""
    text = RECIPE.read_text("utf-8").replace(
        "held_out = 100",
        f"{TRAINED}lambda_diversity = {lambdas}\nsearch_rows = {rows}\nallowed_drop = {allowed}\n"
        f"[networks.ensemble]\nprogram = 'edm'\nauxiliary = 'china'\nmembers = 3\nlambda_diversity = 0.0\n{TRAINED}",
    )
    path = folder / "searched.toml"
    path.write_text(text, "utf-8")
    return path


def search(folder: Path, path: Path, smoke: Smoke, seed: int) -> Path:
    runs = folder / "runs"
    (runs / "searched").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(smoke.runs / "smoke/victim.safetensors", runs / "searched/victim.safetensors")
    for table in ("ensemble", "edm"):
        edm.main(argparse.Namespace(recipe=str(path), runs=runs, data=None, seed=seed, network=table))
    return runs / "searched"


def test_the_largest_lambda_that_keeps_the_rule_is_published(
    tmp_path: Path, smoke_runs: Smoke, reached: Reached, seed: int
) -> None:
    runs = search(tmp_path, recipe(tmp_path, "[1, 2]", allowed=0.99, rows=1200), smoke_runs, seed)
    facts = checkpoint.facts(runs / "edm.safetensors")
    assert facts["settings"]["edm"]["lambda_diversity"] in (1.0, 2.0)
    trail = facts["search"]
    assert [step["lambda"] for step in trail][:2] == [0.0, 1.0]
    assert facts["settings"]["edm"]["lambda_diversity"] == max(step["lambda"] for step in trail if step["kept"])
    assert all(step["step"] == "short" and 0 <= step["diversity"] <= 1 for step in trail)
    # diversity is what the search climbs for
    reached("diversity loss with lambda and without", trail[1]["diversity"] / trail[0]["diversity"], below=0.8)
    assert not [path.name for path in runs.glob("*.safetensors") if "step" in path.name]


def test_a_search_that_was_done_trains_nothing(
    tmp_path: Path, smoke_runs: Smoke, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    path = recipe(tmp_path, "[0.1]", allowed=0.99)
    runs = search(tmp_path, path, smoke_runs, seed)
    made = {file: file.stat().st_mtime_ns for file in (runs / "search").glob("*.safetensors")}
    capsys.readouterr()
    search(tmp_path, path, smoke_runs, seed)
    assert {file: file.stat().st_mtime_ns for file in (runs / "search").glob("*.safetensors")} == made
    assert capsys.readouterr().err.count("trained with these settings already") == len(made) + 1 == 4


def test_where_no_lambda_keeps_the_rule_nothing_is_published(
    tmp_path: Path, smoke_runs: Smoke, reached: Reached, seed: int
) -> None:
    # two epochs on all rows stay behind the victim's eight
    path = recipe(tmp_path, "[0.1]", allowed=1e-6)
    with pytest.raises(ValueError, match=r"none of \(0.1,\) keeps the members' accuracy within 1e-06 of the victim's"):
        search(tmp_path, path, smoke_runs, seed)
    runs = tmp_path / "runs/searched"
    assert not (runs / "edm.safetensors").exists()
    victim, ensemble = (
        checkpoint.facts(runs / f"{name}.safetensors")["metrics"]["validation_accuracy"]
        for name in ("victim", "ensemble")
    )
    reached("how far two epochs stay behind", victim - ensemble, above=0.0)


def test_a_search_needs_the_victim(tmp_path: Path) -> None:
    path = recipe(tmp_path, "[0.1]", allowed=0.99)
    arguments = argparse.Namespace(recipe=str(path), runs=tmp_path / "runs", data=None, seed=0, network="edm")
    with pytest.raises(ValueError, match=r"no checkpoint at .*victim\.safetensors: train it first"):
        edm.main(arguments)


# MISLEADER: a part for each member, every step from the plain ensemble

SEARCHED = """
[networks.misleader]
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
    with pytest.raises(
        ValueError, match=r"\[networks.misleader\] lambda: a member bears none of lenet5-half .* give smaller"
    ):
        training(tmp_path, smoke_runs, searched(allowed=0.0001, here="[500.0]"), seed=seed)
    search = tmp_path / "runs/misled/search"
    before, after = (
        checkpoint.facts(search / f"misleader-{step}-step.safetensors")["metrics"]["members"][0]["validation_accuracy"]
        for step in (0, 1)
    )
    # more than its allowed 0.0001, by orders of magnitude
    reached("log10 of what the first member loses", math.log10(max(before - after, 1e-9)), above=-4)


def test_a_search_needs_the_plain_ensemble(tmp_path: Path, smoke_runs: Smoke) -> None:
    with pytest.raises(ValueError, match=r"distilled.safetensors: the search starts from it; train it first"):
        training(tmp_path, smoke_runs, searched(allowed=0.99).replace(TABLE, ""))


def test_each_member_is_held_to_both_rules() -> None:
    table = Misleader(MEMBERS, Augmentation(), allowed_drop=0.005, allowed_augmented_drop=0.01)

    def seen(*members: tuple[float, float]) -> dict[str, object]:
        return {"members": [{"validation_accuracy": one, "augmented_accuracy": other} for one, other in members]}

    reference = seen((0.99, 0.95), (0.99, 0.95))
    assert table.kept(reference, seen((0.9851, 0.9401), (0.995, 0.96))) == [True, True]
    assert table.kept(reference, seen((0.984, 0.95), (0.99, 0.939))) == [False, False]


def test_a_rung_of_zero_is_none_of_the_term_that_is_searched() -> None:
    members = tuple(Member(member.architecture, lambda_attacker=(0.1, 0.2)) for member in MEMBERS)
    table = Misleader(members, Augmentation())
    assert [member.lambda_attacker for member in table.at([2, 0]).members] == [0.2, 0.0]
    shared = replace(table, members=MEMBERS, lambda_diversity=(0.1, 0.2))
    assert shared.at([1, 1]).lambda_diversity == 0.1
    assert shared.at([0, 0]).lambda_diversity == 0.0
