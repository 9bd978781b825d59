r"""EDM: an Ensemble of Diverse Models (Kariyappa, Prakash, Qureshi, ICLR 2021, sec. 4.1, equations 1 to 3).

N members agree on the task and disagree everywhere else. For a labelled batch (x, y) and an equally large batch xo
of auxiliary images, with q_i = softmax(f_i(xo)):

    coherence(xo) = max_{a<b} cos(q_a, q_b)                                          (equation 1, reported)
    DivLoss       = mean_xo log sum_{a<b} exp(cos(q_a, q_b))                         (equation 2)
    loss          = 1/N sum_i CE(f_i(x), y) + lambda * DivLoss                       (equation 3)

All members are updated by one optimiser from this one loss. Cosines of probability vectors lie in [0, 1], so with P
pairs DivLoss lies in [log P, 1 + log P], not above 0 as the paper's appendix says: what is reported is
DivLoss - log P, in [0, 1]. The exponent's weights differ by a factor of e at most, so the gradient follows the mean
cosine; `temperature` t > 1 replaces equation 2 by 1/t log sum exp(t cos), nearer to the maximum. The paper's is 1.

    python -m training.edm RECIPE

Reads [dataset], [victim] (the members' architecture) and [edm]; writes runs/RECIPE/edm.safetensors.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

import recipes
from training.session import Optimisation, Session, run
from training.victim import Victim, accuracy, architecture, split
from zoo.datasets import Data, load


@dataclass(frozen=True)
class EDM:
    """[edm]: ensemble size, the auxiliary data set, and the weight of the diversity term.

    lambda_diversity: lambda of equation 3; 0 trains a regular ensemble. temperature: t above; 1 is the paper's.
    optimisation: as the victim's where left out. held_out: auxiliary images kept from training to report on.
    """

    auxiliary: str
    members: int = 5
    lambda_diversity: float = 1.0
    temperature: float = 1.0
    optimisation: Optimisation | None = None
    held_out: int = 1000

    def __post_init__(self) -> None:
        if self.members < 2:
            raise ValueError(f"members: expected at least 2, got {self.members}")
        if self.lambda_diversity < 0:
            raise ValueError(f"lambda_diversity: expected >= 0, got {self.lambda_diversity}")
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected > 0, got {self.temperature}")


class Ensemble(nn.Module):
    """N networks as one module: images (B,C,H,W) to logits (B,N,K)."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([member(images) for member in self.members], dim=1)


def pair_cosines(probabilities: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of every pair of members, (B,N,K) to (B,P) with P = N(N-1)/2, values in [0,1]."""
    unit = F.normalize(probabilities, dim=-1)
    gram = unit @ unit.transpose(1, 2)
    members = probabilities.shape[1]
    first, second = torch.triu_indices(members, members, offset=1)
    return gram[:, first, second]


def coherence(probabilities: torch.Tensor) -> torch.Tensor:
    """Equation 1: the largest pair cosine of each row, (B,N,K) to (B,)."""
    return pair_cosines(probabilities).amax(1)


def diversity_loss(probabilities: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
    """Equation 2 less its lower bound log(P)/t: (B,N,K) probabilities to a scalar in [0,1]."""
    cosines = pair_cosines(probabilities)
    spread = torch.logsumexp(temperature * cosines, dim=1) - math.log(cosines.shape[1])
    return spread.mean() / temperature


@torch.inference_mode()
def answers(ensemble: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Every member's probabilities, (B,N,K) float32, the ensemble in evaluation mode."""
    ensemble.eval()
    return torch.cat([ensemble(part).float().softmax(-1) for part in images.split(512)])


def main(arguments: argparse.Namespace) -> None:
    recipe = recipes.read(arguments.recipe)
    data, victim, edm = (
        recipe.section("dataset", Data),
        recipe.section("victim", Victim),
        recipe.section("edm", EDM),
    )
    how = edm.optimisation or victim.optimisation
    session = Session(
        recipe.name,
        "edm",
        {"dataset": data, "victim": victim, "edm": edm},
        runs=arguments.runs,
        seed=arguments.seed,
    )
    if session.done():
        return
    cut = split(data.load("train", arguments.data), rows=data.rows)
    session.facts["classes"] = list(cut.classes)
    _, channels, size, _ = cut.images.shape
    outside = load(edm.auxiliary, "train", root=arguments.data, size=size, channels=channels).pixels
    unseen, outside = outside[: edm.held_out], outside[edm.held_out :]
    plan = architecture(victim.architecture, victim.options, cut)
    images, labels, outside = session.move(cut.images), cut.labels.to(session.device), session.move(outside)
    network, optimiser, schedule = session.prepare(
        Ensemble([plan.network() for _ in range(edm.members)]), how, len(images)
    )

    for _ in session.epochs(how, network, optimiser, schedule):
        for rows in session.batches(len(images), how.batch_size):
            inside = session.augment(images[rows], victim.affine)
            others = session.augment(outside[session.draw(len(outside), len(rows))], victim.affine)
            with session.accelerator.autocast():
                logits = network(torch.cat([inside, others]))  # one forward pass for both batches
            logits, strange = logits.float().split(len(rows))
            right = F.cross_entropy(logits.flatten(0, 1), labels[rows].repeat_interleave(edm.members))
            apart = diversity_loss(strange.softmax(-1), temperature=edm.temperature)
            losses = {
                "loss": right + edm.lambda_diversity * apart,
                "cross_entropy": right,
                "diversity": apart,
            }
            session.step(losses, optimiser, schedule)

    ensemble = session.accelerator.unwrap_model(network)
    held_images, held_labels = session.move(cut.validation_images), cut.validation_labels.to(session.device)
    each = [accuracy(member, held_images, held_labels) for member in ensemble.members]
    apart_now = answers(ensemble, session.move(unseen))
    metrics = {
        "validation_accuracy": sum(each) / len(each),
        "validation_accuracy_worst": min(each),
        "diversity": diversity_loss(apart_now).item(),
        "coherence": coherence(apart_now).mean().item(),
        "coherence_inside": coherence(answers(ensemble, held_images)).mean().item(),
    }
    session.finish(list(ensemble.members), [plan] * edm.members, metrics)


if __name__ == "__main__":
    run("edm", main)
