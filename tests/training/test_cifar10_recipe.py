"""recipes/cifar10*.toml, every program of them for a few steps, on synthetic images in CIFAR's files.

Their tier `smoke` trains LeNets: the programs are what is tested here; tests/export shows that the networks of the
recipes themselves become graphs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from evaluation.oracles import InProcessOracle
from export import archive, graphs
from tests.zoo.writers import some_bytes, write_cifar_batch
from training import edm, meco, misleader, perceptual_hash, victim
from training.checkpoint import load
from zoo import datasets

SPEC = "cifar10@smoke"
MECO = "cifar10-resnet34@smoke"
MISLEADER = "cifar10-misleader@smoke"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both CIFARs, a few random images of each class."""
    root = tmp_path_factory.mktemp("data")
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        images = some_bytes(20, 32, 32, 3, seed=number)
        write_cifar_batch(root / "cifar-10-batches-py" / name, images, [n % 10 for n in range(20)])
    for number, name in enumerate(("train", "test")):
        images = some_bytes(100, 32, 32, 3, seed=10 + number)
        write_cifar_batch(root / "cifar-100-python" / name, images, list(range(100)), key="fine_labels")
    return root


def test_every_program_runs_and_the_archives_answer(data: Path, tmp_path: Path, key_file: Path) -> None:
    del key_file  # in the environment
    runs, build, store = tmp_path / "runs", tmp_path / "build", tmp_path / "store"
    for program, table in ((victim, ""), (perceptual_hash, "hash"), (edm, "ensemble"), (edm, "edm")):
        program.main(argparse.Namespace(recipe=SPEC, runs=runs, data=data, seed=0, network=table))
    found = load(runs / "cifar10-smoke/edm.safetensors")
    assert [plan.name for plan in found.architectures] == ["lenet5"] * 2
    assert found.facts["settings"]["edm"]["lambda_diversity"] == 0.1

    folders = ["--runs", str(runs), "--build", str(build)]
    graphs.main([SPEC, *folders])
    archive.main([SPEC, *folders, "--store", str(store), "--data", str(data), "--policies", "undefended", "edm"])
    images = datasets.load("cifar10", "test", root=data).pixels
    for policy in ("undefended", "edm"):
        with InProcessOracle(store / f"cifar10-smoke-{policy}.mar") as oracle:
            answers = oracle(images)
        assert answers.probabilities is not None
        assert np.allclose(answers.probabilities.sum(1), 1, atol=1e-4)
        assert not answers.refused.any()


def test_mecos_recipe_runs_and_its_archives_answer(data: Path, tmp_path: Path, key_file: Path) -> None:
    del key_file  # in the environment
    runs, build, store = tmp_path / "runs", tmp_path / "build", tmp_path / "store"
    meco.main(argparse.Namespace(recipe=MECO, runs=runs, data=data, seed=0, network="meco"))
    found = load(runs / "cifar10-resnet34-smoke/meco.safetensors")
    assert [plan.name for plan in found.architectures] == ["lenet5", "meco"]

    folders = ["--runs", str(runs), "--build", str(build)]
    graphs.main([MECO, *folders])
    policies = ("meco", "meco-keyed")
    archive.main([MECO, *folders, "--store", str(store), "--data", str(data), "--policies", *policies])
    images = datasets.load("cifar10", "test", root=data).pixels
    for policy in policies:
        with InProcessOracle(store / f"cifar10-resnet34-smoke-{policy}.mar") as oracle:
            answers = oracle(images)
            # a network of one step may well answer alike under any noise
            shown, again = (oracle.pipeline.perturbed(images[:4].numpy()) for _ in range(2))
        assert not answers.refused.any()
        assert answers.probabilities is not None
        assert np.array_equal(shown, again) is (policy == "meco-keyed")
        assert not np.array_equal(shown, images[:4].numpy())


def test_misleaders_recipe_runs_and_its_archives_answer(data: Path, tmp_path: Path, key_file: Path) -> None:
    del key_file  # in the environment
    runs, build, store = tmp_path / "runs", tmp_path / "build", tmp_path / "store"
    steps = ((victim, ""), (perceptual_hash, "hash"), (misleader, "distilled"), (misleader, "misleader"))
    for program, table in steps:
        program.main(argparse.Namespace(recipe=MISLEADER, runs=runs, data=data, seed=0, network=table))
    found = load(runs / "cifar10-misleader-smoke/misleader.safetensors")
    assert [plan.name for plan in found.architectures] == ["lenet5", "lenet5-half"]

    folders = ["--runs", str(runs), "--build", str(build)]
    graphs.main([MISLEADER, *folders])
    policies = ("misleader", "misleader-routed")
    archive.main([MISLEADER, *folders, "--store", str(store), "--data", str(data), "--policies", *policies])
    images = datasets.load("cifar10", "test", root=data).pixels
    responses = {}
    for policy in policies:
        with InProcessOracle(store / f"cifar10-misleader-smoke-{policy}.mar") as oracle:
            responses[policy], everyone = oracle(images).probabilities, oracle.everyone(images)
    assert responses["misleader"] is not None
    assert responses["misleader-routed"] is not None
    assert np.allclose(responses["misleader"], everyone.mean(1), atol=1e-5)
    nearest = (everyone - responses["misleader-routed"][:, None]).abs().amax(2).amin(1)
    assert nearest.max() < 1e-5


def test_the_recipe_as_it_stands_names_data_that_there_is() -> None:
    """What the smoke tier does not lay over is what a GPU runs."""
    from recipes import read

    whole = read("cifar10")
    assert whole.tables["victim"]["optimisation"]["epochs"] >= 50
    assert whole.networks["edm"]["auxiliary"] == "cifar100:test"
    assert whole.tables["attacks"]["knockoff"]["surrogate"] == "cifar100"
    whole = read("cifar10-resnet34")
    assert whole.tables["victim"]["optimisation"]["epochs"] >= 50
    clones = {table.get("clone", {}).get("architecture") for table in whole.tables["evaluate"].values()}
    assert clones == {None, "mobilenetv2", "densenet121"}
    whole = read("cifar10-misleader")
    assert whole.tables["victim"]["optimisation"]["epochs"] >= 50
    for table in ("distilled", "misleader", "misleader_diverse", "misleader_released"):
        members = [member["architecture"] for member in whole.networks[table]["members"]]
        assert members == ["resnet18-8x", "mobilenetv2", "densenet121"]
