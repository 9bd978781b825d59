"""MISLEADER's objective against values worked out by hand, and its two-player loop on networks of seconds."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.conftest import RECIPE, Smoke
from tests.reached import Reached
from training import checkpoint, misleader
from training.ensemble import Ensemble
from training.members import Member, Misleader
from training.misleader import Best, Training, as_served, distillation, divergence
from training.session import Optimisation, Session
from training.victim import Split
from zoo.augment import Affine, Augmentation

MEMBERS = (Member("lenet5-half"), Member("lenet5-fifth"))
TABLE = """
[networks.distilled]
program = "misleader"
augment = { affine = { degrees = 10.0 } }
augmented_batch = 16
optimisation = { epochs = 2, lr = 3e-3, batch_size = 64 }
members = [{ architecture = "lenet5-half" }, { architecture = "lenet5-fifth" }]
"""


def logits(*shares: float) -> torch.Tensor:
    """One row whose softmax has these shares."""
    return torch.tensor([shares]).log()


def test_divergence_is_that_of_the_first_from_the_second() -> None:
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert divergence(logits(0.75, 0.25), logits(0.5, 0.5)).item() == pytest.approx(expected)
    # adding a constant to a row's logits changes nothing
    assert divergence(logits(0.75, 0.25) + 3, logits(0.5, 0.5) - 1).item() == pytest.approx(expected, abs=1e-6)


def test_distillation_weighs_teacher_and_labels() -> None:
    student, teacher = logits(0.5, 0.5), logits(0.9, 0.1)
    labels = torch.tensor([0])
    # at T = 2 the teacher's shares go with their square roots: 3 to 1
    soft = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    for alpha in (0.0, 0.3, 1.0):
        loss = distillation(student, teacher, labels, temperature=2.0, alpha=alpha)
        assert loss.item() == pytest.approx(alpha * soft + (1 - alpha) * math.log(2), rel=1e-5)


def test_best_keeps_each_members_own_epoch() -> None:
    members = [nn.Linear(1, 1, bias=False) for _ in range(2)]
    best = Best(members)
    for epoch, accuracies in enumerate(([0.5, 0.9], [0.7, 0.8], [0.7, 0.1]), start=1):
        for member in members:
            nn.init.constant_(member.weight, float(epoch))
        best.note(members, accuracies, epoch)
    assert [member.weight.item() for member in best.members] == [3.0, 1.0]  # of equal epochs the last
    assert best.epoch.tolist() == [3, 1]
    assert best.accuracy.tolist() == pytest.approx([0.7, 0.9])


def test_as_served_leaves_no_trace_in_batch_statistics() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1)).train()
    with as_served(network, training=False):
        network(torch.rand(8, 1, 4, 4) + 5)
    assert network[0].running_mean.item() == 0.0  # type: ignore[union-attr, operator]
    assert network.training
    with as_served(network, training=True):
        network(torch.rand(8, 1, 4, 4) + 5)
    assert network[0].running_mean.item() > 0.4  # type: ignore[union-attr, operator]


class Normalised(nn.Module):
    """A small network with batch statistics, to watch them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.head = nn.Linear(64, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(images).flatten(1))  # type: ignore[no-any-return]


def splits(seed: int = 0) -> Split:
    """Images of three classes, each a bright third of rows, around pixel values of 0.2."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(96) % 3
    images = 0.2 * torch.rand(96, 1, 8, 8, generator=random)
    for row, label in enumerate(labels.tolist()):
        images[row, :, 2 * label : 2 * label + 3] += 0.3
    return Split(images, labels, images[:30], labels[:30], ("a", "b", "c"))


class Teacher(nn.Module):
    """Sees the bright part."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([images[:, :, 2 * label : 2 * label + 3].mean((1, 2, 3)) for label in range(3)], dim=1) * 20


def played(
    folder: Path, table: Misleader, *, epochs: int = 6, lr: float = 3e-3, seed: int = 0
) -> tuple[Ensemble, Best, Ensemble]:
    """The members after the last epoch, at their best, and their thieves."""
    optimisation = Optimisation(epochs=epochs, lr=lr, batch_size=32)
    session = Session("r", "m", {"misleader": table}, runs=folder, seed=seed)
    members, thieves = (Ensemble([Normalised(), Normalised()]) for _ in range(2))
    best, _ = misleader.fit(
        session, table, optimisation, members, thieves, splits(seed), Teacher(), affine=None, rows=0
    )
    return members, best, thieves


def table(**changes: object) -> Misleader:
    return Misleader(MEMBERS, Augmentation(Affine(shift=0.1)), **changes)  # type: ignore[arg-type]


