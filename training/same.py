r"""SAME: a masked autoencoder and an auxiliary model, the two networks of an anomaly gate (Xie et al., AAAI 2024).

The autoencoder M reconstructs images of the victim's task, and the auxiliary model F_aux learns to answer the
reconstruction as the victim F_V answers the image:

    L_MAE = mean over images and pixels of (x - M(b * x))^2                     equation 4, hidden patches and others
    L_aux = mean over images of sum_k (F_V(x)_k - F_aux(M(x))_k)^2              equation 5

Whatever M has not learnt to draw it draws badly, and there F_aux and F_V part (the score: defenses/gate.py). The victim
is a black box (training/black_box.py), which need not be trained here; neither network sees a foreign image. In L_MAE a
random share `mask_ratio` of the patches is hidden; in L_aux, as at work, what M(x) is: all patches shown, or each of
`groups` keyed parts hidden in turn (zoo/masked_autoencoder.py). The released code trains F_aux on other reconstructions
than it scores.

The paper trains 500 epochs at a mask ratio of 0.75 and shows everything when it scores. So little training as two cores
allow wants a smaller ratio: the further what M was trained on is from what it is asked, the worse it draws digits too.

    python -m training.same RECIPE [--network NAME]

Reads [dataset], [victim] (architecture and augmentation) and [networks.same], or another network of this program;
writes runs/RECIPE/NETWORK.safetensors with both networks, and runs/RECIPE/stages/ on the way.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

import recipes
from training import checkpoint
from training.black_box import Answer, BlackBox, black_box
from training.calibration.benign import LEAST_IMAGES
from training.checkpoint import Architecture
from training.deployment_key import deployment_key, generator
from training.examples import examples
from training.session import Optimisation, Session, run
from training.victim import Split, Victim, architecture
from zoo.datasets import Data
from zoo.folders import below
from zoo.images import parts, size_of, unit
from zoo.masked_autoencoder import NAME, MaskedAutoencoder
from zoo.shrink import Shrink

TABLE = "same"
SHOWN = 8
# patches above which a transformer of two cores finishes no epoch
MOST_PATCHES = 1024
# float32 bytes of reconstructions that are kept from epoch to epoch
KEPT = 2**30

Look = Callable[[torch.Tensor], torch.Tensor]
"""images (N,C,H,W) -> what both networks are shown of them, float32 in [0,1]"""


@dataclass(frozen=True)
class Fit(Optimisation):
    """How the autoencoder is fitted: AdamW with the constants of masked autoencoders.

    warm_up: the share of all updates over which the learning rate rises from 0, before its cosine.
    """

    lr: float = 2e-3
    weight_decay: float = 0.05
    warm_up: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.warm_up < 1:
            raise ValueError(f"warm_up: expected a share from 0 to below 1, got {self.warm_up}")

    def start(self, network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(network.parameters(), self.lr, betas=(0.9, 0.95), weight_decay=self.weight_decay)

    def schedule(self, optimiser: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        rising = max(1, round(self.warm_up * steps))

        def rate(step: int) -> float:
            return min((step + 1) / rising, (1 + math.cos(math.pi * min(1.0, step / steps))) / 2)

        return torch.optim.lr_scheduler.LambdaLR(optimiser, rate)


@dataclass(frozen=True)
class Same:
    """[networks.NAME] of the program same: the two networks.

    fit: of the autoencoder. victim: a checkpoint of the recipe, or its adopted model. size: side of the small copy that
    both networks look at, made inside their graph, so that a gate costs what it costs there; 0: the image. patch to
    decoder_heads: as zoo.masked_autoencoder has them; the paper's are 2, 192, 12, 3 and 192, 4, 3. mask_ratio: hidden
    in training. groups: keyed parts hidden in turn at work; 0: nothing is. benign: folder of images that a gate is
    calibrated on; "": the validation split. auxiliary, auxiliary_options, auxiliary_fit: architecture and fit of F_aux,
    the victim's where left out.
    """

    fit: Fit
    victim: str = "victim"
    size: int = 0
    patch: int = 4
    width: int = 64
    depth: int = 3
    heads: int = 2
    decoder_width: int = 64
    decoder_depth: int = 1
    decoder_heads: int = 2
    mask_ratio: float = 0.75
    groups: int = 0
    benign: str = ""
    auxiliary: str | None = None
    auxiliary_options: dict[str, Any] = field(default_factory=dict)
    auxiliary_fit: Optimisation | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.mask_ratio < 1:
            raise ValueError(f"mask_ratio: expected 0 to below 1, got {self.mask_ratio}")
        if self.size < 0:
            raise ValueError(f"size: expected a side in pixels, or 0 for the image's, got {self.size}")
        if self.groups == 1 or not 0 <= self.groups <= 16:
            raise ValueError(f"groups: expected 0 or 2 to 16, got {self.groups}")

    def look(self, images: torch.Tensor) -> Look:
        """What the networks are shown of such images (N,C,H,W): small copies in whole numbers, or all there is."""
        return Shrink(size_of(images), self.size, whole=True) if self.size else unit

    def plan(self, like: Architecture) -> Architecture:
        """Of the autoencoder, in the geometry of another network. Raises ValueError."""
        height, width = like.shape[1:]
        if height != width:
            raise ValueError(f"size: expected the side of a small square copy, images are {height} x {width}; give 64")
        if (height // self.patch) ** 2 > MOST_PATCHES:
            raise ValueError(
                f"size, patch: expected at most {MOST_PATCHES} patches, got {(height // self.patch) ** 2} of "
                f"{self.patch} x {self.patch} pixels; give size = 64, or larger patches"
            )
        shape = {name: like.arguments[name] for name in ("channels", "size", "mean", "std")}
        sizes = {name: getattr(self, name) for name in ("patch", "width", "depth", "heads")}
        sizes |= {f"decoder_{name}": getattr(self, f"decoder_{name}") for name in ("width", "depth", "heads")}
        return Architecture(NAME, {**shape, **sizes})

    def patches(self, splits: Split) -> int:
        """L, of the images of a data set."""
        return (splits.images.shape[-1] // self.patch) ** 2


def benign(splits: Split) -> torch.Tensor:
    """Images of the task (N,C,H,W) that train neither network: what a gate is calibrated on."""
    return splits.validation_images


def groups_of(key: bytes, patches: int, groups: int) -> list[int]:
    """The group of each patch: as many of each as there can be, in an order that the key draws."""
    order = torch.randperm(patches, generator=generator(key, "same/groups"))
    return (order % groups).tolist()


def visible(session: Session, rows: int, patches: int, ratio: float) -> torch.Tensor:
    """Which patches each of `rows` images shows in a step of training, (rows,V) int64, drawn by the run's generator."""
    shown = max(1, round(patches * (1 - ratio)))
    drawn = torch.rand(rows, patches, generator=session.generator).argsort(1)[:, :shown]
    return drawn.to(session.device)


