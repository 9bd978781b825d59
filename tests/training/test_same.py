"""SAME's training: what its two networks learn, from what, and when they are retrained."""

from __future__ import annotations

import argparse
import dataclasses
import math
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from export import graphs
from tests.conftest import RECIPE, Smoke
from tests.reached import Reached
from training import same
from training.calibration.calibrate import Task, measure, opened_gate
from training.checkpoint import Architecture, load
from training.same import Fit, Same, benign, groups_of, judge, rebuilt, visible
from training.session import Session
from training.victim import split
from zoo.datasets import load as dataset
from zoo.masked_autoencoder import MaskedAutoencoder
from zoo.shrink import Shrink


def run(runs: Path, seed: int, recipe: Path = RECIPE, table: str = "same") -> None:
    same.main(argparse.Namespace(recipe=str(recipe), runs=runs, data=None, seed=seed, network=table))


def test_digits_are_drawn_better_than_anything_else(smoke_runs: Smoke, reached: Reached) -> None:
    autoencoder, auxiliary = load(smoke_runs.runs / "smoke/same.safetensors").networks
    errors = {}
    for name in ("digits", "flower"):
        images = dataset(name, "test").pixels[:200]
        errors[name] = (rebuilt(autoencoder, images) - images).square().mean((1, 2, 3)).median()
    reached("a digit's error as a share of a flower's", errors["digits"] / errors["flower"], below=0.95)
    assert isinstance(autoencoder, MaskedAutoencoder)
    assert not isinstance(auxiliary, MaskedAutoencoder)


def test_the_auxiliary_model_says_of_reconstructions_what_the_victim_says_of_images(
    smoke_runs: Smoke, reached: Reached
) -> None:
    facts = load(smoke_runs.runs / "smoke/same.safetensors").facts
    reached("agreement", facts["metrics"]["auxiliary_agreement"], above=0.65)
    assert facts["metrics"]["reconstruction_error"] > 0
    reached("reconstruction error", facts["metrics"]["reconstruction_error"], below=0.05)
    images = benign(split(dataset("digits", "train")))
    autoencoder, auxiliary = load(smoke_runs.runs / "smoke/same.safetensors").networks
    victim = load(smoke_runs.runs / "smoke/victim.safetensors").networks[0]
    judged = judge(autoencoder, auxiliary, lambda shown: victim(shown).softmax(1), images, images)
    assert judged["auxiliary_agreement"] == pytest.approx(facts["metrics"]["auxiliary_agreement"], abs=0.02)


def test_benign_images_trained_nothing() -> None:
    splits = split(dataset("digits", "train"))
    seen = {row.numpy().tobytes() for row in splits.images}
    assert not any(row.numpy().tobytes() in seen for row in benign(splits))


