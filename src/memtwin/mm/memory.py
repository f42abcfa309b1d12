# SPDX-License-Identifier: GPL-2.0-or-later
"""Resolving a fault inside an area: the dispatch, anonymous memory and files (Linux: mm/memory.c; spec R12, R13).

First touch of anonymous memory (read: the shared zero page, write: a new zeroed page), pages of files through the
small protocol of ``mm/filemap.py``; writes to read-only pages are in ``mm/wp.py``, taking pages away in ``mm/zap.py``.
Callers hold ``mmap_lock``; the entries and the RSS counters change under ``page_table_lock``. Reasons for how a fault
ended are counted in ``ctx.fault_stats``.
"""

from __future__ import annotations

from typing import Final

from memtwin.errors import InvariantBroken
from memtwin.hw.paging import ACCESSED, DIRTY, GUARD_ENTRY, NX, PKEY_MASK, PMD_SHIFT, PRESENT, PROT_NONE, RW, SPECIAL
from memtwin.mm.huge_memory import (
    do_huge_pmd_anonymous_page,
    do_huge_pmd_wp_page,
    huge_pmd_set_accessed,
    hugepage_vma_check,
)
from memtwin.mm.mm_types import VM_SHARED, VM_UFFD_MISSING, VM_WRITE, MmStruct, VmArea
from memtwin.mm.page import PG_DIRTY
from memtwin.mm.rmap import anon_vma_prepare
from memtwin.mm.set_pte import GFP_ANON, set_anon_pte, set_file_pte
from memtwin.mm.userfaultfd import handle_userfault
from memtwin.mm.vm_fault import (
    FAULT_FLAG_UNSHARE,
    FAULT_FLAG_WRITE,
    VM_FAULT_FALLBACK,
    VM_FAULT_OOM,
    VM_FAULT_SIGBUS,
    VM_FAULT_SIGSEGV,
    VmFault,
)
from memtwin.mm.wp import copy_anon, do_wp_page

__all__ = ["denied_by_pkey", "fault_is_permitted", "handle_mm_fault"]


def handle_mm_fault(mm: MmStruct, vma: VmArea, addr: int, flags: int) -> int:
    """Make ``addr`` accessible in ``vma``, which permits the access. Returns VM_FAULT_* bits, 0 when all is well.

    ``flags``: FAULT_FLAG_*. Precondition: ``mm.mmap_lock`` is held, for reading at least.
    """
    ctx = mm.ctx
    base = mm.pte_tables.get(addr >> 21)
    if base is None:
        result = _handle_huge(mm, vma, addr, flags)
        if not result & VM_FAULT_FALLBACK:
            return result
        base = ctx.pt.pte_alloc(mm, addr)
        if not base:
            return VM_FAULT_OOM
    write = flags & FAULT_FLAG_WRITE
    index = base + (addr >> 12 & 511)
    entry = ctx.ram.q[index]
    if not entry:
        if vma.vm_ops is not None:
            return _do_file_fault(mm, vma, addr, index, write)
        return _do_anonymous_page(mm, vma, addr, index, write)
    if not entry & (PRESENT | PROT_NONE):
        if entry == GUARD_ENTRY:
            return VM_FAULT_SIGSEGV
        raise InvariantBroken(f"non-present entry {entry:#x} at {addr:#x} in an accessible area")
    if not entry & RW and flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE):
        return do_wp_page(mm, vma, addr, index, entry, flags)
    ctx.ram.q[index] = entry | (ACCESSED | DIRTY if write else ACCESSED)
    ctx.fault_stats.spurious += 1
    return 0


def _handle_huge(mm: MmStruct, vma: VmArea, addr: int, flags: int) -> int:
    """No last-level table covers ``addr``: a huge leaf does, or may come to. VM_FAULT_FALLBACK: go on with a table.

    A leaf that must be split first is split by the function that says FALLBACK.
    """
    index, shift = mm.ctx.pt.lookup(mm, addr)
    if shift != PMD_SHIFT:
        if vma.vm_ops is None and hugepage_vma_check(vma, in_pf=True):
            return do_huge_pmd_anonymous_page(VmFault(mm, vma, addr, flags))
        return VM_FAULT_FALLBACK
    entry = mm.ctx.ram.q[index]
    vmf = VmFault(mm, vma, addr, flags, index, entry)
    if flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE) and not entry & RW:
        return do_huge_pmd_wp_page(vmf)
    huge_pmd_set_accessed(vmf)
    return 0


