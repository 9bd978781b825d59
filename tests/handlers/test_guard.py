from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from defenses import guard
from defenses.policy import PolicyError
from handlers import backends
from handlers.errors import LoadError
from handlers.loading import load
from tests.defenses.policies import FRESH, routed, section
from tests.handlers.archives import ENVIRON, TOLERANCE, spoil_guard, write_archive


def test_rows_go_from_the_golden_image_to_noise_and_never_change() -> None:
    golden = np.arange(20, dtype=np.float32).reshape(1, 4, 5) / 255
    rows = guard.rows(golden)
    assert rows.shape == (guard.ROWS, 1, 4, 5)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows[0], golden)
    levels = rows * 255
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
    # bytes of Philox under the key 1, as they were when this was written
    assert np.rint(levels[-1]).astype(int).flatten()[:4].tolist() == [165, 170, 82, 30]


@pytest.mark.parametrize("changes", [{}, {"perturb": FRESH}])
def test_a_worker_starts_only_where_the_stored_rows_are_answered_alike(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    folder = write_archive(tmp_path / "narrow", section(precision="int8", **changes))
    load(folder, environ={})
    spoil_guard(folder, member="victim", row=17, by=TOLERANCE / 2)
    load(folder, environ={})
    spoil_guard(folder, member="victim", row=17, by=TOLERANCE)
    with pytest.raises(
        LoadError, match=r"'victim': row 17 of the 32 .* within 0\.0100, got one 0\.015\d away"
    ) as refused:
        load(folder, environ={})
    assert "Serve a float32 policy here, or build the archive on this machine" in str(refused.value)


def test_every_member_is_asked_not_only_the_one_that_a_key_would_pick(tmp_path: Path) -> None:
    folder = write_archive(tmp_path / "narrow", routed(precision="int8"))
    load(folder, environ=ENVIRON)
    spoil_guard(folder, member="edm-3", row=0, by=0.5)
    with pytest.raises(LoadError, match="'edm-3': row 0"):
        load(folder, environ=ENVIRON)


def test_nan_is_no_answer(tmp_path: Path) -> None:
    folder = write_archive(tmp_path / "narrow", section(precision="int8"))
    spoil_guard(folder, member="victim", row=1, by=float("nan"))
    with pytest.raises(LoadError, match="'victim': row 1"):
        load(folder, environ={})


@pytest.mark.parametrize("text", [None, "", "{}", '{"members": {"victim": {"tolerance": 1}}}'])
def test_without_its_rows_it_does_not_start(tmp_path: Path, text: str | None) -> None:
    folder = write_archive(tmp_path / "narrow", section(precision="int8"))
    (folder / guard.NAME).unlink()
    if text is not None:
        (folder / guard.NAME).write_text(text)
    with pytest.raises(
        LoadError,
        match=r"guard\.json: (expected what every member said of 32 rows|cannot be read).*Build the archive again",
    ):
        load(folder, environ={})


def test_float32_needs_none(tmp_path: Path) -> None:
    folder = write_archive(tmp_path / "plain", section())
    assert not (folder / guard.NAME).exists()
    load(folder, environ={})


@pytest.mark.skipif(backends.cuda(), reason="with CUDA fp16 is served")
def test_16_bits_are_refused_without_cuda(tmp_path: Path) -> None:
    folder = write_archive(tmp_path / "half", section(precision="fp16"))
    with pytest.raises(LoadError, match=r"'fp16' needs CUDA.*'int8' or 'float32' here, or install onnxruntime-gpu"):
        load(folder, environ={})


def test_torchscript_has_no_other_precision(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="precision: expected 'float32', 'torchscript' has no graphs in int8"):
        write_archive(tmp_path / "narrow", section(precision="int8", backend="torchscript"))
    with pytest.raises(PolicyError, match="precision: expected one of float32, int8, fp16, got 'bf16'"):
        write_archive(tmp_path / "narrow", section(precision="bf16"))
