"""The tree of hyperplanes on features made by hand: equal shares, copies together, and the key."""

from __future__ import annotations

import numpy as np
import pytest

from defenses.routing import Projection
from tests.reached import Reached
from training.hash_tree import Tree

Features = np.ndarray


def leaves(tree: Tree, features: Features, copies: Features, *, seed: int = 0, of: Features | None = None) -> Features:
    """The leaf of each row of `of` (of the features themselves by default)."""
    normals, offsets = tree.grow(features, copies, np.random.default_rng(seed))
    shown = features if of is None else of
    projections = shown @ normals.numpy().T - offsets.numpy() - 0.5
    return Projection(depth=tree.depth)({"projections": projections.astype(np.float32)})


def traffic(rows: int = 400, *, seed: int = 0) -> tuple[Features, Features]:
    """Two kinds of images in 20 features, one of them (noise) in a tenth of the room, and two copies of each.

    Features 0 to 9 tell images apart; 10 to 19 are as large and change with every copy.
    """
    rng = np.random.default_rng(seed + 3)
    kept = np.concatenate([rng.uniform(0, 200, (rows, 10)), rng.uniform(90, 110, (rows, 10))])

    def view() -> Features:
        return np.round(np.concatenate([kept + rng.normal(0, 1, kept.shape), rng.uniform(0, 200, kept.shape)], axis=1))

    return view(), np.stack([view(), view()])


def test_every_leaf_has_its_share_of_all_traffic(reached: Reached, seed: int) -> None:
    features, copies = traffic(seed=seed)
    shares = np.bincount(leaves(Tree(depth=4), features, copies, seed=seed), minlength=16) / len(features)
    reached("least share", 16 * shares.min(), above=0.8)
    reached("largest share", 16 * shares.max(), below=1.2)


def test_noise_is_resolved_as_deep_as_it_is_frequent(reached: Reached, seed: int) -> None:
    features, copies = traffic(seed=seed)
    noise = leaves(Tree(depth=5), features, copies, seed=seed)[400:]
    shares = np.bincount(noise, minlength=32) / len(noise)
    reached("leaves with noise", np.count_nonzero(shares > 0.02), above=7.5)
    reached("largest share", shares.max(), below=0.2)


def test_an_image_s_copies_stay_in_its_leaf(reached: Reached, seed: int) -> None:
    features, copies = traffic(seed=seed)
    own, warped = (leaves(Tree(depth=3, rank=2), features, copies, seed=seed, of=of) for of in (features, copies[0]))
    reached("share that stays", (own == warped)[:400].mean(), above=0.8)
    # a tree that took features as they come would be at the mercy of those that change with every copy
    shuffled = features[:, np.random.default_rng(0).permutation(20)]
    assert (leaves(Tree(depth=3), shuffled, np.stack([shuffled + 1]), of=features) != own).any()


def test_hyperplanes_are_whole_and_drawn_by_the_generator() -> None:
    features, copies = traffic()
    drawn = [Tree(depth=3).grow(features, copies, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    for normals, offsets in drawn:
        assert normals.shape == (7, 20)
        assert offsets.shape == (7,)
        assert (normals == normals.round()).all()
        assert (offsets == offsets.round()).all()
        assert 1000 < normals.abs().amax() <= 2047
        assert 255 * normals.abs().sum(1).max() < 2**22
    assert (drawn[0][0] == drawn[1][0]).all()
    assert not (drawn[0][0] == drawn[2][0]).all()


def test_images_that_are_all_the_same_still_give_a_tree() -> None:
    features = np.full((50, 6), 7.0)
    assert set(leaves(Tree(depth=3), features, features[None]).tolist()) == {0}


@pytest.mark.parametrize(("field", "most"), [("depth", 12), ("rank", 1000)])
def test_what_a_recipe_cannot_ask_for(field: str, most: int) -> None:
    for wrong in (0, most + 1):
        with pytest.raises(ValueError, match=f"{field}: expected 1 to {most}, got {wrong}"):
            Tree(**{field: wrong})
