"""The smoke recipe's product: trained, exported and archived once for a state of the source, in build/smoke/HASH.

Workers of pytest-xdist and later runs share it. What it depends on is hashed: the rooms that make it, this file, the
recipe, the libraries and what decides how a processor sums. Three stages, each complete or absent, and never changed
once it is there: a test that wants to change something copies it first.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock

CHECKOUT = Path(__file__).resolve().parents[1]
RECIPE = Path(__file__).parent / "smoke.toml"
# what is served over HTTP, and what is archived besides
POLICIES = ("undefended", "edm", "label", "averaged", "fitted")
BASELINES = ("randp", "mad", "grad")
NOISY = ("meco", "meco-keyed", "meco-rotating")
LIMITED = ("limited",)
MARKED = ("marked",)
GATED = ("same-observe", "same-reject", "same-pow", "edm-pow", "meco-reject")

FOLDER = CHECKOUT / "build" / "smoke"
ROOMS = ("recipes", "zoo", "pictures", "training", "export", "defenses", "handlers")
LIBRARIES = ("torch", "torchvision", "timm", "numpy", "onnx", "onnxscript", "onnxruntime", "torch-model-archiver")
# a processor's instructions decide in which order sums are made, and these decide over those
VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR")
KEPT = 3  # states of the source whose product stays


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


def key(seed: int) -> str:
    """The deployment's key, which seeds the trainings that are keyed."""
    return f"{0x5A + seed:02x}" * 32


@cache
def state(seed: int) -> str:
    """The hash of all that the product depends on."""
    state = hashlib.sha256(f"{sys.version} {seed}".encode())
    for name in LIBRARIES:
        state.update(f"{name} {version(name)}\n".encode())
    for name in VARIABLES:
        state.update(f"{name}={os.environ.get(name)}\n".encode())
    state.update(torch.backends.cpu.get_cpu_capability().encode())
    paths = [path for room in ROOMS for path in (CHECKOUT / room).rglob("*") if "__pycache__" not in path.parts]
    for path in sorted([*paths, RECIPE, Path(__file__)]):
        if path.is_file():
            content = path.read_bytes()
            state.update(f"{path.relative_to(CHECKOUT)} {len(content)}\n".encode() + content)
    return state.hexdigest()[:16]


def stage(
    name: str, key_file: Path, make: Callable[[Smoke, int], None], *, before: Smoke | None = None, seed: int
) -> Smoke:
    """The stage `name` of the product, made if this state of the source has none yet. before: the stage it adds to.

    seed: of every training; 0 but where tests/margins.py measures what trainings reach.
    """
    whole = Smoke(FOLDER / state(seed) / name, key_file)
    whole.root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER / ".lock"):
        os.utime(whole.root.parent)
        if not whole.root.exists():
            _forget()
            part = Smoke(whole.root.with_name(f".{name}"), key_file)
            shutil.rmtree(part.root, ignore_errors=True)
            if before is None:
                part.root.mkdir()
            else:
                shutil.copytree(before.root, part.root)
            make(part, seed)
            part.root.rename(whole.root)
    return whole


def _forget() -> None:
    """Remove all but the last states that were used."""
    states = sorted((path for path in FOLDER.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in states[:-KEPT]:
        shutil.rmtree(path)


def train(smoke: Smoke, seed: int) -> None:
    from training import edm, meco, perceptual_hash, same, victim

    for program, table in ((victim, ""), (perceptual_hash, "hash"), (edm, "edm"), (meco, "meco"), (same, "same")):
        program.main(argparse.Namespace(recipe=str(RECIPE), runs=smoke.runs, data=None, seed=seed, network=table))


def export(smoke: Smoke, seed: int) -> None:
    from export import graphs
    from training.checkpoint import load

    _write_surrogate(smoke.runs / "smoke", seed)
    for path in sorted((smoke.runs / "smoke").glob("*.safetensors")):
        list(graphs.export(load(path), smoke.build / "smoke"))


def _write_surrogate(folder: Path, seed: int) -> None:
    """A checkpoint `surrogate` next to the victim's: its network before training, as MAD's is."""
    from training import checkpoint

    victim = checkpoint.load(folder / "victim.safetensors")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7 + seed)
        network = victim.architectures[0].network()
    facts = {"classes": victim.facts["classes"], "graph": "redirection"}
    checkpoint.save(folder / "surrogate.safetensors", [network], victim.architectures, facts)


def archive(smoke: Smoke, _seed: int) -> None:
    """Every policy's archive, and the calibrations of those with a gate."""
    import recipes
    from export import archive as program
    from training.calibration import calibrate

    calibrate.main(calibrate.parse([str(RECIPE), "--runs", str(smoke.runs), "--policies", *GATED]))
    recipe = recipes.read(RECIPE)
    serving, tables = recipe.section("serving", program.Serving), recipe.family("policies", program.PolicyTable)
    folders: dict[str, Path | None] = {
        "runs": smoke.runs,
        "build": smoke.build,
        "store": smoke.store,
        "data": None,
    }
    for policy in (*POLICIES, *BASELINES, *NOISY, *LIMITED, *MARKED, *GATED):
        program.archive(recipe, policy, tables[policy], serving, **folders)
