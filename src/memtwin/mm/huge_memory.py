# SPDX-License-Identifier: GPL-2.0-or-later
"""Transparent huge pages: which areas may have them, and faults (Linux: mm/huge_memory.c; spec
thp-huge-fault-eligibility).

A fault in an empty 2 MiB block of an area that may have huge pages maps one at once: the huge zero page for a read, a
new page for a write. What is done to huge leaves afterwards is in ``huge_range.py``, splitting in ``huge_split.py``,
collapsing small pages into a huge one in ``khugepaged.py``.

No area can be a vdso or a stack under construction here, so those steps of the eligibility test never decide.
Lock order: ``mmap_lock`` (or the area's lock), then ``page_table_lock``.
"""

from __future__ import annotations

from typing import Final

from memtwin.errors import NotModelled
from memtwin.hw.paging import ACCESSED, DIRTY, NX, PFN_MASK, PMD_SIZE, PSE, RW, SPECIAL
from memtwin.lib.gfp_types import ZERO
from memtwin.mm.huge_mm import HPAGE_PMD_NR, HPAGE_PMD_ORDER
from memtwin.mm.huge_rmap import add_new_huge_rmap
from memtwin.mm.huge_split import split_huge_pmd
from memtwin.mm.mm_types import (
    VM_DONTEXPAND,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_IO,
    VM_MIXEDMAP,
    VM_NOHUGEPAGE,
    VM_PFNMAP,
    VM_SHARED,
    VM_UFFD_MISSING,
    VM_WRITE,
    VmArea,
)
from memtwin.mm.mmap_lock import vmf_anon_prepare
from memtwin.mm.page import PG_ANON_EXCLUSIVE
from memtwin.mm.rmap import folio_move_anon_rmap
from memtwin.mm.set_pte import charge_anon_folio
from memtwin.mm.userfaultfd import handle_userfault
from memtwin.mm.vm_fault import (
    FAULT_FLAG_UNSHARE,
    FAULT_FLAG_WRITE,
    VM_FAULT_FALLBACK,
    VM_FAULT_NOPAGE,
    VM_FAULT_OOM,
    VM_FAULT_SIGBUS,
    VmFault,
)

__all__ = [
    "do_huge_fault",
    "do_huge_pmd_anonymous_page",
    "do_huge_pmd_wp_page",
    "huge_pmd_set_accessed",
    "hugepage_vma_check",
    "map_huge_page",
    "set_huge_pmd",
    "transhuge_vma_suitable",
    "vmf_insert_pfn_pmd",
    "wp_huge_fault",
]

PUD_ORDER: Final = 18
VM_NO_KHUGEPAGED: Final = VM_IO | VM_DONTEXPAND | VM_PFNMAP | VM_MIXEDMAP | VM_HUGETLB


def hugepage_vma_check(
    vma: VmArea, *, smaps: bool = False, in_pf: bool = False, enforce_sysfs: bool = True, flags: int | None = None
) -> bool:
    """Whether ``vma`` may have huge pages. ``smaps``, ``in_pf``: who asks, neither for khugepaged; the setting
    ``enabled`` is heeded with ``enforce_sysfs``; ``flags``: judge by these VM_* flags instead of the area's.
    """
    thp = vma.mm.ctx.thp
    if flags is None:
        flags = vma.flags
    if flags & VM_NOHUGEPAGE or vma.mm.thp_disabled:
        return False
    if vma.vm_ops is not None and vma.vm_ops.is_dax:
        return in_pf
    later = (in_pf or smaps) and vma.mm.ctx.thp_huge_fault
    if flags & VM_NO_KHUGEPAGED and not later:
        return False
    if not in_pf:
        if (vma.end - PMD_SIZE) // PMD_SIZE * PMD_SIZE < vma.start:
            return False
        if vma.vm_ops is not None and ((vma.start >> 12) - vma.pgoff) % HPAGE_PMD_NR:
            return False
    if enforce_sysfs and not (thp.enabled == "always" or (thp.enabled == "madvise" and flags & VM_HUGEPAGE)):
        return False
    if vma.vm_ops is not None:
        # shmem_enabled is "never", CONFIG_READ_ONLY_THP_FOR_FS is off.
        return later and vma.vm_ops.has_huge_fault
    return vma.anon_vma is not None or smaps or in_pf


