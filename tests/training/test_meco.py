"""MeCo's objective by hand, and short trainings in which both networks must move."""

from __future__ import annotations

import argparse
import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.reached import Reached
from training import meco, victim
from training.checkpoint import CheckpointError, load
from training.meco import Defended, Kind, MeCo, judge, l1, objective, spread_loss, train
from training.particles import FLOOR
from training.session import Optimisation, Session
from training.victim import Split, Victim, architecture, split
from zoo import datasets
from zoo.perturbation import PERTURBATIONS, Gaussian, Learned

TABLES = """
[dataset]
name = "digits"
rows = 600
[victim]
architecture = "lenet5"
optimisation = { epochs = 8, lr = 3e-3, batch_size = 64 }
[networks.meco]
filters = 2
rms = 0.1
from_victim = true
auxiliary = "china"
judged = 100
optimisation = { epochs = 2, lr = 1e-3, batch_size = 64 }
"""
HOW = Optimisation(epochs=1, lr=1e-3, batch_size=32)
PLAIN = Victim("lenet5", HOW)
KINDS = ("benign", "shifted", "untrained_generator", "auxiliary")


def program(recipe: Path, runs: Path, table: str = "meco", *, seed: int) -> None:
    meco.main(argparse.Namespace(recipe=str(recipe), runs=runs, data=None, seed=seed, network=table))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Path:
    """The checkpoints' folder of a recipe whose victim was trained, and with it T and h."""
    folder = tmp_path_factory.mktemp("meco")
    recipe = folder / "noisy.toml"
    recipe.write_text(TABLES, "utf-8")
    victim.main(argparse.Namespace(recipe=str(recipe), runs=folder, data=None, seed=seed))
    program(recipe, folder, seed=seed)
    return folder / "noisy"


@pytest.fixture(scope="module")
def splits() -> Split:
    """Two batches of HOW."""
    return split(datasets.load("digits", "train"), rows=64)


def before(splits: Split, settings: MeCo, *, seed: int = 0) -> Defended:
    """T and h as they are before training."""
    torch.manual_seed(seed)
    perturbation: Any = settings.plan(splits).network()
    return Defended(architecture("lenet5", {}, splits).network(), perturbation)


def few_steps(
    folder: Path, splits: Split, settings: MeCo, optimisation: Optimisation = HOW, *, seed: int = 0
) -> tuple[Defended, Defended]:
    """T and h before and after one short training."""
    started = before(splits, settings, seed=seed)
    session = Session("synthetic", "meco", {"meco": settings, "optimisation": optimisation}, runs=folder, seed=seed)
    return started, train(session, splits, copy.deepcopy(started), settings, optimisation, PLAIN)


@torch.inference_mode()
def moved(one: nn.Module, other: nn.Module) -> dict[str, float]:
    """How far each parameter is from its namesake, as a share of its size."""
    others = dict(other.named_parameters())
    return {
        name: float((each - others[name]).norm() / each.norm().clamp(min=1e-6)) for name, each in one.named_parameters()
    }


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        # of two draws of h, as shares of sqrt(2) rms
        ([0.0], 1.0),
        ([0.5], 0.25),
        ([1.0], 0.0),
        ([1.7], 0.0),
        ([0.0, 0.5, 1.0, 3.0], (1 + 0.25) / 4),
    ],
)
def test_the_spread_loss_of_draws_that_differ_so_much(sizes: list[float], expected: float) -> None:
    signs = torch.tensor([1.0, -1.0]).repeat(8).view(1, 1, 4, 4)
    difference = torch.cat([size * math.sqrt(2) * 0.1 * signs for size in sizes])
    difference.requires_grad_()
    loss = spread_loss(difference, 0.1)
    assert loss.item() == pytest.approx(expected, abs=1e-4)
    loss.backward()
    assert difference.grad is not None
    assert torch.isfinite(difference.grad).all()


def test_independent_draws_of_the_full_size_have_no_spread_loss() -> None:
    noise = torch.randn(2, 64, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    h = [Gaussian(channels=1, size=28, rms=0.1).h(torch.zeros(64, 1, 28, 28), each) for each in noise]
    assert spread_loss(h[0] - h[1], 0.1).item() < 0.002


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([[1.0, 0.0]], [[0.0, 1.0]], 2.0),
        ([[0.3, 0.7]], [[0.3, 0.7]], 0.0),
        ([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]], [[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]], 0.3),
    ],
)
def test_l1_is_between_0_and_2(one: list[list[float]], other: list[list[float]], expected: float) -> None:
    assert l1(torch.tensor(one), torch.tensor(other)).item() == pytest.approx(expected, abs=1e-6)


