"""Noise by an independent route: digests and counters taken from the module's formula, codes from plain loops."""

from __future__ import annotations

import hmac
import itertools
import math
import os
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from defenses.noise import Fresh, Keyed, PerceptualCode
from pictures.geometry import LARGEST_SIDE
from tests.defenses.policies import KEY

SHAPE = (1, 8, 8)
# of float32 angles up to pi, times a radius of up to 5.8
ROUNDING = 4e-6
SECRET = hmac.digest(KEY, b"torchwarden/perturb/noise/0", "sha256")
# the first four draws for the grey levels 0 to 63 in order: of the exact bytes, and of the perceptual code
BYTES = [-0.04659638, -2.30153936, -1.40740343, -0.24744112]
PERCEPTUAL = [-0.41122883, 1.10464631, -0.76322331, -0.92973811]


def keyed(share: float = 0.5, *, key: bytes = KEY, period: float = 0.0, at: float = 0.0, **code: int) -> Keyed:
    return Keyed(
        SHAPE,
        key=key,
        share=share,
        code=PerceptualCode(**{"grid": 2, "step": 64, **code}),
        period=period,
        clock=lambda: at,
    )


def greys(rows: int, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Images of whole grey levels."""
    levels = np.random.default_rng(seed).integers(0, 256, (rows, *shape))
    return (levels / np.float32(255)).astype(np.float32)


def levels_of(images: np.ndarray) -> np.ndarray:
    return np.rint(images * np.float32(255)).astype(np.uint8)


def generator(digest: bytes) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def normal(secret: bytes, message: bytes) -> np.ndarray:
    return stream(hmac.new(secret, message, "sha256").digest()[:16], SHAPE)


def stream(seed: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Box and Muller's formula word by word, in double precision."""
    count = math.prod(shape)
    words = np.random.Philox(key=int.from_bytes(seed, "little")).random_raw(math.ceil(count / 2)).tolist()
    halves = [half for word in words for half in (word & 0xFFFFFFFF, word >> 32)]
    first, second = halves[: len(words)], halves[len(words) :]
    radii = [math.sqrt(-2 * math.log(((half >> 9) + 0.5) / 2**23)) for half in first]
    angles = [2 * math.pi * (half - 2**32 * (half >> 31)) / 2**32 for half in second]
    turns = [turn(angle) for turn in (math.cos, math.sin) for angle in angles]
    return np.array([radius * turn for radius, turn in zip(2 * radii, turns, strict=True)][:count]).reshape(shape)


def coded(pixels: np.ndarray, secret: bytes, grid: int, step: int) -> list[int]:
    """The perceptual code of one image (C,H,W), block by block, in fractions."""
    channels, height, width = pixels.shape
    cuts = generator(hmac.new(secret, b"cuts", "sha256").digest()).integers(0, step, channels * grid * grid)
    code = []
    for channel, row, column in itertools.product(range(channels), range(grid), range(grid)):
        block = pixels[
            channel,
            row * height // grid : (row + 1) * height // grid,
            column * width // grid : (column + 1) * width // grid,
        ]
        mean = Fraction(int(block.astype(int).sum()), block.size)
        code.append(math.floor((mean + int(cuts[len(code)])) / step))
    return code


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_keyed_noise_is_the_formula_of_key_and_image(share: float) -> None:
    images = greys(5)
    drawn = keyed(share)(images)
    assert drawn.shape == (5, *SHAPE)
    assert drawn.dtype == np.float32
    for noise, pixels in zip(drawn, levels_of(images), strict=True):
        exact = normal(SECRET, b"bytes" + pixels.tobytes())
        shared = normal(SECRET, b"perceptual" + bytes(coded(pixels, SECRET, 2, 64)))
        np.testing.assert_allclose(noise, math.sqrt(share) * shared + math.sqrt(1 - share) * exact, atol=ROUNDING)


def test_the_stream_is_the_one_that_is_served() -> None:
    # every machine must draw these, whatever its version of numpy
    image = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8) / 255
    shown = {share: keyed(share)(image)[0, 0, 0, :4] for share in (0.0, 1.0)}
    np.testing.assert_allclose(shown[0.0], BYTES, atol=1e-6)
    np.testing.assert_allclose(shown[1.0], PERCEPTUAL, atol=1e-6)