def transhuge_vma_suitable(vma: VmArea, addr: int) -> bool:
    """Whether the aligned 2 MiB around ``addr`` lie in ``vma``."""
    first = addr & -PMD_SIZE
    return vma.start <= first and first + PMD_SIZE <= vma.end


# -- faults (called by handle_mm_fault where no last-level table covers the address) ---------------------------------


def do_huge_pmd_anonymous_page(vmf: VmFault) -> int:
    """First touch in an anonymous area that may have huge pages: VM_FAULT_* bits, FALLBACK for a small page.

    The area gets its anon_vma even for a read.
    """
    mm, vma = vmf.mm, vmf.vma
    ctx = mm.ctx
    thp = ctx.thp
    if not transhuge_vma_suitable(vma, vmf.address):
        return VM_FAULT_FALLBACK
    result = 0 if vma.anon_vma is not None else vmf_anon_prepare(mm, vma, vmf.address, vmf.flags)
    if result:
        return result
    write = vmf.flags & FAULT_FLAG_WRITE
    table = 0
    if not write and thp.use_zero_page:
        table = ctx.pt.pte_alloc_one(mm)
        if not table:
            return VM_FAULT_OOM
        zero = thp.get_huge_zero_page(mm)
        if not zero:
            ctx.pt.pte_free(mm, table)
            ctx.events.thp_fault_fallback += 1
            return VM_FAULT_FALLBACK
        return _install(vmf, zero << 12 | vma.page_prot | PSE | SPECIAL, table)
    head = _alloc_huge_page(vma)
    if not head:
        return VM_FAULT_FALLBACK
    table = ctx.pt.pte_alloc_one(mm)
    if not table:
        ctx.page_alloc.free_pages(head, HPAGE_PMD_ORDER)
        return VM_FAULT_OOM
    if vma.flags & VM_UFFD_MISSING:
        ctx.page_alloc.free_pages(head, HPAGE_PMD_ORDER)
        ctx.pt.pte_free(mm, table)
        return handle_userfault(vma, vmf.address)
    return map_huge_page(vmf, head, table)


def _alloc_huge_page(vma: VmArea) -> int:
    """The head of a fresh zeroed huge page for ``vma``, charged; 0 without memory or beyond the control group's
    limit.
    """
    mm = vma.mm
    gfp = mm.ctx.thp.gfp_mask(vma.flags) | ZERO
    head = mm.ctx.page_alloc.alloc_pages(gfp, HPAGE_PMD_ORDER)
    if head and charge_anon_folio(mm, head, gfp, HPAGE_PMD_ORDER):
        return head
    mm.ctx.events.thp_fault_fallback += 1
    if head:
        mm.ctx.events.thp_fault_fallback_charge += 1
    return 0


def _install(vmf: VmFault, entry: int, table: int) -> int:
    """Map the huge zero page, unless another thread was faster."""
    mm, ctx = vmf.mm, vmf.mm.ctx
    if vmf.vma.flags & VM_UFFD_MISSING:
        ctx.pt.pte_free(mm, table)
        return handle_userfault(vmf.vma, vmf.address)
    index = ctx.pt.pmd_alloc(mm, vmf.address)
    if not index:
        ctx.pt.pte_free(mm, table)
        return VM_FAULT_OOM
    mm.page_table_lock.lock()
    if ctx.ram.q[index]:
        mm.page_table_lock.unlock()
        ctx.pt.pte_free(mm, table)
        return 0
    ctx.pt.set_huge(mm, vmf.address, index, entry, table)
    mm.page_table_lock.unlock()
    ctx.fault_stats.anon_zero += 1
    return 0


