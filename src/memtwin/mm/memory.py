# SPDX-License-Identifier: GPL-2.0-or-later
"""Resolving a fault inside an area: the dispatch, anonymous memory and files (Linux: mm/memory.c; spec R12, R13).

First touch of anonymous memory (read: the shared zero page, write: a new zeroed page), and pages of files through the
operations of the area (``mm/vm_ops.py``); writes to read-only pages are in ``mm/wp.py``, taking pages away in
``mm/zap.py``, huge leaves in ``mm/huge_memory.py``. Callers hold ``mmap_lock`` or the lock of the area, which a
handler may give up (``mm/mmap_lock.py``); the entries and the RSS counters change under ``page_table_lock``. How
faults ended is counted in ``ctx.fault_stats``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from memtwin.errors import NotModelled
from memtwin.hw.paging import (
    ACCESSED,
    DIRTY,
    GUARD_ENTRY,
    NX,
    PKEY_MASK,
    PMD_SHIFT,
    PRESENT,
    PROT_NONE,
    PTE_MARKER_TYPE,
    PUD_SHIFT,
    RW,
    SPECIAL,
    SWAP_TYPE_MASK,
    SWAP_TYPE_SHIFT,
)
from memtwin.lib.gfp_types import GFP_HIGHUSER_MOVABLE
from memtwin.mm.fault_lock_stats import FaultLock
from memtwin.mm.huge_memory import (
    do_huge_fault,
    do_huge_pmd_anonymous_page,
    do_huge_pmd_wp_page,
    huge_pmd_set_accessed,
    hugepage_vma_check,
    wp_huge_fault,
)
from memtwin.mm.mm_types import (
    VM_ACCESS_FLAGS,
    VM_HUGETLB,
    VM_SHARED,
    VM_UFFD_MINOR,
    VM_UFFD_MISSING,
    VM_UFFD_WP,
    VM_WRITE,
    MmStruct,
    VmArea,
)
from memtwin.mm.mmap_lock import vmf_anon_prepare, vmf_can_call_fault, vmf_retry
from memtwin.mm.page import PG_HWPOISON
from memtwin.mm.set_pte import GFP_ANON, alloc_anon_folio, pte_lock, set_anon_pte, set_file_pte
from memtwin.mm.userfaultfd import handle_userfault
from memtwin.mm.vm_fault import (
    FAULT_FLAG_TRIED,
    FAULT_FLAG_UNSHARE,
    FAULT_FLAG_VMA_LOCK,
    FAULT_FLAG_WRITE,
    VM_FAULT_DONE_COW,
    VM_FAULT_ERROR,
    VM_FAULT_FALLBACK,
    VM_FAULT_HWPOISON,
    VM_FAULT_LOCKED,
    VM_FAULT_MAJOR,
    VM_FAULT_NOPAGE,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_FAULT_SIGSEGV,
    VmFault,
)
from memtwin.mm.wp import do_page_mkwrite, do_wp_page, fault_dirty_shared_page

if TYPE_CHECKING:
    from memtwin.mm.context import MmContext

__all__ = ["denied_by_pkey", "fault_is_permitted", "handle_mm_fault", "mm_account_fault"]

#: With one of these a handler has no page to map.
_ENDS: Final = VM_FAULT_ERROR | VM_FAULT_NOPAGE | VM_FAULT_RETRY


def handle_mm_fault(mm: MmStruct, vma: VmArea, addr: int, flags: int) -> int:
    """Make ``addr`` accessible in ``vma``, which permits the access. Returns VM_FAULT_* bits, 0 when all is well.

    ``flags``: FAULT_FLAG_*. Precondition: the lock of the area is held for reading (FAULT_FLAG_VMA_LOCK), or
    ``mm.mmap_lock``; it is given up when VM_FAULT_RETRY (unless FAULT_FLAG_RETRY_NOWAIT) or VM_FAULT_COMPLETED is
    returned. The caller counts the fault.
    """
    ctx = mm.ctx
    base = mm.pte_tables.get(addr >> 21)
    if base is None:
        result = _handle_huge(mm, vma, addr, flags)
        if not result & VM_FAULT_FALLBACK:
            return result
        if addr >> PMD_SHIFT in mm.deposits:
            return 0  # another thread mapped a huge page meanwhile: the access is made again
        base = ctx.pt.pte_alloc(mm, addr)
        if base <= 0:
            return VM_FAULT_OOM if not base else 0
    index = base + (addr >> 12 & 511)
    entry = ctx.ram.q[index]
    if not entry:
        if vma.vm_ops is None:
            return _do_anonymous_page(mm, vma, addr, index, flags)
        return _do_fault(VmFault(mm, vma, addr, flags, index))
    if not entry & PRESENT and (not entry & PROT_NONE or vma.flags & VM_ACCESS_FLAGS):
        return _do_non_present(VmFault(mm, vma, addr, flags, index, entry))
    if flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE) and not entry & RW:
        return do_wp_page(mm, vma, addr, index, entry, flags)
    ctx.ram.q[index] = entry | (ACCESSED | DIRTY if flags & FAULT_FLAG_WRITE else ACCESSED)
    ctx.fault_stats.spurious += 1
    return 0


class _Accounted(Protocol):
    """Whose faults are counted: a task."""

    min_flt: int
    maj_flt: int


def mm_account_fault(ctx: MmContext, task: _Accounted, flags: int, result: int) -> None:
    """Count a fault that came to an end, well or not (``pgfault``); one that ended well is ``task``'s. ``flags``:
    FAULT_FLAG_*; ``result``: VM_FAULT_*.
    """
    if result & VM_FAULT_RETRY:
        return
    ctx.events.pgfault += 1
    if result & VM_FAULT_ERROR:
        return
    if result & VM_FAULT_MAJOR or flags & FAULT_FLAG_TRIED:
        task.maj_flt += 1
    else:
        task.min_flt += 1


# -- huge leaves, and entries that are not present ---------------------------------------------------------------------


def _handle_huge(mm: MmStruct, vma: VmArea, addr: int, flags: int) -> int:
    """No last-level table covers ``addr``: a huge leaf does, or may come to. VM_FAULT_FALLBACK: go on with a table.

    A leaf that must be split first is split by the function that says FALLBACK.
    """
    if vma.flags & VM_HUGETLB:
        return _hugetlb_fault(VmFault(mm, vma, addr, flags))
    index, shift = mm.ctx.pt.lookup(mm, addr)
    if shift in (PMD_SHIFT, PUD_SHIFT):
        entry = mm.ctx.ram.q[index]
        vmf = VmFault(mm, vma, addr, flags, index, entry)
        if flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE) and not entry & RW:
            return do_huge_pmd_wp_page(vmf) if vma.vm_ops is None else wp_huge_fault(vmf, shift - 12)
        huge_pmd_set_accessed(vmf)
        return 0
    ops = vma.vm_ops
    if ops is not None and not ops.has_huge_fault:
        return VM_FAULT_FALLBACK
    if not hugepage_vma_check(vma, in_pf=True):
        return VM_FAULT_FALLBACK
    vmf = VmFault(mm, vma, addr, flags)
    if ops is None:
        return do_huge_pmd_anonymous_page(vmf)
    return do_huge_fault(vmf)


def _hugetlb_fault(vmf: VmFault) -> int:
    """6.7 handles faults of hugetlb areas under ``mmap_lock`` only."""
    if vmf.flags & FAULT_FLAG_VMA_LOCK and not vmf.mm.ctx.features.has("post-hugetlb-vma-lock"):
        return vmf_retry(vmf, FaultLock.ALWAYS("post-hugetlb-vma-lock"))
    raise NotModelled(f"a fault at {vmf.address:#x} in a hugetlb area")


def _do_non_present(vmf: VmFault) -> int:
    """The entry is not empty and not present: a marker, a page on its way or in swap, or a NUMA hint."""
    entry = vmf.entry
    if entry & PROT_NONE:
        return _do_numa_page(vmf)
    if entry >> SWAP_TYPE_SHIFT & SWAP_TYPE_MASK == PTE_MARKER_TYPE:
        return _handle_pte_marker(vmf)
    return _do_swap_page(vmf)


def _do_numa_page(vmf: VmFault) -> int:
    """The entry was made inaccessible to see who accesses it."""
    raise NotModelled(f"a NUMA hinting fault at {vmf.address:#x}")


def _handle_pte_marker(vmf: VmFault) -> int:
    """The entry remembers something about a page that is not there: write protection (userfaultfd), poison, a guard."""
    if vmf.entry == GUARD_ENTRY:
        return VM_FAULT_SIGSEGV
    raise NotModelled(f"a fault on a PTE marker, {vmf.entry:#x} at {vmf.address:#x}")


def _do_swap_page(vmf: VmFault) -> int:
    """The page is in swap, being migrated, in device memory, or was poisoned."""
    raise NotModelled(f"a fault on a swap or migration entry, {vmf.entry:#x} at {vmf.address:#x}")


# -- anonymous memory --------------------------------------------------------------------------------------------------


def _do_anonymous_page(mm: MmStruct, vma: VmArea, addr: int, index: int, flags: int) -> int:
    """First touch: read maps the zero page, write a new zeroed one."""
    ctx = mm.ctx
    pages = ctx.pages
    ptl = mm.page_table_lock
    if not flags & FAULT_FLAG_WRITE:
        if vma.flags & VM_UFFD_MISSING:
            return handle_userfault(vma, addr)
        if not pte_lock(mm, addr, index):
            return 0
        if not ctx.ram.q[index]:
            ctx.ram.q[index] = ctx.zero_pfn << 12 | vma.page_prot | SPECIAL
            pages.private[index >> 9] += 1
            ctx.fault_stats.anon_zero += 1
        ptl.unlock()
        return 0
    if vma.anon_vma is None:
        result = vmf_anon_prepare(mm, vma, addr, flags)
        if result:
            return result
    if vma.flags & VM_UFFD_MISSING:
        return handle_userfault(vma, addr)
    pfn = alloc_anon_folio(mm, GFP_ANON)
    if not pfn:
        return VM_FAULT_OOM
    if not pte_lock(mm, addr, index):
        ctx.page_alloc.free_pages(pfn)
        return 0
    if ctx.ram.q[index]:
        # Another thread was faster.
        ptl.unlock()
        ctx.page_alloc.free_pages(pfn)
        return 0
    set_anon_pte(mm, vma, addr, index, pfn, DIRTY | RW if vma.flags & VM_WRITE else DIRTY)
    pages.private[index >> 9] += 1
    ptl.unlock()
    ctx.fault_stats.anon_write += 1
    return 0


# -- files -------------------------------------------------------------------------------------------------------------

#: Fault-around: how many pages a read fault on a file maps at most if they are cached (64 KiB). The window begins at a
#: multiple of it or at the start of the area.
FAULT_AROUND: Final = 16


def _do_fault(vmf: VmFault) -> int:
    """The entry is empty and the area has operations."""
    if not vmf.flags & FAULT_FLAG_WRITE:
        return _do_read_fault(vmf)
    return _do_shared_fault(vmf) if vmf.vma.flags & VM_SHARED else _do_cow_fault(vmf)


def _may_call(vmf: VmFault, change: str, allowed: bool) -> int:
    """0 if this kind of fault may go on under the lock that is held, else VM_FAULT_RETRY: before ``change`` it never
    did under the lock of an area.
    """
    if not vmf.flags & FAULT_FLAG_VMA_LOCK:
        return 0
    return vmf_can_call_fault(vmf) if allowed else vmf_retry(vmf, FaultLock.ALWAYS(change))


def _do_read_fault(vmf: VmFault) -> int:
    """Map what is cached around it; only if the page itself is not among that, have it read."""
    ctx, vma = vmf.mm.ctx, vmf.vma
    ops = vma.vm_ops
    assert ops is not None
    if ops.has_map_pages and not vma.flags & (VM_UFFD_WP | VM_UFFD_MINOR):
        result = _do_fault_around(vmf)
        if result:
            ctx.fault_stats.file_read += 1
            return 0
    result = _may_call(vmf, "vma-lock-read-faults", ctx.vma_lock_read_faults)
    if result:
        return result
    result = _do_fault_raw(vmf)
    if result & _ENDS:
        return _ended(result)
    result |= _finish_fault(vmf)
    ctx.folio_locks.unlock(vmf.page)
    if result & VM_FAULT_NOPAGE:
        ctx.page_alloc.put_page(vmf.page)
    else:
        ctx.fault_stats.file_read += 1
    return _ended(result)


def _do_fault_around(vmf: VmFault) -> int:
    """VM_FAULT_NOPAGE if the page is mapped now, else 0. The window lies in the area and in one page table."""
    vma = vmf.vma
    slot = vmf.address >> 12 & 511
    offset = vmf.pgoff - vma.pgoff
    first = max(slot - slot % FAULT_AROUND, slot - min(slot, offset))
    last = min(first + FAULT_AROUND, 512, slot + vma.pages - offset) - 1
    ops = vma.vm_ops
    assert ops is not None
    return ops.map_pages(vmf, vmf.pgoff + first - slot, vmf.pgoff + last - slot)


def _do_cow_fault(vmf: VmFault) -> int:
    """A private write: the file's page is copied at once, and never mapped itself."""
    mm, ctx = vmf.mm, vmf.mm.ctx
    result = _may_call(vmf, "vma-lock-cow-faults", ctx.vma_lock_cow_faults)
    if not result:
        result = vmf_anon_prepare(mm, vmf.vma, vmf.address, vmf.flags)
    if result:
        return result
    copy = alloc_anon_folio(mm, GFP_HIGHUSER_MOVABLE)
    if not copy:
        return VM_FAULT_OOM
    vmf.cow_page = copy
    try:
        result = _do_fault_raw(vmf)
    except BaseException:
        ctx.page_alloc.put_page(copy)
        raise
    if result & _ENDS:
        ctx.page_alloc.put_page(copy)
        return _ended(result)
    if result & VM_FAULT_DONE_COW:
        return result & ~VM_FAULT_DONE_COW
    ctx.ram.copy(copy, vmf.page)
    ctx.pages.nonzero[copy] = 1
    ctx.work.pages_copied += 1
    result |= _finish_fault(vmf)
    ctx.folio_locks.unlock(vmf.page)
    ctx.page_alloc.put_page(vmf.page)
    if result & VM_FAULT_NOPAGE:
        ctx.page_alloc.put_page(copy)
    else:
        ctx.fault_stats.cow += 1
    return _ended(result)