def test_the_objective_s_terms_and_weights() -> None:
    # softmaxes (1/2, 1/2), (3/4, 1/4) and (1/4, 3/4), and draws that differ by half of what they should
    robust, noisy, clean = (torch.tensor([[math.log(odds), 0.0]]) for odds in (1, 3, 1 / 3))
    difference = torch.full((1, 1, 2, 2), math.sqrt(2) * 0.2 / 2)
    settings = MeCo(rms=0.2, gamma=3.0, spread=5.0, clean=7.0)
    terms = {
        name: value.item()
        for name, value in objective((robust, noisy, clean), difference, torch.tensor([0]), settings).items()
    }
    expected = {"robust": math.log(2), "l1": 1.0, "clean": math.log(4), "spread": 0.25}
    loss = math.log(2) + 3 * 1.0 + 7 * math.log(4) + 5 * 0.25
    assert terms == pytest.approx({"loss": loss, **expected}, abs=1e-6)


def test_where_nothing_is_learned_there_is_no_spread() -> None:
    logits = torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3)
    terms = objective(logits, None, torch.tensor([0, 1]), MeCo(perturbation="gaussian", spread=100.0))
    assert set(terms) == {"loss", "robust", "l1", "clean"}
    assert terms["loss"].item() == pytest.approx(2 * math.log(3))


def test_the_answer_follows_the_clean_one_and_not_the_other_way_round() -> None:
    robust, noisy, clean = (torch.randn(4, 3, requires_grad=True) for _ in range(3))
    terms = objective((robust, noisy, clean), None, torch.zeros(4, dtype=torch.int64), MeCo())
    assert torch.autograd.grad(terms["l1"], noisy, retain_graph=True)[0].abs().sum() > 0
    assert torch.autograd.grad(terms["l1"], clean, allow_unused=True) == (None,)


def test_one_pass_gives_what_three_would(splits: Split) -> None:
    defended = before(splits, MeCo(filters=2)).eval()
    generator = torch.Generator().manual_seed(1)
    images, worst = splits.images[:6], torch.rand(6, 1, 28, 28, generator=generator)
    noise = torch.randn(14, 1, 28, 28, generator=generator)
    with torch.inference_mode():
        robust, noisy, clean, difference = defended(images, worst, noise)
        torch.testing.assert_close(robust, defended.victim(defended.perturbation(worst, noise[:6])))
        torch.testing.assert_close(noisy, defended.victim(defended.perturbation(images, noise[6:12])))
        torch.testing.assert_close(clean, defended.victim(images))
        one, other = (defended.perturbation.h(images[:2], noise[part]) for part in (slice(6, 8), slice(12, 14)))
        torch.testing.assert_close(difference, one - other)
    assert difference.abs().max() > 1e-3


def test_the_generator_s_weights_change_and_the_victim_s(
    splits: Split, tmp_path: Path, reached: Reached, seed: int
) -> None:
    # the released code trains none of its generator's
    started, ended = few_steps(tmp_path, splits, MeCo(filters=2), seed=seed)
    assert isinstance(ended.perturbation, Learned)
    for network in (ended.perturbation, ended.victim):
        assert sum(1 for _ in network.parameters()) > 0
    reached("the least share that a weight moves by", min(moved(started, ended).values()), above=1e-4)


