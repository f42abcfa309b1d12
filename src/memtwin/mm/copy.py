# SPDX-License-Identifier: GPL-2.0-or-later
"""Copying page tables at fork (Linux: copy_page_range in mm/memory.c; spec R11, R13).

Private pages are shared between parent and child: both entries lose the right to write, and the next write decides
between reuse and copy. The child has accessed nothing yet, and written nothing through a shared area: its entries are
old, and clean there. Counters of pages change with the entries.
"""

from __future__ import annotations

import errno

import numpy as np
import numpy.typing as npt

from memtwin.hw.paging import ACCESSED, DIRTY, ENTRIES, MAPPED, PFN_MASK, PMD_SHIFT, RW, SPECIAL
from memtwin.lib.gfp_types import GFP_HIGHUSER_MOVABLE
from memtwin.mm.huge_mm import HPAGE_PMD_ORDER
from memtwin.mm.huge_range import copy_huge_pmd, copy_huge_pmds
from memtwin.mm.huge_split import split_huge_pmd
from memtwin.mm.mm_types import VM_SHARED, VM_WRITE, MmStruct, VmArea
from memtwin.mm.page import GUP_PIN_COUNTING_BIAS, PG_ANON, PG_ANON_EXCLUSIVE
from memtwin.mm.page_table import LeafRows
from memtwin.mm.set_pte import alloc_anon_folio, set_anon_pte

__all__ = ["copy_page_range"]


def copy_page_range(old: MmStruct, new: MmStruct, vma: VmArea) -> None:
    """Let ``new`` map what ``old`` maps in ``vma``. Raises OSError ENOMEM; what was copied stays in ``new``."""
    copier = _CopyEntries(old, new, vma)
    old.ctx.pt.walk_range(old, vma.start, vma.end, copier, copier.huge_leaves)
    old.ctx.work.ptes += copier.copied