@given(
    levels=arrays(np.uint8, st.tuples(st.integers(1, 6), *map(st.just, SHAPE))),
    share=st.sampled_from([0.0, 0.4, 1.0]),
    order=st.randoms(use_true_random=False),
)
def test_no_row_s_noise_depends_on_the_other_rows(levels: np.ndarray, share: float, order: object) -> None:
    images, noise = (levels / np.float32(255)).astype(np.float32), keyed(share)
    together = noise(images)
    for row in range(len(images)):
        np.testing.assert_array_equal(noise(images[row : row + 1])[0], together[row])
    shuffled = list(range(len(images)))
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(noise(images[shuffled]), together[shuffled])


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_same_image_draws_the_same_noise_and_another_another(share: float) -> None:
    images, noise = greys(20), keyed(share, step=8)
    drawn = noise(np.concatenate([images, images]))
    np.testing.assert_array_equal(drawn[:20], drawn[20:])
    np.testing.assert_array_equal(drawn[:20], keyed(share, step=8)(images))
    assert len({row.tobytes() for row in drawn}) == 20
    other = keyed(share, key=bytes(32), step=8)(images)
    assert np.abs(np.corrcoef(other.ravel(), drawn[:20].ravel())[0, 1]) < 0.1


def test_one_grey_level_away_the_bytes_redraw_and_the_perceptual_code_hardly_ever() -> None:
    images = greys(300)
    near = images.copy()
    near[:, 0, 3, 3] += np.where(near[:, 0, 3, 3] < 0.5, 1, -1) / np.float32(255)
    exact, shared = keyed(0), keyed(1)
    assert not (exact(near) == exact(images)).all(axis=(1, 2, 3)).any()
    # a block of 16 pixels moves by 1/16 of a level: one cut in 1024 lies between
    assert (shared(near) == shared(images)).all(axis=(1, 2, 3)).mean() > 0.99


def test_where_the_cuts_lie_is_drawn_from_the_secret() -> None:
    # one level more in every pixel passes one of a block's 64 cuts: all four blocks stay with (63/64)^4
    grey = np.full((1, *SHAPE), 100, np.uint8)
    code = PerceptualCode(grid=2, step=64)
    cuts = [code.cuts(SHAPE[0], bytes([one, other])) for one in range(64) for other in range(32)]
    kept = [np.array_equal(code.of(grey, each), code.of(grey + np.uint8(1), each)) for each in cuts]
    assert np.mean(kept) == pytest.approx((63 / 64) ** 4, abs=0.02)
    assert len({code.of(grey, each).tobytes() for each in cuts}) > 8


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_mix_is_standard_normal_and_its_parts_weigh_what_they_say(share: float) -> None:
    # images whose codes differ, or their perceptual noise would be one draw only
    images = greys(400, shape=SHAPE)
    mixed, shared, exact = (keyed(part, step=1)(images).ravel() for part in (share, 1.0, 0.0))
    assert mixed.mean() == pytest.approx(0, abs=0.02)
    assert mixed.var() == pytest.approx(1, abs=0.03)
    assert np.mean(mixed**4) == pytest.approx(3, abs=0.2)
    assert np.corrcoef(mixed, shared)[0, 1] == pytest.approx(math.sqrt(share), abs=0.02)
    assert np.corrcoef(mixed, exact)[0, 1] == pytest.approx(math.sqrt(1 - share), abs=0.02)
    assert np.corrcoef(shared, exact)[0, 1] == pytest.approx(0, abs=0.02)


def test_copies_of_an_image_have_the_perceptual_share_in_common() -> None:
    copies = np.repeat(greys(1), 100, axis=0)
    copies[:, 0, 0, 0] = np.arange(100) / np.float32(255)
    drawn = keyed(0.6, step=255)(copies).reshape(100, -1)
    between = [np.corrcoef(one, other)[0, 1] for one, other in itertools.combinations(drawn, 2)]
    assert np.mean(between) == pytest.approx(0.6, abs=0.05)


def test_a_period_has_one_noise_and_the_next_another() -> None:
    images, now = greys(3), [0.0]
    noise = Keyed(SHAPE, key=KEY, share=0.5, code=PerceptualCode(), period=60.0, clock=lambda: now[0])

    def at(seconds: float) -> bytes:
        now[0] = seconds
        return noise(images).tobytes()

    first = [at(seconds) for seconds in (180.0, 200.5, 239.999)]
    assert len(set(first)) == 1
    assert at(240.0) != first[0]
    assert at(179.999) != first[0]
    assert at(185.0) == first[0], "nothing of another period is left"


