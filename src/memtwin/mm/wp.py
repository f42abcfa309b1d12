# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes to present read-only entries (Linux: do_wp_page and what it calls, mm/memory.c): reuse or copy."""

from __future__ import annotations

from memtwin.hw.paging import ACCESSED, DIRTY, PFN_MASK, RW, SPECIAL
from memtwin.lib.gfp_types import GFP_HIGHUSER_MOVABLE
from memtwin.mm.mm_types import VM_SHARED, VM_WRITE, MmStruct, VmArea
from memtwin.mm.page import PG_ANON, PG_ANON_EXCLUSIVE, PG_DIRTY
from memtwin.mm.rmap import anon_vma_prepare
from memtwin.mm.set_pte import GFP_ANON, set_anon_pte
from memtwin.mm.vm_fault import FAULT_FLAG_UNSHARE, VM_FAULT_OOM
from memtwin.mm.zap import ZapOp

__all__ = ["copy_anon", "do_wp_page"]


def copy_anon(
    mm: MmStruct, vma: VmArea, addr: int, index: int, source: int, entry: int, *, unshare: bool = False
) -> int:
    """Map a private copy of frame ``source`` (the zero page: a zeroed page) at ``addr``, writable unless it is only to
    be ``unshare``-d, in place of ``entry``.
    """
    ctx = mm.ctx
    if not anon_vma_prepare(mm, vma):
        return VM_FAULT_OOM
    zero = source == ctx.zero_pfn
    pfn = ctx.page_alloc.alloc_pages(GFP_ANON if zero else GFP_HIGHUSER_MOVABLE)
    if not pfn:
        return VM_FAULT_OOM
    if not zero:
        ctx.ram.copy(pfn, source)
        ctx.pages.nonzero[pfn] = 1
        ctx.work.pages_copied += 1
    mm.page_table_lock.lock()
    if ctx.ram.q[index] & ~(ACCESSED | DIRTY) != entry & ~(ACCESSED | DIRTY):
        mm.page_table_lock.unlock()
        ctx.page_alloc.free_pages(pfn)
        return 0
    set_anon_pte(mm, vma, addr, index, pfn)
    if unshare:
        ctx.ram.q[index] &= ~(RW | DIRTY)
    if entry:
        ctx.fault_stats.wp_copy += 1
        mm.tlb.flush(1)
    else:
        ctx.fault_stats.cow += 1
        ctx.pages.private[index >> 9] += 1
    mm.page_table_lock.unlock()
    if entry and not entry & SPECIAL:
        zap = ZapOp(mm)
        zap.drop_page(source, entry)
        zap.finish()
    return 0


def do_wp_page(mm: MmStruct, vma: VmArea, addr: int, index: int, entry: int, flags: int) -> int:
    """A write to a present read-only entry: reuse a page nobody else has, else copy it. With FAULT_FLAG_UNSHARE nothing
    is written, the anonymous page only has to be the area's own.
    """
    ctx = mm.ctx
    pages = ctx.pages
    pfn = (entry & PFN_MASK) >> 12
    shared = vma.flags & VM_SHARED
    unshare = bool(flags & FAULT_FLAG_UNSHARE)
    if not shared:
        if entry & SPECIAL or not pages.flags[pfn] & PG_ANON or pages.refcount[pfn] != 1:
            return copy_anon(mm, vma, addr, index, pfn, entry, unshare=unshare)
        pages.flags[pfn] |= PG_ANON_EXCLUSIVE
        if unshare:
            return 0
    mm.page_table_lock.lock()
    ctx.ram.q[index] |= RW | DIRTY | ACCESSED if vma.flags & VM_WRITE else DIRTY | ACCESSED
    mm.page_table_lock.unlock()
    if shared:
        pages.flags[pfn] |= PG_DIRTY
    ctx.fault_stats.wp_reuse += 1
    return 0
