"""The surrogates of MAD and GRAD: what they learn, what the key decides, and what the checkpoint does not tell."""

from __future__ import annotations

import argparse
import math
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.conftest import Smoke
from tests.reached import Reached
from training import checkpoint, surrogate
from training.checkpoint import Checkpoint, CheckpointError, load
from training.surrogate import Surrogate, distillation_loss, settle, subkey

TABLES = """
[dataset]
name = "digits"
[victim]
architecture = "lenet5"
optimisation = { epochs = 8, lr = 3e-3, batch_size = 64 }
[networks.surrogate]
kind = "distilled"
auxiliary = "china"
architecture = "lenet5-half"
optimisation = { epochs = 2, lr = 3e-3, batch_size = 64 }
held_out = 100
[networks.mad_surrogate]
program = "surrogate"
kind = "random"
auxiliary = "china"
held_out = 100
"""
OTHER = "a5" * 32


@pytest.fixture(scope="module")
def key(seed: int) -> str:
    return f"{0x5A + seed:02x}" * 32


def train(folder: Path, key: str, *tables: str, tables_of: str = TABLES) -> list[Checkpoint]:
    recipe = folder / "guessed.toml"
    recipe.write_text(tables_of, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TORCHWARDEN_KEY_FILE", raising=False)
        patch.setenv("TORCHWARDEN_KEY", key)
        for table in tables:
            surrogate.main(
                argparse.Namespace(recipe=str(recipe), runs=folder / "runs", data=None, seed=0, network=table)
            )
    return [load(folder / f"runs/guessed/{table}.safetensors") for table in tables]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, smoke_runs: Smoke, key: str) -> Path:
    """A recipe's folder with a victim and a surrogate of each kind."""
    folder = tmp_path_factory.mktemp("surrogates")
    (folder / "runs/guessed").mkdir(parents=True)
    shutil.copyfile(smoke_runs.runs / "smoke/victim.safetensors", folder / "runs/guessed/victim.safetensors")
    train(folder, key, "surrogate", "mad_surrogate")
    return folder


def weights(read: Checkpoint) -> dict[str, torch.Tensor]:
    return {name: value for name, value in read.networks[0].state_dict().items() if name.endswith("weight")}


def test_the_loss_of_soft_answers() -> None:
    # softmax of the logits is (1/2, 1/4, 1/4)
    logits = torch.tensor([[math.log(2), 0.0, 0.0]])
    response = torch.tensor([[0.5, 0.25, 0.25]])
    assert distillation_loss(logits, response).item() == pytest.approx(1.5 * math.log(2), abs=1e-6)


def test_a_student_answers_as_the_victim_does(trained: Path, reached: Reached) -> None:
    read = load(trained / "runs/guessed/surrogate.safetensors")
    reached("agreement outside", read.facts["metrics"]["agreement_outside"], above=0.4)
    assert read.facts["start"] == load(trained / "runs/guessed/victim.safetensors").digest
    assert read.architectures[0].name == "lenet5-half"
    # a distribution the student follows moves with the image
    reached("spread outside", read.facts["metrics"]["spread_outside"], above=0.05)


def test_a_random_one_has_learned_nothing(trained: Path, reached: Reached) -> None:
    read = load(trained / "runs/guessed/mad_surrogate.safetensors")
    reached("accuracy", read.facts["metrics"]["validation_accuracy"], below=0.4)
    assert checkpoint.seconds(read.path) == 0
    assert "start" not in read.facts
    assert read.architectures[0].name == "lenet5"


def test_grads_asks_for_a_graph_that_answers_with_a_redirection(trained: Path) -> None:
    assert load(trained / "runs/guessed/surrogate.safetensors").facts["graph"] == "redirection"
    assert "graph" not in load(trained / "runs/guessed/mad_surrogate.safetensors").facts


@pytest.mark.parametrize("table", ["surrogate", "mad_surrogate"])
def test_a_checkpoint_does_not_tell_its_key_or_seed(trained: Path, table: str, key: str) -> None:
    path = trained / f"runs/guessed/{table}.safetensors"
    assert load(path).facts["seed"] is None
    for secret in (key.encode(), bytes.fromhex(key), subkey(bytes.fromhex(key), table)):
        assert secret not in path.read_bytes()


def test_the_key_alone_decides_a_random_surrogate(trained: Path, tmp_path: Path, key: str) -> None:
    first = weights(load(trained / "runs/guessed/mad_surrogate.safetensors"))
    (tmp_path / "again").mkdir()
    (tmp_path / "other").mkdir()
    # no victim is there, and none is needed
    (again,) = train(tmp_path / "again", key, "mad_surrogate")
    (other,) = train(tmp_path / "other", OTHER, "mad_surrogate")
    assert all(torch.equal(value, weights(again)[name]) for name, value in first.items())
    assert not any(torch.equal(value, weights(other)[name]) for name, value in first.items())


def test_two_tables_that_say_the_same_give_two_networks(tmp_path: Path, key: str) -> None:
    twins = TABLES.split("[networks.surrogate]")[0] + "".join(
        f"[networks.{table}]\nprogram = 'surrogate'\nkind = 'random'\nauxiliary = 'china'\n"
        for table in ("surrogate", "mad_surrogate")
    )
    one, other = train(tmp_path, key, "surrogate", "mad_surrogate", tables_of=twins)
    assert not any(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())


def test_batch_normalisation_settles_and_weights_stay() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 6 * 6, 4))
    before = {name: value.clone() for name, value in network.named_parameters()}
    images = torch.rand(256 * 40, 1, 8, 8)
    settle(network, images)
    assert all(torch.equal(value, before[name]) for name, value in network.named_parameters())
    assert not network.training
    seen = network[0](images)
    # a running mean of factor 0.1 over 40 batches has 1.5 % of its beginning left
    assert torch.allclose(network[1].running_mean, seen.mean((0, 2, 3)), atol=0.02)
    assert torch.allclose(network[1].running_var, seen.var((0, 2, 3)), atol=0.03)


def test_without_a_key_there_is_no_surrogate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHWARDEN_KEY_FILE", raising=False)
    monkeypatch.delenv("TORCHWARDEN_KEY", raising=False)
    recipe = tmp_path / "guessed.toml"
    recipe.write_text(TABLES, "utf-8")
    with pytest.raises(ValueError, match=r"needs the deployment's key: .*python -m handlers\.key"):
        surrogate.main(
            argparse.Namespace(recipe=str(recipe), runs=tmp_path / "runs", data=None, seed=0, network="mad_surrogate")
        )
    assert not (tmp_path / "runs").exists()


def test_without_a_victim_there_is_no_student(tmp_path: Path, key: str) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*victim\.safetensors: train it first"):
        train(tmp_path, key, "surrogate")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "trained"}, "kind: expected one of random, distilled, got 'trained'"),
        ({"optimisation": surrogate.Optimisation(epochs=1)}, "optimisation: expected none, a random surrogate"),
        ({"options": {"width": 1}}, "options: expected an architecture that they belong to"),
        ({"held_out": 0}, "held_out: expected >= 1, got 0"),
    ],
)
def test_what_a_recipe_cannot_ask_for(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Surrogate(**{"kind": "random", "auxiliary": "china", **fields})  # type: ignore[arg-type]