def test_what_is_trained_is_not_trained_again_and_another_victim_retrains_the_second(
    smoke_runs: Smoke, tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(smoke_runs.runs, runs)
    first, whole = (runs / f"smoke/{name}.safetensors" for name in ("stages/same", "same"))
    before = first.stat().st_mtime_ns, whole.read_bytes()
    run(runs, seed)
    assert (first.stat().st_mtime_ns, whole.read_bytes()) == before
    assert capsys.readouterr().err.count("trained with these settings already") == 2
    victim = load(runs / "smoke/victim.safetensors")
    with torch.no_grad():
        next(victim.networks[0].parameters()).mul_(1.5)
    from training import checkpoint

    checkpoint.save(victim.path, victim.networks, victim.architectures, victim.facts)
    run(runs, seed)
    assert first.stat().st_mtime_ns == before[0]
    assert whole.read_bytes() != before[1]


def test_hidden_groups_come_from_the_key_and_need_no_other_autoencoder(
    smoke_runs: Smoke, tmp_path: Path, seed: int
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(smoke_runs.runs, runs)
    recipe = tmp_path / "smoke.toml"
    recipe.write_text(RECIPE.read_text().replace("[networks.same]\n", "[networks.same]\ngroups = 2\n", 1))
    before = (runs / "smoke/stages/same.safetensors").stat().st_mtime_ns
    run(runs, seed, recipe)
    assert (runs / "smoke/stages/same.safetensors").stat().st_mtime_ns == before
    read = load(runs / "smoke/same.safetensors")
    dealt = read.architectures[0].arguments["groups"]
    assert dealt == groups_of(bytes.fromhex(smoke_runs.key_file.read_text()), 49, 2)
    assert sorted(dealt) == [0] * 25 + [1] * 24
    assert read.facts["seed"] is None


def test_parts_are_drawn_by_the_key() -> None:
    ours, again, others = (groups_of(bytes([number]) * 32, 49, 3) for number in (1, 1, 2))
    assert ours == again != others
    assert sorted(set(ours)) == [0, 1, 2]


@pytest.mark.parametrize(("ratio", "shown"), [(0.0, 49), (0.25, 37), (0.75, 12), (0.999, 1)])
def test_a_step_shows_each_image_patches_of_its_own(tmp_path: Path, ratio: float, shown: int) -> None:
    session = Session("a", "b", {}, runs=tmp_path, seed=0)
    seen = visible(session, 64, 49, ratio)
    assert seen.shape == (64, shown)
    assert all(len(set(row)) == shown for row in seen.tolist())
    if 1 < shown < 49:
        assert len({tuple(row) for row in seen.tolist()}) == 64


def test_the_learning_rate_rises_and_then_follows_a_cosine() -> None:
    fit = Fit(epochs=1, lr=1.0, warm_up=0.1)
    optimiser = fit.start(nn.Linear(1, 1))
    schedule = fit.schedule(optimiser, 100)
    rates = []
    for _ in range(100):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert rates[50] == pytest.approx(0.5)
    assert max(rates) == pytest.approx((1 + math.cos(math.pi * 0.1)) / 2, abs=0.02)
    assert rates[99] < 1e-3
    assert optimiser.param_groups[0]["betas"] == (0.9, 0.95)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"mask_ratio": 1.0}, "mask_ratio: expected 0 to below 1, got 1.0"),
        ({"groups": 1}, "groups: expected 0 or 2 to 16, got 1"),
    ],
)
def test_a_table_out_of_range_is_reported(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(Same(Fit(epochs=1)), **wrong)
    with pytest.raises(ValueError, match=r"warm_up: expected a share from 0 to below 1, got 1"):
        Fit(epochs=1, warm_up=1.0)


# networks that look at a small copy


@pytest.fixture(scope="module")
def looked(smoke_runs: Smoke, tmp_path_factory: pytest.TempPathFactory, seed: int) -> Path:
    """Runs of the smoke recipe whose gate looks at copies of 14 x 14."""
    folder = tmp_path_factory.mktemp("looked")
    shutil.copytree(smoke_runs.runs, folder / "runs")
    recipe = folder / "smoke.toml"
    auxiliary = 'size = 14\npatch = 2\nauxiliary = "conv3"\nauxiliary_options = { width = 1 }\n'
    recipe.write_text(RECIPE.read_text().replace("[networks.same]\n", f"[networks.same]\n{auxiliary}", 1))
    run(folder / "runs", seed, recipe)
    return folder / "runs"


def test_a_gate_may_look_at_a_small_copy(looked: Path, tmp_path: Path) -> None:
    read = load(looked / "smoke/same.safetensors")
    assert [each.shape for each in read.architectures] == [(1, 14, 14), (1, 14, 14)]
    assert read.facts["images"] == [1, 28, 28]
    written = list(graphs.export(read, tmp_path))  # ONNX Runtime and TorchScript say what torch says
    given = dataset("digits", "test").pixels[:5]
    answered = graphs.on_onnxruntime(written[0])(given.numpy())
    small = Shrink(28, 14, whole=True)(given)
    autoencoder, auxiliary = read.networks
    with torch.inference_mode():
        drawn = autoencoder(small)
        error = (small - drawn).square().mean((1, 2, 3))
        expected = auxiliary(drawn).softmax(1)
    torch.testing.assert_close(torch.from_numpy(answered["error"][:, 0]), error, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(torch.from_numpy(answered["auxiliary"]), expected, atol=1e-4, rtol=1e-3)


def test_a_gate_of_small_copies_is_calibrated_on_them(looked: Path) -> None:
    gate = opened_gate(looked / "smoke/same.safetensors")
    assert Task.of(gate).shape == (1, 28, 28)
    images = dataset("digits", "test").pixels[:40]
    terms = measure(gate, lambda shown: torch.full((len(shown), 1, 10), 0.1), images)
    assert all(found.shape == (40, 1, 2) for found in terms.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("size = 32\n", "side of the small copy: expected 1 to 28, got 32"),
        (
            'benign = "FOLDER"\n',
            "benign: expected at least 100 images that a gate can be calibrated on, got 2 of",
        ),
    ],
)
def test_what_cannot_be_trained_is_said_before_it_is(
    smoke_runs: Smoke, tmp_path: Path, seed: int, changes: str, message: str
) -> None:
    recipe = tmp_path / "other.toml"
    (tmp_path / "few").mkdir()
    for number in range(2):
        (tmp_path / f"few/{number}.png").touch()
    changes = changes.replace("FOLDER", str(tmp_path / "few"))
    recipe.write_text(RECIPE.read_text().replace("[networks.same]\n", f"[networks.same]\n{changes}", 1))
    shutil.copytree(smoke_runs.runs / "smoke", tmp_path / "runs/other")
    for path in ("stages/same", "same"):
        (tmp_path / f"runs/other/{path}.safetensors").unlink()
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "runs", seed, recipe)
    assert not (tmp_path / "runs/other/stages/same.safetensors").exists()


def test_too_many_patches_are_refused() -> None:
    plan = Architecture("conv3", {"channels": 3, "size": 224, "mean": [0.5] * 3, "std": [0.2] * 3})
    with pytest.raises(ValueError, match="expected at most 1024 patches, got 3136 of 4 x 4 pixels; give size = 64"):
        Same(Fit(epochs=1)).plan(plan)
    wide = Architecture("conv3", {**plan.arguments, "size": [48, 192]})
    with pytest.raises(ValueError, match="images are 48 x 192; give 64"):
        Same(Fit(epochs=1)).plan(wide)
