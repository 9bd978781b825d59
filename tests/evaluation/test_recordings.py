"""Recorded queries: every image that was charged for, in order, once; and the tables that say which."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

import recipes
from attacks.oracle import Answers, Ledger
from evaluation import recordings
from evaluation.matrix import Job
from evaluation.recordings import Asked, Recorder, Stream
from tests.data_sets import digits_test
from tests.evaluation import gated
from zoo import datasets


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    gated.archive(folder, "undefended")
    return folder


def job(store: Path, folder: Path, text: str = gated.RECIPE) -> Job:
    folder.mkdir(exist_ok=True)
    return Job(recipes.read(gated.recipe(folder, text)), digits_test(), folder, store, None)


def test_a_recorder_keeps_every_image_and_changes_no_answer() -> None:
    asked: list[torch.Tensor] = []

    def oracle(images: torch.Tensor) -> Answers:
        asked.append(images)
        return Answers(torch.arange(len(images)))

    recorder = Recorder(oracle)
    ledger = Ledger(recorder, 10)
    first, second = torch.rand(4, 1, 28, 28), torch.rand(3, 1, 28, 28)
    sent = torch.cat([first, second, first[:1]])
    assert ledger(first).labels.tolist() == [0, 1, 2, 3]
    ledger(second)
    ledger(first[:1])  # a repeat is a query like any other
    first.zero_()
    assert torch.equal(recorder.images(), sent)
    assert [len(images) for images in asked] == [4, 3, 1]


def test_a_recorder_may_begin_late() -> None:
    recorder = Recorder(lambda images: Answers(torch.zeros(len(images), dtype=torch.int64)), after=5)
    images = torch.rand(12, 1, 4, 4)
    for part in images.split(4):
        recorder(part)
    assert torch.equal(recorder.images(), images[5:])
    with pytest.raises(ValueError, match="nothing was asked"):
        Recorder(recorder).images()


def test_the_recipe_s_attackers_are_recorded(store: Path, tmp_path: Path) -> None:
    flowers, steps = recordings.recorded(job(store, tmp_path))
    assert (flowers.name, flowers.attack) == ("knockoff (flower)", "knockoff")
    assert (flowers.budgets, flowers.seeds) == ((200, 400), 0)
    surrogate = datasets.load("flower", "train").pixels
    known = {image.numpy().tobytes() for image in surrogate}
    assert len(flowers.images) == len({image.numpy().tobytes() for image in flowers.images} & known) == 400
    # 40 digits of the training split, then copies of them a step of 0.3 away
    assert (steps.name, steps.seeds, len(steps.images)) == ("steps", 40, 100)
    train = {image.numpy().tobytes() for image in datasets.load("digits", "train").pixels}
    own = [image.numpy().tobytes() in train for image in steps.images]
    assert own == [True] * 40 + [False] * 60


def test_what_is_recorded_is_recorded_once(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = recordings.recorded(job(store, tmp_path))
    files = sorted(file.name for file in (tmp_path / "queries").iterdir())
    assert len(files) == 2
    made: list[str] = []
    record = recordings.record

    def counted(theft: Any, *, after: int) -> torch.Tensor:
        made.append(theft.attack)
        return record(theft, after=after)

    monkeypatch.setattr(recordings, "record", counted)
    again = recordings.recorded(job(store, tmp_path))
    assert made == []
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, again, strict=True))
    # other parameters, another recording; the other attacker's stays
    recordings.recorded(job(store, tmp_path, gated.RECIPE.replace("step = 0.3", "step = 0.2")))
    assert made == ["jbda"]
    assert len(list((tmp_path / "queries").iterdir())) == 3


def test_an_interrupted_recording_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(file: BinaryIO, **_: object) -> None:
        file.write(b"some of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(recordings.np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recordings._write(tmp_path / "queries" / "some.npz", torch.zeros(1))
    assert list((tmp_path / "queries").iterdir()) == []


def test_the_parts_of_a_stream() -> None:
    stream = Stream("jbda", "jbda", torch.zeros(100, 1, 1, 1), (30, 60, 100), 40)
    found = [(part.traffic, part.budget, part.seeds_left_out, len(stream.images[part.rows])) for part in stream.parts]
    assert found == [
        ("jbda", 30, False, 30),
        ("jbda", 60, False, 60),
        ("jbda, without its seeds", 60, True, 20),
        ("jbda", 100, False, 100),
        ("jbda, without its seeds", 100, True, 60),
    ]
    assert [part.seeds_left_out for part in stream.whole] == [False, True]
    short = Stream("jbda", "jbda", torch.zeros(40, 1, 1, 1), (100,), 40)  # which ended with its seeds
    assert [part.seeds_left_out for part in short.parts] == [False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attack": "guessing"}, "unknown attack 'guessing'"),
        ({"budgets": ()}, "budgets: expected at least one, of at least 1 image"),
        ({"after": -1}, "after: expected at least 0 queries, got -1"),
        ({"after": 10, "without_seeds": True}, "without_seeds: expected false"),
        ({"overrides": {"budget": 5}}, "overrides: expected no budget"),
    ],
)
def test_tables_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Asked(**{"attack": "knockoff", **changes})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("overrides = { seeds = 40", "overrides = { sees = 40", r"\[detection.steps\]: unknown key 'sees'"),
        ("[attacks.jbda]", "[attacks.jbda-tr]", r"\[detection.steps\]: attack: no table \[attacks.jbda\]"),
        ('attack = "knockoff"', 'attack = "knockoff"\nwithout_seeds = true', "without_seeds: knockoff has no seeds"),
    ],
)
def test_recipes_that_cannot_be(store: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(recipes.RecipeError, match=message):
        recordings.recorded(job(store, tmp_path, gated.RECIPE.replace(old, new)))
    none = gated.RECIPE.partition("[detection.")[0]
    with pytest.raises(recipes.RecipeError, match=r"no \[detection.NAME\] table"):
        recordings.recorded(job(store, tmp_path, none))
    with pytest.raises(recipes.RecipeError, match=r"no \[detection.nothing\]; it has flowers, steps"):
        recordings.recorded(job(store, tmp_path), only=["nothing"])
