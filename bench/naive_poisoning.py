"""MAD and GRAD^2 the slow way, as in their authors' public code: the baseline that the served forms are timed against.

Both give the answers of defenses/responses/poisoning.py, up to float32, but from the surrogate's gradients themselves:

* `mad` (Orekondy et al., ICLR 2020; github.com/tribhuvanesh/prediction-poisoning, defenses/victim/bb_mad.py). A row at
  a time: the matrix G (K,P) of the gradients of log p_k, P the weights of the last layer, by K backward passes; then
  the candidate c that maximises

      || G^T c / ||G^T c|| - G^T y / ||G^T y|| ||^2 = 2 - 2 cos(G^T c, G^T y),

  one after another, 2^(K-1) of them where the label is kept.
* `grad` (Mazeika et al., ICML 2022; github.com/mmazeika/model-stealing-defenses, batch_training/defenses.py). The
  gradient G^T y of a batch over all parameters, then its product with v, all ones, differentiated by y: s = G v by two
  backward passes, the second through the first. Mass moves class by class, a row at a time.

The code is this project's. It leaves out the public code's guards against rounding and its growth of candidates above
ten classes; keeping the label is this project's addition to `grad`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from evaluation.studies.study import StudyError

# So many candidates are the most that the public code tries one by one.
ALL_VERTICES = 10

Vector = NDArray[np.float32]


class TooManyClassesError(StudyError):
    """More classes than candidates can be tried for, one by one."""


def mad(
    surrogate: nn.Module, images: torch.Tensor, probabilities: torch.Tensor, *, epsilon: float, keep_label: bool
) -> torch.Tensor:
    """What MAD shows of `probabilities` (N,K) for `images` (N,C,H,W), float32. surrogate: images to logits (N,K).

    Raises TooManyClassesError where the label is kept among more than ALL_VERTICES classes.
    """
    classes = probabilities.shape[1]
    if keep_label and classes > ALL_VERTICES:
        raise TooManyClassesError(
            f"naive mad: expected at most {ALL_VERTICES} classes to keep the label, got {classes}"
        )
    shown = []
    for image, y in zip(images, probabilities, strict=True):
        jacobian = _jacobian(surrogate, image).cpu().numpy()
        extreme = torch.from_numpy(_extreme(jacobian, y.cpu().numpy(), keep_label)).to(y)
        share = (epsilon / (y - extreme).abs().sum()).clamp(max=1)
        shown.append((1 - share) * y + share * extreme)
    return torch.stack(shown)


def _jacobian(surrogate: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """(K,P): the gradient of each class's log-probability by the last layer's weights."""
    *_, weight, _bias = surrogate.parameters()
    log_p = F.log_softmax(surrogate(image[None]), dim=1)[0]
    rows = [torch.autograd.grad(each, weight, retain_graph=True)[0].flatten() for each in log_p]
    return torch.stack(rows)


def _extreme(jacobian: Vector, y: Vector, keep_label: bool) -> Vector:
    """(K,): the candidate whose gradient turns furthest from that of y; of equal ones the first."""
    classes = len(y)
    if keep_label:
        subsets = np.asarray(list(itertools.product([0, 1], repeat=classes)), dtype=np.float32)
        candidates = subsets[subsets[:, y.argmax()] > 0]
    else:
        candidates = np.eye(classes, dtype=np.float32)
    best, largest = y, -1.0
    for vertex in candidates:
        candidate = vertex / vertex.sum()
        turned = _objective(candidate, y, jacobian)
        if turned > largest:
            best, largest = candidate, turned
    return best


def _objective(candidate: Vector, y: Vector, jacobian: Vector) -> float:
    u, v = jacobian.T @ candidate, jacobian.T @ y
    return float(np.linalg.norm(u / np.linalg.norm(u) - v / np.linalg.norm(v)) ** 2)


def grad(
    surrogate: nn.Module, images: torch.Tensor, probabilities: torch.Tensor, *, epsilon: float, keep_label: bool
) -> torch.Tensor:
    """What GRAD^2 shows of `probabilities` (N,K) for `images` (N,C,H,W), float32. surrogate: images to logits (N,K)."""
    scores = _scores(surrogate, images, probabilities)
    rows = zip(probabilities, scores, strict=True)
    return torch.stack([_redirected(y, s, epsilon / 2, keep_label) for y, s in rows])


def _scores(surrogate: nn.Module, images: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """(N,K): <gradient of log p_k, v>, up to a factor of the batch."""
    y = probabilities.clone().requires_grad_()
    loss = (y * F.log_softmax(surrogate(images), dim=1)).sum(1).mean()
    gradients = torch.autograd.grad(loss, list(surrogate.parameters()), create_graph=True)
    along = torch.cat([each.flatten() for each in gradients])
    return torch.autograd.grad((along * torch.ones_like(along)).sum(), y)[0]


def _redirected(y: torch.Tensor, scores: torch.Tensor, most: float, keep_label: bool) -> torch.Tensor:
    """(K,): up to `most` moved to the class with the largest score, from those with the smallest."""
    shown = y.clone()
    best, *others = scores.argsort(descending=True).tolist()
    label = int(y.argmax())
    found = 0.0
    for place in reversed(others):
        held = shown[place].item()
        taken = min(held, most - found)
        if keep_label and label != best:
            taken = min(taken, _room(shown, place, label, best))
        shown[place] -= taken
        shown[best] += taken
        found += taken
        if taken < held:
            break
    return shown


def _room(shown: torch.Tensor, place: int, label: int, best: int) -> float:
    """How much may move from `place` to `best` before the label is no longer the largest entry."""
    gap = (shown[label] - shown[best]).item()
    if place != label:
        return gap
    rivals = shown.clone()
    rivals[label] = 0
    return min(gap / 2, (shown[label] - rivals.max()).item())


# a response rule's name -> (surrogate, images, probabilities, epsilon=, keep_label=) -> what is shown
NAIVE: Mapping[str, Callable[..., torch.Tensor]] = {"mad": mad, "grad": grad}