def weighted(weight: float, **changes: object) -> Misleader:
    members = tuple(Member(member.architecture, lambda_attacker=weight) for member in MEMBERS)
    return Misleader(members, Augmentation(Affine(shift=0.1)), **changes)  # type: ignore[arg-type]


def test_members_learn_the_task_and_thieves_follow_them(tmp_path: Path, reached: Reached, seed: int) -> None:
    members, best, thieves = played(tmp_path, table(attacker_lr=0.1), seed=seed)
    data = splits(seed)
    for number, (member, thief) in enumerate(zip(best.members, thieves.networks(), strict=True)):
        answers = member.eval()(data.images).argmax(1)
        reached(f"member {number}'s accuracy", (answers == data.labels).float().mean(), above=0.75)
        follows = (thief.eval()(data.images).argmax(1) == answers).float().mean()
        reached(f"thief {number}'s agreement", follows, above=0.6)
    assert members.networks()[0] is not best.members[0]


def far(members: Ensemble, thieves: Ensemble, seed: int) -> float:
    """How far members are from their thieves on augmented images."""
    images = Augmentation(Affine(shift=0.1))(splits(seed).images, generator=torch.Generator().manual_seed(seed + 5))
    with torch.no_grad():
        pairs = zip(members.networks(), thieves.networks(), strict=True)
        return sum(divergence(one.eval()(images), other.eval()(images)).item() for one, other in pairs)


def test_the_term_drives_members_from_their_thieves(tmp_path: Path, reached: Reached, seed: int) -> None:
    # after the last epoch: the best one may be any, and is an early one for some seeds
    plain, _, followers = played(tmp_path / "plain", table(), epochs=20, lr=0.03, seed=seed)
    driven, _, thieves = played(tmp_path / "driven", weighted(60.0), epochs=20, lr=0.03, seed=seed)
    times = far(driven, thieves, seed) / far(plain, followers, seed)
    reached("log10 of the times as far", math.log10(times), above=0.5)


def test_the_diversity_term_drives_members_apart(tmp_path: Path, reached: Reached, seed: int) -> None:
    images = splits(seed).images

    def alike(members: Ensemble) -> float:
        first, second = (member.eval()(images).softmax(-1) for member in members.networks())
        return torch.cosine_similarity(first, second).mean().item()

    plain, _, _ = played(tmp_path / "plain", table(), epochs=20, lr=0.03, seed=seed)
    diverse, _, _ = played(tmp_path / "diverse", table(lambda_diversity=10.0), epochs=20, lr=0.03, seed=seed)
    reached("less alike", alike(plain) - alike(diverse), above=0.25)


def test_batch_statistics_are_of_labelled_images_alone(tmp_path: Path, reached: Reached, seed: int) -> None:
    # augmented images are black: what they leave in the statistics is easily seen
    dark = Augmentation(Affine(shift=1.0))
    mean = splits(seed).images.mean().item()

    def kept(as_released: bool) -> float:
        chosen = Misleader(MEMBERS, dark, as_released=as_released)
        members, _, _ = played(tmp_path / str(as_released), chosen, epochs=8, seed=seed)
        return members.networks()[0].norm.running_mean.item()  # type: ignore[union-attr, operator, no-any-return]

    reached("share of the labelled images' mean", kept(False) / mean, above=0.9, below=1.1)
    reached("share of it as released", kept(True) / mean, below=0.8)


def test_five_steps_are_five_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[torch.Tensor] = []
    augmented = misleader._augmented

    def watch(*given: object) -> torch.Tensor:
        seen = augmented(*given)  # type: ignore[arg-type]
        shown.append(seen)
        return seen

    monkeypatch.setattr(misleader, "_augmented", watch)
    played(tmp_path / "own", weighted(0.1), epochs=2)
    # 3 batches an epoch: five for the thief and one for the member, all of them different
    assert [len(images) for images in shown] == [5 * 32, 32] * (2 * 3)
    batches = [part for images in shown for part in images.split(32)]
    assert len({batch.sum().item() for batch in batches}) == len(batches) == 2 * 3 * (5 + 1)
    shown.clear()
    played(tmp_path / "released", weighted(0.1, as_released=True), epochs=2)
    # one step a batch, on images that come back every epoch
    assert len(shown) == 2 * 3
    assert all(torch.equal(first, again) for first, again in zip(shown[:3], shown[3:], strict=True))


