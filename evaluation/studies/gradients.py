"""How well a data-free attacker sees through noise: the "gradients" rows of a report.

    python -m evaluation.studies gradients RECIPE --policies undefended meco meco-keyed --run reports/RECIPE

DFME and MAZE climb the gradient of a loss that they can only probe (attacks.zeroth_order):

    L(x) = 1/K sum_k | S_k(x) - l_k(x) |,   c_i = (L(x + e u_i) - L(x)) / e,   i = 1 ... m

where l are the victim's centred logits, recovered from the probabilities it serves, and u_i are orthonormal directions,
drawn again for each image. The coefficients that the attacker estimates from a policy's responses are compared with
u_i . g, where g is L's true gradient for the policy's predictor without noise, by autograd through its TorchScript
graph. The cosine of the two is 1 for an attacker who sees everything and 0 on average for one who sees nothing (its
standard deviation over images is then 1 / sqrt(m)). Fresh noise may be averaged over repeated responses; keyed noise
may not.

The clone S is an untrained network of [clone]'s architecture, fixed by the seed: an attacker's when it begins. So that
no probe leaves [0, 1], all images are drawn inwards first, x = 0.1 + 0.8 pixels, and e is 0.5 at most: over the 784
pixels of an MNIST image a probe moves none by 0.1. A service refuses one that does leave, and that is an error.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from attacks import clone, dfme
from attacks.clone import Cloning
from attacks.oracle import Answers, Oracle, distributions
from attacks.seeded import from_seed
from attacks.service import Service
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.studies.study import Found, Option, Study, Task
from evaluation.traffic import SEED, kinds
from report.rows.gradients import GradientRow
from zoo.images import size_of

EPSILONS = (1e-3, 1e-2, 1e-1, 0.5)
REPEATS = (1, 8)
DIRECTIONS = 16
IMAGES = 200
# traffic of evaluation.traffic, by how its names begin
ATTACKERS = ("thief (", "untrained generators")
MARGIN = 0.1
# between the archive's graph and the TorchScript one of the same network
TOLERANCE = 1e-4
# images of one forward pass that keeps what autograd needs
ROWS = 64


def study(task: Task, *, images: int, build: Path) -> Iterator[Found]:
    """A row for each policy, kind of traffic, epsilon and number of repeats."""
    channels, size = task.test.stored.shape[1], size_of(task.test.stored)
    cloning = task.recipe.section("clone", Cloning)
    with from_seed(SEED, torch.device("cpu")):
        network = clone.untrained(cloning, Service(channels, size, len(task.test.classes))).eval()
    probes = {
        name: Probes.around(pixels[:images])
        for name, pixels in kinds(task.recipe, task.test, task.data)
        if name.startswith(ATTACKERS)
    }
    yield Found(settings={"gradients.clone": cloning.architecture})
    graphs = build / task.recipe.name
    for policy, oracle in task.oracles(seed=SEED):
        for row in measure(oracle, probes, network, graphs, recipe=task.recipe.name, policy=policy):
            yield Found([row], says=line(row))


@dataclass(frozen=True)
class Probes:
    """N images within [0.1, 0.9], float32 (N, C, H, W), and for each m orthonormal directions (N, m, C, H, W)."""

    images: torch.Tensor
    units: torch.Tensor

    @classmethod
    def around(cls, pixels: torch.Tensor) -> Probes:
        """DIRECTIONS around each of `pixels`, float32 (N, C, H, W) in [0, 1]; always the same ones."""
        normal = torch.randn(len(pixels), pixels[0].numel(), DIRECTIONS, generator=torch.Generator().manual_seed(SEED))
        units = torch.linalg.qr(normal).Q.mT.reshape(len(pixels), DIRECTIONS, *pixels.shape[1:])
        return cls(MARGIN + (1 - 2 * MARGIN) * pixels, units)

    def steps(self, epsilon: float) -> torch.Tensor:
        """The images, then each image's probes, one image after another: (N + N m, C, H, W)."""
        return torch.cat([self.images, (self.images[:, None] + epsilon * self.units).flatten(0, 1)])