class _CopyEntries:
    """Copies entries (a :class:`~memtwin.mm.page_table.RangeOp`)."""

    __slots__ = ("_ctx", "_forgotten", "_new", "_old", "_pinned", "_private", "_vma", "copied")

    def __init__(self, old: MmStruct, new: MmStruct, vma: VmArea) -> None:
        self._ctx = old.ctx
        self._old = old
        self._new = new
        self._vma = vma
        self._private = not vma.flags & VM_SHARED
        #: Pages may be pinned: each has to be looked at.
        self._pinned = self._private and old.has_pinned
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
            if entry & MAPPED and not entry & SPECIAL:
                if self._pinned and self._may_be_pinned((entry & PFN_MASK) >> 12):
                    self._copy_now((entry & PFN_MASK) >> 12, addr + (i << 12), base + (addr >> 12 & 511) + i)
                    continue
                if self._private:
                    entry &= ~RW
                    q[index + i] = entry
                self._share((entry & PFN_MASK) >> 12)
            q[base + (addr >> 12 & 511) + i] = entry & ~self._forgotten if entry & MAPPED else entry
            pages.private[base >> 9] += 1
            self.copied += 1

    def _may_be_pinned(self, pfn: int) -> bool:
        """Whether somebody may hold the exclusive page and expect that the parent keeps it."""
        pages = self._ctx.pages
        if not pages.flags[pfn] & PG_ANON_EXCLUSIVE:
            return False
        return pages.refcount[pages.head(pfn)] >= GUP_PIN_COUNTING_BIAS

    def _copy_now(self, pfn: int, addr: int, index: int) -> None:
        """Give the child its own copy of a page that stays the parent's. Raises OSError ENOMEM."""
        ctx, vma = self._ctx, self._vma
        copy = alloc_anon_folio(self._new, GFP_HIGHUSER_MOVABLE)
        if not copy:
            raise OSError(errno.ENOMEM, "fork: no memory for the copy of a pinned page")
        ctx.ram.copy(copy, pfn)
        ctx.pages.nonzero[copy] = 1
        ctx.work.pages_copied += 1
        child = self._new.mm_mt.load(addr)
        set_anon_pte(self._new, child, addr, index, copy, DIRTY | RW if vma.flags & VM_WRITE else DIRTY)
        ctx.pages.private[index >> 9] += 1
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
        if self._pinned:
            for table, addr in zip(batch.table.tolist(), batch.addr.tolist(), strict=True):
                self.few((table << 9) + batch.lo, batch.hi - batch.lo, addr + (batch.lo << 12))
            return
        mapped = (entries & np.uint64(MAPPED)) != 0
        counted = mapped & ((entries & np.uint64(SPECIAL)) == 0)
        # Every entry maps a counted page, nearly always: no masks, which cost more than all the rest.
        whole = bool(counted.all())
        rows = np.flatnonzero(used.any(axis=1))
        # All tables first: without memory for one, nothing has been shared yet.
        tables = np.array([self._table(addr) >> 9 for addr in batch.addr[rows].tolist()], dtype=np.int64)
        if self._private:
            if whole:
                entries &= np.uint64(~RW & (1 << 64) - 1)
            else:
                entries[counted] &= np.uint64(~RW & (1 << 64) - 1)
            batch.scatter(entries)
        target = LeafRows(ctx.ram, batch.addr[rows], tables, batch.lo, batch.hi)
        if whole:
            entries &= np.uint64(~self._forgotten & (1 << 64) - 1)
            target.scatter(entries)
        else:
            entries[mapped] &= np.uint64(~self._forgotten & (1 << 64) - 1)
            # Areas share tables: where this one has nothing, the child may have something of the area before.
            target.scatter(np.where(used[rows], entries[rows], target.gather()))
        per_row = np.count_nonzero(used[rows], axis=1)
        vec.private[tables] += per_row.astype(np.uint64)
        self.copied += int(per_row.sum())
        counted_entries = entries.ravel() if whole else entries[counted]
        pfns = ((counted_entries & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
        anon = (vec.flags[pfns] & np.uint32(PG_ANON)) != 0
        if not anon.all():
            for pfn in pfns[~anon].tolist():
                self._share(pfn)
        pfns = pfns[anon]
        order = vec.comp_order[pfns]
        ctx.pages.add(vec.refcount, pfns >> order << order, 1)
        ctx.pages.add(vec.mapcount, pfns, 1)
        vec.flags[pfns] &= np.uint32(~PG_ANON_EXCLUSIVE & 0xFFFFFFFF)
        self._new.rss_anon += len(pfns)

    def huge(self, index: int, order: int, addr: int) -> None:
        """Both map the huge page, read-only where it is private. One that may be pinned is split first, and copied page
        by page.
        """
        entry = self._ctx.ram.q[index]
        if self._pinned and not entry & SPECIAL and self._may_be_pinned((entry & PFN_MASK) >> 12):
            split_huge_pmd(self._old, addr, index)
            self.few(self._old.pte_tables[addr >> PMD_SHIFT], ENTRIES, addr)
            return
        if copy_huge_pmd(self._old, self._new, index, addr, private=self._private, forgotten=self._forgotten):
            self.copied += 1
        else:
            table = self._old.pte_tables[addr >> PMD_SHIFT] >> 9
            self.rows(LeafRows(self._ctx.ram, np.array([addr]), np.array([table])))

    def huge_leaves(self, indices: npt.NDArray[np.int64], addrs: npt.NDArray[np.int64]) -> None:
        """Several huge leaves (HugeLeaves)."""
        at_once = not self._pinned and copy_huge_pmds(
            self._old, self._new, indices, addrs, private=self._private, forgotten=self._forgotten
        )
        if at_once:
            self.copied += len(indices)
            return
        for index, addr in zip(indices.tolist(), addrs.tolist(), strict=True):
            self.huge(index, HPAGE_PMD_ORDER, addr)
