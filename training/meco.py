r"""MeCo: random input perturbation, trained by distributionally robust optimisation (Wang et al., NeurIPS 2023).

The service answers T(x + h(x, eps)), eps fresh for every query; the victim T and the generator h are trained together
by one optimiser (Algorithm 1) on worst-case images z, the batch x moved by the particle steps of training/particles.py
(the loss that drives them is T's at x, without h, as equation 11 has it):

    loss = CE(T(z + h(z, eps)), y) + gamma * ||p(x + h(x, eps')) - p(x)||_1 + clean * CE(T(x), y)
           + spread * max(0, 1 - RMS(h(x, eps') - h(x, eps'')) / (sqrt(2) rms))^2,        p = softmax(T)

The first two terms are equation 7 as Algorithm 1 has it (its l1 term is taken at x, the equation's at z; here p(x)
takes no gradient: the answer follows the clean one, not the other way round). Both are smallest where h = 0, or where
h is a constant that T subtracts again, and nothing in the paper forbids either. So h has a fixed size by construction
(zoo/perturbation.py), and the last term asks that two draws differ as much as independent ones of that size do: 0 where
they do, 1 where h vanishes or does not listen to eps. `clean` holds T itself to the labels; the paper has 0.

The released code trains no generator: it draws random filters, moves no image, and shares noise in a batch. Ablations:
`steps = 0` (no robust optimisation), `perturbation = "gaussian"`, `perturbation = "random-filters"` (theirs, an image).

    python -m training.meco RECIPE [--network NAME]

Reads [dataset], [victim] (the victim's architecture) and [networks.meco], or another network of this program;
writes runs/RECIPE/NETWORK.safetensors with two networks: T and h.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import recipes
from training.checkpoint import Architecture
from training.examples import examples, weights
from training.particles import displacement, worst_case
from training.session import Optimisation, Session, run
from training.victim import Split, Victim, accuracy, architecture
from zoo.augment import Affine, warped
from zoo.datasets import Data, load
from zoo.generator import LARGEST, untrained
from zoo.images import convert, parts, sides, size_of
from zoo.perturbation import PERTURBATIONS, Perturbation, root_mean_square

TABLE = "meco"
NOISE_SEEDS = 5
# images judged at once, with all that is made of them
PART = 128
SHIFTED = Affine(degrees=10, shift=0.07)


@dataclass(frozen=True)
class MeCo:
    """[networks.NAME] of the program meco: the generator, the particle steps and the weights of the objective above.

    perturbation: of zoo.perturbation. rms: size of h, in [0,1] pixel units. filters: of a learned h; the paper's are
    64. steps: Q of the paper. step: length of each, L2 over an image. repel: false has the paper's printed sign.
    auxiliary: a data set like a thief's, to report on. judged: images of each thieving kind to report on.
    from_victim: T starts as the recipe's victim, whose weights that needs. size: side of the small copy that the
    perturbation looks at; 0: the image. optimisation: as the victim's where left out.
    """

    perturbation: str = "meco"
    rms: float = 0.1
    filters: int = 64
    steps: int = 2
    step: float = 0.5
    repel: bool = True
    gamma: float = 1.0
    spread: float = 1.0
    clean: float = 1.0
    auxiliary: str | None = None
    judged: int = 2000
    from_victim: bool = False
    size: int = 0
    optimisation: Optimisation | None = None

    def __post_init__(self) -> None:
        if self.perturbation not in PERTURBATIONS:
            raise ValueError(f"perturbation: expected one of {', '.join(PERTURBATIONS)}, got {self.perturbation!r}")
        if self.steps < 0 or not self.step > 0:
            raise ValueError(f"expected steps >= 0 and step > 0, got {self.steps}, {self.step}")
        if self.judged < 1:
            raise ValueError(f"judged: expected at least 1 image, got {self.judged}")
        if self.size and self.perturbation != "meco":
            raise ValueError(f"size: expected 0, {self.perturbation!r} looks at no copy, got {self.size}")
        for name in ("gamma", "spread", "clean"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected >= 0, got {getattr(self, name)}")

    def plan(self, data: Split) -> Architecture:
        """Of h, fitted to a data set."""
        learned = {"filters": self.filters} if self.perturbation == "meco" else {}
        if self.size:
            learned["shrunk"] = self.size
        geometry = {"channels": data.images.shape[1], "size": size_of(data.images)}
        return Architecture(self.perturbation, {**geometry, "rms": self.rms, **learned})


class Defended(nn.Module):
    """T and h, and one pass of both for all terms of a step."""

    def __init__(self, victim: nn.Module, perturbation: Perturbation) -> None:
        super().__init__()
        self.victim = victim
        self.perturbation = perturbation

    def forward(
        self, images: torch.Tensor, moved: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """x and z (B,C,S,S), and 2B + Q draws: logits (B,K) of T(z + h), T(x + h) and T(x), and the difference of two
        draws of h (Q,C,S,S) on the first Q images."""
        rows, again = len(images), len(noise) - 2 * len(images)
        # one forward pass for all: batch normalisation then trains on the mix that it will serve
        h = self.perturbation.h(torch.cat([moved, images, images[:again]]), noise)
        shown = torch.cat([moved + h[:rows], images + h[rows : 2 * rows], images])
        robust, noisy, clean = self.victim(shown).float().split(rows)
        return robust, noisy, clean, (h[rows : rows + again] - h[2 * rows :]).float()


def spread_loss(difference: torch.Tensor, rms: float) -> torch.Tensor:
    """Mean of max(0, 1 - RMS / (sqrt(2) rms))^2 over differences of two draws of h (Q,C,S,S): a scalar in [0, 1]."""
    apart = root_mean_square(difference) / (math.sqrt(2) * rms)
    return (1 - apart).clamp(min=0).square().mean()


def l1(answers: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Mean ||p - q||_1 of rows, from two (N,K) distributions: a scalar in [0, 2]."""
    return (answers - others).abs().sum(1).mean()


