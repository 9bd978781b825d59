"""The three programs on the smoke recipe: what they reach, and what a key does."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from defenses.routing import Projection
from handlers.key import read_key
from tests.conftest import RECIPE, Smoke
from tests.reached import Reached
from training import perceptual_hash, summary
from training.checkpoint import load
from training.session import Session
from training.victim import split
from zoo import datasets
from zoo.generator import untrained


def test_victim_and_members_learn_the_task(smoke_runs: Smoke, reached: Reached) -> None:
    victim = load(smoke_runs.runs / "smoke/victim.safetensors").facts["metrics"]
    members = load(smoke_runs.runs / "smoke/edm.safetensors").facts["metrics"]
    reached("victim's accuracy", victim["validation_accuracy"], above=0.85)
    reached("worst member's accuracy", members["validation_accuracy_worst"], above=0.7)


def test_members_disagree_outside_and_agree_inside(smoke_runs: Smoke, reached: Reached) -> None:
    metrics = load(smoke_runs.runs / "smoke/edm.safetensors").facts["metrics"]
    assert 0 <= metrics["diversity"] <= 1
    reached("more coherent inside", metrics["coherence_inside"] - metrics["coherence"], above=0.2)


def test_the_hash_network_learns_the_secret_task(smoke_runs: Smoke, reached: Reached) -> None:
    facts = load(smoke_runs.runs / "smoke/hash.safetensors").facts
    metrics = facts["metrics"]
    reached("accuracy", metrics["validation_accuracy"], above=0.6)  # six classes
    # whole numbers decide a near tie the other way: four of these 60 images may fall so
    other = abs(metrics["validation_accuracy"] - metrics["validation_accuracy_float"])
    reached("what whole numbers change of it", other, below=4.5 / 60)


def test_the_tree_of_the_hash_network_spreads_its_own_traffic(smoke_runs: Smoke, reached: Reached) -> None:
    network = load(smoke_runs.runs / "smoke/hash.safetensors").networks[0]
    generator = torch.Generator().manual_seed(1)
    for name, images in {
        "digits": datasets.load("digits", "test").pixels[:300],
        "china": datasets.load("china", "test").pixels[:300],
        "noise": torch.rand(300, 1, 28, 28, generator=generator),
        "untrained generators": untrained(300, channels=1, size=28, seed=99),
    }.items():
        with torch.inference_mode():
            projections = network(images)["projections"].numpy()
        leaves = Projection(depth=5)({"projections": projections})
        assert (abs(projections) >= 0.5).all(), "no row lies on a hyperplane"
        counts = np.bincount(leaves)
        reached(f"log2 of the leaves of 32 with {name}", np.log2(np.count_nonzero(counts)), above=1.5)
        reached(f"share of one leaf, {name}", counts.max() / len(images), below=200 / 300)


def test_a_keyed_checkpoint_does_not_tell_its_key_or_seed(smoke_runs: Smoke) -> None:
    path = smoke_runs.runs / "smoke/hash.safetensors"
    assert load(path).facts["seed"] is None
    key = smoke_runs.key_file.read_text().strip()
    assert key.encode() not in path.read_bytes()
    assert bytes.fromhex(key) not in path.read_bytes()


def test_what_is_trained_is_not_trained_again(smoke_runs: Smoke, capsys: pytest.CaptureFixture[str]) -> None:
    path = smoke_runs.runs / "smoke/hash.safetensors"
    before = path.stat().st_mtime_ns
    perceptual_hash.main(
        argparse.Namespace(recipe=str(RECIPE), runs=smoke_runs.runs, data=None, seed=0, network="hash")
    )
    assert path.stat().st_mtime_ns == before
    assert "trained with these settings already; delete it to retrain" in capsys.readouterr().err


def test_the_fingerprint_shown_is_not_where_a_keyed_seed_comes_from(tmp_path: Path) -> None:
    shown = [Session("a", "hash", {}, runs=tmp_path, seed=0, secret=bytes([n]) * 32) for n in (1, 1, 2)]
    assert shown[0].fingerprint == shown[1].fingerprint != shown[2].fingerprint
    assert shown[0].seed == shown[1].seed != shown[2].seed
    digest = bytes.fromhex(shown[0].fingerprint)
    for guess in (digest, b"seed" + digest, shown[0].fingerprint.encode()):
        assert int.from_bytes(hashlib.sha256(guess).digest()[:7], "big") != shown[0].seed


def test_without_a_key_there_is_no_hash_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHWARDEN_KEY_FILE", raising=False)
    monkeypatch.delenv("TORCHWARDEN_KEY", raising=False)
    with pytest.raises(ValueError, match=r"needs the deployment's key: .*python -m handlers\.key"):
        perceptual_hash.main(argparse.Namespace(recipe=str(RECIPE), runs=tmp_path, data=None, seed=0, network="hash"))
    assert list(tmp_path.iterdir()) == []


def test_the_key_alone_decides_the_hash_network(
    smoke_runs: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(key: str, folder: Path) -> dict[str, torch.Tensor]:
        monkeypatch.delenv("TORCHWARDEN_KEY_FILE", raising=False)
        monkeypatch.setenv("TORCHWARDEN_KEY", key)
        perceptual_hash.main(argparse.Namespace(recipe=str(RECIPE), runs=folder, data=None, seed=0, network="hash"))
        return load(folder / "smoke/hash.safetensors").networks[0].state_dict()

    first = load(smoke_runs.runs / "smoke/hash.safetensors").networks[0].state_dict()
    again = trained(smoke_runs.key_file.read_text().strip(), tmp_path / "again")
    other = trained("a5" * 32, tmp_path / "other")
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not any(torch.equal(first[name], other[name]) for name in first if name.endswith("weight"))


def test_subkeys_serve_one_purpose_each() -> None:
    key = read_key("TORCHWARDEN_KEY", {"TORCHWARDEN_KEY": "5a" * 32})
    assert perceptual_hash.subkey(key, "glyphs") != perceptual_hash.subkey(key, "seed")


def test_the_validation_split_is_fixed_and_apart() -> None:
    data = datasets.load("digits", "train")
    splits, fewer = split(data), split(data, rows=100)
    assert torch.equal(splits.validation_images, fewer.validation_images)
    assert len(splits.images) + len(splits.validation_images) == len(data)
    assert len(fewer.images) == 100
    kept = {image.numpy().tobytes() for image in splits.images}
    assert not kept & {image.numpy().tobytes() for image in splits.validation_images}


def test_a_classifier_needs_labels() -> None:
    with pytest.raises(ValueError, match="china: expected a labelled data set"):
        split(datasets.load("china", "train"))


def test_training_ends_with_what_it_came_to(smoke_runs: Smoke, capsys: pytest.CaptureFixture[str]) -> None:
    summary.main([str(RECIPE), "edm", "hash", "victim", "--runs", str(smoke_runs.runs)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["victim", "edm"]
    metrics = load(smoke_runs.runs / "smoke/edm.safetensors").facts["metrics"]
    assert f"{metrics['validation_accuracy']:.1%}" in lines[1]
    assert lines[1].endswith("3 members: lenet5")
    victim = load(smoke_runs.runs / "smoke/victim.safetensors").facts["metrics"]["validation_accuracy"]
    assert f"{victim:.1%}" in lines[0]
    with pytest.raises(SystemExit, match=r"training\.summary: no checkpoint at .*victim\.safetensors"):
        summary.main([str(RECIPE), "meco", "--runs", str(smoke_runs.runs / "nowhere")])
