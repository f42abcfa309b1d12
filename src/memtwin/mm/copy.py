# SPDX-License-Identifier: GPL-2.0-or-later
"""Copying page tables at fork (Linux: copy_page_range in mm/memory.c; spec R11, R13).

Private pages are shared between parent and child: both entries lose the right to write, and the next write decides
between reuse and copy. The child has accessed nothing yet, and written nothing through a shared area: its entries are
old, and clean there. Counters of pages change with the entries.
"""

from __future__ import annotations

import errno

import numpy as np

from memtwin.hw.paging import ACCESSED, DIRTY, PFN_MASK, PRESENT, PROT_NONE, RW, SPECIAL
from memtwin.mm.huge_range import copy_huge_pmd
from memtwin.mm.mm_types import VM_SHARED, MmStruct, VmArea
from memtwin.mm.page import PG_ANON, PG_ANON_EXCLUSIVE
from memtwin.mm.page_table import LeafRows

__all__ = ["copy_page_range"]

_MAPPED = PRESENT | PROT_NONE


def copy_page_range(old: MmStruct, new: MmStruct, vma: VmArea) -> None:
    """Let ``new`` map what ``old`` maps in ``vma``. Raises OSError ENOMEM; what was copied stays in ``new``."""
    copier = _CopyEntries(old, new, vma)
    old.ctx.pt.walk_range(old, vma.start, vma.end, copier)
    old.ctx.work.ptes += copier.copied


class _CopyEntries:
    """Copies entries (a :class:`~memtwin.mm.page_table.RangeOp`)."""

    __slots__ = ("_ctx", "_forgotten", "_new", "_old", "_private", "copied")

    def __init__(self, old: MmStruct, new: MmStruct, vma: VmArea) -> None:
        self._ctx = old.ctx
        self._old = old
        self._new = new
        self._private = not vma.flags & VM_SHARED
        #: Bits of an entry that the child's copy has not.
        self._forgotten = ACCESSED if self._private else ACCESSED | DIRTY
        self.copied = 0

    def _table(self, addr: int) -> int:
        base = self._ctx.pt.pte_alloc(self._new, addr)
        if not base:
            raise OSError(errno.ENOMEM, "fork: no memory for page tables")
        return base

    def few(self, index: int, count: int, addr: int) -> None:
        """A handful of entries of one table."""
        ctx = self._ctx
        q, pages = ctx.ram.q, ctx.pages
        base = 0
        for i in range(count):
            entry = q[index + i]
            if not entry:
                continue
            if not base:
                base = self._table(addr)
            if entry & _MAPPED and not entry & SPECIAL:
                if self._private:
                    entry &= ~RW
                    q[index + i] = entry
                self._share((entry & PFN_MASK) >> 12)
            q[base + (addr >> 12 & 511) + i] = entry & ~self._forgotten if entry & _MAPPED else entry
            pages.private[base >> 9] += 1
            self.copied += 1

    def _share(self, pfn: int) -> None:
        """One more entry maps ``pfn``."""
        pages = self._ctx.pages
        pages.refcount[pages.head(pfn)] += 1
        pages.mapcount[pfn] += 1
        if pages.flags[pfn] & PG_ANON:
            pages.flags[pfn] &= ~PG_ANON_EXCLUSIVE
            self._new.rss_anon += 1
        elif self._ctx.mappings[pages.mapping[pfn]].shmem:
            self._new.rss_shmem += 1
        else:
            self._new.rss_file += 1

    def rows(self, batch: LeafRows) -> None:
        """Whole tables: every page occurs once in them, except file pages, which go one by one."""
        ctx = self._ctx
        vec = ctx.pages.vec
        entries = batch.gather()
        used = entries != 0
        if not used.any():
            return
        mapped = (entries & np.uint64(_MAPPED)) != 0
        counted = mapped & ((entries & np.uint64(SPECIAL)) == 0)
        if self._private:
            entries[counted] &= np.uint64(~RW & (1 << 64) - 1)
            batch.scatter(entries)
        entries[mapped] &= np.uint64(~self._forgotten & (1 << 64) - 1)
        for row, addr in enumerate(batch.addr.tolist()):
            here = int(np.count_nonzero(used[row]))
            if here:
                table = self._table(addr) >> 9
                target = ctx.ram.frames[table, batch.lo : batch.hi]
                target[used[row]] = entries[row][used[row]]
                ctx.pages.private[table] += here
                self.copied += here
        pfns = ((entries[counted] & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
        anon = (vec.flags[pfns] & np.uint32(PG_ANON)) != 0
        for pfn in pfns[~anon].tolist():
            self._share(pfn)
        pfns = pfns[anon]
        order = vec.comp_order[pfns]
        ctx.pages.add(vec.refcount, pfns >> order << order, 1)
        ctx.pages.add(vec.mapcount, pfns, 1)
        vec.flags[pfns] &= np.uint32(~PG_ANON_EXCLUSIVE & 0xFFFFFFFF)
        self._new.rss_anon += len(pfns)

    def huge(self, index: int, order: int, addr: int) -> None:
        """Both map the huge page, read-only."""
        copy_huge_pmd(self._old, self._new, index, addr, self._forgotten)
        self.copied += 1
