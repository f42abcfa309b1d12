# SPDX-License-Identifier: GPL-2.0-or-later
"""Advice about the pages of an area (Linux: mm/madvise.c; spec R8): dropping, freeing lazily, ageing, paging out.

There is no swap. So MADV_PAGEOUT gives up only what needs none: pages that MADV_FREE offered and nobody wrote since,
and clean pages of files; a dirty page of a memory file is unmapped and stays in the file. Pages that more than one
entry maps are left alone by MADV_COLD and MADV_PAGEOUT. Callers hold ``mmap_lock`` for reading.
"""

from __future__ import annotations

import errno
from typing import Final

import numpy as np

from memtwin.abi import mman
from memtwin.errors import NotModelled
from memtwin.hw.paging import ACCESSED, DIRTY, MAPPED, PFN_MASK, SPECIAL
from memtwin.mm.guard import guard_install, guard_remove
from memtwin.mm.huge_mm import HPAGE_PMD_NR, HPAGE_PMD_SIZE
from memtwin.mm.huge_range import split_folios_for_advice
from memtwin.mm.huge_split import maybe_shared
from memtwin.mm.mm_types import (
    VM_HUGETLB,
    VM_LOCKED,
    VM_MAYWRITE,
    VM_PFNMAP,
    VM_SEALED,
    VM_SHARED,
    VM_WRITE,
    MmStruct,
    VmArea,
)
from memtwin.mm.page import PG_ACTIVE, PG_ANON, PG_DIRTY, PG_LOCKED, PG_REFERENCED, PG_SWAPBACKED
from memtwin.mm.page_table import LeafRows
from memtwin.mm.shmem import punch_hole
from memtwin.mm.zap import ZapOp, has_recency, zap_page_range

__all__ = ["advise_pages", "check_seal"]

#: A page with both can only go to swap.
_WANTS_SWAP: Final = PG_ANON | PG_SWAPBACKED
#: Advice that loses what pages hold, here or in a child.
_DISCARDS: Final = frozenset(
    {
        mman.MADV_DONTNEED,
        mman.MADV_DONTNEED_LOCKED,
        mman.MADV_FREE,
        mman.MADV_REMOVE,
        mman.MADV_DONTFORK,
        mman.MADV_WIPEONFORK,
        mman.MADV_GUARD_INSTALL,
    }
)


def _invalid(why: str) -> OSError:
    return OSError(errno.EINVAL, f"madvise: {why}")


def check_seal(vma: VmArea, advice: int) -> None:
    """Sealed anonymous memory that can not be written can not be emptied either. Raises OSError EPERM."""
    if vma.flags & VM_SEALED and advice in _DISCARDS and vma.is_anonymous and not vma.flags & VM_WRITE:
        raise OSError(errno.EPERM, "madvise: the area is sealed, and its content could not be written again")


def advise_pages(mm: MmStruct, vma: VmArea, start: int, end: int, advice: int) -> bool:
    """Act on [start, end) of ``vma`` as one of the advices about pages says. False if the whole call is to begin anew
    (:func:`~memtwin.mm.guard.guard_install`). Raises OSError EINVAL, EACCES, EPERM, ENOMEM; NotModelled.
    """
    check_seal(vma, advice)
    if advice == mman.MADV_GUARD_INSTALL:
        return guard_install(mm, vma, start, end)
    if advice == mman.MADV_GUARD_REMOVE:
        guard_remove(mm, vma, start, end)
    elif advice == mman.MADV_REMOVE:
        _remove(mm, vma, start, end)
    elif advice != mman.MADV_WILLNEED:  # there is neither swap nor I/O to start
        _drop_or_age(mm, vma, start, end, advice)
    return True


def _drop_or_age(mm: MmStruct, vma: VmArea, start: int, end: int, advice: int) -> None:
    forbidden = VM_PFNMAP if advice == mman.MADV_DONTNEED_LOCKED else VM_PFNMAP | VM_LOCKED
    if advice in (mman.MADV_COLD, mman.MADV_PAGEOUT):
        forbidden |= VM_HUGETLB
    if vma.flags & forbidden:
        raise _invalid("locked or device memory")
    if advice == mman.MADV_FREE:
        if not vma.is_anonymous:
            raise _invalid("MADV_FREE on a file")
        _age(mm, start, end, free=True)
    elif advice == mman.MADV_COLD:
        _age(mm, start, end, free=False)
    elif advice == mman.MADV_PAGEOUT:
        if not mm.ctx.pageout_keeps_young:
            _age(mm, start, end, free=False)
        _page_out(mm, start, end)
    else:
        zap_page_range(mm, start, end, keep_guards=True, recency=has_recency(vma))
        if mm.ctx.pt_reclaim:
            mm.ctx.pt.free_empty_tables(mm, start, end)


