"""One training run: device and precision, batches, progress, TensorBoard, resume, and the checkpoint at its end.

The programs (victim.py, perceptual_hash.py, edm.py, ...) keep their loop and their loss in the open; what every loop
needs around it stands here. `accelerate` picks the device (the first GPU, several under `accelerate launch`, else
the CPU), bf16 autocast where there is a GPU that has it, and the sharing of gradients; a CPU computes in bf16 if the
recipe asks. The run's `generator`, a CPU generator seeded by the run, draws every permutation and every augmentation,
so a resumed run continues the very sequence it left.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from training import checkpoint
from training.checkpoint import Architecture
from zoo.augment import Affine, Augmentation
from zoo.stored import take


@dataclass(frozen=True)
class Optimisation:
    """How a network is fitted: optimiser and its constants, epochs, rows a step. Learning rate follows a cosine.

    bf16: products in bf16 on a CPU too, where it has instructions for them: half the time of float32, and more. A GPU
    that has them always does so.
    """

    epochs: int
    optimiser: str = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 128
    bf16: bool = False

    def __post_init__(self) -> None:
        if self.optimiser not in ("adamw", "sgd"):
            raise ValueError(f"optimiser: expected 'adamw' or 'sgd', got {self.optimiser!r}")
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs and batch_size: expected >= 1, got {self.epochs}, {self.batch_size}")
        if not self.lr > 0:
            raise ValueError(f"lr: expected > 0, got {self.lr}")

    def start(self, network: nn.Module) -> torch.optim.Optimizer:
        """The optimiser over all of `network`'s parameters, at the first step's learning rate."""
        if self.optimiser == "sgd":
            return torch.optim.SGD(
                network.parameters(), self.lr, self.momentum, weight_decay=self.weight_decay, nesterov=True
            )
        return torch.optim.AdamW(network.parameters(), self.lr, weight_decay=self.weight_decay)

    def schedule(self, optimiser: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        """The learning rate's way to 0 over `steps` updates."""
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)


