"""MAZE: its charges, its memory, and a victim that every clone can learn."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from attacks import maze, metrics
from attacks.clone import Cloning, predict
from attacks.maze import MAZE, Replay
from attacks.oracle import REFUSED, Answers, Ledger
from attacks.script import ScriptedThief
from attacks.service import Service
from attacks.thief import steal
from tests.attacks import victims
from tests.reached import Reached

SERVICE = Service(channels=1, size=victims.SIZE, classes=victims.CLASSES)
CLONING = Cloning("conv3", epochs=1, options={"width": 1})
SMALL = MAZE(budget=6000, rows=100, batch=32, filters=4, replay_images=500, lr_generator=1e-3, lr_clone=3e-3)
EXAM = victims.images(400, seed=99)


def prepare(config: MAZE, *, seed: int = 0) -> ScriptedThief:
    return maze.prepare(config, SERVICE, cloning=CLONING, seed=seed)


def weights(thief: ScriptedThief) -> torch.Tensor:
    clone = thief.clone()
    assert clone is not None
    return torch.cat([each.flatten() for each in clone.network.parameters()])


def test_it_copies_the_victim_without_an_image_of_its_own(reached: Reached, seed: int) -> None:
    thief, ledger = prepare(SMALL, seed=seed), Ledger(victims.oracle, SMALL.budget)
    for _ in steal(thief, ledger, rows=SMALL.rows):
        pass
    assert ledger.queries == SMALL.budget
    clone = thief.clone()
    assert clone is not None
    reached("held out", clone.held_out, above=0.5)
    reached("agreement", metrics.agreement(predict(clone.network, EXAM), victims.oracle(EXAM).labels), above=0.7)
    assert len(thief.transfer_set()) < maze.KEEP + SMALL.rows


def test_a_cycle_costs_fifteen_batches_of_which_the_first_is_learnt_from_too() -> None:
    asked: list[int] = []
    batches: list[int] = []

    class Counting(maze.Apprentice):
        def study(self, images: torch.Tensor, *rest: object, **more: object) -> None:
            batches.append(len(images))

    forger, apprentice, draws = maze.players(
        SERVICE,
        CLONING,
        maze.CloneRecipe("sgd", 0.01, 0.0),
        lr_generator=1e-3,
        filters=4,
        latent=8,
        affine=True,
        seed=0,
    )
    counting = Counting(apprentice._network, maze.CloneRecipe("sgd", 0.01, 0.0))
    script = maze.script(SMALL, victims.CLASSES, forger, counting, draws)
    images = next(script)
    for _ in range(5):
        asked.append(len(images))
        images = script.send(victims.oracle(images))
    assert asked == [11 * 32, 32, 32, 32, 32]
    assert batches == [32] * (5 + 10)


def test_equal_seeds_ask_the_same() -> None:
    config = dataclasses.replace(SMALL, budget=600)
    thieves = [prepare(config, seed=seed) for seed in (0, 0, 1)]
    for thief in thieves:
        for _ in steal(thief, Ledger(victims.oracle, config.budget), rows=config.rows):
            pass
    first, again, other = (thief.transfer_set().images for thief in thieves)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_service_that_refuses_everything_leaves_the_thief_as_it_was() -> None:
    def closed(images: torch.Tensor) -> Answers:
        return Answers(torch.full((len(images),), REFUSED))

    thief = prepare(SMALL)
    for _ in steal(thief, Ledger(closed, 1000), rows=SMALL.rows):
        pass
    assert torch.equal(weights(thief), weights(prepare(SMALL)))


def test_the_memory_is_a_fair_sample_of_a_stated_size() -> None:
    replay = Replay(50, draws=torch.Generator().manual_seed(0))
    for start in range(0, 2000, 40):
        numbers = torch.arange(start, start + 40, dtype=torch.float32)
        wanted = numbers[:, None].repeat(1, 2)
        wanted[0] = torch.nan  # refused
        replay.add(numbers[:, None, None, None], wanted)
    assert len(replay) == 50
    images, answers = replay.draw(2000)
    assert images.shape == (2000, 1, 1, 1)
    assert torch.equal(images.flatten(), answers[:, 0])  # an image keeps its answer
    assert not (images.flatten() % 40 == 0).any()
    assert len(images.unique()) <= 50
    # uniform on 0 to 2000: mean 1000, spread of the mean of fifty 577 / sqrt(50) = 82
    assert images.unique().mean().item() == pytest.approx(1000, abs=3 * 82)


def test_the_memory_fills_up_first() -> None:
    replay = Replay(5, draws=torch.Generator().manual_seed(0))
    replay.add(torch.zeros(1, 1, 1, 1), torch.full((1, 2), torch.nan))
    assert len(replay) == 0
    replay.add(torch.arange(3.0).view(3, 1, 1, 1), torch.zeros(3, 2))
    assert len(replay) == 3
    assert replay.draw(100)[0].unique().tolist() == [0.0, 1.0, 2.0]


def test_the_loss_by_hand() -> None:
    answered = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    losses = maze.loss(torch.tensor([[0.0, 0.0], [0.0, 0.0]]), answered)
    assert losses.tolist() == pytest.approx([0.0, 0.6931472])  # nothing to tell apart; log 2


def test_learning_rates_follow_a_cosine_over_the_budget() -> None:
    config = MAZE(budget=1000)
    assert [config.rate(asked) for asked in (0, 500, 1000, 3000)] == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert MAZE(budget=500, planned=1000).rate(500) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"replay_steps": -1}, "replay_steps: expected at least 0, got -1"),
        ({"replay_images": 0}, "replay_images: expected at least 1, got 0"),
        ({"lr_clone": 0.0}, "lr_clone: expected more than 0, got 0.0"),
        ({"optimiser": "adam"}, "optimiser: expected 'adamw' or 'sgd', got 'adam'"),
    ],
)
def test_parameters_are_checked(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MAZE(**wrong)  # type: ignore[arg-type]