def test_the_period_s_number_is_in_the_secret() -> None:
    image = greys(1)
    secret = hmac.digest(KEY, b"torchwarden/perturb/noise/3", "sha256")
    drawn = keyed(0, period=25.0, at=99.0)(image)[0]
    np.testing.assert_allclose(drawn, normal(secret, b"bytes" + levels_of(image).tobytes()), atol=ROUNDING)


def test_without_a_period_no_clock_is_read() -> None:
    def clock() -> float:
        raise AssertionError

    noise = Keyed(SHAPE, key=KEY, share=0.5, code=PerceptualCode(), period=0.0, clock=clock)
    np.testing.assert_array_equal(noise(greys(2)), noise(greys(2)))


def test_keyed_noise_is_for_the_image_in_8_bits_and_that_is_what_is_shown() -> None:
    levels = np.arange(256, dtype=np.float32).reshape(4, 1, 8, 8) / np.float32(255)
    noise = keyed()
    np.testing.assert_array_equal(noise.canonical(levels), levels)
    within = levels + np.float32(0.4 / 255)  # less than half a level away
    assert not np.array_equal(within, levels)
    np.testing.assert_array_equal(noise.canonical(within), levels)
    np.testing.assert_array_equal(noise(within), noise(levels))


@given(images=arrays(np.float32, (2, *SHAPE), elements=st.floats(0, 1, width=32)))
def test_a_canonical_image_is_its_own(images: np.ndarray) -> None:
    noise = keyed()
    canonical = noise.canonical(images)
    assert canonical.dtype == np.float32
    assert canonical.min() >= 0
    assert canonical.max() <= 1
    assert np.abs(canonical - images).max() <= 0.5 / 255 + 1e-6
    np.testing.assert_array_equal(noise.canonical(canonical), canonical)
    np.testing.assert_array_equal(noise(canonical), noise(images))


@given(
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    step=st.integers(1, 255),
    secret=st.binary(min_size=32, max_size=32),
    data=st.data(),
)
def test_a_perceptual_code_equals_a_walk_over_blocks(
    channels: int, height: int, width: int, step: int, secret: bytes, data: st.DataObject
) -> None:
    grid = data.draw(st.integers(1, min(height, width)))
    pixels = data.draw(arrays(np.uint8, (2, channels, height, width)))
    code = PerceptualCode(grid, step)
    codes = code.of(pixels, code.cuts(channels, secret))
    assert codes.dtype == np.uint8
    assert codes.tolist() == [coded(image, secret, grid, step) for image in pixels]


def test_the_largest_image_s_sum_is_held() -> None:
    white = np.full((1, 1, LARGEST_SIDE, LARGEST_SIDE), 255, np.uint8)
    assert PerceptualCode(grid=1, step=1).of(white, np.zeros((1, 1, 1), np.int64)).tolist() == [[255]]