def map_huge_page(vmf: VmFault, head: int, table: int) -> int:
    """Map the fresh zeroed huge page ``head``, with ``table`` in reserve, unless another thread was faster."""
    mm = vmf.mm
    ctx = mm.ctx
    index = ctx.pt.pmd_alloc(mm, vmf.address)
    if not index:
        ctx.page_alloc.free_pages(head, HPAGE_PMD_ORDER)
        ctx.pt.pte_free(mm, table)
        return VM_FAULT_OOM
    mm.page_table_lock.lock()
    if ctx.ram.q[index]:
        mm.page_table_lock.unlock()
        ctx.page_alloc.free_pages(head, HPAGE_PMD_ORDER)
        ctx.pt.pte_free(mm, table)
        return 0
    set_huge_pmd(vmf, index, head, table)
    mm.page_table_lock.unlock()
    ctx.events.thp_fault_alloc += 1
    ctx.fault_stats.anon_write += 1
    return 0


def set_huge_pmd(vmf: VmFault, index: int, head: int, table: int) -> None:
    """Let the empty entry ``index`` map the fresh huge page ``head``. ``page_table_lock`` is held."""
    mm, vma = vmf.mm, vmf.vma
    ctx = mm.ctx
    first = vmf.address & -PMD_SIZE
    add_new_huge_rmap(ctx, vma, first, head)
    mm.rss_anon += HPAGE_PMD_NR
    write = RW if vma.flags & VM_WRITE else 0
    ctx.pt.set_huge(mm, first, index, head << 12 | vma.page_prot | PSE | DIRTY | write, table)
    if not vma.page_prot & NX:
        for pfn in range(head, head + HPAGE_PMD_NR):
            ctx.tlb.note_executable(pfn)


def do_huge_pmd_wp_page(vmf: VmFault) -> int:
    """A write to the read-only huge leaf ``vmf.entry`` (or an unshare request): reuse a page that nobody else has.
    FALLBACK: it has been split, go on with small pages.

    6.7 splits the huge zero page; later kernels (post-thp-zero-write-alloc) map a new huge page in its place.
    """
    mm, vma = vmf.mm, vmf.vma
    ctx = mm.ctx
    entry, index = vmf.entry, vmf.index
    unshare = vmf.flags & FAULT_FLAG_UNSHARE
    if entry & SPECIAL:
        if unshare:
            return 0
        if ctx.thp_zero_write_alloc and transhuge_vma_suitable(vma, vmf.address):
            result = _replace_huge_zero(vmf)
            if not result & VM_FAULT_FALLBACK:
                return result
        return _split(vmf)
    head = (entry & PFN_MASK) >> 12
    pages = ctx.pages
    mm.page_table_lock.lock()
    if ctx.ram.q[index] != entry:  # changed meanwhile: the access is made again
        mm.page_table_lock.unlock()
        return 0
    exclusive = bool(pages.flags[head] & PG_ANON_EXCLUSIVE)
    if not exclusive and pages.refcount[head] == 1 and ctx.folio_locks.trylock(head):
        exclusive = pages.refcount[head] == 1
        if exclusive:
            folio_move_anon_rmap(ctx, vma, head, head)
            if ctx.exclusive_out_of_move:
                pages.flags[head] |= PG_ANON_EXCLUSIVE
        ctx.folio_locks.unlock(head)
    if exclusive:
        if not unshare:
            ctx.ram.q[index] = entry | (RW if vma.flags & VM_WRITE else 0) | DIRTY | ACCESSED
            ctx.fault_stats.wp_reuse += 1
        mm.page_table_lock.unlock()
        return 0
    mm.page_table_lock.unlock()
    return _split(vmf)


def do_huge_fault(vmf: VmFault) -> int:
    """An empty block of an area whose operations have ``huge_fault``: ask for 1 GiB where no table is in the way, then
    for 2 MiB.
    """
    mm, vma = vmf.mm, vmf.vma
    assert vma.vm_ops is not None
    if mm.ctx.pt.pud_none(mm, vmf.address):
        result = vma.vm_ops.huge_fault(vmf, PUD_ORDER)
        if not result & VM_FAULT_FALLBACK:
            return result
    return vma.vm_ops.huge_fault(vmf, HPAGE_PMD_ORDER)


