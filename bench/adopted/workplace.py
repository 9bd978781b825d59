"""The folder of a measurement: what is made in it, once, whoever of the parts needs it first."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.adopted import owner, photographs, programs
from bench.adopted.owner import ARCHITECTURE, Owner
from bench.adopted.programs import ProgramError, Ran
from bench.adopted.recipe import tiers
from handlers.key import make_key
from zoo.stored import VARIABLE

FITTED = 160
# of an unsplit folder, so that a tenth of its training part is what calibrates a gate
PHOTOGRAPHS = 1_400
GATE = 5_000
READ = 20_000
# of what is read, the part that is held out of training (training/victim.py)
SHARE = 0.9
TESTS = 40


@dataclass(frozen=True)
class Workplace:
    """folder: of everything. seed: of the photographs and the owner's network."""

    folder: Path
    seed: int

    @cached_property
    def owner(self) -> Owner:
        """The owner's files."""
        fitted = photographs.write(self.folder / "fitted", FITTED, seed=self.seed)
        return owner.make(self.folder / "owner", fitted, seed=self.seed)

    @cached_property
    def fitted(self) -> Path:
        """The photographs that the owner's network was fitted to, labelled."""
        assert self.owner
        return self.folder / "fitted"

    @cached_property
    def small(self) -> Path:
        """A recipe of PHOTOGRAPHS, not split."""
        images = photographs.write(self.folder / "small", PHOTOGRAPHS, seed=self.seed + 1)
        return self._adopted("small", images)

    @cached_property
    def middle(self) -> Path:
        """A recipe whose training has GATE photographs."""
        return self._adopted("middle", self._split("middle", round(GATE / SHARE), seed=self.seed + 2))

    @cached_property
    def large(self) -> Path:
        """A recipe whose training reads READ photographs."""
        return self._adopted("large", self._split("large", READ, seed=self.seed + 3))

    @property
    def runs(self) -> Path:
        """Of checkpoints."""
        return self.folder / "runs"

    def environment(self) -> dict[str, str]:
        """Variables of this process and of programs: a key of the measurement's own, and maps in its folder."""
        key = self.folder / "key"
        if not key.exists():
            make_key(key)
        return {"TORCHWARDEN_KEY_FILE": str(key), VARIABLE: str(self.folder / "maps")}

    def victim(self, recipe: Path, tier: str) -> str:
        """The recipe at a tier, as programs take it, with its victim in place."""
        spec = f"{recipe}@{tier}"
        self.run("export.adopt", "--recipe", spec, "--runs", self.runs)
        return spec

    def run(self, module: str, *words: object) -> Ran:
        """A program in this place. Raises ProgramError."""
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        print(f"  {module} {' '.join(str(word).replace(f'{self.folder}/', '') for word in words)}", flush=True)
        ran = programs.run(module, *words, log=logs / f"{module}.log")
        print(f"    {ran.seconds:.1f} s, {ran.peak_mb.get('resident', 0):.0f} MB resident", flush=True)
        return ran

    def _split(self, name: str, count: int, *, seed: int) -> Path:
        images = self.folder / name
        photographs.write(images / "train", count, seed=seed)
        photographs.write(images / "test", TESTS, seed=seed + 100)
        return images

    def _adopted(self, name: str, images: Path) -> Path:
        """The owner's weights adopted, the preprocessing stated: photographs are only there to be trained on."""
        stated = ["--preset", ARCHITECTURE, "--architecture", ARCHITECTURE, "--name", name]
        self.run(
            "export.adopt",
            self.owner.weights,
            *stated,
            "--images",
            images,
            "--recipes",
            self.folder,
            "--runs",
            self.runs,
        )
        return tiers(self.folder / f"{name}.toml")


def room_for(folder: Path, needed: int) -> None:
    """Raise ProgramError where a folder's disk has less than `needed` bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ProgramError(
            f"{needed / 1e9:.0f} GB of disk are needed for photographs and maps, {free / 1e9:.1f} are free"
        )
