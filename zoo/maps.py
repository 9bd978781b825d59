"""Files of bytes that are read as tensors through a memory map, without staying in the process.

A page that was read through a map counts as the process's own until it lets go of it; in the system's cache it stays
either way. So what reads a map says how much it read, and every RESIDENT bytes the map's pages are handed back.

Linux maps more than is touched: a file's pages lie in the cache in large ones of up to 2 MiB, each of which comes in
whole. A batch of 32 images of 150 kB, drawn from all over a map, may bring in 64 MiB.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

# bytes read through a map after which its pages are handed back
RESIDENT = 2**28
# what the touch of one byte may map
LARGE_PAGE = 2**21

_maps: dict[int, mmap.mmap] = {}
_read: Counter[int] = Counter()


def mapped(path: Path, shape: Iterable[int]) -> torch.Tensor:
    """The file's bytes as uint8 of that shape, a private map: writing to it changes nothing."""
    sizes = tuple(shape)
    with path.open("rb") as file:
        map_ = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    pixels = torch.from_numpy(np.frombuffer(map_, np.uint8).reshape(sizes))
    _maps[pixels.untyped_storage().data_ptr()] = map_
    return pixels


def was_read(images: torch.Tensor, count: int, *, places: int = 1) -> None:
    """So many bytes of what may be a map, or a part of one, were read, in so many places, and are needed no more."""
    if images.dtype != torch.uint8:
        return
    start = images.untyped_storage().data_ptr()
    if start in _maps:
        _read[start] += max(count, places * LARGE_PAGE)
        if _read[start] > RESIDENT:
            _read[start] = 0
            _maps[start].madvise(mmap.MADV_DONTNEED)
