"""Gradients through noise: coefficients worked out by hand, attackers who average, and the rows of real archives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attacks.oracle import REFUSED, Answers, Oracle
from evaluation.oracles import OracleError
from evaluation.studies import gradients
from evaluation.studies.gradients import Probes
from report.rows.gradients import GradientRow
from report.schema import Report
from tests.conftest import Smoke
from tests.evaluation.studies.command import study
from tests.reached import Reached

CLASSES = 4
WEIGHTS = torch.randn(CLASSES, 25, generator=torch.Generator().manual_seed(3))
NOISE = 0.3


class Silent(nn.Module):
    """A clone whose logits are 0."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(images), CLASSES)


class Linear(nn.Module):
    """A victim whose logits are linear, as an exported graph answers."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"probabilities": (images.flatten(1) @ WEIGHTS.T).softmax(dim=1)}


def served(logits: torch.Tensor) -> Answers:
    probabilities = logits.softmax(dim=1)
    return Answers(probabilities.argmax(dim=1), probabilities)


def fresh() -> Oracle:
    draws = torch.Generator().manual_seed(0)

    def oracle(images: torch.Tensor) -> Answers:
        return served(images.flatten(1) @ WEIGHTS.T + NOISE * torch.randn(len(images), CLASSES, generator=draws))

    return oracle


def keyed() -> Oracle:
    def noise(image: torch.Tensor) -> torch.Tensor:
        seed = int.from_bytes(hashlib.sha256(image.numpy().tobytes()).digest()[:7], "big")
        return torch.randn(CLASSES, generator=torch.Generator().manual_seed(seed))

    def oracle(images: torch.Tensor) -> Answers:
        return served(images.flatten(1) @ WEIGHTS.T + NOISE * torch.stack([noise(image) for image in images]))

    return oracle


def probes(count: int) -> Probes:
    return Probes.around(torch.rand(count, 1, 5, 5, generator=torch.Generator().manual_seed(1)))


def cosine(oracle: Oracle, *, repeats: int) -> float:
    asked = probes(60)
    seen = gradients.estimates(asked, Silent(), oracle, epsilon=0.1, repeats=repeats, name="made-up")
    return F.cosine_similarity(seen, gradients.coefficients(asked, Silent(), Linear()), dim=1).mean().item()


def run(smoke: Smoke, folder: Path, *words: str, build: Path | None = None) -> Report:
    return study("gradients", "--build", str(build or smoke.build), *words, run=folder, store=smoke.store)


def test_directions_are_orthonormal_and_no_probe_leaves_the_pixels_range() -> None:
    extremes = torch.randint(0, 2, (3, 1, 28, 28), generator=torch.Generator().manual_seed(1)).float()
    asked = Probes.around(extremes)
    units = asked.units.flatten(2)
    assert units.shape == (3, gradients.DIRECTIONS, 784)
    assert torch.allclose(units @ units.mT, torch.eye(gradients.DIRECTIONS).expand(3, -1, -1), atol=1e-5)
    assert not torch.allclose(units[0], units[1])
    assert torch.equal(asked.units, Probes.around(extremes).units)
    steps = asked.steps(max(gradients.EPSILONS))
    assert len(steps) == 3 + 3 * gradients.DIRECTIONS
    assert 0 <= steps.min() <= steps.max() <= 1
    assert torch.equal(steps[:3], asked.images)
    assert torch.allclose(steps[3 + gradients.DIRECTIONS + 2], asked.images[1] + 0.5 * asked.units[1, 2])


def test_true_coefficients_are_the_gradients_along_the_directions() -> None:
    asked = probes(5)
    # by hand: l = (W - mean W) x, L = 1/K sum |l|, so the gradient is 1/K sum of sign(l_k) (W - mean W)_k
    centred = WEIGHTS - WEIGHTS.mean(dim=0)
    by_hand = (asked.images.flatten(1) @ centred.T).sign() @ centred / CLASSES
    expected = torch.einsum("nmd,nd->nm", asked.units.flatten(2), by_hand)
    found = gradients.coefficients(asked, Silent(), Linear())
    assert torch.allclose(found.float(), expected, atol=1e-5)


def test_without_noise_the_estimates_are_the_true_coefficients() -> None:
    asked = probes(5)
    seen = gradients.estimates(
        asked, Silent(), lambda images: served(images.flatten(1) @ WEIGHTS.T), epsilon=1e-3, repeats=2, name="made-up"
    )
    assert torch.allclose(seen, gradients.coefficients(asked, Silent(), Linear()), atol=5e-3)


def test_fresh_noise_is_averaged_away_and_keyed_noise_is_not() -> None:
    assert cosine(fresh(), repeats=1) < 0.8
    assert cosine(fresh(), repeats=64) > cosine(fresh(), repeats=1) + 0.1
    assert cosine(keyed(), repeats=8) == pytest.approx(cosine(keyed(), repeats=1), abs=1e-4)


@pytest.mark.parametrize(
    ("oracle", "message"),
    [
        (lambda images: Answers(torch.zeros(len(images), dtype=torch.int64)), "made-up: .* returns labels only"),
        (
            lambda images: Answers(torch.full((len(images),), REFUSED), torch.full((len(images), CLASSES), torch.nan)),
            "made-up: expected an answer to every probe; 34 were refused",
        ),
    ],
)
def test_probes_without_probabilities_are_an_error(oracle: Callable[..., Answers], message: str) -> None:
    with pytest.raises(OracleError, match=message):
        gradients.estimates(probes(2), Silent(), oracle, epsilon=0.1, repeats=1, name="made-up")


def test_the_program(smoke: Smoke, baselines: Smoke, tmp_path: Path, reached: Reached) -> None:
    report = run(smoke, tmp_path, "--policies", "undefended", "randp", "--images", "12")
    rows = {(row.policy, row.traffic, row.epsilon, row.repeats): row for row in report.gradients}
    assert rows.keys() == {
        (policy, traffic, epsilon, repeats)
        for policy in ("undefended", "randp")
        for traffic in ("thief (flower)", "untrained generators")
        for epsilon in gradients.EPSILONS
        for repeats in gradients.REPEATS
    }
    assert {(row.images, row.directions) for row in rows.values()} == {(12, gradients.DIRECTIONS)}

    def worst(policy: str, epsilon: float, choose: Callable[..., GradientRow]) -> float:
        return choose(
            (row for row in rows.values() if (row.policy, row.epsilon) == (policy, epsilon)), key=lambda row: row.cosine
        ).cosine

    reached("worst cosine, step 0.001", worst("undefended", 1e-3, min), above=0.99)
    reached("worst cosine, step 0.01", worst("undefended", 1e-2, min), above=0.95)
    reached("best cosine against randp", worst("randp", 1e-3, max), below=0.5)


def test_policies_that_have_no_one_gradient_are_refused(smoke: Smoke, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"smoke-label: .* returns labels only"):
        run(smoke, tmp_path, "--policies", "label", "--images", "2")
    with pytest.raises(SystemExit, match=r"smoke-edm: expected a policy of one member.*; got 3"):
        run(smoke, tmp_path, "--policies", "edm", "--images", "2")


def test_the_graph_has_to_be_the_archives(smoke: Smoke, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"victim\.ts\.pt: no such graph; export the recipe first"):
        run(smoke, tmp_path, "--policies", "undefended", "--images", "2", build=tmp_path)
    (tmp_path / "smoke").mkdir()
    (tmp_path / "smoke" / "victim.ts.pt").write_bytes((smoke.build / "smoke" / "edm-0.ts.pt").read_bytes())
    with pytest.raises(SystemExit, match=r"expected the archive's answers within 0\.0001, got .* apart"):
        run(smoke, tmp_path, "--policies", "undefended", "--images", "2", build=tmp_path)