def _do_shared_fault(vmf: VmFault) -> int:
    """A write to a page of the file itself, whose owner may want to be asked first (page_mkwrite)."""
    ctx = vmf.mm.ctx
    ops = vmf.vma.vm_ops
    assert ops is not None
    result = _may_call(vmf, "vma-lock-shared-faults", ctx.vma_lock_shared_faults)
    if result:
        return result
    result = _do_fault_raw(vmf)
    if result & _ENDS:
        return _ended(result)
    if ops.has_page_mkwrite:
        ctx.folio_locks.unlock(vmf.page)
        try:
            asked = do_page_mkwrite(vmf)
        except BaseException:
            ctx.page_alloc.put_page(vmf.page)
            raise
        if not asked or asked & (VM_FAULT_ERROR | VM_FAULT_NOPAGE):
            ctx.page_alloc.put_page(vmf.page)
            return _ended(asked)
    result |= _finish_fault(vmf)
    if result & VM_FAULT_NOPAGE:
        ctx.folio_locks.unlock(vmf.page)
        ctx.page_alloc.put_page(vmf.page)
        return _ended(result)
    ctx.fault_stats.shared_file += 1
    return _ended(result | fault_dirty_shared_page(vmf))


def _ended(result: int) -> int:
    """What the fault answers: bits that only its parts tell each other go."""
    return result & ~(VM_FAULT_NOPAGE | VM_FAULT_LOCKED)


