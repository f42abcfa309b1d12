# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes to present read-only entries (Linux: do_wp_page and what it calls, mm/memory.c): reuse or copy.

A private anonymous page that is exclusive to this address space *must* be reused, whatever its reference count:
somebody may have pinned it and expects to see what is written. One that is not known to be exclusive is reused if
nobody else can have it (:func:`wp_can_reuse_anon_folio`); the other shape of that question is in ``mm/before/wp.py``.
Everything else that is private is copied. A page of a shared area is made writable once its owner agrees
(page_mkwrite).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memtwin.errors import NotModelled
from memtwin.hw.paging import ACCESSED, DIRTY, NX, PFN_MASK, RW, SPECIAL, UFFD_WP
from memtwin.lib.gfp_types import GFP_HIGHUSER_MOVABLE
from memtwin.mm.fault_lock_stats import FaultLock
from memtwin.mm.huge_rmap import folio_put
from memtwin.mm.huge_split import wp_can_reuse_huge
from memtwin.mm.mm_types import VM_MAYSHARE, VM_SHARED, VM_WRITE, MmStruct, VmArea
from memtwin.mm.mmap_lock import release_fault_lock, vmf_anon_prepare, vmf_can_call_fault, vmf_retry
from memtwin.mm.page import PG_ANON, PG_ANON_EXCLUSIVE, PG_DIRTY
from memtwin.mm.rmap import folio_move_anon_rmap
from memtwin.mm.set_pte import GFP_ANON, alloc_anon_folio, pte_lock, set_anon_pte
from memtwin.mm.vm_fault import (
    FAULT_FLAG_ALLOW_RETRY,
    FAULT_FLAG_MKWRITE,
    FAULT_FLAG_RETRY_NOWAIT,
    FAULT_FLAG_TRIED,
    FAULT_FLAG_UNSHARE,
    FAULT_FLAG_VMA_LOCK,
    FAULT_FLAG_WRITE,
    VM_FAULT_COMPLETED,
    VM_FAULT_ERROR,
    VM_FAULT_LOCKED,
    VM_FAULT_NOPAGE,
    VM_FAULT_OOM,
    VmFault,
)
from memtwin.mm.zap import ZapOp

if TYPE_CHECKING:
    from memtwin.mm.context import MmContext

__all__ = ["do_page_mkwrite", "do_wp_page", "fault_dirty_shared_page", "may_reuse", "wp_can_reuse_anon_folio"]


def do_wp_page(mm: MmStruct, vma: VmArea, addr: int, index: int, entry: int, flags: int) -> int:
    """The entry is present and read-only, and the access writes or wants a page of its own (FAULT_FLAG_UNSHARE)."""
    ctx = mm.ctx
    ptl = mm.page_table_lock
    if not pte_lock(mm, addr, index):
        return 0
    if ctx.ram.q[index] != entry:  # changed meanwhile: the access is made again
        ptl.unlock()
        return 0
    if entry & UFFD_WP and not flags & FAULT_FLAG_UNSHARE:
        return _userfault_wp(mm, addr)
    if vma.flags & (VM_SHARED | VM_MAYSHARE):
        return _wp_shared(VmFault(mm, vma, addr, flags, index, entry))
    pfn = (entry & PFN_MASK) >> 12
    counted = not entry & SPECIAL
    if counted and ctx.pages.flags[pfn] & PG_ANON and ctx.may_reuse(ctx, vma, pfn):
        if not flags & FAULT_FLAG_UNSHARE:
            ctx.ram.q[index] = entry | (ACCESSED | DIRTY | RW if vma.flags & VM_WRITE else ACCESSED | DIRTY)
            ctx.fault_stats.wp_reuse += 1
        ptl.unlock()
        return 0
    if vma.anon_vma is None and flags & FAULT_FLAG_VMA_LOCK and not ctx.vmf_anon_prepare:
        ptl.unlock()
        return vmf_retry(VmFault(mm, vma, addr, flags), FaultLock.ANON_VMA)
    if counted:
        pages = ctx.pages
        pages.refcount[pages.head(pfn) if pages.comp_order[pfn] else pfn] += 1
    ptl.unlock()
    return _wp_page_copy(mm, vma, addr, index, entry, flags)


def _userfault_wp(mm: MmStruct, addr: int) -> int:
    """The page is write-protected by a userfaultfd, whose monitor has to be asked."""
    mm.page_table_lock.unlock()
    raise NotModelled(f"a write to a page at {addr:#x} that a userfaultfd protects")


# -- private: reuse or copy --------------------------------------------------------------------------------------------


