# SPDX-License-Identifier: GPL-2.0-or-later
"""Populating a range ahead of use (Linux: mm/gup.c, MADV_POPULATE_* in mm/madvise.c).

Empty entries of private anonymous areas are filled whole tables at a time; every other entry takes the fault path
page by page. The result is the same as touching every page, ascending: pages, counters, faults counted.
"""

from __future__ import annotations

import errno

import numpy as np

from memtwin.hw.paging import ACCESSED, DIRTY, GUARD_ENTRY, NX, PFN_MASK, PMD_SHIFT, PRESENT, RW, SPECIAL
from memtwin.mm.huge_memory import hugepage_vma_check, transhuge_vma_suitable
from memtwin.mm.memory import denied_by_pkey, handle_mm_fault, mm_account_fault
from memtwin.mm.memory_failure import EHWPOISON
from memtwin.mm.mm_types import (
    VM_ACCESS_FLAGS,
    VM_IO,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_PFNMAP,
    VM_READ,
    VM_SHARED,
    VM_UFFD_MISSING,
    VM_WRITE,
    MmStruct,
    VmArea,
)
from memtwin.mm.page import PG_ACTIVE, PG_DIRTY, PG_REFERENCED, mark_page_accessed
from memtwin.mm.page_table import LeafRows
from memtwin.mm.rmap import anon_vma_prepare
from memtwin.mm.set_pte import ANON_FLAGS, GFP_ANON
from memtwin.mm.vm_fault import FAULT_FLAG_WRITE, VM_FAULT_ERROR, VM_FAULT_HWPOISON, VM_FAULT_OOM
from memtwin.mm.vma import areas_in

__all__ = ["faultin_page_range", "populate_vma_page_range", "populate_vma_range"]


def populate_vma_range(mm: MmStruct, start: int, end: int, *, ignore_errors: bool) -> None:
    """Populate the areas of [start, end) as mlock and MAP_POPULATE do: writable private ones are written, others
    read.

    Holes, areas of devices and areas locked on fault are passed over. Takes ``mmap_lock``. Raises OSError of the
    first area that can not be populated (EFAULT: it permits nothing; ENOMEM), unless errors are to be ignored.
    """
    mm.mmap_lock.down_read()
    try:
        for vma in areas_in(mm, start, end):
            try:
                populate_vma_page_range(mm, vma, max(vma.start, start), min(vma.end, end))
            except OSError:
                if not ignore_errors:
                    raise
    finally:
        mm.mmap_lock.up_read()


def populate_vma_page_range(mm: MmStruct, vma: VmArea, start: int, end: int) -> None:
    """The same for [start, end) of one area. ``mmap_lock`` is held. Raises OSError EFAULT, ENOMEM."""
    if vma.flags & (VM_IO | VM_PFNMAP | VM_LOCKONFAULT):
        return
    if not vma.flags & VM_ACCESS_FLAGS or denied_by_pkey(vma, False):
        raise OSError(errno.EFAULT, "populate: the area permits no access")
    _populate_area(mm, vma, start, end, vma.flags & (VM_WRITE | VM_SHARED) == VM_WRITE)


def faultin_page_range(mm: MmStruct, start: int, end: int, *, write: bool) -> None:
    """MADV_POPULATE_READ and _WRITE: have every page of [start, end) present, writable if ``write``.

    Precondition: ``mmap_lock`` held for reading. Raises OSError ENOMEM (a hole, or no memory), EINVAL (the area
    forbids the access), EFAULT (beyond the end of a file), EHWPOISON (a broken page). 6.7 goes on behind a hole, and an
    error found there wins; later kernels stop (post-populate-stop-at-hole).
    """
    hole: OSError | None = None
    position = start
    for vma in areas_in(mm, start, end):
        if vma.start > position:
            hole = OSError(errno.ENOMEM, f"populate: nothing is mapped at {position:#x}")
            if mm.ctx.populate_stop_at_hole:
                raise hole
        stop = min(vma.end, end)
        if vma.flags & (VM_IO | VM_PFNMAP) or not vma.flags & (VM_WRITE if write else VM_READ):
            raise OSError(errno.EINVAL, "populate: the area does not permit the access")
        _populate_area(mm, vma, max(vma.start, start), stop, write, hwpoison=True)
        position = stop
    if position < end:
        raise OSError(errno.ENOMEM, f"populate: nothing is mapped at {position:#x}")
    if hole is not None:
        raise hole