def _do_fault_raw(vmf: VmFault) -> int:
    """Ask the operations of the area for the page: referenced and locked in ``vmf.page`` unless _ENDS or DONE_COW
    (Linux: __do_fault).
    """
    ctx = vmf.mm.ctx
    ops = vmf.vma.vm_ops
    assert ops is not None
    result = ops.fault(vmf)
    if result & (_ENDS | VM_FAULT_DONE_COW):
        return result
    if not result & VM_FAULT_LOCKED:
        ctx.folio_locks.lock(vmf.page)
    if ctx.pages.flags[vmf.page] & PG_HWPOISON:
        ctx.folio_locks.unlock(vmf.page)
        ctx.page_alloc.put_page(vmf.page)
        return VM_FAULT_HWPOISON
    return result | VM_FAULT_LOCKED


def _finish_fault(vmf: VmFault) -> int:
    """Map the page that was got, or its private copy, if the entry is still there and empty: 0, or VM_FAULT_NOPAGE."""
    mm, vma, index = vmf.mm, vmf.vma, vmf.index
    q = mm.ctx.ram.q
    if not pte_lock(mm, vmf.address, index):
        return VM_FAULT_NOPAGE
    if q[index]:
        mm.page_table_lock.unlock()
        return VM_FAULT_NOPAGE
    bits = 0
    if vmf.flags & FAULT_FLAG_WRITE:
        bits = DIRTY | RW if vma.flags & VM_WRITE else DIRTY
    if vmf.cow_page:
        set_anon_pte(mm, vma, vmf.address, index, vmf.cow_page, bits)
        mm.ctx.pages.private[index >> 9] += 1
    else:
        set_file_pte(mm, vma, index, vmf.page, bits)
    mm.page_table_lock.unlock()
    return 0


# -- who may ask -------------------------------------------------------------------------------------------------------


def denied_by_pkey(vma: VmArea, instruction: bool) -> bool:
    """Whether a protection key forbids a data access: the area may only be executed and the CPU has keys."""
    return bool(vma.page_prot & PKEY_MASK) and not instruction


def fault_is_permitted(vma: VmArea, write: bool, instruction: bool) -> bool:
    """Whether the area's flags allow the access (x86: every accessible area is readable, so that only PROT_NONE
    refuses a read).
    """
    if write:
        return bool(vma.flags & VM_WRITE)
    if not instruction and vma.page_prot & PKEY_MASK:
        return False
    return not vma.page_prot & PROT_NONE and not (instruction and vma.page_prot & NX)