def test_a_block_s_mean_on_a_cut_is_above_it() -> None:
    # every grey level as a whole image: whole numbers, no rounding where mean + cut is a multiple of the step
    pixels = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1), (256, 1, 7, 7))
    cuts = generator(hmac.new(SECRET, b"cuts", "sha256").digest()).integers(0, 10, 9)
    expected = (np.arange(256)[:, np.newaxis] + cuts) // 10
    code = PerceptualCode(grid=3, step=10)
    np.testing.assert_array_equal(code.of(pixels, code.cuts(1, SECRET)), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PerceptualCode(grid=0), "grid: expected an integer from 1 to 64, got 0"),
        (lambda: PerceptualCode(grid=65), "grid: expected an integer from 1 to 64, got 65"),
        (lambda: PerceptualCode(step=0), "step: expected an integer from 1 to 255, got 0"),
        (lambda: PerceptualCode(step=256), "step: expected an integer from 1 to 255, got 256"),
        (lambda: PerceptualCode(step=6.4), r"step: expected an integer from 1 to 255, got 6\.4"),  # type: ignore[arg-type]
        (lambda: keyed(key=bytes(31)), "keyed noise needs a key of at least 32 bytes, got 31"),
    ],
)
def test_what_there_is_no_noise_for(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_no_repr_shows_the_key() -> None:
    noise = keyed()
    before = repr(noise)
    noise(greys(1))
    for shown in (before, repr(noise), str([noise]), f"{noise}"):
        for secret in (KEY, SECRET):
            assert secret.hex() not in shown
            assert repr(secret) not in shown


def test_fresh_noise_is_another_for_every_row_and_every_time() -> None:
    noise, image = Fresh(SHAPE, os.urandom), np.repeat(greys(1), 8, axis=0)
    drawn = np.concatenate([noise(image), noise(image)])
    assert drawn.shape == (16, *SHAPE)
    assert drawn.dtype == np.float32
    assert np.abs(np.corrcoef(drawn.reshape(16, -1)) - np.eye(16)).max() < 0.6
    many = noise(np.zeros((400, *SHAPE), np.float32))
    assert many.mean() == pytest.approx(0, abs=0.03)
    assert many.var() == pytest.approx(1, abs=0.05)


def test_fresh_noise_follows_from_its_entropy_sixteen_bytes_a_row() -> None:
    asked = []

    def entropy(count: int) -> bytes:
        asked.append(count)
        return bytes(range(count))

    drawn = Fresh(SHAPE, entropy)(greys(3))
    assert asked == [48]
    for row in range(3):
        seed = bytes(range(16 * row, 16 * row + 16))
        np.testing.assert_allclose(drawn[row], stream(seed, SHAPE), atol=ROUNDING)
    seeded = [Fresh(SHAPE, np.random.default_rng(5).bytes) for _ in range(2)]
    for _ in range(2):
        one, other = (noise(greys(4)) for noise in seeded)
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shape", [(1,), (3, 5, 7), (44,), (3, 32, 32)])
@pytest.mark.parametrize("rows", [1, 2, 40])
def test_a_row_s_numbers_are_those_of_its_seed_whatever_is_drawn_beside_it(shape: tuple[int, ...], rows: int) -> None:
    seeds = np.random.default_rng(7).bytes(16 * rows)
    noise = Fresh(shape, lambda count: seeds[:count])
    together = noise(np.zeros((rows, *SHAPE), np.float32))
    for row in range(rows):
        alone = Fresh(shape, lambda _, row=row: seeds[16 * row : 16 * row + 16])(np.zeros((1, *SHAPE), np.float32))
        np.testing.assert_array_equal(together[row], alone[0])
        np.testing.assert_allclose(together[row], stream(seeds[16 * row : 16 * row + 16], shape), atol=ROUNDING)


def test_fresh_noise_is_normal_out_to_its_tails() -> None:
    drawn = np.sort(Fresh((1000,), np.random.default_rng(3).bytes)(np.zeros((1000, *SHAPE), np.float32)).ravel())
    # Kolmogorov's bound for a million draws at p = 0.001 is 0.00195
    exact = np.array([(1 + math.erf(each / math.sqrt(2))) / 2 for each in drawn[::100]])
    assert np.abs(exact - np.arange(0, len(drawn), 100) / len(drawn)).max() < 0.00195
    beyond = np.mean(np.abs(drawn) > 4)  # 6.33e-5 of them are, 63 +- 8
    assert beyond == pytest.approx(math.erfc(4 / math.sqrt(2)), abs=3.3e-5)
    # a word gives two numbers, half a row apart, which have their radius in common and nothing else
    cosines, sines = np.split(
        Fresh((1000,), np.random.default_rng(4).bytes)(np.zeros((1000, *SHAPE), np.float32)), 2, axis=1
    )
    for power in (1, 2):
        assert np.corrcoef(cosines.ravel() ** power, sines.ravel() ** power)[0, 1] == pytest.approx(0, abs=0.006)


def test_fresh_noise_leaves_images_as_they_came() -> None:
    images = np.random.default_rng(0).random((2, *SHAPE), dtype=np.float32)
    assert Fresh(SHAPE, os.urandom).canonical(images) is images


def test_noise_has_the_shape_of_its_graph_not_of_the_image() -> None:
    code = PerceptualCode(grid=2)
    keyed_ = Keyed((44,), key=KEY, share=0.5, code=code, period=0.0, clock=lambda: 0.0)
    for noise in (keyed_, Fresh((44,), os.urandom)):
        assert noise(greys(3)).shape == (3, 44)