def objective(
    logits: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    difference: torch.Tensor | None,
    labels: torch.Tensor,
    meco: MeCo,
) -> dict[str, torch.Tensor]:
    """The loss and its terms, scalars by name; logits (B,K) of T(z + h), T(x + h), T(x), labels (B,) int64.

    difference: of two draws of h; None where h has nothing to learn.
    """
    robust, noisy, clean = logits
    terms = {
        "robust": F.cross_entropy(robust, labels),
        "l1": l1(noisy.softmax(1), clean.softmax(1).detach()),
        "clean": F.cross_entropy(clean, labels),
    }
    if difference is not None:
        terms["spread"] = spread_loss(difference, meco.rms)
    weights = {"robust": 1.0, "l1": meco.gamma, "clean": meco.clean, "spread": meco.spread}
    return {"loss": torch.stack([weights[name] * term for name, term in terms.items()]).sum(), **terms}


def train(
    session: Session, splits: Split, defended: Defended, meco: MeCo, optimisation: Optimisation, victim: Victim
) -> Defended:
    """Algorithm 1 on all training images; the checkpoint is not written."""
    images, labels = session.move(splits.images), splits.labels.to(session.device)
    network, optimiser, schedule = session.prepare(defended, optimisation, len(images))
    inner: Defended = session.accelerator.unwrap_model(network)
    learned = any(True for _ in inner.perturbation.parameters())

    for _ in session.epochs(optimisation, network, optimiser, schedule):
        for batch in session.batches(len(images), optimisation.batch_size):
            shown, truth = session.augment(session.take(images, batch), victim.affine), labels[batch]
            again = -(-len(shown) // 4) if learned else 0
            noise = session.normal(2 * len(shown) + again, *inner.perturbation.noise_shape)

            def losses(particles: torch.Tensor, truth: torch.Tensor = truth) -> torch.Tensor:
                with session.autocast():
                    logits = inner.victim(particles)
                return F.cross_entropy(logits.float(), truth, reduction="none")

            network.eval()  # a particle's gradient must depend on no other's, and statistics stay as they are
            moved = worst_case(shown, losses, steps=meco.steps, step=meco.step, repel=meco.repel)
            network.train()
            with session.autocast():
                *logits, difference = network(shown, moved, noise)
            terms = objective((logits[0], logits[1], logits[2]), difference if again else None, truth, meco)
            session.step({**terms, "displacement": displacement(shown, moved)}, optimiser, schedule)
    return inner


@dataclass(frozen=True)
class Kind:
    """Images of one kind of traffic, made a part at a time: as floats, all of them at 224 x 224 would fill memory.

    images: (N,C,S,S) float32 in [0,1], or uint8. labels: (N,), None where there are none. made: of some of the images,
    and which they are, those that are shown, in [0,1].
    """

    images: torch.Tensor
    labels: torch.Tensor | None = None
    made: Callable[[torch.Tensor, slice], torch.Tensor] = lambda images, rows: images

    def parts(self, device: torch.device) -> Iterator[tuple[torch.Tensor, slice]]:
        """What is shown, in order, and which rows these are."""
        first = 0
        for part in parts(self.images, most=PART, device=device):
            rows = slice(first, first + len(part))
            yield self.made(part, rows).contiguous(memory_format=torch.channels_last), rows
            first = rows.stop


@torch.inference_mode()
def judge(defended: Defended, kind: Kind, *, seeds: int = NOISE_SEEDS) -> dict[str, float]:
    """What noise does to images, over `seeds` seeds: l1 against T(x), the RMS of h and, with labels, accuracy and its
    least value over the seeds."""
    defended.eval()
    device = next(defended.victim.parameters()).device
    generators = [torch.Generator().manual_seed(seed) for seed in range(seeds)]
    shifts, sizes, rights = (torch.zeros(seeds, dtype=torch.float64) for _ in range(3))
    for part, rows in kind.parts(device):
        clean = defended.victim(part).softmax(1)
        for seed, generator in enumerate(generators):
            noise = torch.randn(len(part), *defended.perturbation.noise_shape, generator=generator).to(device)
            h = defended.perturbation.h(part, noise)
            served = defended.victim(part + h).softmax(1)
            shifts[seed] += len(part) * l1(served, clean).item()
            sizes[seed] += root_mean_square(h).sum().item()
            if kind.labels is not None:
                rights[seed] += int((served.argmax(1) == kind.labels[rows].to(device)).sum())
    count = len(kind.images)
    found = {"l1": (shifts / count).mean().item(), "rms": (sizes / count).mean().item()}
    if kind.labels is None:
        return found
    accuracies = rights / count
    return {**found, "accuracy": accuracies.mean().item(), "least_accuracy": accuracies.min().item()}


def traffic(splits: Split, meco: MeCo, root: Any) -> Mapping[str, Kind]:
    """Images of each kind, with labels where they have some: benign, shifted benign, and what thieves send."""
    held, truth = splits.validation_images, splits.validation_labels
    channels, size = held.shape[1], size_of(held)
    grid = SHIFTED.grid(len(held), generator=torch.Generator().manual_seed(0))

    def shifted(images: torch.Tensor, rows: slice) -> torch.Tensor:
        return warped(images, grid[rows], SHIFTED.fill).clamp(0, 1)

    def enlarged(images: torch.Tensor, rows: slice) -> torch.Tensor:
        return convert(images, size=size, channels=None)

    # as `untrained` draws them: what is larger than LARGEST is enlarged
    drawn = size if max(sides(size)) <= LARGEST else LARGEST
    kinds = {
        "benign": Kind(held, truth),
        "shifted": Kind(held, truth, shifted),
        "untrained_generator": Kind(untrained(meco.judged, channels=channels, size=drawn, seed=0), None, enlarged),
    }
    if meco.auxiliary is not None:
        auxiliary = load(meco.auxiliary, "train", root=root, size=size, channels=channels).stored
        # a copy: the rest of the set is let go
        kinds["auxiliary"] = Kind(auxiliary[: meco.judged].clone())
    return kinds


def main(arguments: argparse.Namespace) -> None:
    recipe = recipes.read(arguments.recipe)
    name = arguments.network
    data, victim, meco = (
        recipe.section("dataset", Data),
        recipe.section("victim", Victim),
        recipe.network(name, MeCo),
    )
    start = weights(recipe, arguments.runs, f"[networks.{name}] from_victim") if meco.from_victim else None
    optimisation = meco.optimisation or victim.optimisation
    session = Session(
        recipe.name,
        name,
        {"dataset": data, "victim": victim, TABLE: dataclasses.replace(meco, optimisation=optimisation)},
        runs=arguments.runs,
        seed=arguments.seed,
        start=start.digest if start else "",
    )
    if session.done():
        return
    splits = examples(recipe, data, arguments)
    kinds = traffic(splits, meco, arguments.data)
    session.facts["classes"] = list(splits.classes)
    plan = start.architectures[0] if start else architecture(victim.architecture, victim.options, splits)
    plans = plan, meco.plan(splits)
    first = start.networks[0] if start else plan.network()
    perturbation = plans[1].network()
    assert isinstance(perturbation, Perturbation)
    trained = train(session, splits, Defended(first, perturbation), meco, optimisation, victim)

    held, truth = session.move(splits.validation_images), splits.validation_labels.to(session.device)
    metrics: dict[str, float] = {}
    for called, kind in kinds.items():
        metrics |= {f"{called}_{key}": value for key, value in judge(trained, kind).items()}
    metrics |= {
        "validation_accuracy": metrics.pop("benign_accuracy"),  # as every predictor's: of what is served
        "clean_accuracy": accuracy(trained.victim, held, truth),
    }
    session.finish([trained.victim, trained.perturbation], list(plans), metrics)


if __name__ == "__main__":
    run("meco", main, network="meco")