def wp_huge_fault(vmf: VmFault, order: int) -> int:
    """A write to a read-only huge leaf that a driver made: a shared mapping asks it again, else the leaf goes."""
    vma = vmf.vma
    assert vma.vm_ops is not None
    if vma.flags & VM_SHARED and vma.vm_ops.has_huge_fault:
        result = vma.vm_ops.huge_fault(vmf, order)
        if not result & VM_FAULT_FALLBACK:
            return result
    if order != HPAGE_PMD_ORDER:
        raise NotModelled(f"a write to a read-only leaf of 1 GiB at {vmf.address:#x}: it would have to be split")
    return _split(vmf)


def vmf_insert_pfn_pmd(vmf: VmFault, pfn: int, write: bool) -> int:
    """What a driver's ``huge_fault`` ends with: map the 2 MiB of device memory from frame ``pfn`` on, which no page
    counts stand for. VM_FAULT_NOPAGE; SIGBUS outside the area; OOM. A leaf that is there already gets the right to
    write if it maps the same memory.
    """
    mm, vma = vmf.mm, vmf.vma
    ctx = mm.ctx
    if not transhuge_vma_suitable(vma, vmf.address) or pfn % HPAGE_PMD_NR:
        return VM_FAULT_SIGBUS
    table = ctx.pt.pte_alloc_one(mm)
    index = ctx.pt.pmd_alloc(mm, vmf.address) if table else 0
    if not index:
        if table:
            ctx.pt.pte_free(mm, table)
        return VM_FAULT_OOM
    entry = pfn << 12 | vma.page_prot | PSE | SPECIAL | (RW | DIRTY if write else 0)
    mm.page_table_lock.lock()
    old = ctx.ram.q[index]
    if not old:
        ctx.pt.set_huge(mm, vmf.address & -PMD_SIZE, index, entry, table)
        table = 0
    elif write and old & PFN_MASK == entry & PFN_MASK:
        ctx.ram.q[index] = old | RW | DIRTY | ACCESSED
    mm.page_table_lock.unlock()
    if table:
        ctx.pt.pte_free(mm, table)
    return VM_FAULT_NOPAGE


def _split(vmf: VmFault) -> int:
    """Split the huge leaf that the fault found: VM_FAULT_FALLBACK, or 0 if it is another one now, or none: the access
    is made again.
    """
    mm = vmf.mm
    mm.page_table_lock.lock()
    same = mm.ctx.ram.q[vmf.index] & ~(ACCESSED | DIRTY) == vmf.entry & ~(ACCESSED | DIRTY)
    if same:
        split_huge_pmd(mm, vmf.address, vmf.index)
    mm.page_table_lock.unlock()
    return VM_FAULT_FALLBACK if same else 0


def _replace_huge_zero(vmf: VmFault) -> int:
    """A new huge page in place of the huge zero page."""
    mm, vma = vmf.mm, vmf.vma
    ctx = mm.ctx
    result = 0 if vma.anon_vma is not None else vmf_anon_prepare(mm, vma, vmf.address, vmf.flags)
    if result:
        return result
    head = _alloc_huge_page(vma)
    if not head:
        return VM_FAULT_FALLBACK
    mm.page_table_lock.lock()
    if ctx.ram.q[vmf.index] & ~(ACCESSED | DIRTY) != vmf.entry & ~(ACCESSED | DIRTY):
        mm.page_table_lock.unlock()
        ctx.page_alloc.free_pages(head, HPAGE_PMD_ORDER)
        return 0
    table = ctx.pt.clear_huge(mm, vmf.address, vmf.index)
    set_huge_pmd(vmf, vmf.index, head, table)
    mm.tlb.flush(HPAGE_PMD_NR)
    mm.page_table_lock.unlock()
    ctx.events.thp_fault_alloc += 1
    ctx.fault_stats.wp_copy += 1
    return 0


def huge_pmd_set_accessed(vmf: VmFault) -> None:
    """The huge leaf permits the access already: set A, and D for a write."""
    vmf.mm.ctx.ram.q[vmf.index] |= ACCESSED | DIRTY if vmf.flags & FAULT_FLAG_WRITE else ACCESSED
