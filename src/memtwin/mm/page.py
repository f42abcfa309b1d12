# SPDX-License-Identifier: GPL-2.0-or-later
"""``struct page`` as a structure of arrays (Linux: include/linux/mm_types.h, page-flags.h).

Every field is one no-reserve array indexed by pfn, reachable as a ``memoryview`` (scalar code) and, under ``vec``, as
a NumPy array over the same bytes (bulk code). An all-zero record means "never used", so that boot costs nothing per
page. A folio is named by its head pfn; heads are aligned to their order, so a tail finds its head from ``comp_order``
alone.

Invariants (recomputed by ``kernel.check()``): a free or reserved page has refcount 0 and mapcount 0; ``buddy[pfn]``
is non-zero exactly for heads of blocks on a free list; ``nonzero[pfn] == 0`` promises that the frame holds only
zeroes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from memtwin.hw.ram import lazy_array

__all__ = ["PageArrays", "PageVectors", "adjacent", "mark_page_accessed"]

# Flag bits 0-21 have Linux's numbers (spec R13); the rest are memtwin's.
PG_LOCKED: Final = 1 << 0
PG_WRITEBACK: Final = 1 << 1
PG_REFERENCED: Final = 1 << 2
PG_UPTODATE: Final = 1 << 3
PG_DIRTY: Final = 1 << 4
PG_LRU: Final = 1 << 5
PG_HEAD: Final = 1 << 6
PG_WAITERS: Final = 1 << 7
PG_ACTIVE: Final = 1 << 8
PG_WORKINGSET: Final = 1 << 9
PG_ERROR: Final = 1 << 10
PG_SLAB: Final = 1 << 11
PG_SWAPCACHE: Final = 1 << 12
PG_ARCH_1: Final = 1 << 13
PG_RESERVED: Final = 1 << 14
PG_PRIVATE: Final = 1 << 15
PG_PRIVATE_2: Final = 1 << 16
PG_ANON_EXCLUSIVE: Final = 1 << 17
PG_RECLAIM: Final = 1 << 18
PG_SWAPBACKED: Final = 1 << 19
PG_UNEVICTABLE: Final = 1 << 20
PG_MLOCKED: Final = 1 << 21
PG_HWPOISON: Final = 1 << 22
PG_TAKENOFF: Final = 1 << 23  #: HWPoisonTakenOff: removed from the buddy allocator because it is poisoned
PG_TABLE: Final = 1 << 24  #: a page table
PG_ANON: Final = 1 << 25  #: ``mapping`` names an anon_vma (the low bit of the mapping pointer in Linux)

#: Flags that must be clear when a page is freed (Linux: PAGE_FLAGS_CHECK_AT_FREE).
CHECK_AT_FREE: Final = (
    PG_LOCKED | PG_WRITEBACK | PG_LRU | PG_WAITERS | PG_ACTIVE | PG_RESERVED | PG_UNEVICTABLE | PG_MLOCKED
)

GUP_PIN_COUNTING_BIAS: Final = 1024  #: a pin of a small folio is this many references

Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
UInt32 = npt.NDArray[np.uint32]
UInt64 = npt.NDArray[np.uint64]
Pfns = npt.NDArray[np.int64]


class PageVectors:
    """The fields of :class:`PageArrays` as NumPy arrays over the same memory, each of shape ``[nr_pages]``."""

    __slots__ = ("buddy", "comp_order", "flags", "index", "mapcount", "mapping", "nonzero", "private", "refcount")

    flags: UInt32
    refcount: Int32
    mapcount: Int32
    mapping: UInt32
    index: UInt64
    private: UInt64
    buddy: UInt8
    comp_order: UInt8
    nonzero: UInt8


class PageArrays:
    """All page records of a machine. ``nr_pages`` counts frames; every field below has one entry a frame.

    ``flags`` uint32 of PG_*; ``refcount`` int32; ``mapcount`` int32, number of page-table entries that map the page
    (0 = none); ``mapping`` uint32, id of the anon_vma or file mapping (0 = none); ``index`` uint64, page offset in
    that mapping; ``private`` uint64, for the owner (a page table keeps the number of its non-empty entries there);
    ``buddy`` uint8, order + 1 at the head of a free block, else 0; ``comp_order`` uint8, order of the folio the page
    belongs to; ``nonzero`` uint8, 0 = the frame is known to hold zeroes only.
    """

    __slots__ = (
        "buddy",
        "comp_order",
        "flags",
        "index",
        "mapcount",
        "mapping",
        "nonzero",
        "nr_pages",
        "private",
        "refcount",
        "vec",
    )

    def __init__(self, nr_pages: int) -> None:
        self.nr_pages = nr_pages
        self.vec = vec = PageVectors()
        for name, code in _FIELDS:
            width = np.dtype(code).itemsize
            area = lazy_array(max(nr_pages * width, 1))
            setattr(self, name, memoryview(area).cast(_VIEW_CODES[code]))
            setattr(vec, name, np.frombuffer(area, dtype=code, count=nr_pages))

    flags: memoryview[int]
    refcount: memoryview[int]
    mapcount: memoryview[int]
    mapping: memoryview[int]
    index: memoryview[int]
    private: memoryview[int]
    buddy: memoryview[int]
    comp_order: memoryview[int]
    nonzero: memoryview[int]

    def head(self, pfn: int) -> int:
        """Head of the folio that ``pfn`` belongs to."""
        order = self.comp_order[pfn]
        return pfn >> order << order

    @staticmethod
    def add(counts: Int32, pfns: Pfns, delta: int) -> None:
        """``counts[pfns] += delta`` with repeated pfns counted as often as they occur.

        Plain fancy indexing would count a repeated pfn once; this is the only place where counts change in bulk.
        """
        np.add.at(counts, pfns, np.int32(delta))


_FIELDS: Final = (
    ("flags", "u4"),
    ("refcount", "i4"),
    ("mapcount", "i4"),
    ("mapping", "u4"),
    ("index", "u8"),
    ("private", "u8"),
    ("buddy", "u1"),
    ("comp_order", "u1"),
    ("nonzero", "u1"),
)
_VIEW_CODES: Final[dict[str, Literal["I", "i", "Q", "B"]]] = {"u4": "I", "i4": "i", "u8": "Q", "u1": "B"}


def adjacent(pfns: Pfns, step: int) -> Iterator[tuple[int, int]]:
    """(first, last) of each run ``pfns[first:last]`` whose frames follow each other by ``step``; none of no frames."""
    if len(pfns):
        yield from pairwise([0, *(np.flatnonzero(np.diff(pfns) != step) + 1).tolist(), len(pfns)])


def mark_page_accessed(pages: PageArrays, pfn: int, *, locked: bool) -> None:
    """The kernel looked at a page: the first time makes it referenced, the second active, unless it can not be evicted
    (``locked``).
    """
    old = pages.flags[pfn]
    if not old & PG_REFERENCED:
        pages.flags[pfn] = old | PG_REFERENCED
    elif not locked and not old & PG_ACTIVE:
        pages.flags[pfn] = old & ~PG_REFERENCED | PG_ACTIVE
