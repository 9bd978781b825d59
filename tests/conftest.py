"""What the rooms' tests share: one small product, trained, exported and archived once a session."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

pytest_plugins = ["tests.reached"]

RECIPE = Path(__file__).parent / "smoke.toml"
# what is served over HTTP, and what is archived besides
POLICIES = ("undefended", "edm", "label", "averaged")
BASELINES = ("randp", "mad", "grad")
NOISY = ("meco", "meco-keyed", "meco-rotating")
LIMITED = ("limited",)
GATED = ("same-observe", "same-reject", "same-pow", "edm-pow", "meco-reject")


@dataclass(frozen=True)
class Smoke:
    """The folders of the smoke recipe's product, and the key it was made with."""

    root: Path
    key_file: Path

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def build(self) -> Path:
        return self.root / "build"

    @property
    def store(self) -> Path:
        return self.root / "model_store"

    def archive(self, policy: str) -> Path:
        return self.store / f"smoke-{policy}.mar"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Sums in one order in every test, whatever ran before: a TorchScript backend sets the process's threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Iterator[Path]:
    """A key of this session's own, named in the environment as the README says."""
    path = tmp_path_factory.mktemp("secrets") / "torchwarden.key"
    path.touch(mode=0o600)
    path.write_text(f"{0x5A + seed:02x}" * 32)  # it seeds the trainings that are keyed
    before = os.environ.get("TORCHWARDEN_KEY_FILE")
    os.environ["TORCHWARDEN_KEY_FILE"] = str(path)
    yield path
    if before is None:
        del os.environ["TORCHWARDEN_KEY_FILE"]
    else:
        os.environ["TORCHWARDEN_KEY_FILE"] = before


@pytest.fixture(scope="session")
def smoke_runs(tmp_path_factory: pytest.TempPathFactory, key_file: Path, seed: int) -> Smoke:
    """The smoke recipe, trained."""
    from training import edm, meco, perceptual_hash, same, victim

    smoke = Smoke(tmp_path_factory.mktemp("smoke"), key_file)
    for program, table in ((victim, ""), (perceptual_hash, ""), (edm, "edm"), (meco, "meco"), (same, "same")):
        program.main(argparse.Namespace(recipe=str(RECIPE), runs=smoke.runs, data=None, seed=seed, table=table))
    return smoke


@pytest.fixture(scope="session")
def smoke_graphs(smoke_runs: Smoke, seed: int) -> Smoke:
    """The smoke recipe, trained and exported."""
    from export import graphs
    from training.checkpoint import load

    _write_surrogate(smoke_runs.runs / "smoke", seed)
    for path in sorted((smoke_runs.runs / "smoke").glob("*.safetensors")):
        list(graphs.export(load(path), smoke_runs.build / "smoke"))
    return smoke_runs


def _write_surrogate(folder: Path, seed: int) -> None:
    """A checkpoint `surrogate` beside the victim's: its network before training, as MAD's is."""
    from training import checkpoint

    victim = checkpoint.load(folder / "victim.safetensors")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7 + seed)
        network = victim.architectures[0].network()
    facts = {"classes": victim.facts["classes"], "graph": "redirection"}
    checkpoint.save(folder / "surrogate.safetensors", [network], victim.architectures, facts)


@pytest.fixture(scope="session")
def smoke(smoke_graphs: Smoke) -> Smoke:
    """The smoke recipe, trained, exported and archived."""
    return _archived(smoke_graphs, POLICIES)


@pytest.fixture(scope="session")
def baselines(smoke_graphs: Smoke) -> Smoke:
    """The same with the archives of BASELINES."""
    return _archived(smoke_graphs, BASELINES)


@pytest.fixture(scope="session")
def limited(smoke_graphs: Smoke) -> Smoke:
    """The same with the archives of LIMITED."""
    return _archived(smoke_graphs, LIMITED)


@pytest.fixture(scope="session")
def noisy(smoke_graphs: Smoke) -> Smoke:
    """The same with the archives of NOISY."""
    return _archived(smoke_graphs, NOISY)


@pytest.fixture(scope="session")
def gated(smoke_graphs: Smoke) -> Smoke:
    """The same with the archives of GATED, and their calibrations."""
    from training import calibrate

    words = ["--runs", str(smoke_graphs.runs), "--policies", *GATED]
    calibrate.main(calibrate.parse([str(RECIPE), *words]))
    return _archived(smoke_graphs, GATED)


def _archived(smoke: Smoke, policies: Iterable[str]) -> Smoke:
    import recipes
    from export.archive import PolicyTable, Serving, archive

    recipe = recipes.read(RECIPE)
    serving, tables = recipe.section("serving", Serving), recipe.family("policies", PolicyTable)
    folders: dict[str, Path | None] = {
        "runs": smoke.runs,
        "build": smoke.build,
        "store": smoke.store,
        "data": None,
    }
    for policy in policies:
        archive(recipe, policy, tables[policy], serving, **folders)
    return smoke
