"""Decoys: the keyed function by hand, and a network that keeps it off its task and the task's labels on it."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from tests.reached import Reached
from training import decoys, victim
from training.checkpoint import load
from training.decoys import Decoy, Decoys
from zoo import datasets
from zoo.datasets import DATASETS

KEY = b"k" * 32
TABLES = """
[dataset]
name = "digits"
[victim]
architecture = "lenet5"
optimisation = { epochs = 8, lr = 3e-3, batch_size = 64 }
[networks.decoys]
auxiliary = "china"
held_out = 500
variation = { light = { contrast = 0.5 } }
optimisation = { epochs = 6, lr = 2e-3, batch_size = 64 }
"""


def asked(folder: Path, seed: int) -> argparse.Namespace:
    return argparse.Namespace(
        recipe=str(folder / "misled.toml"), runs=folder / "runs", data=None, seed=seed, network=decoys.NAME
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Path:
    """The folder of a recipe whose networks were trained."""
    folder = tmp_path_factory.mktemp("decoys")
    (folder / "misled.toml").write_text(TABLES, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TORCHWARDEN_KEY_FILE", raising=False)
        patch.setenv("TORCHWARDEN_KEY", KEY.hex())
        victim.main(asked(folder, seed))
        decoys.main(asked(folder, seed))
    return folder


def decoy(key: bytes = KEY, *, grid: int = 2, channels: int = 1, classes: int = 3) -> Decoy:
    return Decoy(key, grid=grid, channels=channels, classes=classes)


def test_the_label_is_the_direction_that_the_blocks_lie_nearest_to() -> None:
    function = decoy()
    function.directions = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [-1.0, 1.0, 0.0]])
    image = torch.zeros(3, 1, 4, 4)
    image[0, :, :2, :2] = 1.0  # top left: along the first
    image[1, :, 2:, 2:] = 0.3  # bottom right, and dark: along the second
    image[2, :, :2, 2:] = image[2, :, 2:, :2] = 0.5
    assert function(image).tolist() == [0, 1, 2]
    assert function(0.5 * image + 0.25).tolist() == [0, 1, 2], "brightness and contrast change nothing"
    assert function(torch.full((1, 1, 4, 4), 0.7)).tolist() == [0]


def test_another_key_is_another_function_and_classes_are_as_likely() -> None:
    images = torch.rand(4000, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mine = decoy(channels=3, classes=10, grid=4)(images)
    assert mine.equal(decoy(channels=3, classes=10, grid=4)(images))
    theirs = decoy(b"l" * 32, channels=3, classes=10, grid=4)(images)
    assert (mine == theirs).float().mean() < 0.25
    assert mine.bincount(minlength=10).max() < 0.2 * len(mine)


def test_the_network_keeps_decoys_off_its_task_and_labels_on_it(trained: Path, reached: Reached) -> None:
    read = load(trained / "runs/misled/decoys.safetensors")
    metrics = read.facts["metrics"]
    reached("accuracy in validation", metrics["validation_accuracy"], above=0.85)
    reached("decoys kept", metrics["decoys_kept"], above=0.4)
    assert read.facts["classes"] == list(DATASETS["digits"].classes)
    assert read.facts["start"] == load(trained / "runs/misled/victim.safetensors").digest
    assert read.facts["seed"] is None, "the key's"
    # images of another set that it never saw: much more its decoy than what the victim says
    strange = datasets.load("flower", "train", size=28, channels=1).pixels[:1000]
    function = Decoy(KEY, grid=4, channels=1, classes=10)
    with torch.inference_mode():
        mine = read.networks[0].eval()(strange).argmax(1)
        victims = load(trained / "runs/misled/victim.safetensors").networks[0].eval()(strange).argmax(1)
    wanted = function(strange)
    assert (mine == wanted).float().mean() > (victims == wanted).float().mean() + 0.1


def test_what_is_trained_is_not_trained_again(
    trained: Path, capsys: pytest.CaptureFixture[str], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trained / "runs/misled/decoys.safetensors"
    before = path.stat().st_mtime_ns
    monkeypatch.delenv("TORCHWARDEN_KEY_FILE", raising=False)
    monkeypatch.setenv("TORCHWARDEN_KEY", KEY.hex())
    decoys.main(asked(trained, seed))
    assert path.stat().st_mtime_ns == before
    assert "trained with these settings already" in capsys.readouterr().err
    assert load(path).facts["fingerprint"]
    assert KEY.hex().encode() not in path.read_bytes(), "the key stays out of the file"


def test_without_a_key_there_are_none(trained: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    for name in ("TORCHWARDEN_KEY", "TORCHWARDEN_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"\[networks\.decoys\] needs the deployment's key: "):
        decoys.main(asked(trained, seed))


def test_another_architecture_cannot_begin_as_the_victim(trained: Path) -> None:
    body = load(trained / "runs/misled/victim.safetensors")
    plan = body.architectures[0]
    network = decoys.start(plan, body, "[networks.decoys] from_victim")
    assert all(
        mine.equal(theirs)
        for mine, theirs in zip(network.state_dict().values(), body.networks[0].state_dict().values(), strict=True)
    )
    other = type(plan)("conv3", {**plan.arguments, "width": 1})
    with pytest.raises(ValueError, match=r"from_victim: expected the victim's architecture, lenet5, in \[victim\]"):
        decoys.start(other, body, "[networks.decoys] from_victim")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weight", 0.0, "weight: expected > 0, got 0"),
        ("smoothing", 1.0, "smoothing: expected 0 to below 1, got 1"),
        ("grid", 1, "grid: expected 2 to 64 blocks a side, got 1"),
        ("held_out", 0, "held_out: expected >= 1, got 0"),
    ],
)
def test_what_a_recipe_cannot_ask_for(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decoys(auxiliary="china", **{field: value})  # type: ignore[arg-type]