def may_reuse(ctx: MmContext, vma: VmArea, page: int) -> bool:
    """Whether a write to the anonymous ``page`` need not copy it; the page is exclusive then. Needs
    ``page_table_lock``.
    """
    pages = ctx.pages
    flags = pages.flags
    if flags[page] & PG_ANON_EXCLUSIVE:
        return True
    if pages.refcount[page] > 1 and not pages.comp_order[page]:
        return False  # as after a fork: the next question would say so too
    if not wp_can_reuse_anon_folio(ctx, vma, page):
        return False
    if ctx.exclusive_out_of_move or ctx.pages.comp_order[page]:
        flags[page] |= PG_ANON_EXCLUSIVE
    return True


def wp_can_reuse_anon_folio(ctx: MmContext, vma: VmArea, page: int) -> bool:
    """Whether nobody but this entry can have the folio of ``page``, which then belongs to the area's own anon_vma.

    No folio is in a swap cache, on a CPU's batch for the LRU lists or merged by KSM here, so that every reference but
    one is somebody else's.
    """
    pages = ctx.pages
    order = pages.comp_order[page]
    folio = page >> order << order
    if order and ctx.thp_mm_exclusive:
        # Later kernels: the entries of this address space are no other users. The folio stays where it belongs.
        return wp_can_reuse_huge(vma, page)
    if pages.refcount[folio] > 1 or not ctx.folio_locks.trylock(folio):
        return False
    alone = pages.refcount[folio] == 1
    if alone:
        folio_move_anon_rmap(ctx, vma, folio, page)
    ctx.folio_locks.unlock(folio)
    return alone


def _wp_page_copy(mm: MmStruct, vma: VmArea, addr: int, index: int, entry: int, flags: int) -> int:
    """Map a private copy of the frame of ``entry`` (the zero page: a zeroed page) in its place. The caller's reference
    to the old page is given back.
    """
    ctx = mm.ctx
    old = (entry & PFN_MASK) >> 12
    counted = not entry & SPECIAL
    ctx.sched.current.wpcopy_count += 1
    result = 0 if vma.anon_vma is not None else vmf_anon_prepare(mm, vma, addr, flags)
    pfn = 0
    if not result:
        pfn = alloc_anon_folio(mm, GFP_ANON if old == ctx.zero_pfn else GFP_HIGHUSER_MOVABLE)
        if not pfn:
            result = VM_FAULT_OOM
    if result:
        if counted:
            folio_put(ctx, ctx.pages.head(old))
        return result
    if old != ctx.zero_pfn:
        nonzero = ctx.pages.nonzero
        if nonzero[pfn]:
            ctx.ram.copy(pfn, old)
        elif ctx.ram.copy_onto_zeroes(pfn, old):
            nonzero[pfn] = 1
        ctx.work.pages_copied += 1
    there = pte_lock(mm, addr, index)
    if not there or (ctx.ram.q[index] ^ entry) & ~(ACCESSED | DIRTY):
        if there:
            mm.page_table_lock.unlock()
        ctx.page_alloc.free_pages(pfn)
        if counted:
            folio_put(ctx, ctx.pages.head(old))
        return 0
    bits = DIRTY | RW if vma.flags & VM_WRITE else DIRTY
    set_anon_pte(mm, vma, addr, index, pfn, 0 if flags & FAULT_FLAG_UNSHARE else bits)
    ctx.fault_stats.wp_copy += 1
    mm.tlb.flush(1)
    zap = _give_up(mm, old, entry) if counted else None
    mm.page_table_lock.unlock()
    if zap is not None:
        zap.finish()
    return 0


def _give_up(mm: MmStruct, page: int, entry: int) -> ZapOp | None:
    """``entry``, now gone, mapped ``page``, on which the fault held a reference too. ``page_table_lock`` is held; what
    is returned must be finished without it.
    """
    pages = mm.ctx.pages
    if pages.mapcount[page] > 1 and pages.flags[page] & PG_ANON and not pages.comp_order[page] and entry & NX:
        # Others map it still, as after a fork: nothing comes free.
        if entry & DIRTY:
            pages.nonzero[page] = 1
        pages.mapcount[page] -= 1
        pages.refcount[page] -= 2
        mm.rss_anon -= 1
        return None
    pages.refcount[pages.head(page)] -= 1
    zap = ZapOp(mm)
    zap.drop_page(page, entry)
    return zap


# -- shared ------------------------------------------------------------------------------------------------------------