class Session:
    """One run of one program on one recipe; see the module's docstring.

    settings: the resolved dataclasses of the run, by table name; they name the run: a run that was interrupted is
    resumed only by the same settings. secret: extra bytes that seed the run without being written anywhere. start:
    digest of the checkpoint that the run goes on from, if any.
    """

    def __init__(
        self,
        recipe: str,
        name: str,
        settings: Mapping[str, Any],
        *,
        runs: Path,
        seed: int,
        secret: bytes = b"",
        start: str = "",
    ) -> None:
        on_gpu = torch.cuda.is_available()
        precision = "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "no"
        self.accelerator = Accelerator(mixed_precision=precision, cpu=not on_gpu)
        self.device = self.accelerator.device
        self.name = name
        self.path = runs / recipe / f"{name}.safetensors"
        self.resume_path = runs / recipe / f"{name}.resume.pt"
        self.facts: dict[str, Any] = {
            "recipe": recipe,
            "seed": None if secret else seed,
            **({"start": start} if start else {}),
            "settings": {key: dataclasses.asdict(value) for key, value in settings.items()},
        }
        public = json.dumps(self.facts, sort_keys=True).encode()
        # the checkpoint shows the fingerprint, so a keyed run's seed must not be derivable from it
        self.fingerprint = hashlib.sha256(public + hashlib.sha256(b"fingerprint" + secret).digest()).hexdigest()
        private = hashlib.sha256(b"seed" + secret + public if secret else str(seed).encode()).digest()
        self.seed = int.from_bytes(private[:7], "big")
        torch.manual_seed(self.seed)
        self.generator = torch.Generator().manual_seed(self.seed)
        self.writer: SummaryWriter | None = None
        self.seconds = 0.0
        self._losses: dict[str, list[torch.Tensor]] = {}
        self._bf16 = False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.accelerator.is_main_process:
            self.writer = SummaryWriter(str(runs / recipe / "tensorboard" / name))
        self.say(f"{recipe}/{name}: {self.device}, precision {precision if on_gpu else 'float32'}")

    def done(self) -> bool:
        """Whether the checkpoint is there already, made with these settings and this secret."""
        if not self.path.is_file() or checkpoint.facts(self.path).get("fingerprint") != self.fingerprint:
            return False
        self.say(f"{self.path}: trained with these settings already; delete it to retrain")
        return True

    def say(self, text: str) -> None:
        """One line to stderr, from the main process, that does not tear the progress bar."""
        if self.accelerator.is_main_process:
            tqdm.write(text, file=sys.stderr)

    def move(self, images: torch.Tensor) -> torch.Tensor:
        """A whole data set on the device, channels last: faster convolutions on GPUs, faster pooling on CPUs.

        A set of bytes stays as it is, on the device only if it fills no more than half of what is free there.
        """
        if images.dtype == torch.uint8:
            fits = self.device.type == "cuda" and images.numel() < torch.cuda.mem_get_info(self.device)[0] / 2
            return images.to(self.device) if fits else images
        return images.to(self.device, memory_format=torch.channels_last)

    def take(self, images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Rows of a data set that was moved, float32 in [0,1] on the device, channels last."""
        return take(images, rows).to(self.device, memory_format=torch.channels_last)

    def prepare(
        self, network: nn.Module, optimisation: Optimisation, rows: int, *, updates: int = 1
    ) -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """`network` on the device and wrapped for several GPUs, its optimiser, and a cosine over all steps.

        updates: steps of this optimiser a batch.
        """
        if all(parameter.dim() <= 4 for parameter in network.parameters()):  # stacked members have five dimensions
            network = network.to(memory_format=torch.channels_last)
        optimiser = optimisation.start(network)
        schedule = optimisation.schedule(
            optimiser, optimisation.epochs * steps_per_epoch(rows, optimisation.batch_size) * updates
        )
        network, optimiser = self.accelerator.prepare(network, optimiser)
        if optimisation.bf16 and self.device.type == "cpu":
            self._bf16 = cpu_has_bf16()
            self.say(f"{self.name}: " + ("in bf16" if self._bf16 else "in float32: this CPU has no bf16"))
            if self._bf16:
                # as accelerate does on a GPU: losses of small differences need all digits
                network.register_forward_hook(lambda _, inputs, outputs: outputs.float())
        return network, optimiser, schedule

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the forward pass: bf16 on a GPU that has it, and on a CPU where the recipe asks for it."""
        return torch.autocast("cpu", torch.bfloat16) if self._bf16 else self.accelerator.autocast()

    def batches(self, rows: int, batch_size: int) -> Iterator[torch.Tensor]:
        """Index batches of one epoch: a fresh permutation, shared by all processes, each taking its part.

        Every batch has the same number of rows (the remainder of a permutation is left out; the next epoch's
        permutation is another), unless the set is smaller than one batch.
        """
        order = torch.randperm(rows, generator=self.generator)
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        for step in range(steps_per_epoch(rows, batch_size)):
            batch = order[step * batch_size : (step + 1) * batch_size]
            yield batch[rank::world].to(self.device)

    def draw(self, rows: int, count: int) -> torch.Tensor:
        """`count` indices below `rows`, drawn with replacement from the run's generator."""
        return torch.randint(rows, (count,), generator=self.generator).to(self.device)

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal float32 draws of the run's generator."""
        return torch.randn(shape, generator=self.generator).to(self.device)

    def augment(self, images: torch.Tensor, affine: Affine | Augmentation | None) -> torch.Tensor:
        """A randomly warped copy of the batch, or the batch itself where the recipe asks for none."""
        return images if affine is None else affine(images, generator=self.generator)

    def step(
        self,
        losses: Mapping[str, torch.Tensor],
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        *,
        clip: float = math.inf,
        parts: Iterable[nn.Module] = (),
    ) -> None:
        """One update down `losses`' first entry; every entry (a scalar) is averaged over the epoch for TensorBoard.

        clip: the largest norm of the gradient of each of `parts`.
        """
        optimiser.zero_grad(set_to_none=True)
        self.accelerator.backward(next(iter(losses.values())))
        for part in parts:
            self.accelerator.clip_grad_norm_(part.parameters(), clip)
        optimiser.step()
        schedule.step()
        for name, value in losses.items():
            self._losses.setdefault(name, []).append(value.detach())

    def epochs(
        self,
        optimisation: Optimisation,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        **states: Any,
    ) -> Iterator[int]:
        """Epoch numbers still to do, with a progress bar; after each the state is saved for a resume.

        states: what else has a state, by name: other networks, their optimisers and schedules.
        """
        parts = {
            "network": self.accelerator.unwrap_model(network),
            "optimiser": optimiser,
            "schedule": schedule,
            **states,
        }
        first = self._resume(parts)
        started = time.monotonic() - self.seconds
        bar = tqdm(
            range(first, optimisation.epochs),
            desc=self.name,
            initial=first,
            total=optimisation.epochs,
            unit="epoch",
            disable=not self.accelerator.is_main_process,
        )
        for epoch in bar:
            self._losses = {}
            network.train()
            begun = time.monotonic()
            yield epoch
            spent = time.monotonic() - begun
            means = {name: torch.stack(values).mean().item() for name, values in self._losses.items()}
            if not all(map(math.isfinite, means.values())):
                raise FloatingPointError(f"{self.name}: losses {means} in epoch {epoch}: try a smaller lr")
            self.seconds = time.monotonic() - started
            self.log({**means, "seconds": spent}, epoch)
            bar.set_postfix({name: f"{value:.4f}" for name, value in means.items()})
            self._keep(parts, epoch + 1)

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """Scalars to TensorBoard."""
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, epoch)

    def picture(self, name: str, images: torch.Tensor, epoch: int) -> None:
        """Images (N,C,S,S) in [0,1] to TensorBoard, side by side."""
        if self.writer is not None:
            self.writer.add_images(name, images.clamp(0, 1).cpu(), epoch)

    def finish(
        self, networks: Sequence[nn.Module], architectures: Sequence[Architecture], metrics: Mapping[str, Any]
    ) -> None:
        """Write the checkpoint, say what was reached, and drop the resume state."""
        if not self.accelerator.is_main_process:
            return
        facts = {
            **self.facts,
            "fingerprint": self.fingerprint,
            "metrics": dict(metrics),
            "device": str(self.device),
        }
        checkpoint.save(self.path, networks, architectures, facts)
        checkpoint.write_seconds(self.path, self.seconds)
        self.resume_path.unlink(missing_ok=True)
        if self.writer is not None:
            self.writer.close()
        shown = ", ".join(f"{key} {value:.4f}" for key, value in metrics.items() if isinstance(value, float))
        self.say(f"{self.path}: {shown} ({self.seconds:.0f} s)")

    def _keep(self, parts: Mapping[str, Any], epoch: int) -> None:
        if not self.accelerator.is_main_process:
            return
        state = {
            "fingerprint": self.fingerprint,
            "epoch": epoch,
            "seconds": self.seconds,
            "generator": self.generator.get_state(),
            **{name: part.state_dict() for name, part in parts.items()},
        }
        temporary = self.resume_path.with_name(f".{self.resume_path.name}.{os.getpid()}")
        torch.save(state, temporary)
        temporary.replace(self.resume_path)

    def _resume(self, parts: Mapping[str, Any]) -> int:
        if not self.resume_path.is_file():
            return 0
        state = torch.load(self.resume_path, map_location="cpu", weights_only=True)
        if state["fingerprint"] != self.fingerprint:
            self.say(f"{self.resume_path}: made with other settings; starting over")
            return 0
        for name, part in parts.items():
            part.load_state_dict(state[name])
        self.generator.set_state(state["generator"])
        self.seconds = state["seconds"]
        self.say(f"{self.name}: resuming after epoch {state['epoch']}")
        return int(state["epoch"])


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies in bf16: elsewhere it is emulated, and slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Full batches in one epoch; one where the set is smaller than a batch."""
    return max(1, rows // batch_size)


def arguments(program: str, network: str | None = None) -> argparse.Namespace:
    """The command line that every training program has; network: the default of one that trains [networks.NAME]."""
    parser = argparse.ArgumentParser(prog=f"python -m training.{program}")
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
    if network is not None:
        parser.add_argument(
            "--network", default=network, help=f"NAME of [networks.NAME] and of the checkpoint ({network})"
        )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the checkpoints (runs)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, order and augmentation (0)")
    return parser.parse_args()


def run(program: str, main: Any, *, network: str | None = None) -> None:
    """Run a program's main; a mistake of the user's is one line on stderr and exit status 1."""
    try:
        main(arguments(program, network))
    except (ValueError, FloatingPointError, OSError) as error:
        sys.exit(f"training.{program}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"training.{program}: interrupted; the same command resumes after the last whole epoch")