def _remove(mm: MmStruct, vma: VmArea, start: int, end: int) -> None:
    """MADV_REMOVE: punch a hole into the object behind a shared mapping that may be written."""
    if vma.flags & VM_LOCKED:
        raise _invalid("MADV_REMOVE on a locked area")
    if vma.file is None:
        raise _invalid("MADV_REMOVE without an object behind the area")
    if vma.flags & (VM_SHARED | VM_MAYWRITE) != VM_SHARED | VM_MAYWRITE:
        raise OSError(errno.EACCES, "madvise: MADV_REMOVE needs a shared mapping that may be written")
    if not vma.file.mapping.shmem:
        raise NotModelled("MADV_REMOVE: holes in files that are not in memory")
    punch_hole(mm.ctx, vma.file, vma.linear_page_index(start), vma.linear_page_index(end))


def _age(mm: MmStruct, start: int, end: int, *, free: bool) -> None:
    age = _Age(mm, free, start, end)
    age.left_alone = split_folios_for_advice(mm, start, end, free=free)
    mm.page_table_lock.lock()
    mm.ctx.pt.walk_range(mm, start, end, age)
    if age.changed:
        mm.tlb.flush(age.changed)
    mm.page_table_lock.unlock()


class _Age:
    """Makes pages old (MADV_COLD), or old, clean and free to be dropped (MADV_FREE) (a
    :class:`~memtwin.mm.page_table.RangeOp`).

    A cleared D bit is remembered in ``nonzero``: the frame holds what was written until somebody zeroes it. A page that
    is offered is no longer backed by swap; who writes to it takes the offer back. A page that is dirty by itself (the
    kernel wrote to it) is not offered while others map it.
    """

    __slots__ = ("_bits", "_ctx", "_end", "_free", "_mm", "_start", "changed", "left_alone")

    def __init__(self, mm: MmStruct, free: bool, start: int, end: int) -> None:
        self._mm = mm
        self._ctx = mm.ctx
        self._start = start
        self._end = end
        self._free = free
        self._bits = ACCESSED | DIRTY if free else ACCESSED
        #: Heads of huge pages whose small entries stay as they are.
        self.left_alone: list[int] = []
        self.changed = 0

    def few(self, index: int, count: int, addr: int) -> None:
        """A handful of entries of one table."""
        q, pages = self._ctx.ram.q, self._ctx.pages
        for i in range(index, index + count):
            entry = q[i]
            if not entry & MAPPED or entry & SPECIAL:
                continue
            pfn = (entry & PFN_MASK) >> 12
            if pages.comp_order[pfn] and pages.head(pfn) in self.left_alone:
                continue
            if self._free:
                if pages.flags[pfn] & PG_DIRTY:
                    if pages.mapcount[pfn] != 1:
                        continue
                    pages.flags[pfn] &= ~PG_DIRTY
                pages.flags[pfn] &= ~PG_SWAPBACKED
                if entry & DIRTY:
                    pages.nonzero[pfn] = 1
            elif pages.mapcount[pfn] != 1:
                continue
            else:
                pages.flags[pfn] &= ~PG_REFERENCED
            if entry & self._bits:
                q[i] = entry & ~self._bits
                self.changed += 1

    def rows(self, batch: LeafRows) -> None:
        """Whole tables."""
        entries = batch.gather()
        vec = self._ctx.pages.vec
        chosen = ((entries & np.uint64(MAPPED)) != 0) & ((entries & np.uint64(SPECIAL)) == 0)
        if self.left_alone:
            heads = ((entries & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64) >> 9 << 9
            chosen &= ~np.isin(heads, self.left_alone)
        pfns = ((entries[chosen] & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
        if self._free:
            passed = ((vec.flags[pfns] & np.uint32(PG_DIRTY)) != 0) & (vec.mapcount[pfns] != 1)
            chosen[chosen] = ~passed
            pfns = pfns[~passed]
            vec.flags[pfns] &= np.uint32(~(PG_SWAPBACKED | PG_DIRTY) & 0xFFFFFFFF)
            vec.nonzero[pfns[(entries[chosen] & np.uint64(DIRTY)) != 0]] = 1
        else:
            sole = vec.mapcount[pfns] == 1
            chosen[chosen] = sole
            vec.flags[pfns[sole]] &= np.uint32(~PG_REFERENCED & 0xFFFFFFFF)
        hit = chosen & ((entries & np.uint64(self._bits)) != 0)
        entries[hit] &= np.uint64(~self._bits & (1 << 64) - 1)
        batch.scatter(entries)
        self.changed += int(np.count_nonzero(hit))

    def huge(self, index: int, order: int, addr: int) -> None:
        """A huge leaf; one that the range covers in part could not be split, and shared ones are passed over."""
        q, pages = self._ctx.ram.q, self._ctx.pages
        entry = q[index]
        if not entry & MAPPED or entry & SPECIAL or addr < self._start or addr + HPAGE_PMD_SIZE > self._end:
            return
        head = (entry & PFN_MASK) >> 12
        if maybe_shared(self._mm, head):
            return
        if not self._free:
            pages.flags[head] &= ~PG_REFERENCED
        else:
            pages.flags[head] &= ~PG_SWAPBACKED
            if entry & DIRTY:
                pages.vec.nonzero[head : head + HPAGE_PMD_NR] = 1
        if entry & self._bits:
            q[index] = entry & ~self._bits
            self.changed += HPAGE_PMD_NR


def _page_out(mm: MmStruct, start: int, end: int) -> None:
    out = _PageOut(mm)
    mm.page_table_lock.lock()
    try:
        mm.ctx.pt.walk_range(mm, start, end, out)
    finally:
        out.flush()
        mm.page_table_lock.unlock()
        out.finish()


class _PageOut:
    """Gives up the pages that need no swap; the others come back active and not referenced (a
    :class:`~memtwin.mm.page_table.RangeOp`). ``finish`` must be called.
    """

    __slots__ = ("_ctx", "_zap")

    def __init__(self, mm: MmStruct) -> None:
        self._ctx = mm.ctx
        self._zap = ZapOp(mm)

    def few(self, index: int, count: int, addr: int) -> None:
        """A handful of entries of one table."""
        q = self._ctx.ram.q
        for i in range(index, index + count):
            if q[i] & MAPPED and not q[i] & SPECIAL:
                self._one(i, q[i])

    def rows(self, batch: LeafRows) -> None:
        """Whole tables: nearly all pages are anonymous and want swap."""
        entries = batch.gather()
        vec = self._ctx.pages.vec
        mapped = ((entries & np.uint64(MAPPED)) != 0) & ((entries & np.uint64(SPECIAL)) == 0)
        pfns = ((entries[mapped] & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
        stays = (vec.flags[pfns] & np.uint32(_WANTS_SWAP)) == _WANTS_SWAP
        kept = pfns[stays & (vec.mapcount[pfns] == 1) & (vec.comp_order[pfns] == 0)]
        vec.flags[kept] = vec.flags[kept] & np.uint32(~PG_REFERENCED & 0xFFFFFFFF) | np.uint32(PG_ACTIVE)
        mapped[mapped] = ~stays
        for row, column in np.argwhere(mapped).tolist():
            index = (int(batch.table[row]) << 9) + batch.lo + column
            self._one(index, self._ctx.ram.q[index])

    def _one(self, index: int, entry: int) -> None:
        ctx = self._ctx
        pages = ctx.pages
        pfn = (entry & PFN_MASK) >> 12
        if pages.mapcount[pfn] != 1 or pages.comp_order[pfn]:
            return
        flags = pages.flags[pfn] & ~PG_REFERENCED
        if flags & PG_LOCKED:  # a fault or a truncation is at it
            pages.flags[pfn] = flags
            return
        if flags & PG_ANON:
            if not flags & (PG_SWAPBACKED | PG_DIRTY) and not entry & DIRTY and pages.refcount[pfn] == 1:
                self._zap.few(index, 1, 0)
            else:
                if entry & DIRTY and not flags & PG_SWAPBACKED:  # offered, then written: found out while it is unmapped
                    flags |= PG_DIRTY
                pages.flags[pfn] = flags | PG_SWAPBACKED | PG_ACTIVE
            return
        mapping, at = ctx.mappings[pages.mapping[pfn]], pages.index[pfn]
        self._zap.few(index, 1, 0)
        if not pages.flags[pfn] & PG_DIRTY and pages.refcount[pfn] == 1:
            mapping.drop(ctx, at)

    def huge(self, index: int, order: int, addr: int) -> None:
        """A huge page wants swap, unless it was offered."""
        entry = self._ctx.ram.q[index]
        head = (entry & PFN_MASK) >> 12
        if not entry & SPECIAL and self._ctx.pages.flags[head] & _WANTS_SWAP != _WANTS_SWAP and not entry & DIRTY:
            raise NotModelled("MADV_PAGEOUT of a huge page that MADV_FREE offered")

    def flush(self) -> None:
        """Have the CPUs forget what was cleared; ``page_table_lock`` is held still."""
        if self._zap.cleared:
            self._ctx.work.ptes += self._zap.cleared
            self._zap.flush()

    def finish(self) -> None:
        """Free what was given up."""
        self._zap.finish()