def test_particles_leave_the_statistics_as_they_are(splits: Split, tmp_path: Path) -> None:
    # of two optimiser steps, with four particle steps before them: one pass each
    settings = MeCo(filters=2)
    perturbation: Any = settings.plan(splits).network()
    normalised = nn.Sequential(nn.Conv2d(1, 4, 5, stride=3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    network = nn.Sequential(normalised, nn.Linear(4 * 8 * 8, 10))
    ended = train(Watched(tmp_path), splits, Defended(network, perturbation), settings, HOW, PLAIN)
    passes = [int(value) for name, value in ended.named_buffers() if name.endswith("num_batches_tracked")]
    assert passes == [2] * 5


def test_a_particle_step_that_moves_nothing_stops_the_training(splits: Split, tmp_path: Path) -> None:
    # the released code's images stay where they are
    with pytest.raises(FloatingPointError, match=r"step: expected one that moves pixels by 1e-03 .* got 1e-09"):
        few_steps(tmp_path, splits, MeCo(filters=2, step=1e-9))


class Watched(Session):
    """A session that keeps each step's losses, and breaks off after some, as a kill would."""

    def __init__(self, folder: Path, *, stop_after: int | None = None, seed: int = 0) -> None:
        super().__init__("synthetic", "meco", {}, runs=folder, seed=seed)
        self.seen: list[dict[str, float]] = []
        self.stop_after = stop_after

    def step(self, losses: Any, *rest: Any) -> None:
        if len(self.seen) == self.stop_after:
            raise KeyboardInterrupt
        self.seen.append({name: float(value.detach()) for name, value in losses.items()})
        super().step(losses, *rest)


@pytest.mark.parametrize(("steps", "least", "most"), [(0, 0, 0), (1, FLOOR, 0.1), (2, 1.5 * FLOOR, 0.2)])
def test_every_step_says_how_far_its_images_moved(
    splits: Split, tmp_path: Path, steps: int, least: float, most: float, reached: Reached, seed: int
) -> None:
    settings = MeCo(filters=2, steps=steps)
    session = Watched(tmp_path, seed=seed)
    train(session, splits, before(splits, settings, seed=seed), settings, HOW, PLAIN)
    assert len(session.seen) == 2
    for losses in session.seen:
        assert set(losses) == {"loss", "robust", "l1", "clean", "spread", "displacement"}
    displacements = [losses["displacement"] for losses in session.seen]
    if steps:
        reached("mean displacement", sum(displacements) / 2, above=least, below=most)
    else:
        assert displacements == [0, 0]


def test_a_resumed_training_ends_where_an_unbroken_one_does(splits: Split, tmp_path: Path) -> None:
    settings, optimisation = MeCo(filters=2), Optimisation(epochs=2, lr=1e-3, batch_size=32)

    def run(folder: Path, stop_after: int | None = None) -> Defended:
        session = Watched(folder, stop_after=stop_after)
        return train(session, splits, before(splits, settings), settings, optimisation, PLAIN)

    whole = run(tmp_path / "whole").state_dict()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", stop_after=3)
    resumed = run(tmp_path / "broken").state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_the_spread_term_keeps_the_draws_apart(splits: Split, tmp_path: Path, reached: Reached, seed: int) -> None:
    # a generator that has not learned to listen to its noise: without the term nothing makes it
    optimisation = Optimisation(epochs=8, lr=1e-2, batch_size=32)
    apart = {}
    for weight in (0.0, 10.0):
        settings = MeCo(filters=4, steps=0, gamma=10.0, spread=weight)
        _, ended = few_steps(tmp_path / str(weight), splits, settings, optimisation, seed=seed)
        noise = torch.randn(2, 32, 1, 28, 28, generator=torch.Generator().manual_seed(seed + 2))
        with torch.inference_mode():
            h = [ended.eval().perturbation.h(splits.images[:32], each) for each in noise]
        apart[weight] = spread_loss(h[0] - h[1], settings.rms).item()
    reached("spread loss", apart[10.0], below=0.1)
    # what is below 0.01 is as good as nothing
    reached("log10 of the times as much without", math.log10(apart[0.0] / max(apart[10.0], 0.01)), above=0.5)


@pytest.mark.parametrize(
    ("changes", "learns"),
    [
        ({"steps": 0}, True),
        ({"repel": False}, True),
        ({"perturbation": "gaussian"}, False),
        ({"perturbation": "random-filters"}, False),
    ],
)
def test_every_ablation_trains(
    splits: Split, tmp_path: Path, changes: dict[str, Any], learns: bool, reached: Reached, seed: int
) -> None:
    settings = MeCo(filters=2, **changes)
    started, ended = few_steps(tmp_path, splits, settings, seed=seed)
    assert type(ended.perturbation) is PERTURBATIONS[settings.perturbation]
    shares = moved(started, ended)
    assert any(name.startswith("perturbation.") for name in shares) == learns
    reached("the least share that a weight moves by", min(shares.values()), above=1e-4)
    judged = judge(ended, Kind(splits.validation_images, splits.validation_labels))
    assert 0 < judged["rms"] <= settings.rms + 1e-6
    assert learns or judged["rms"] == pytest.approx(settings.rms, rel=0.01)


def test_the_pair_is_judged_over_seeds_of_its_noise(splits: Split) -> None:
    defended = before(splits, MeCo(perturbation="gaussian", rms=0.3))
    images, labels = splits.validation_images[:40], splits.validation_labels[:40]
    judged = judge(defended, Kind(images, labels), seeds=3)
    shifts, rights = [], []
    with torch.inference_mode():
        for seed in range(3):
            noise = torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(seed))
            shown = images + 0.3 * F.normalize(noise.flatten(1)).view_as(images) * 28
            served = defended.victim(shown).softmax(1)
            shifts.append((served - defended.victim(images).softmax(1)).abs().sum(1).mean().item())
            rights.append((served.argmax(1) == labels).float().mean().item())
    assert len({*shifts}) == 3
    expected = {
        "l1": sum(shifts) / 3,
        "rms": 0.3,
        "accuracy": sum(rights) / 3,
        "least_accuracy": min(rights),
    }
    assert judged == pytest.approx(expected, abs=1e-5)
    assert set(judge(defended, Kind(images), seeds=1)) == {"l1", "rms"}


def test_a_checkpoint_holds_both_networks_and_what_noise_does(trained: Path, reached: Reached) -> None:
    read = load(trained / "meco.safetensors")
    assert [plan.name for plan in read.architectures] == ["lenet5", "meco"]
    assert isinstance(read.networks[1], Learned)
    assert read.networks[1].noise_shape == (1, 28, 28)
    assert read.networks[1].rms == 0.1
    assert read.facts["classes"] == list(datasets.DATASETS["digits"].classes)
    assert read.facts["start"] == load(trained / "victim.safetensors").digest
    metrics = read.facts["metrics"]
    reported = {f"{kind}_{name}" for kind in KINDS for name in ("l1", "rms")}
    assert set(metrics) == reported | {
        "validation_accuracy",
        "benign_least_accuracy",
        "shifted_accuracy",
        "shifted_least_accuracy",
        "clean_accuracy",
    }
    reached("clean accuracy", metrics["clean_accuracy"], above=0.8)
    assert metrics["benign_least_accuracy"] <= metrics["validation_accuracy"] <= 1
    reached("accuracy", metrics["validation_accuracy"], above=0.8)
    for kind in KINDS:
        assert metrics[f"{kind}_l1"] > 0
        assert metrics[f"{kind}_rms"] <= 0.1 + 1e-6
    reached("largest l1", max(metrics[f"{kind}_l1"] for kind in KINDS), below=1.0)
    reached("least rms", min(metrics[f"{kind}_rms"] for kind in KINDS), above=0.01)
    held = split(datasets.load("digits", "train"))
    whole = Defended(read.networks[0], read.networks[1]).eval()
    again = judge(whole, Kind(held.validation_images, held.validation_labels))
    assert metrics["validation_accuracy"] == again["accuracy"]
    assert metrics["benign_l1"] == pytest.approx(again["l1"], rel=1e-3)


def test_what_is_trained_is_not_trained_again(trained: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    path = trained / "meco.safetensors"
    made = path.stat().st_mtime_ns
    program(trained.parent / "noisy.toml", trained.parent, seed=seed)
    assert path.stat().st_mtime_ns == made
    assert "trained with these settings already; delete it to retrain" in capsys.readouterr().err


def test_from_victim_starts_at_the_victim_and_another_table_is_another_checkpoint(
    trained: Path, tmp_path: Path, reached: Reached, seed: int
) -> None:
    still = '{ epochs = 1, optimiser = "sgd", lr = 1e-9, weight_decay = 0.0, batch_size = 64 }'
    gaussian = (
        f'[networks.meco_gaussian]\nprogram = "meco"\nperturbation = "gaussian"\noptimisation = {still}\nfrom_victim = '
    )
    found = {}
    for start in ("true", "false"):
        recipe, runs = tmp_path / "noisy.toml", tmp_path / start
        recipe.write_text(TABLES + gaussian + start, "utf-8")
        (runs / "noisy").mkdir(parents=True)
        (runs / "noisy/victim.safetensors").write_bytes((trained / "victim.safetensors").read_bytes())
        program(recipe, runs, "meco_gaussian", seed=seed)
        found[start] = load(runs / "noisy/meco_gaussian.safetensors")
    victim_of = load(trained / "victim.safetensors")
    for name, value in found["true"].networks[0].state_dict().items():
        torch.testing.assert_close(value, victim_of.networks[0].state_dict()[name], atol=1e-6, rtol=0)
    assert found["true"].facts["start"] == victim_of.digest
    assert "start" not in found["false"].facts
    reached("accuracy from the victim on", found["true"].facts["metrics"]["clean_accuracy"], above=0.8)
    reached("accuracy from nothing on", found["false"].facts["metrics"]["clean_accuracy"], below=0.8)
    assert "auxiliary_l1" not in found["true"].facts["metrics"]


def test_without_its_victim_there_is_none(tmp_path: Path) -> None:
    recipe = tmp_path / "noisy.toml"
    recipe.write_text(TABLES, "utf-8")
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*victim\.safetensors: train it first"):
        program(recipe, tmp_path / "runs", seed=0)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("perturbation", "pink", "perturbation: expected one of meco, gaussian, random-filters, got 'pink'"),
        ("steps", -1, r"expected steps >= 0 and step > 0, got -1, 0\.5"),
        ("step", 0.0, r"expected steps >= 0 and step > 0, got 2, 0\.0"),
        ("step", math.nan, "expected steps >= 0 and step > 0, got 2, nan"),
        ("judged", 0, "judged: expected at least 1 image, got 0"),
        ("gamma", -1.0, "gamma: expected >= 0, got -1"),
        ("spread", -1.0, "spread: expected >= 0, got -1"),
        ("clean", math.nan, "clean: expected >= 0, got nan"),
    ],
)
def test_what_a_recipe_cannot_ask_for(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MeCo(**{field: value})  # type: ignore[arg-type]
