"""A map that is read whole leaves only a little of itself in the process."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo import maps
from zoo.images import parts
from zoo.stored import take

ROWS, SHAPE = 2048, (3, 128, 128)
BYTES = ROWS * 3 * 128 * 128  # 100 MB


def resident(path: Path) -> int:
    """Bytes of a mapped file that Linux counts as this process's."""
    smaps = Path("/proc/self/smaps")
    if not smaps.exists():
        pytest.skip("no one counts a map's pages here")
    entries = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", smaps.read_text(), flags=re.MULTILINE)
    (own,) = [entry for entry in entries if str(path) in entry]
    found = re.search(r"^Rss:\s+(\d+) kB", own, re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, BYTES, np.uint8)
    (tmp_path / "pixels.u8").write_bytes(values.tobytes())
    return tmp_path / "pixels.u8"


def test_what_is_read_in_parts_or_in_batches_does_not_stay(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "RESIDENT", BYTES // 16)
    images = maps.mapped(path, (ROWS, *SHAPE))
    expected = np.fromfile(path, np.uint8).reshape(ROWS, *SHAPE)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(0))
    first = 0
    for part in parts(images[16:], most=16):
        np.testing.assert_array_equal((part * 255).round().numpy(), expected[16 + first : 32 + first])
        first += len(part)
        assert resident(path) < BYTES / 8
    assert first == ROWS - 16
    for rows in order[:512].split(8):
        np.testing.assert_array_equal((take(images, rows) * 255).round().numpy(), expected[rows.numpy()])
        assert resident(path) < BYTES / 4


def test_without_handing_back_all_of_it_would_stay(path: Path) -> None:
    images = maps.mapped(path, (ROWS, *SHAPE))
    for part in parts(images, most=16):
        part.sum()
    assert BYTES < maps.RESIDENT
    assert resident(path) > 0.9 * BYTES