def _do_anonymous_page(mm: MmStruct, vma: VmArea, addr: int, index: int, write: int) -> int:
    """First touch: read maps the zero page, write a new zeroed one."""
    ctx = mm.ctx
    pages = ctx.pages
    ptl = mm.page_table_lock
    if write and vma.anon_vma is None and not anon_vma_prepare(mm, vma):
        return VM_FAULT_OOM
    if vma.flags & VM_UFFD_MISSING:
        handle_userfault(vma, addr)
        return VM_FAULT_SIGBUS
    if not write:
        ptl.lock()
        if not ctx.ram.q[index]:
            ctx.ram.q[index] = ctx.zero_pfn << 12 | vma.page_prot | SPECIAL
            pages.private[index >> 9] += 1
            ctx.fault_stats.anon_zero += 1
        ptl.unlock()
        return 0
    pfn = ctx.page_alloc.alloc_pages(GFP_ANON)
    if not pfn:
        return VM_FAULT_OOM
    ptl.lock()
    if ctx.ram.q[index]:
        # Another thread was faster.
        ptl.unlock()
        ctx.page_alloc.free_pages(pfn)
        return 0
    set_anon_pte(mm, vma, addr, index, pfn)
    pages.private[index >> 9] += 1
    ptl.unlock()
    ctx.fault_stats.anon_write += 1
    return 0


#: Fault-around: how many pages a read fault on a file maps at most if they are cached (64 KiB). The window begins at a
#: multiple of it or at the start of the area.
FAULT_AROUND: Final = 16


def _do_file_fault(mm: MmStruct, vma: VmArea, addr: int, index: int, write: int) -> int:
    """The entry is empty and a file is mapped: read fault, private write (copy at once) or shared write."""
    ctx = mm.ctx
    assert vma.file is not None
    mapping = vma.file.mapping
    page_index = vma.linear_page_index(addr)
    if not write:
        _map_around(mm, vma, addr, index)
        if ctx.ram.q[index]:
            ctx.fault_stats.file_read += 1
            return 0
    if write and not vma.flags & VM_SHARED and not anon_vma_prepare(mm, vma):
        return VM_FAULT_OOM
    if page_index >= (mapping.size() + 4095) >> 12:
        return VM_FAULT_SIGBUS
    if vma.flags & VM_UFFD_MISSING and page_index not in mapping.folios:
        handle_userfault(vma, addr)
        return VM_FAULT_SIGBUS
    source = mapping.get_folio(ctx, page_index)
    if not source:
        return VM_FAULT_OOM
    if write and not vma.flags & VM_SHARED:
        return copy_anon(mm, vma, addr, index, source, 0)
    mm.page_table_lock.lock()
    if not ctx.ram.q[index]:
        if write:
            ctx.fault_stats.shared_file += 1
            ctx.pages.flags[source] |= PG_DIRTY
        else:
            ctx.fault_stats.file_read += 1
        set_file_pte(mm, vma, index, source, DIRTY if write else 0)
    mm.page_table_lock.unlock()
    return 0


def _map_around(mm: MmStruct, vma: VmArea, addr: int, index: int) -> None:
    """Map what is cached in the window around ``addr``, within the area and the page table."""
    assert vma.file is not None
    folios = vma.file.mapping.folios
    if not folios:
        return
    slot = addr >> 12 & 511
    first_addr = max(vma.start, (addr & ~0xFFF) - (slot % FAULT_AROUND << 12))
    table_end = (addr & ~0xFFF) + (512 - slot << 12)
    last_addr = min(vma.end, first_addr + (FAULT_AROUND << 12), table_end)
    page_index = vma.linear_page_index(first_addr)
    position = index - ((addr - first_addr) >> 12)
    end_of_file = (vma.file.mapping.size() + 4095) >> 12
    q = mm.ctx.ram.q
    mm.page_table_lock.lock()
    for offset in range((last_addr - first_addr) >> 12):
        if page_index + offset >= end_of_file:
            break
        pfn = folios.get(page_index + offset)
        if pfn is not None and not q[position + offset]:
            set_file_pte(mm, vma, position + offset, pfn, 0)
    mm.page_table_lock.unlock()


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
