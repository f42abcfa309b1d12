# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/PID/pagemap (fs/proc/task_mmu.c; Documentation/admin-guide/mm/pagemap.rst; spec R14): 8 bytes a page.

Frame numbers are shown to whoever had CAP_SYS_ADMIN when the file was opened. Soft-dirty bits are off
(CONFIG_MEM_SOFT_DIRTY is not set).
"""

from __future__ import annotations

import errno
from typing import Final

import numpy as np
import numpy.typing as npt

from memtwin.fs.inode import linux_error
from memtwin.fs.proc.inode import Reader
from memtwin.hw.paging import (
    PFN_MASK,
    PMD_SHIFT,
    PRESENT,
    PROT_NONE,
    PTE_MARKER_GUARD,
    PTE_MARKER_TYPE,
    PTE_MARKER_UFFD_WP,
    SPECIAL,
    SWAP_OFFSET_SHIFT,
    SWAP_TYPE_MASK,
    SWAP_TYPE_SHIFT,
    UFFD_WP,
)
from memtwin.mm.mm_types import MmStruct
from memtwin.mm.page import PG_ANON
from memtwin.mm.page_table import LeafRows

__all__ = ["pagemap_reader"]

PM_PRESENT: Final = 1 << 63
PM_SWAP: Final = 1 << 62
PM_FILE: Final = 1 << 61  #: a page of a file or of shared anonymous memory
PM_GUARD_REGION: Final = 1 << 58
PM_UFFD_WP: Final = 1 << 57
PM_MMAP_EXCLUSIVE: Final = 1 << 56

#: Bits of a present entry that say more than which page it maps.
_UNUSUAL: Final = SPECIAL | UFFD_WP

Words = npt.NDArray[np.uint64]


#: Pages worked on at once: the arrays of one step stay in a CPU's second-level cache.
_AT_ONCE: Final = 1 << 15


class _Pagemap:
    """Fills ``out``, one word a page from ``start`` on (a :class:`~memtwin.mm.page_table.RangeOp`)."""

    __slots__ = ("_mm", "_show_pfn", "_start", "out")

    def __init__(self, mm: MmStruct, start: int, end: int, show_pfn: bool) -> None:
        self._mm = mm
        self._start = start
        self._show_pfn = show_pfn
        self.out: Words = np.zeros((end - start) >> 12, dtype=np.uint64)

    def few(self, index: int, count: int, addr: int) -> None:
        """A handful of entries of one table."""
        at = (addr - self._start) >> 12
        self.out[at : at + count] = self._words(self._mm.ctx.ram.words[index : index + count])

    def rows(self, batch: LeafRows) -> None:
        """Whole tables."""
        entries = batch.gather().ravel()
        addr = batch.addr
        if int(addr[-1] - addr[0]) >> PMD_SHIFT == len(addr) - 1:  # no table is missing between them
            at = (int(addr[0]) - self._start >> 12) + batch.lo
            for first in range(0, len(entries), _AT_ONCE):
                part = entries[first : first + _AT_ONCE]
                self.out[at + first : at + first + len(part)] = self._words(part)
        else:
            self.out[(batch.page_addr().ravel() - self._start) >> 12] = self._words(entries)

    def huge(self, index: int, order: int, addr: int) -> None:
        """A huge leaf reads as the pages it maps, as far as the range reaches. Linux takes them all for mapped once if
        the first one is.
        """
        entry = self._mm.ctx.ram.q[index]
        entries = np.uint64(entry) + (np.arange(1 << order, dtype=np.uint64) << np.uint64(12))
        at = (addr - self._start) >> 12
        first, last = max(at, 0), min(at + (1 << order), len(self.out))
        self.out[first:last] = self._words(entries[first - at : last - at])
        vec = self._mm.ctx.pages.vec
        if not entry & SPECIAL and vec.mapcount[(entry & PFN_MASK) >> 12] == 1:
            self.out[first:last] |= np.uint64(PM_MMAP_EXCLUSIVE)
        elif not entry & SPECIAL:
            self.out[first:last] &= np.uint64(~PM_MMAP_EXCLUSIVE & (1 << 64) - 1)
        if entry & SPECIAL:
            self.out[first:last] |= np.uint64(PM_FILE)  # what is not anonymous counts as a file here

    def _words(self, entries: Words) -> Words:
        """What the file shows for these entries of page tables."""
        if np.bitwise_and.reduce(entries) & PRESENT and not np.bitwise_or.reduce(entries) & _UNUSUAL:
            return self._ordinary_words(entries)
        words = np.zeros(len(entries), dtype=np.uint64)
        present = (entries & np.uint64(PRESENT | PROT_NONE)) != 0
        pfns = (entries & np.uint64(PFN_MASK)) >> np.uint64(12)
        words[present] = PM_PRESENT
        words[present & ((entries & np.uint64(UFFD_WP)) != 0)] |= np.uint64(PM_UFFD_WP)
        if self._show_pfn:
            words[present] |= pfns[present]
        normal = np.flatnonzero(present & ((entries & np.uint64(SPECIAL)) == 0))
        frames = pfns[normal].astype(np.int64)
        vec = self._mm.ctx.pages.vec
        order = vec.comp_order[frames]
        is_file = (vec.flags[(frames >> order) << order] & np.uint32(PG_ANON)) == 0
        words[normal[is_file]] |= np.uint64(PM_FILE)
        words[normal[vec.mapcount[frames] == 1]] |= np.uint64(PM_MMAP_EXCLUSIVE)
        absent = np.flatnonzero(~present & (entries != 0))
        if len(absent):
            words[absent] = self._swap_words(entries[absent])
        return words

    def _ordinary_words(self, entries: Words) -> Words:
        """The same where each has a page behind it: without the masks that cost more than all the rest."""
        pfns = ((entries & np.uint64(PFN_MASK)) >> np.uint64(12)).view(np.int64)
        vec = self._mm.ctx.pages.vec
        order = vec.comp_order.take(pfns)
        flags = vec.flags.take((pfns >> order) << order if order.any() else pfns)
        exclusive = vec.mapcount.take(pfns) == 1
        words: Words = pfns.view(np.uint64) if self._show_pfn else np.zeros(len(pfns), dtype=np.uint64)
        # What all have in common is one step over the words.
        if exclusive.all():
            words |= np.uint64(PM_PRESENT | PM_MMAP_EXCLUSIVE)
        else:
            words |= np.uint64(PM_PRESENT)
            words |= exclusive.astype(np.uint64) << np.uint64(56)
        if not np.bitwise_and.reduce(flags) & PG_ANON:
            words |= ((flags & np.uint32(PG_ANON)) == 0).astype(np.uint64) << np.uint64(61)
        return words

    def _swap_words(self, entries: Words) -> Words:
        """Swap entries and markers: type in bits 0-4, offset in bits 5-54. A marker says what it is."""
        types = (entries >> np.uint64(SWAP_TYPE_SHIFT)) & np.uint64(SWAP_TYPE_MASK)
        offsets = entries >> np.uint64(SWAP_OFFSET_SHIFT)
        words = np.full(len(entries), PM_SWAP, dtype=np.uint64)
        if self._show_pfn:
            words |= types | (offsets << np.uint64(5)) & np.uint64((1 << 55) - 1)
        marker = types == PTE_MARKER_TYPE
        words[marker & ((offsets & np.uint64(PTE_MARKER_UFFD_WP)) != 0)] |= np.uint64(PM_UFFD_WP)
        words[marker & ((offsets & np.uint64(PTE_MARKER_GUARD)) != 0)] |= np.uint64(PM_GUARD_REGION)
        return words


def pagemap_reader(mm: MmStruct, show_pfn: bool) -> Reader:
    """The file of ``mm``, empty once the process is gone. Reading at an offset or of a number of bytes
    that is no multiple of 8 is EINVAL; beyond the last user page there is nothing.
    """

    def read(count: int, offset: int) -> bytes:
        if mm.id not in mm.ctx.mms:
            return b""
        if offset & 7 or count & 7:
            raise linux_error(errno.EINVAL)
        start = min(offset >> 3 << 12, mm.task_size)
        end = min(start + (count >> 3 << 12), mm.task_size)
        if start >= end:
            return b""
        op = _Pagemap(mm, start, end, show_pfn)
        mm.ctx.pt.walk_range(mm, start, end, op)
        return op.out.tobytes()

    return read