def _populate_area(mm: MmStruct, vma: VmArea, start: int, end: int, write: bool, *, hwpoison: bool = False) -> None:
    """Fill [start, end) of ``vma``; the faults are the current task's. Raises OSError, EHWPOISON only with
    ``hwpoison`` (else EFAULT).
    """
    ctx = mm.ctx
    filler = _Populate(mm, vma, write, start, end, hwpoison=hwpoison)
    if write and vma.vm_ops is None and not anon_vma_prepare(mm, vma):
        raise OSError(errno.ENOMEM, "populate: no memory for an anon_vma")
    slots = range(start >> PMD_SHIFT, (end - 1 >> PMD_SHIFT) + 1)
    fresh: list[int] = []
    try:
        if hugepage_vma_check(vma, in_pf=True):
            filler.huge_blocks(start, end)
        fresh = [slot for slot in slots if slot not in mm.pte_tables]
        if not ctx.pt.pte_alloc_range(mm, start, end):
            raise OSError(errno.ENOMEM, "populate: no memory for page tables")
        ctx.pt.walk_range(mm, start, end, filler)
        filler.reached = end
    except OSError:
        # Fault by fault, tables behind the page that failed would not be there.
        for slot in reversed(fresh):
            if slot > filler.reached >> PMD_SHIFT and slot in mm.pte_tables:
                ctx.pt.free_empty_tables(mm, slot << PMD_SHIFT, slot + 1 << PMD_SHIFT)
        raise
    finally:
        if filler.reached > start:
            touch = _MarkAccessed(mm, locked=bool(vma.flags & VM_LOCKED), write=write)
            ctx.pt.walk_range(mm, start, filler.reached, touch)
        ctx.events.pgfault += filler.filled
        ctx.sched.current.min_flt += filler.filled


class _Populate:
    """Fills empty entries (a :class:`~memtwin.mm.page_table.RangeOp`). ``filled`` counts the pages mapped in bulk, each
    a minor fault; ``reached``: the address that could not be populated, if an error ended it.
    """

    __slots__ = ("_bulk", "_end", "_hwpoison", "_mm", "_start", "_vma", "_write", "filled", "reached")

    def __init__(self, mm: MmStruct, vma: VmArea, write: bool, start: int, end: int, *, hwpoison: bool) -> None:
        self._hwpoison = hwpoison
        self._start = start
        self._end = end
        self._mm = mm
        self._vma = vma
        self._write = write
        # Page by page where each has to be charged.
        charged = mm.ctx.mem_cgroup_charge is not None
        self._bulk = vma.vm_ops is None and not vma.flags & VM_UFFD_MISSING and not charged
        self.filled = 0
        self.reached = 0

    def huge_blocks(self, start: int, end: int) -> None:
        """One fault for each empty 2 MiB block of an area that may have huge pages."""
        mm, vma = self._mm, self._vma
        for slot in range(start >> PMD_SHIFT, (end - 1 >> PMD_SHIFT) + 1):
            addr = max(slot << PMD_SHIFT, start)
            if slot not in mm.pte_tables and slot not in mm.deposits and transhuge_vma_suitable(vma, addr):
                self._fault(addr)

    def few(self, index: int, count: int, addr: int) -> None:
        """A handful of entries of one table."""
        q = self._mm.ctx.ram.q
        needed = PRESENT | RW if self._write else PRESENT
        for i in range(count):
            if q[index + i] & needed != needed:
                self._fault(addr + (i << 12))

    def _fault(self, addr: int) -> None:
        self.reached = addr
        ctx = self._mm.ctx
        flags = FAULT_FLAG_WRITE if self._write else 0
        result = handle_mm_fault(self._mm, self._vma, addr, flags)
        mm_account_fault(ctx, ctx.sched.current, flags, result)
        if not result & VM_FAULT_ERROR:
            return
        if result & VM_FAULT_OOM:
            raise OSError(errno.ENOMEM, "populate: no memory")
        if result & VM_FAULT_HWPOISON and self._hwpoison:
            raise OSError(EHWPOISON, "populate: the memory of a page is broken")
        raise OSError(errno.EFAULT, "populate: beyond the end of the file, a guard, or a broken page")

    def rows(self, batch: LeafRows) -> None:
        """Whole tables: empty entries in one step, then whatever still does not permit the access one by one."""
        entries = batch.gather()
        guards = np.flatnonzero(entries == np.uint64(GUARD_ENTRY))
        if self._bulk:
            empty = entries == 0
            if len(guards):
                empty.ravel()[guards[0] :] = False  # it ends there
            count = int(np.count_nonzero(empty))
            if count:
                self._fill(batch, entries, empty, count)
        needed = np.uint64(PRESENT | RW if self._write else PRESENT)
        rest = (entries & needed) != needed
        if rest.any():
            for addr in batch.page_addr()[rest].tolist():
                self._fault(addr)  # in order, so that a guard ends it

    def _fill(self, batch: LeafRows, entries: np.ndarray, empty: np.ndarray, count: int) -> None:
        """Map ``count`` fresh pages (or the zero page) where ``empty`` says; stops short when memory runs out."""
        mm, vma = self._mm, self._vma
        ctx = mm.ctx
        vec = ctx.pages.vec
        if self._write:
            pfns = ctx.page_alloc.alloc_bulk(GFP_ANON, count)
            if len(pfns) < count:
                # The rest is left to the fault path, which reclaims and finally fails with the right errno.
                empty.ravel()[np.flatnonzero(empty)[len(pfns) :]] = False
                count = len(pfns)
            assert vma.anon_vma is not None
            entries[empty] = (pfns.astype(np.uint64) << np.uint64(12)) | np.uint64(vma.page_prot | DIRTY | RW)
            vec.flags[pfns] = ANON_FLAGS
            vec.mapcount[pfns] = 1
            vec.mapping[pfns] = vma.anon_vma.id
            vec.index[pfns] = ((batch.page_addr()[empty] - vma.start) >> 12) + vma.pgoff
            mm.rss_anon += count
            ctx.count_anon(pfns, 1)
            ctx.fault_stats.anon_write += count
            if not vma.page_prot & NX:
                for pfn in pfns.tolist():
                    ctx.tlb.note_executable(pfn)
        else:
            entries[empty] = np.uint64(ctx.zero_pfn << 12 | vma.page_prot | SPECIAL)
            ctx.fault_stats.anon_zero += count
        batch.scatter(entries)
        vec.private[batch.table] += np.count_nonzero(empty, axis=1).astype(np.uint64)
        ctx.work.ptes += count
        self.filled += count

    def huge(self, index: int, order: int, addr: int) -> None:
        """A huge leaf; a write may have to replace or split it."""
        mm = self._mm
        needed = PRESENT | RW if self._write else PRESENT
        if mm.ctx.ram.q[index] & needed == needed:
            return
        addr = max(addr, self._start)
        self._fault(addr)
        if addr >> PMD_SHIFT not in mm.deposits:
            mm.ctx.pt.walk_range(mm, addr, min((addr >> PMD_SHIFT) + 1 << PMD_SHIFT, self._end), self)


