"""The evidence of a mark: p and e against every redraw of the key, one by one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from evaluation.marks.evidence import CAP, EPSILON, Table, capped, table, together

CLASSES, PARTS = 4, 1


def random_table(seed: int = 0, images: int = 60) -> Table:
    random = np.random.default_rng(seed)
    suspect, owner = random.dirichlet(np.ones(CLASSES), (2, images))
    cells = random.integers(0, CLASSES * PARTS, images)
    return table(suspect, owner, cells, parts=PARTS)


def redraws() -> list[np.ndarray]:
    """Every table of keyed classes that a key can give."""
    others = [[other for other in range(CLASSES) if other != cell // PARTS] for cell in range(CLASSES * PARTS)]
    return [np.array(each) for each in itertools.product(*others)]


def test_p_is_the_share_of_all_redraws_that_are_as_extreme() -> None:
    read = random_table()
    totals = {
        tuple(classes): sum(
            int(read.scores[row, read.others[row].tolist().index(classes[cell])]) for row, cell in enumerate(read.cells)
        )
        for classes in redraws()
    }
    assert len(totals) == 3**4
    for classes in redraws():
        expected = np.mean([total >= totals[tuple(classes)] for total in totals.values()])
        assert read.against(classes).p == pytest.approx(expected, rel=1e-9)


def test_p_is_uniform_or_larger_under_redraws_and_e_is_one_on_average() -> None:
    found = [random_table(1).against(classes) for classes in redraws()]
    for level in (0.05, 0.1, 0.5):
        assert np.mean([each.p <= level for each in found]) <= level
    assert np.mean([each.e for each in found]) == pytest.approx(1, rel=1e-9)
    assert np.mean([each.z for each in found]) == pytest.approx(0, abs=0.05)


def test_a_suspect_that_says_more_of_keyed_classes_is_evidence_against_it() -> None:
    random = np.random.default_rng(2)
    owner = random.dirichlet(np.ones(10) * 0.05, 2000)
    tops = owner.argmax(1)
    cells = tops * 4 + random.integers(0, 4, 2000)
    classes = np.array([(cell // 4 + 1 + cell % 9) % 10 for cell in range(40)])
    learnt = 0.99 * owner + 0.01 * np.eye(10)[classes[cells]]
    found = table(learnt, owner, cells, parts=4).against(classes)
    assert found.p < 1e-20
    assert found.e > 1e6
    assert found.images == 2000
    others = [table(learnt, owner, cells, parts=4).against((classes + shift) % 10) for shift in (3, 5)]
    assert min(each.p for each in others) > 1e-3


def test_the_owners_own_model_is_no_evidence() -> None:
    owner = np.random.default_rng(3).dirichlet(np.ones(CLASSES), 50)
    found = table(owner, owner, owner.argmax(1), parts=1).against(np.array([1, 2, 3, 0]))
    assert (found.z, found.p, found.e) == (0.0, 1.0, 1.0)


def test_suspects_that_tell_labels_alone_can_be_read() -> None:
    owner = np.random.default_rng(4).dirichlet(np.ones(CLASSES), 50)
    labels = np.eye(CLASSES)[owner.argmax(1)]
    found = table(labels, owner, owner.argmax(1), parts=1).against(np.array([1, 2, 3, 0]))
    assert 0 < found.p <= 1
    assert math.isfinite(found.e)


def test_models_together_stand_for_the_owner() -> None:
    random = np.random.default_rng(5)
    one, other = random.dirichlet(np.ones(CLASSES), (2, 40))
    both = together([one, other])
    logs = [np.log(np.minimum(each, CAP) + EPSILON) for each in (one, other)]
    assert np.log(both + EPSILON) == pytest.approx(sum(logs) / 2)
    found = table(both, one, one.argmax(1), parts=1, excess=lambda suspect, _: capped(suspect, both))
    assert found.against(np.array([1, 2, 3, 0])).p == 1.0