def training(folder: Path, smoke: Smoke, text: str, name: str = "misled", *, seed: int = 0) -> Path:
    """Train every table of `text` next to the smoke recipe's victim; the folder of checkpoints."""
    path = folder / f"{name}.toml"
    folder.mkdir(exist_ok=True)
    path.write_text(RECIPE.read_text("utf-8").replace("[policies.undefended]", f"{text}\n[policies.undefended]", 1))
    runs = folder / "runs"
    (runs / name).mkdir(parents=True, exist_ok=True)
    (runs / name / "victim.safetensors").write_bytes((smoke.runs / "smoke/victim.safetensors").read_bytes())
    for written in re.findall(r"^\[networks\.(\w+)\]", text, re.MULTILINE):
        misleader.main(argparse.Namespace(recipe=str(path), runs=runs, data=None, seed=seed, network=written))
    return runs / name


def test_a_checkpoint_tells_of_each_member(tmp_path: Path, smoke_runs: Smoke, reached: Reached, seed: int) -> None:
    runs = training(tmp_path, smoke_runs, TABLE, seed=seed)
    read = checkpoint.load(runs / "distilled.safetensors")
    assert [plan.name for plan in read.architectures] == ["lenet5-half", "lenet5-fifth"]
    metrics = read.facts["metrics"]
    first, second = metrics["members"]
    assert (first["architecture"], first["lambda_attacker"], first["temperature"]) == ("lenet5-half", 0.0, 2.0)
    assert first["parameters"] == sum(weight.numel() for weight in read.networks[0].parameters())
    assert metrics["validation_accuracy"] == pytest.approx(
        (first["validation_accuracy"] + second["validation_accuracy"]) / 2
    )
    reached("accuracy", metrics["ensemble_accuracy"], above=0.3)  # a guess is right in 1 of 10
    assert 1 <= first["epoch"] <= 2
    assert all(
        0 <= member["attacker_agreement"] <= 1 <= 1 + member["attacker_divergence"] for member in (first, second)
    )
    assert read.facts["start"] == checkpoint.load(runs / "victim.safetensors").digest


def test_an_interrupted_training_goes_on_where_it_was(
    tmp_path: Path, smoke_runs: Smoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = checkpoint.load(training(tmp_path / "whole", smoke_runs, TABLE) / "distilled.safetensors")
    note = Best.note

    def stop(self: Best, members: list[nn.Module], accuracies: list[float], epoch: int) -> None:
        if epoch == 2:
            raise KeyboardInterrupt
        note(self, members, accuracies, epoch)

    with monkeypatch.context() as patched:
        patched.setattr(Best, "note", stop)
        with pytest.raises(KeyboardInterrupt):
            training(tmp_path / "broken", smoke_runs, TABLE)
    resumed = checkpoint.load(training(tmp_path / "broken", smoke_runs, TABLE) / "distilled.safetensors")
    for one, other in zip(whole.networks, resumed.networks, strict=True):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    assert whole.facts["metrics"] == resumed.facts["metrics"]


def test_augmented_validation_images_are_always_the_same(smoke_runs: Smoke) -> None:
    def warped() -> torch.Tensor:
        return Training(
            "r",
            "t",
            None,
            None,
            table(),
            splits(),
            None,
            None,
            Path(),
            0,  # type: ignore[arg-type]
        ).augmented

    assert torch.equal(warped(), warped())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": MEMBERS[:1]}, "members: expected at least 2, got 1"),
        ({"augmented_batch": -1}, "augmented_batch: expected >= 0, got -1"),
        ({"attacker_steps": 0}, "attacker_steps >= 1 and clip > 0, got 0.01, 0, 5.0"),
        ({"clip": 0.0}, "clip > 0, got 0.01, 5, 0.0"),
        ({"lambda_diversity": (0.3, 0.1)}, "lambda_diversity: expected >= 0, several in rising order"),
        ({"search_epochs": 0}, "search_rows, search_epochs: expected >= 1, got 12000, 0"),
        ({"allowed_augmented_drop": 0.0}, "expected fractions between 0 and 1, got 0.005, 0.0"),
        (
            {"members": (Member("lenet5", lambda_attacker=(0.1, 0.2)), Member("conv3", lambda_attacker=(0.1,)))},
            "equally many each",
        ),
        (
            {"members": (Member("lenet5", lambda_attacker=(0.1,)), Member("conv3")), "lambda_diversity": (0.1,)},
            "expected one search",
        ),
    ],
)
def test_what_a_recipe_cannot_ask_for(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Misleader(**{"members": MEMBERS, "augment": Augmentation(), **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("temperature", 0.0, "temperature: expected > 0, got 0"),
        ("alpha", 1.5, "alpha: expected 0 to 1, got 1.5"),
        ("lambda_attacker", -0.1, "lambda_attacker: expected >= 0"),
    ],
)
def test_what_a_member_cannot_be(field: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Member("lenet5", **{field: value})  # type: ignore[arg-type]
