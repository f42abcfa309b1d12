# SPDX-License-Identifier: GPL-2.0-or-later
"""Physical memory: one private, anonymous, no-reserve mapping of the whole machine (architecture, section 3).

Invariants: the mapping is never resized or remapped, because an emulated CPU holds its bare address; ``_pin`` keeps a
buffer exported for life so that nobody can close it by accident. A frame the machine never touched costs the host
nothing.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Final

import numpy as np
import numpy.typing as npt

from memtwin.abi.mman import MAP_NORESERVE
from memtwin.errors import BadInput

__all__ = ["PAGE_MASK", "PAGE_SHIFT", "PAGE_SIZE", "Ram", "lazy_array"]

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
PAGE_MASK: Final = ~(PAGE_SIZE - 1)

_ZERO: Final = bytes(PAGE_SIZE)
#: From this many adjacent frames on, giving the memory back to the host beats writing zeroes (measured: 4 frames).
_GIVE_BACK: Final = 4


def lazy_array(size: int) -> mmap.mmap:
    """``size`` bytes of zeroes that cost host memory only where they are written (no reservation, no huge pages).

    Without MADV_NOHUGEPAGE a host with transparent huge pages would back each touched 4 KiB by 2 MiB.
    Raises BadInput where the host refuses the mapping.
    """
    try:
        area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    except (OSError, OverflowError, ValueError) as error:
        raise BadInput(f"the host refuses to map {size} bytes for the simulated machine: {error}") from None
    area.madvise(mmap.MADV_NOHUGEPAGE)
    return area


class Ram:
    """The machine's physical memory.

    ``size`` bytes, ``nr_frames`` frames; ``mem`` a byte view, ``q`` a view of 64-bit words (page-table entries and
    scalar accesses), ``words`` the same as ``uint64[nr_frames * 512]`` and ``frames`` as ``uint64[nr_frames, 512]``
    for bulk work.
    """

    __slots__ = ("_area", "_pin", "address", "frames", "mem", "nr_frames", "q", "size", "words")

    def __init__(self, size: int) -> None:
        """``size``: bytes, a positive multiple of 4 KiB. Raises BadInput where the host refuses."""
        if size <= 0 or size % PAGE_SIZE:
            raise BadInput(f"memory size {size} is not a positive multiple of {PAGE_SIZE} bytes")
        self.size = size
        self.nr_frames = size >> PAGE_SHIFT
        self._area = lazy_array(size)
        self._pin = ctypes.c_char.from_buffer(self._area)
        #: Host address of physical address 0.
        self.address = ctypes.addressof(self._pin)
        self.mem = memoryview(self._area)
        self.q = self.mem.cast("Q")
        self.words: npt.NDArray[np.uint64] = np.frombuffer(self._area, dtype=np.uint64)
        self.frames: npt.NDArray[np.uint64] = self.words.reshape(self.nr_frames, PAGE_SIZE // 8)

    def zero(self, pfn: int) -> None:
        """Fill one frame with zeroes."""
        start = pfn << PAGE_SHIFT
        self.mem[start : start + PAGE_SIZE] = _ZERO

    def zero_bulk(self, pfns: npt.NDArray[np.int64]) -> None:
        """Fill the frames ``pfns`` (int64[n], no repeats) with zeroes; long runs go back to the host, which hands out
        zeroes.
        """
        if not len(pfns):
            return
        pfns = np.sort(pfns)
        edges = np.flatnonzero(np.diff(pfns) != 1) + 1
        starts = np.concatenate(([0], edges))
        lengths = np.diff(np.concatenate((starts, [len(pfns)])))
        long = lengths >= _GIVE_BACK
        for first, count in zip(pfns[starts[long]].tolist(), lengths[long].tolist(), strict=True):
            self._area.madvise(mmap.MADV_DONTNEED, first << PAGE_SHIFT, count << PAGE_SHIFT)
        rest = pfns[np.repeat(~long, lengths)]
        if len(rest):
            self.frames[rest] = 0

    def copy(self, dst_pfn: int, src_pfn: int) -> None:
        """Copy one frame."""
        dst = dst_pfn << PAGE_SHIFT
        src = src_pfn << PAGE_SHIFT
        self.mem[dst : dst + PAGE_SIZE] = self.mem[src : src + PAGE_SIZE]

    def copy_onto_zeroes(self, dst_pfn: int, src_pfn: int) -> bool:
        """The same where ``dst_pfn`` is known to hold only zeroes. Zeroes are not written again, so that the host need
        not find memory for them, which costs more than all else; whether anything was written.
        """
        src = src_pfn << PAGE_SHIFT
        data = self.mem[src : src + PAGE_SIZE].tobytes()
        if data == _ZERO:
            return False
        dst = dst_pfn << PAGE_SHIFT
        self.mem[dst : dst + PAGE_SIZE] = data
        return True
