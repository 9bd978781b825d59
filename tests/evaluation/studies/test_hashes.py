"""The hash study: its counts by hand, the public hashes, and the program on real archives."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest
import torch

import recipes
from evaluation.oracles import InProcessOracle
from evaluation.studies import hashes
from evaluation.studies.hashes import dct, sha1
from export.archive import PolicyTable, Serving, archive
from report.rows.routing import InvarianceRow
from report.schema import ResultError
from tests.conftest import RECIPE, Smoke
from tests.data_sets import digits_test
from tests.evaluation.studies.command import study
from tests.reached import Reached


def halves(images: torch.Tensor) -> torch.Tensor:
    """A hash by hand: 0 or 1, by which half of the image is brighter."""
    return (images[..., 14:].mean((1, 2, 3)) > images[..., :14].mean((1, 2, 3))).long()


def bars() -> torch.Tensor:
    """Three images: a bar far left, far right, and in the middle."""
    images = torch.zeros(3, 1, 28, 28)
    for row, column in enumerate((4, 22, 13)):
        images[row, :, 8:20, column : column + 2] = 1
    return images


def test_what_is_kept_and_the_sorted_counts_by_hand() -> None:
    weak, _, strong = hashes.keep(halves, {"bars": bars()}, 2, 3, 40, recipe="r", policy="p")
    assert (weak.degrees, strong.degrees) == (5, 25)
    # the outer bars stay where they are; the middle one, left by a hair or right, is a coin's throw
    assert 2 / 3 < weak.kept < 1
    assert weak.sorted_counts[0] >= 40 + 40 + 20
    assert sum(weak.sorted_counts) == 3 * 40
    assert strong.kept <= weak.kept


def test_every_row_is_counted_for_its_member() -> None:
    rows = hashes.balance(halves, {"bars": bars()[:2], "left": bars()[:1]}, 2, recipe="r", policy="p")
    assert [(row.traffic, row.member, row.rows) for row in rows] == [
        ("bars", 0, 1),
        ("bars", 1, 1),
        ("left", 0, 1),
        ("left", 1, 0),
    ]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [((10, 10, 10), 1.0), ((30, 0, 0), 0.0), ((5, 5, 0), math.log(2) / math.log(3))],
)
def test_entropy_of_member_usage(rows: tuple[int, ...], expected: float) -> None:
    assert hashes.entropy(rows) == pytest.approx(expected)


def test_sha1_is_the_library_s_and_changes_with_a_grey_level() -> None:
    image = bars()[:1]
    number = int.from_bytes(hashlib.sha1((255 * image).byte().numpy().tobytes()).digest(), "big")
    assert sha1(image, 5).tolist() == [number % 5]
    changed = torch.cat([image, image - image / 255])
    assert len(set(sha1(changed, 10**9).tolist())) == 2
    assert sha1(image + 0.001, 5).tolist() == sha1(image, 5).tolist(), "what rounds to the same bytes is the same image"


def test_dct_is_blind_to_brightness_and_small_changes_and_sees_the_picture() -> None:
    digits = digits_test().pixels[:50]
    assert torch.equal(dct(digits, 10**9), dct(0.5 * digits + 0.1, 10**9))
    assert len(set(dct(digits, 10**9).tolist())) > 45
    noisy = (digits + 1e-4 * torch.randn(digits.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    assert (dct(digits, 5) == dct(noisy, 5)).float().mean() > 0.8


def test_counts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ResultError, match="sorted_counts: expected 2 x 3 copies in all"):
        InvarianceRow("r", "p", "t", 5, 0.1, 0.1, images=2, copies=3, kept=0.5, sorted_counts=(5, 0))


def test_a_row_has_one_member_however_it_is_batched(smoke: Smoke, reached: Reached) -> None:
    images = digits_test().pixels[:64]
    with InProcessOracle(smoke.archive("edm")) as oracle:
        alone = torch.cat([oracle.members(image[None]) for image in images])
        for rows in (7, 32, 64):
            assert torch.equal(torch.cat([oracle.members(part) for part in images.split(rows)]), alone)
    reached("members met", len(alone.unique()), above=1.5)


def test_the_program(smoke: Smoke, tmp_path: Path, reached: Reached) -> None:
    recipe = recipes.read(RECIPE)
    policies = ("edm", "edm-class-confidence")
    for policy in policies:
        archive(
            recipe,
            policy,
            recipe.family("policies", PolicyTable)[policy],
            recipe.section("serving", Serving),
            runs=smoke.runs,
            build=smoke.build,
            store=tmp_path,
            data=None,
        )
    few = ("--images", "40", "--copies", "3")
    report = study("hashes", "--policies", *policies, *few, run=tmp_path, store=tmp_path)
    traffic = {"benign (digits)", "thief (flower)", "uniform noise", "untrained generators"}
    assert {row.traffic for row in report.routing} == {row.traffic for row in report.invariance} == traffic
    assert {row.policy for row in report.routing} == {*policies, "dct", "sha1"}
    assert {(row.policy, row.batch) for row in report.hash_costs} == {(p, b) for p in policies for b in (1, 8, 32)}
    assert all(0 < row.router_us < row.stage_us for row in report.hash_costs)

    def used(policy: str, name: str) -> float:
        return hashes.entropy([row.rows for row in report.routing if (row.policy, row.traffic) == (policy, name)])

    reached("entropy of the members' usage", min(used("edm", name) for name in traffic), above=0.6)
    assert used("sha1", "benign (digits)") > 0.99
    kept = {row.policy: row.kept for row in report.invariance if (row.degrees, row.traffic) == (5, "benign (digits)")}
    reached("more copies kept than by dct", kept["edm"] - kept["dct"], above=-0.05)
    assert kept["sha1"] == pytest.approx(1 / 3, abs=0.15)


def test_a_policy_of_one_member_has_no_hash(smoke: Smoke, tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match="undefended: expected a policy that routes rows to its members, got one without"
    ):
        study("hashes", "--policies", "undefended", run=tmp_path, store=smoke.store)