class _MarkAccessed:
    """What FOLL_TOUCH does to every page of the range, present before or not (a RangeOp): it counts as accessed, and
    as dirty if it is to be written and its entry is clean.

    The first time sets PG_referenced; the second makes an evictable page active instead.
    """

    __slots__ = ("_locked", "_pages", "_q", "_write")

    def __init__(self, mm: MmStruct, *, locked: bool, write: bool) -> None:
        self._write = write
        self._q = mm.ctx.ram.q
        self._pages = mm.ctx.pages
        self._locked = locked

    def few(self, index: int, count: int, addr: int) -> None:
        """A handful of entries of one table."""
        for i in range(index, index + count):
            entry = self._q[i]
            if entry & (PRESENT | SPECIAL) == PRESENT:
                head = self._pages.head((entry & PFN_MASK) >> 12)
                if self._write and not entry & DIRTY:
                    self._pages.flags[head] |= PG_DIRTY
                mark_page_accessed(self._pages, head, locked=self._locked)

    def rows(self, batch: LeafRows) -> None:
        """Whole tables."""
        entries = batch.gather()
        entries = entries[(entries & np.uint64(PRESENT | SPECIAL)) == np.uint64(PRESENT)]
        pfns = ((entries & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
        order = self._pages.vec.comp_order[pfns]
        if self._write:
            clean = (entries & np.uint64(DIRTY)) == 0
            self._pages.vec.flags[pfns[clean] >> order[clean] << order[clean]] |= np.uint32(PG_DIRTY)
        if order.any():
            for head in (pfns[order != 0] >> order[order != 0] << order[order != 0]).tolist():
                mark_page_accessed(self._pages, head, locked=self._locked)
            pfns = pfns[order == 0]
        flags = self._pages.vec.flags
        old = flags[pfns]
        referenced = (old & np.uint32(PG_REFERENCED)) != 0
        again = referenced & ((old & np.uint32(PG_ACTIVE)) == 0) & (not self._locked)
        flags[pfns[~referenced]] |= np.uint32(PG_REFERENCED)
        flags[pfns[again]] = old[again] & np.uint32(~PG_REFERENCED & 0xFFFFFFFF) | np.uint32(PG_ACTIVE)

    def huge(self, index: int, order: int, addr: int) -> None:
        """Only the leaf is marked, and on x86 only for a write."""
        if self._write:
            self._q[index] |= ACCESSED | DIRTY
