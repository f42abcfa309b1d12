# SPDX-License-Identifier: GPL-2.0-or-later
"""Guard pages (Linux: madvise_guard_install and _remove in mm/madvise.c, since 6.13; knob post-madv-guard).

A guard is a marker in the page table: an access there is SIGSEGV, whatever the area permits. It survives everything but
MADV_GUARD_REMOVE and the end of the area. Where kernels have ``VM_MAYBE_GUARD`` (knob post-guard-flag) the whole area
carries it from its first guard on, for good; it keeps no areas apart, and a merged area has it if a part had it.
Anonymous areas get an anon_vma too. Callers hold ``mmap_lock`` for reading.
"""

from __future__ import annotations

import errno
from typing import Final

import numpy as np

from memtwin.hw.paging import GUARD_ENTRY
from memtwin.mm.mm_types import VM_HUGETLB, VM_LOCKED, VM_MAYBE_GUARD, VM_SPECIAL, MmStruct, VmArea
from memtwin.mm.page_table import LeafRows
from memtwin.mm.rmap import anon_vma_prepare
from memtwin.mm.zap import has_recency, zap_page_range

__all__ = ["guard_install", "guard_remove"]

#: How often a call empties the range again after a fault of another thread has filled a page of it, before it gives up
#: ``mmap_lock`` and begins anew.
MAX_MADVISE_GUARD_RETRIES: Final = 3


def guard_install(mm: MmStruct, vma: VmArea, start: int, end: int) -> bool:
    """Drop the pages of [start, end) of ``vma`` and put guards there. False if faults were faster time and again: the
    whole call is to begin anew, without the lock in between. Raises OSError EINVAL (locked or device memory), ENOMEM.
    """
    if vma.flags & (VM_SPECIAL | VM_HUGETLB | VM_LOCKED):
        raise OSError(errno.EINVAL, "madvise: no guards in locked or device memory")
    flagged = mm.ctx.guard_flag
    if flagged:
        vma.flags |= VM_MAYBE_GUARD
    if (vma.is_anonymous or not flagged) and not anon_vma_prepare(mm, vma):
        raise OSError(errno.ENOMEM, "madvise: no memory for an anon_vma")
    for _ in range(MAX_MADVISE_GUARD_RETRIES):
        zap_page_range(mm, start, end, keep_guards=True, recency=has_recency(vma))
        if not mm.ctx.pt.pte_alloc_range(mm, start, end):
            raise OSError(errno.ENOMEM, "madvise: no memory for page tables")
        if _replace(mm, start, end, 0, GUARD_ENTRY) == (end - start) >> 12:
            return True
    return False


def guard_remove(mm: MmStruct, vma: VmArea, start: int, end: int) -> None:
    """Take the guards of [start, end) of ``vma`` away. Raises OSError EINVAL (device memory)."""
    if vma.flags & (VM_SPECIAL | VM_HUGETLB):
        raise OSError(errno.EINVAL, "madvise: no guards in device memory")
    _replace(mm, start, end, GUARD_ENTRY, 0)


def _replace(mm: MmStruct, start: int, end: int, old: int, new: int) -> int:
    """Put ``new`` in the place of ``old`` in [start, end); how many entries are ``new`` then."""
    op = _Replace(mm, old, new)
    mm.page_table_lock.lock()
    mm.ctx.pt.walk_range(mm, start, end, op)
    mm.page_table_lock.unlock()
    return op.found


class _Replace:
    """Puts one entry in the place of another (a :class:`~memtwin.mm.page_table.RangeOp`); one of the two is empty.
    ``found`` counts the entries that are the new one afterwards, or were before.
    """

    __slots__ = ("_ctx", "_new", "_old", "_sign", "found")

    def __init__(self, mm: MmStruct, old: int, new: int) -> None:
        self._ctx = mm.ctx
        self._old = old
        self._new = new
        self._sign = 1 if new else -1
        self.found = 0

    def few(self, index: int, count: int, addr: int) -> None:
        """A handful of entries of one table."""
        q = self._ctx.ram.q
        for i in range(index, index + count):
            if q[i] == self._new:
                self.found += 1
            elif q[i] == self._old:
                q[i] = self._new
                self.found += 1
                self._ctx.pages.private[index >> 9] += self._sign

    def rows(self, batch: LeafRows) -> None:
        """Whole tables."""
        entries = batch.gather()
        hit = entries == np.uint64(self._old)
        entries[hit] = np.uint64(self._new)
        batch.scatter(entries)
        self.found += int(np.count_nonzero(entries == np.uint64(self._new)))
        private = self._ctx.pages.vec.private
        changed = np.count_nonzero(hit, axis=1).astype(np.uint64)
        if self._sign > 0:
            private[batch.table] += changed
        else:
            private[batch.table] -= changed

    def huge(self, index: int, order: int, addr: int) -> None:
        """A huge leaf holds no guard; where guards go, the range was emptied before, and a fault was faster."""
