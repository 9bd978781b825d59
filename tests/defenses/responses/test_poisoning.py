"""MAD against its gradients and every vertex, GRAD against a linear program's vertices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from defenses.responses.poisoning import GradientRedirection, Mad
from defenses.responses.rule import Context

ROWS = 40


def rows(classes: int, seed: int, sharp: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(classes, sharp), ROWS).astype(np.float32)


def surrogate(**outputs: np.ndarray) -> Context:
    return Context({"surrogate": outputs}, np.random.default_rng(0))


def last_layer_gradients(weights: torch.Tensor, features: torch.Tensor) -> np.ndarray:
    """(K,K*F): the gradient of every log p_k with respect to the last layer's weights, by autograd."""
    weights = weights.clone().requires_grad_()
    logs = (weights @ features).log_softmax(0)
    return np.stack([torch.autograd.grad(each, weights, retain_graph=True)[0].flatten().numpy() for each in logs])


def subsets(classes: int, label: int) -> list[np.ndarray]:
    """Every distribution that is equal on a set of classes with the label and 0 elsewhere."""
    others = [each for each in range(classes) if each != label]
    chosen = itertools.chain.from_iterable(itertools.combinations(others, size) for size in range(classes))
    vertices = np.zeros((2 ** (classes - 1), classes))
    for vertex, extra in zip(vertices, chosen, strict=True):
        vertex[[label, *extra]] = 1 / (1 + len(extra))
    return list(vertices)


@pytest.mark.parametrize("keep_label", [True, False])
@pytest.mark.parametrize("classes", [3, 5])
def test_mad_takes_the_vertex_whose_gradient_turns_furthest(classes: int, keep_label: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(classes, 3, generator=generator, dtype=torch.float64)
    epsilon, turned = 0.3, []
    for y in rows(classes, 1):
        features = torch.randn(3, generator=generator, dtype=torch.float64)
        gradients = last_layer_gradients(weights, features)
        student = (weights @ features).softmax(0).numpy()[np.newaxis].astype(np.float32)
        honest = y @ gradients

        def angle(answer: np.ndarray, gradients: np.ndarray = gradients, honest: np.ndarray = honest) -> float:
            poisoned = answer @ gradients
            return float(poisoned @ honest / np.linalg.norm(poisoned) / np.linalg.norm(honest))

        candidates = subsets(classes, int(y.argmax())) if keep_label else list(np.eye(classes))
        best = min(candidates, key=angle)
        expected = y + min(1, epsilon / np.abs(y - best).sum()) * (best - y)
        shown = Mad(epsilon, keep_label)(y[np.newaxis], surrogate(probabilities=student))
        assert shown is not None
        np.testing.assert_allclose(shown[0], expected, atol=1e-5)
        turned.append(angle(shown[0]))
    assert min(turned) < 0.9, "no gradient turned: the comparison is void"


def test_above_ten_classes_the_subset_grows_by_the_best_class_while_it_helps() -> None:
    classes = 12
    y, student = rows(classes, 2, 0.5), rows(classes, 3, 0.5)
    shown = Mad(2.0)(y, surrogate(probabilities=student))
    assert shown is not None

    def cosine(held: list[int], row: int) -> float:
        away = y[row].astype(np.float64) - student[row]
        answer = -student[row].astype(np.float64)
        answer[held] += 1 / len(held)
        return float(answer @ away / np.linalg.norm(answer))

    for row in range(ROWS):
        held = [int(y[row].argmax())]
        while len(held) < classes:
            grown = min(([*held, each] for each in range(classes) if each not in held), key=lambda h: cosine(h, row))
            if cosine(grown, row) >= cosine(held, row):
                break
            held = grown
        expected = np.zeros(classes)
        expected[held] = 1 / len(held)
        np.testing.assert_allclose(shown[row], expected, atol=1e-6)


def test_where_the_gradient_is_nothing_mad_still_answers() -> None:
    y = rows(4, 4)
    for keep_label in (True, False):
        shown = Mad(0.5, keep_label)(y, surrogate(probabilities=y))
        assert shown is not None
        assert np.isfinite(shown).all()
        assert (np.abs(shown - y).sum(axis=1) <= 0.5 + 1e-6).all()


@pytest.mark.parametrize("epsilon", [0.1, 0.7, 2.0])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_grad_is_the_optimum_of_its_linear_program(classes: int, epsilon: float) -> None:
    """A linear program's optimum is a vertex: of what is taken and given all but one are at a bound."""
    y = rows(classes, 5)
    slopes = np.random.default_rng(6).normal(0, 50, (ROWS, classes)).astype(np.float32)
    shown = GradientRedirection(epsilon)(y, surrogate(redirection=slopes))
    assert shown is not None
    for row in range(ROWS):
        best = -np.inf
        for receiver, spent in itertools.product(range(classes), itertools.product((0, 1), repeat=classes)):
            # whole entries go to the receiver, and one more in part: whatever the budget leaves of it
            whole = y[row].astype(np.float64) * spent
            whole[receiver] = 0
            for partly in range(classes):
                left = epsilon / 2 - whole.sum()
                if left < -1e-9:
                    continue
                taken = whole.copy()
                if partly != receiver and not spent[partly]:
                    taken[partly] = min(y[row, partly], left)
                answer = y[row] - taken
                answer[receiver] += taken.sum()
                best = max(best, float(answer @ slopes[row]))
        assert float(shown[row].astype(np.float64) @ slopes[row]) == pytest.approx(best, rel=1e-5, abs=1e-3)


def test_grad_that_keeps_the_label_moves_as_much_as_the_label_bears() -> None:
    y = rows(5, 7)
    slopes = np.random.default_rng(8).normal(0, 50, (ROWS, 5)).astype(np.float32)
    free, kept = (GradientRedirection(1.0, keep)(y, surrogate(redirection=slopes)) for keep in (False, True))
    assert free is not None
    assert kept is not None
    bound = 0
    for row, label in enumerate(y.argmax(axis=1)):
        if free[row, label] == free[row].max():
            np.testing.assert_allclose(kept[row], free[row], atol=1e-6)
        else:
            bound += 1
            assert kept[row, label] == kept[row].max()
            assert np.delete(kept[row], label).max() == pytest.approx(kept[row, label], abs=1e-6)
    assert bound > 5