def measure(
    oracle: InProcessOracle, probes: Mapping[str, Probes], network: nn.Module, graphs: Path, *, recipe: str, policy: str
) -> Iterator[GradientRow]:
    """The rows of one policy.

    network: the clone. graphs: folder of the recipe's TorchScript graphs. Raises OracleError where the policy has
    several members, returns no probabilities or refuses a probe, or where `graphs` has another network.
    """
    name = f"{recipe}-{policy}"
    members = oracle.pipeline.policy.members
    if len(members) != 1:
        raise OracleError(
            f"{name}: expected a policy of one member, whose gradient is the true one; got {len(members)}"
        )
    path = graphs / f"{members[0]}.ts.pt"
    graph = _graph(path)
    for traffic, each in probes.items():
        _check(graph, oracle, each.images, path)
        true = coefficients(each, network, graph)
        for epsilon, repeats in itertools.product(EPSILONS, REPEATS):
            seen = estimates(each, network, oracle, epsilon=epsilon, repeats=repeats, name=name)
            cosines = nn.functional.cosine_similarity(seen, true, dim=1)
            yield GradientRow(
                recipe,
                policy,
                traffic,
                epsilon=epsilon,
                repeats=repeats,
                directions=DIRECTIONS,
                images=len(cosines),
                cosine=cosines.mean().item(),
                deviation=cosines.std().item(),
            )


def coefficients(probes: Probes, network: nn.Module, graph: nn.Module) -> torch.Tensor:
    """u_i . g, float64 (N, m): g is the gradient of the loss of clone `network` on victim `graph`, whose output is
    {"probabilities": ...}."""
    gradients = []
    for part in probes.images.split(ROWS):
        images = part.clone().requires_grad_()
        loss = dfme.loss(network(images), dfme.DFME().wanted(graph(images)["probabilities"]))
        gradients.append(torch.autograd.grad(loss.sum(), images)[0])
    return torch.einsum("nmchw,nchw->nm", probes.units.double(), torch.cat(gradients).double())


@torch.no_grad()
def estimates(
    probes: Probes, network: nn.Module, oracle: Oracle, *, epsilon: float, repeats: int, name: str
) -> torch.Tensor:
    """c_i, float64 (N, m), of an attacker who asks about everything `repeats` times and believes the mean answer."""
    images = probes.steps(epsilon)
    guesses = torch.cat([network(part) for part in images.split(ROWS)]).double()
    responses = [_probabilities(oracle(images), guesses.shape[1], name) for _ in range(repeats)]
    losses = dfme.loss(guesses, dfme.DFME().wanted(torch.stack(responses).mean(dim=0)))
    first, others = losses[: len(probes.images)], losses[len(probes.images) :].view(len(probes.images), -1)
    return (others - first[:, None]) / epsilon


def _probabilities(answers: Answers, classes: int, name: str) -> torch.Tensor:
    """Probabilities float64 (N, classes), so that differences of losses lose nothing more than what was served."""
    if answers.probabilities is None:
        raise OracleError(f"{name}: a gradient is estimated from probabilities; this policy returns labels only")
    if answers.refused.any():
        raise OracleError(f"{name}: expected an answer to every probe; {int(answers.refused.sum())} were refused")
    return distributions(answers, classes).double()


def _graph(path: Path) -> nn.Module:
    if not path.is_file():
        raise OracleError(f"{path}: no such graph; export the recipe first (make export)")
    with warnings.catch_warnings():
        # torch 2.15 announces the end of TorchScript; until then it is exported
        warnings.filterwarnings("ignore", r".*torch\.jit\.", FutureWarning)
        warnings.filterwarnings("ignore", r".*torch\.jit\.", DeprecationWarning)
        graph: nn.Module = torch.jit.load(path, map_location="cpu").eval()
    return graph


def line(row: GradientRow) -> str:
    """A row's line on the terminal."""
    return (
        f"{row.recipe}-{row.policy}, {row.traffic}, epsilon {row.epsilon:g}, "
        f"{row.repeats} answers a probe: cosine {row.cosine:+.3f}, deviation {row.deviation:.3f}"
    )


@torch.no_grad()
def _check(graph: nn.Module, oracle: InProcessOracle, images: torch.Tensor, path: Path) -> None:
    """Raises OracleError unless `graph` answers as the archive's only member does, noise aside."""
    ours = torch.cat([graph(part)["probabilities"] for part in images.split(ROWS)])
    apart = (ours - oracle.everyone(images)[:, 0]).abs().max().item()
    if not apart <= TOLERANCE:
        raise OracleError(
            f"{path}: expected the archive's answers within {TOLERANCE:g}, got {apart:.2g} apart; "
            "export and archive the recipe again (make archive)"
        )


STUDY = Study(
    "gradients",
    "how well zeroth-order attackers see the gradient",
    study,
    policies="policies of one member that return probabilities",
    sections=("gradients",),
    options=(
        Option("images", IMAGES, "of each kind of traffic, at least 2, whose cosines have a deviation", least=2),
        Option("build", Path("build"), "folder of exported graphs"),
    ),
)
