r"""Surrogates of the thief's network, whose gradients MAD and GRAD perturb answers against.

Both defences move an answer y to the y' within an l1 ball that spoils most a step of the thief's training, and so have
to guess the thief's network:

* "random", for MAD (Orekondy, Schiele, Fritz, ICLR 2020): the victim's architecture with random weights, trained on
  nothing. The rule needs its probabilities only. Where a network has batch normalisation, its statistics are those of
  one pass over the auxiliary images, as a thief's first steps would give it; without them they would be 0 and 1.
* "distilled", for GRAD (Mazeika, Li, Forsyth, ICML 2022): a student that learned the victim's undefended answers p by

      loss = mean -sum_k p_k log softmax(g(xo))_k

  on the auxiliary images xo, 10 epochs. The paper's student learned on the thief's queries, which no defender has
  beforehand: here the auxiliary set is the defender's guess of those queries. (The paper stops a cosine of 50
  epochs after 10; this one is a cosine of 10.) The rule needs s = J v, v = 1: how log softmax(g(x)) changes when all of
  g's parameters rise together.

The papers' surrogates are public: anyone who knows its seed could draw a random one again, and a perturbation that
is a function of a known network and the answer can be inverted. So weights, order and augmentation are seeded from the
deployment's key, and differ between tables; the checkpoint contains neither. It must be kept secret like the hash
network.

    python -m training.surrogate RECIPE [--network mad_surrogate]

Reads [dataset], [victim] and [surrogate], or another table of the same form, so that a recipe may have one of each
kind; writes runs/RECIPE/NETWORK.safetensors. A distilled one's fact `graph`, "redirection", makes the export give s
next to the probabilities.
"""

from __future__ import annotations

import argparse
import dataclasses
import hmac
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import recipes
from recipes.policies import VICTIM
from training import checkpoint
from training.black_box import black_box
from training.deployment_key import deployment_key
from training.examples import examples
from training.outlier_exposure import answers, outside
from training.session import Optimisation, Session, run
from training.victim import Split, Victim, accuracy, architecture
from zoo.datasets import Data
from zoo.images import parts

KINDS = ("random", "distilled")
EPOCHS = 10
BATCH = 256


@dataclass(frozen=True)
class Surrogate:
    """[networks.NAME] of the program surrogate: what the defender takes the thief's network to be.

    kind: "random" or "distilled". auxiliary: the data set above. architecture, options: the victim's where
    `architecture` is left out. optimisation: of a distilled one; where left out the victim's, of 10 epochs. held_out:
    auxiliary images kept from training to report on.
    """

    kind: str
    auxiliary: str
    architecture: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    optimisation: Optimisation | None = None
    held_out: int = 1000

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.kind == "random" and self.optimisation is not None:
            raise ValueError("optimisation: expected none, a random surrogate is not trained")
        if self.options and not self.architecture:
            raise ValueError(f"options: expected an architecture that they belong to, got {self.options} alone")
        if self.held_out < 1:
            raise ValueError(f"held_out: expected >= 1, got {self.held_out}")

    def plan(self, victim: Victim, splits: Split) -> checkpoint.Architecture:
        """The network's architecture, fitted to the victim's data."""
        if self.architecture:
            return architecture(self.architecture, self.options, splits)
        return architecture(victim.architecture, victim.options, splits)

    def optimised(self, victim: Victim) -> Optimisation:
        """How a distilled one is fitted."""
        return self.optimisation or dataclasses.replace(victim.optimisation, epochs=EPOCHS)


def subkey(key: bytes, network: str) -> bytes:
    """32 bytes that seed one network: HMAC-SHA256(key, "torchwarden/surrogate/" + network)."""
    return hmac.digest(key, f"torchwarden/surrogate/{network}".encode(), "sha256")


def distillation_loss(logits: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of soft answers: (B,K) logits and (B,K) probabilities to a scalar."""
    return F.cross_entropy(logits, probabilities)


@torch.no_grad()
def settle(network: nn.Module, images: torch.Tensor) -> None:
    """Give batch normalisation the statistics of one pass over `images`; weights stay as they are."""
    network.train()
    for part in parts(images, most=BATCH):
        network(part)
    network.eval()


def agreement(one: torch.Tensor, other: torch.Tensor) -> float:
    """Share of rows with the same largest entry, of two (N,K)."""
    return (one.argmax(1) == other.argmax(1)).float().mean().item()


def distil(
    session: Session,
    network: nn.Module,
    victim: nn.Module,
    optimisation: Optimisation,
    images: torch.Tensor,
    settings: Victim,
) -> nn.Module:
    """Train `network` to answer as `victim` does on `images` (N,C,S,S), which lie on the session's device."""
    network, optimiser, schedule = session.prepare(network, optimisation, len(images))
    for _ in session.epochs(optimisation, network, optimiser, schedule):
        for batch in session.batches(len(images), optimisation.batch_size):
            shown = session.augment(session.take(images, batch), settings.affine)
            with session.autocast():
                with torch.no_grad():
                    response = victim(shown).float().softmax(1)
                logits = network(shown).float()
            session.step({"loss": distillation_loss(logits, response)}, optimiser, schedule)
    trained: nn.Module = session.accelerator.unwrap_model(network)
    return trained


def main(arguments: argparse.Namespace) -> None:
    recipe = recipes.read(arguments.recipe)
    name = arguments.network
    data, victim = recipe.section("dataset", Data), recipe.section("victim", Victim)
    surrogate = recipe.network(name, Surrogate)
    key = deployment_key("a secret surrogate")
    # a random one is no student: it needs no victim, and another victim leaves it as it is
    undefended = None
    if surrogate.kind == "distilled":
        undefended = black_box(VICTIM, arguments.runs / recipe.name)
    session = Session(
        recipe.name,
        name,
        {"dataset": data, "victim": victim, "surrogate": surrogate},
        runs=arguments.runs,
        seed=arguments.seed,
        secret=subkey(key, name),
        start=undefended.digest if undefended else "",
    )
    if session.done():
        return
    splits = examples(recipe, data, arguments)
    session.facts["classes"] = list(splits.classes)
    if surrogate.kind == "distilled":
        session.facts["graph"] = "redirection"
    unseen, strange = map(
        session.move, outside(surrogate.auxiliary, surrogate.held_out, like=splits, root=arguments.data)
    )
    plan = surrogate.plan(victim, splits)
    network = plan.network().to(session.device)
    metrics = {}
    if undefended:
        teacher = undefended.teacher()
        network = distil(session, network, teacher, surrogate.optimised(victim), strange, victim)
        metrics["agreement_outside"] = agreement(answers(network, unseen), answers(teacher, unseen))
    else:
        settle(network, strange)
    held, truth = session.move(splits.validation_images), splits.validation_labels.to(session.device)
    metrics["validation_accuracy"] = accuracy(network, held, truth)
    # how much its answers depend on the image at all: MAD's scores are a function of these and the victim's
    metrics["spread_outside"] = answers(network, unseen).std(0).mean().item()
    session.finish([network], [plan], metrics)


if __name__ == "__main__":
    run("surrogate", main, network="surrogate")