def fit_autoencoder(
    session: Session, splits: Split, plan: Architecture, same: Same, victim: Victim
) -> MaskedAutoencoder:
    """Equation 4 on all training images; the checkpoint is not written."""
    images = session.move(splits.images)
    network, optimiser, schedule = session.prepare(plan.network(), same.fit, len(images))
    inner: MaskedAutoencoder = session.accelerator.unwrap_model(network)
    sample = session.move(unit(splits.validation_images[:SHOWN]))
    for epoch in session.epochs(same.fit, network, optimiser, schedule):
        for batch in session.batches(len(images), same.fit.batch_size):
            shown = session.augment(session.take(images, batch), victim.affine)
            seen = visible(session, len(shown), inner.patches, same.mask_ratio)
            with session.autocast():
                loss = F.mse_loss(network(shown, seen).float(), shown)
            session.step({"loss": loss}, optimiser, schedule)
        session.picture("reconstructions", torch.cat([sample, rebuilt(inner, sample)]), epoch)
    return inner


@torch.inference_mode()
def rebuilt(autoencoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Reconstructions (N,C,S,S) as at work; the network is in evaluation mode afterwards."""
    autoencoder.eval()
    device = next(autoencoder.parameters()).device
    return torch.cat([autoencoder(part).float() for part in parts(images, most=256, device=device)])


def answered(answer: Answer, images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The victim's answers to images (N,C,H,W): (N,K) on `device`, with a progress bar where they are many."""
    with tqdm(total=len(images), desc="the victim's answers", unit="image", delay=5) as bar:
        found = []
        for part in parts(images, device=device):
            found.append(answer(part))
            bar.update(len(part))
    return torch.cat(found)


def small(images: torch.Tensor, look: Look) -> torch.Tensor:
    """Small copies (N,C,S,S) of all images, uint8: a copy in whole numbers is just that."""
    copies = [torch.round(look(part) * 255).to(torch.uint8) for part in parts(images)]
    return torch.cat(copies)


def fit_auxiliary(
    session: Session,
    splits: Split,
    shown: Split,
    plan: Architecture,
    optimisation: Optimisation,
    autoencoder: nn.Module,
    answer: Answer,
    victim: Victim,
    look: Look,
) -> nn.Module:
    """Equation 5 on all training images; the checkpoint is not written. shown: what both networks are shown of them."""
    images = session.move(splits.images)
    # where images are shown as they are, what is said of them is the same in every epoch; clones: what was made in
    # inference mode cannot be an input where gradients are recorded
    still = victim.affine is None
    responses = answered(answer, images, session.device).clone() if still else None
    fits = 4 * shown.images.numel() <= KEPT
    rebuilt_once = rebuilt(autoencoder, shown.images).clone() if still and fits else None
    network, optimiser, schedule = session.prepare(plan.network(), optimisation, len(images))
    for _ in session.epochs(optimisation, network, optimiser, schedule):
        for batch in session.batches(len(images), optimisation.batch_size):
            if rebuilt_once is None:
                seen = session.augment(session.take(images, batch), victim.affine)
                drawn = rebuilt(autoencoder, look(seen)).clone()
                response = answer(seen).clone() if responses is None else responses[batch]
            else:
                assert responses is not None
                drawn, response = rebuilt_once[batch], responses[batch]
            with session.autocast():
                logits = network(drawn).float()
            loss = (logits.softmax(1) - response).square().sum(1).mean()
            session.step({"loss": loss}, optimiser, schedule)
    trained: nn.Module = session.accelerator.unwrap_model(network)
    return trained


@torch.inference_mode()
def judge(
    autoencoder: nn.Module, auxiliary: nn.Module, answer: Answer, images: torch.Tensor, copies: torch.Tensor
) -> dict[str, float]:
    """On images that neither was trained on, and what both are shown of them: the mean squared error, and how often
    F_aux gives the victim's label."""
    auxiliary.eval()
    device = next(autoencoder.parameters()).device
    shown = unit(copies).to(device)
    drawn, response = rebuilt(autoencoder, shown), answered(answer, images, device)
    guessed = torch.cat([auxiliary(part).argmax(1) for part in drawn.split(512)])
    return {
        "reconstruction_error": (drawn - shown).square().mean().item(),
        "auxiliary_agreement": (guessed == response.argmax(1)).float().mean().item(),
    }


def trained_autoencoder(
    arguments: argparse.Namespace, recipe: recipes.Recipe, same: Same, splits: Split, plan: Architecture
) -> checkpoint.Checkpoint:
    """The autoencoder's checkpoint, trained unless it exists."""
    victim = recipe.section("victim", Victim)
    # whatever the auxiliary model is to be, and whichever patches are hidden at work, it is trained alike
    alike = dataclasses.replace(
        same, victim="", groups=0, benign="", auxiliary=None, auxiliary_options={}, auxiliary_fit=None
    )
    session = Session(
        recipe.name,
        f"stages/{arguments.network}",
        {"dataset": recipe.section("dataset", Data), "victim": victim, TABLE: alike},
        runs=arguments.runs,
        seed=arguments.seed,
    )
    if not session.done():
        autoencoder = fit_autoencoder(session, splits, plan, same, victim)
        held = session.move(unit(benign(splits)))
        error = (rebuilt(autoencoder, held) - held).square().mean().item()
        session.finish([autoencoder], [plan], {"reconstruction_error": error})
    return checkpoint.load(session.path)


def at_work(read: checkpoint.Checkpoint, groups: list[int] | None) -> tuple[MaskedAutoencoder, Architecture]:
    """The trained autoencoder with the parts that it hides."""
    plan = Architecture(NAME, {**read.architectures[0].arguments, "groups": groups})
    autoencoder = MaskedAutoencoder(**plan.arguments)
    autoencoder.load_state_dict(read.networks[0].state_dict())
    return autoencoder.eval(), plan


def small_or_all(images: torch.Tensor, look: Look) -> torch.Tensor:
    """What the networks are shown of all images, as a data set: small copies, or the images themselves."""
    return images if look is unit else small(images, look)


def check(splits: Split, box: BlackBox, same: Same) -> None:
    """Raise ValueError, before anything is trained, where the victim is of another task, or images are too few."""
    shape = tuple(splits.images.shape[1:])
    if shape != box.shape or len(box.classes) != len(splits.classes):
        raise ValueError(
            f"{same.victim}: expected a victim for images {shape} (C,H,W) of {len(splits.classes)} classes, got one "
            f"for {box.shape} of {len(box.classes)}"
        )
    images = len(below(Path(same.benign))) if same.benign else len(benign(splits))
    if images < LEAST_IMAGES:
        raise ValueError(
            f"benign: expected at least {LEAST_IMAGES} images that a gate can be calibrated on, got {images} of "
            f"{same.benign or 'the validation split, a tenth of the training images'}; give a folder of more in "
            'benign = "DIR", whatever their labels'
        )


def main(arguments: argparse.Namespace) -> None:
    recipe = recipes.read(arguments.recipe)
    data, victim = recipe.section("dataset", Data), recipe.section("victim", Victim)
    same = recipe.network(arguments.network, Same)
    optimisation = same.auxiliary_fit or victim.optimisation
    # what deals the patches into groups, where there are any
    key = deployment_key("a gate with hidden groups") if same.groups else b""
    box = black_box(same.victim, arguments.runs / recipe.name)
    splits = examples(recipe, data, arguments)
    check(splits, box, same)
    look = same.look(splits.images)
    shown = dataclasses.replace(
        splits,
        images=small_or_all(splits.images, look),
        validation_images=small_or_all(splits.validation_images, look),
    )
    name = same.auxiliary or victim.architecture
    plan = architecture(name, same.auxiliary_options if same.auxiliary else victim.options, shown)
    read = trained_autoencoder(arguments, recipe, same, shown, same.plan(plan))
    autoencoder, whole = at_work(read, groups_of(key, same.patches(shown), same.groups) if key else None)

    session = Session(
        recipe.name,
        arguments.network,
        {"dataset": data, "victim": victim, TABLE: dataclasses.replace(same, auxiliary_fit=optimisation)},
        runs=arguments.runs,
        seed=arguments.seed,
        secret=key,
        start=f"{read.digest} {box.digest}",
    )
    if session.done():
        return
    session.facts["classes"] = list(splits.classes)
    session.facts["images"] = list(splits.images.shape[1:])
    autoencoder = autoencoder.to(session.device)
    trained = fit_auxiliary(session, splits, shown, plan, optimisation, autoencoder, box.answer, victim, look)
    metrics = judge(autoencoder, trained, box.answer, benign(splits), benign(shown))
    session.finish([autoencoder, trained], [whole, plan], metrics)


if __name__ == "__main__":
    run("same", main, network="same")