def _wp_shared(vmf: VmFault) -> int:
    """A page of a shared area; ``page_table_lock`` is held. Its owner is asked, if it wants to be."""
    mm, ctx = vmf.mm, vmf.mm.ctx
    ops = vmf.vma.vm_ops
    if vmf.entry & SPECIAL:
        return _wp_pfn_shared(vmf)
    vmf.page = page = (vmf.entry & PFN_MASK) >> 12
    ctx.pages.refcount[page] += 1
    result = 0
    if ops is not None and ops.has_page_mkwrite:
        mm.page_table_lock.unlock()
        result = _may_ask(vmf)
        if result:
            ctx.page_alloc.put_page(page)
            return result
        try:
            result = do_page_mkwrite(vmf)
        except BaseException:
            ctx.page_alloc.put_page(page)
            raise
        if not result or result & (VM_FAULT_ERROR | VM_FAULT_NOPAGE):
            ctx.page_alloc.put_page(page)
            return result & ~VM_FAULT_NOPAGE
        there = pte_lock(mm, vmf.address, vmf.index)
        if not there or ctx.ram.q[vmf.index] != vmf.entry:
            if there:
                mm.page_table_lock.unlock()
            ctx.folio_locks.unlock(page)
            ctx.page_alloc.put_page(page)
            return 0
        _reuse_shared(vmf)
    else:
        _reuse_shared(vmf)
        ctx.folio_locks.lock(page)
    result |= fault_dirty_shared_page(vmf)
    ctx.page_alloc.put_page(page)
    return result & ~VM_FAULT_LOCKED


def _wp_pfn_shared(vmf: VmFault) -> int:
    """Device memory without counted pages behind it: no operations that are modelled ask to hear of it."""
    _reuse_shared(vmf)
    return 0


def _reuse_shared(vmf: VmFault) -> None:
    """Make the entry writable and drop ``page_table_lock``."""
    ctx = vmf.mm.ctx
    ctx.ram.q[vmf.index] = vmf.entry | RW | DIRTY | ACCESSED
    vmf.mm.page_table_lock.unlock()
    ctx.fault_stats.wp_reuse += 1


def _may_ask(vmf: VmFault) -> int:
    """0 if page_mkwrite may be called under the lock that is held, else VM_FAULT_RETRY."""
    if not vmf.flags & FAULT_FLAG_VMA_LOCK:
        return 0
    if not vmf.mm.ctx.vma_lock_ro_write_faults:
        return vmf_retry(vmf, FaultLock.ALWAYS("vma-lock-ro-write-faults"))
    return vmf_can_call_fault(vmf)


def do_page_mkwrite(vmf: VmFault) -> int:
    """Tell the owner of ``vmf.page`` that it becomes writable. With VM_FAULT_LOCKED it may, and the folio is locked; 0:
    it was truncated meanwhile, the access is made again; else an error or VM_FAULT_NOPAGE.
    """
    ctx, vma = vmf.mm.ctx, vmf.vma
    assert vma.vm_ops is not None and vma.file is not None
    mapping = vma.file.mapping
    kept, vmf.flags = vmf.flags, vmf.flags | FAULT_FLAG_WRITE | FAULT_FLAG_MKWRITE
    result = vma.vm_ops.page_mkwrite(vmf)
    vmf.flags = kept
    if result & (VM_FAULT_ERROR | VM_FAULT_NOPAGE | VM_FAULT_LOCKED):
        return result
    ctx.folio_locks.lock(vmf.page)
    if ctx.pages.mapping[vmf.page] != mapping.id:
        ctx.folio_locks.unlock(vmf.page)
        return 0
    return result | VM_FAULT_LOCKED


def fault_dirty_shared_page(vmf: VmFault) -> int:
    """Mark ``vmf.page``, whose folio is locked, dirty and unlock it: 0, or VM_FAULT_COMPLETED.

    Who dirties a page may have to wait until others are written back, and gives up the fault's lock for that.
    """
    ctx, vma = vmf.mm.ctx, vmf.vma
    flags = ctx.pages.flags
    dirtied = not flags[vmf.page] & PG_DIRTY
    flags[vmf.page] |= PG_DIRTY
    ctx.folio_locks.unlock(vmf.page)
    assert vma.vm_ops is not None
    if dirtied or vma.vm_ops.has_page_mkwrite:
        asked = FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_TRIED | FAULT_FLAG_RETRY_NOWAIT
        if vmf.flags & asked == FAULT_FLAG_ALLOW_RETRY:
            release_fault_lock(vmf, None)
            return VM_FAULT_COMPLETED
    return 0
