"""The link of two accounts against windows counted by hand, and against the slow obvious count."""

from __future__ import annotations

import numpy as np

from defenses.noise import PerceptualCode
from evaluation.linking import NONE, Integers, Windows, coded, distinct, hits, mutual


def slowly(windows: Windows) -> Integers:
    """What `hits` says, query by query; 0 of an account and itself."""
    accounts = [list(zip(*each, strict=True)) for each in zip(*(part.tolist() for part in windows), strict=True)]
    found = [
        [
            sum(code != NONE and any(code == c and image != i for c, i in asked) for code, image in asking)
            for asked in accounts
        ]
        for asking in accounts
    ]
    return np.array(found) * ~np.eye(len(found), dtype=bool)


def test_a_query_counts_where_its_code_stands_for_another_image() -> None:
    codes = np.array([[5, 5, 7, 9], [5, 8, 7, NONE], [6, 6, 6, 6]])
    images = np.array([[0, 1, 2, 3], [0, 4, 5, NONE], [9, 9, 9, 9]])
    # of the first account: image 1 has code 5 as the second's image 0 has, image 0 is the same one, 2 and 5 share 7;
    # of the second: image 0 has the code of image 1 of the first, 5 that of 2
    found = hits(Windows(codes, images), 3)
    assert (found[0, 1], found[1, 0]) == (2, 2)
    assert mutual(Windows(codes, images), 3).tolist() == [[0, 2, 0], [2, 0, 0], [0, 0, 0]]


def test_one_image_asked_for_ever_is_in_nobody_s_company() -> None:
    codes = np.array([[3, 3, 3, 3], [3, 4, 5, 6]])
    images = np.array([[0, 0, 0, 0], [1, 2, 3, 4]])
    assert hits(Windows(codes, images), 2)[[0, 1], [1, 0]].tolist() == [4, 1]
    assert mutual(Windows(codes, images), 2).max() == 1


def test_counts_are_those_of_the_slow_way() -> None:
    random = np.random.default_rng(0)
    of_image = random.integers(0, 12, 60)
    images = random.integers(0, 60, (8, 15))
    images[0, 10:] = NONE
    windows = Windows(np.where(images == NONE, NONE, of_image[images]), images)
    expected = slowly(windows)
    assert expected.max() > 5
    others = ~np.eye(8, dtype=bool)
    assert (hits(windows, 8) * others == expected).all()
    few = hits(windows, 2) * others
    assert (few[:2] == expected[:2]).all()
    assert (few[:, :2] == expected[:, :2]).all()
    assert (few <= expected).all()


def test_accounts_without_anything_in_common_have_no_hits() -> None:
    windows = Windows(np.array([[1, 2], [3, 4]]), np.array([[1, 2], [3, 4]]))
    assert not mutual(windows, 2).any()


def test_near_copies_have_a_code_in_common_and_equal_images_a_number() -> None:
    random = np.random.default_rng(1)
    images = random.integers(30, 220, (50, 1, 28, 28)).astype(np.uint8)
    both = np.concatenate([images, images + np.uint8(1), images])
    codes = coded(both, PerceptualCode(2, 128), b"secret of a test, of any length.")
    assert (codes[:50] == codes[100:]).all()
    assert (codes[:50] == codes[50:100]).mean() > 0.8
    numbers = distinct(both)
    assert (numbers[:50] == numbers[100:]).all()
    assert not set(numbers[:50].tolist()) & set(numbers[50:100].tolist())
