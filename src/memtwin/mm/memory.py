# SPDX-License-Identifier: GPL-2.0-or-later
"""Resolving a fault inside an area, and taking pages away again (Linux: mm/memory.c; spec R12, R13).

What is here: first touch of anonymous memory (read: the shared zero page, write: a new zeroed page), pages of files
through the small protocol of ``mm/filemap.py``, writes to read-only pages (reuse or copy), and zap. Callers hold
``mmap_lock``; the entries and the RSS counters change under ``page_table_lock``. Reasons for how a fault ended are
counted in ``ctx.fault_stats``.

"Known zero" (architecture, section 3): a frame is written only by a CPU, which leaves the dirty bit behind, or by the
kernel half, which marks it at once; so zap marks what was dirty, and the page allocator zeroes only marked frames.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from memtwin.errors import InvariantBroken
from memtwin.hw.paging import ACCESSED, DIRTY, NX, PFN_MASK, PKEY_MASK, PMD_SHIFT, PRESENT, PROT_NONE, RW, SPECIAL
from memtwin.lib.gfp_types import GFP_HIGHUSER_MOVABLE, ZERO
from memtwin.mm.huge_memory import (
    do_huge_pmd_anonymous_page,
    do_huge_pmd_wp_page,
    huge_pmd_set_accessed,
    hugepage_vma_check,
)
from memtwin.mm.mm_types import VM_SHARED, VM_UFFD_MISSING, VM_WRITE, MmStruct, VmArea
from memtwin.mm.page import PG_ANON, PG_ANON_EXCLUSIVE, PG_DIRTY, PG_SWAPBACKED, PG_UPTODATE
from memtwin.mm.page_table import LeafRows
from memtwin.mm.rmap import anon_vma_prepare
from memtwin.mm.userfaultfd import handle_userfault
from memtwin.mm.vm_fault import (
    FAULT_FLAG_UNSHARE,
    FAULT_FLAG_WRITE,
    VM_FAULT_FALLBACK,
    VM_FAULT_OOM,
    VM_FAULT_SIGBUS,
    VmFault,
)

__all__ = ["ANON_FLAGS", "handle_mm_fault", "zap_page_range"]

GFP_ANON: Final = GFP_HIGHUSER_MOVABLE | ZERO
#: Flags of a fresh anonymous page.
ANON_FLAGS: Final = PG_ANON | PG_SWAPBACKED | PG_UPTODATE | PG_ANON_EXCLUSIVE
#: An entry with one of these has a valid frame.
_MAPPED: Final = PRESENT | PROT_NONE


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
    if not entry & PRESENT:
        raise InvariantBroken(f"non-present entry {entry:#x} at {addr:#x} in an accessible area")
    if write and not entry & RW:
        return _do_wp_page(mm, vma, addr, index, entry)
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


def _set_anon(mm: MmStruct, vma: VmArea, addr: int, index: int, pfn: int) -> None:
    """Map the fresh anonymous page ``pfn`` writable at ``addr``; the entry was empty or held no counted page."""
    ctx = mm.ctx
    pages = ctx.pages
    anon_vma = vma.anon_vma
    assert anon_vma is not None
    pages.flags[pfn] = ANON_FLAGS
    pages.mapcount[pfn] = 1
    pages.mapping[pfn] = anon_vma.id
    pages.index[pfn] = ((addr - vma.start) >> 12) + vma.pgoff
    ctx.ram.q[index] = pfn << 12 | vma.page_prot | DIRTY | RW
    mm.rss_anon += 1
    stats = ctx.node_stats
    (stats[0] if len(stats) == 1 else ctx.node_stat(pfn)).nr_anon_pages += 1
    if not vma.page_prot & NX:
        ctx.tlb.note_executable(pfn)


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
    _set_anon(mm, vma, addr, index, pfn)
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
    if page_index >= (mapping.size() + 4095) >> 12:
        return VM_FAULT_SIGBUS
    if vma.flags & VM_UFFD_MISSING and page_index not in mapping.folios:
        handle_userfault(vma, addr)
        return VM_FAULT_SIGBUS
    source = mapping.get_folio(ctx, page_index)
    if not source:
        return VM_FAULT_OOM
    if write and not vma.flags & VM_SHARED:
        return _copy_anon(mm, vma, addr, index, source, 0)
    mm.page_table_lock.lock()
    if not ctx.ram.q[index]:
        if write:
            ctx.fault_stats.shared_file += 1
            ctx.pages.flags[source] |= PG_DIRTY
        else:
            ctx.fault_stats.file_read += 1
        _set_file(mm, vma, index, source, DIRTY if write else 0)
    mm.page_table_lock.unlock()
    return 0


def _set_file(mm: MmStruct, vma: VmArea, index: int, pfn: int, bits: int) -> None:
    """Let the empty entry map the cached page ``pfn``. ``page_table_lock`` is held."""
    ctx = mm.ctx
    pages = ctx.pages
    entry = pfn << 12 | vma.page_prot | bits
    pages.refcount[pfn] += 1
    pages.mapcount[pfn] += 1
    if pages.mapcount[pfn] == 1:
        ctx.node_stat(pfn).nr_mapped += 1
    ctx.ram.q[index] = entry
    pages.private[index >> 9] += 1
    if not entry & NX:
        ctx.tlb.note_executable(pfn)
    assert vma.file is not None
    if vma.file.mapping.shmem:
        mm.rss_shmem += 1
    else:
        mm.rss_file += 1


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
            _set_file(mm, vma, position + offset, pfn, 0)
    mm.page_table_lock.unlock()


def _copy_anon(mm: MmStruct, vma: VmArea, addr: int, index: int, source: int, entry: int) -> int:
    """Map a private copy of frame ``source`` (the zero page: a zeroed page) at ``addr``, writable, in place of
    ``entry``.
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
    _set_anon(mm, vma, addr, index, pfn)
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


def _do_wp_page(mm: MmStruct, vma: VmArea, addr: int, index: int, entry: int) -> int:
    """A write to a present read-only entry of a writable area: reuse a page nobody else has, else copy it."""
    ctx = mm.ctx
    pages = ctx.pages
    pfn = (entry & PFN_MASK) >> 12
    shared = vma.flags & VM_SHARED
    if not shared:
        if entry & SPECIAL or not pages.flags[pfn] & PG_ANON or pages.refcount[pfn] != 1:
            return _copy_anon(mm, vma, addr, index, pfn, entry)
        pages.flags[pfn] |= PG_ANON_EXCLUSIVE
    mm.page_table_lock.lock()
    ctx.ram.q[index] |= RW | DIRTY | ACCESSED
    mm.page_table_lock.unlock()
    if shared:
        pages.flags[pfn] |= PG_DIRTY
    ctx.fault_stats.wp_reuse += 1
    return 0


class ZapOp:
    """Empties the entries of a range and gives up the pages they mapped (a :class:`~memtwin.mm.page_table.RangeOp`).

    ``cleared`` counts entries that were not empty. ``finish`` must be called at the end: it frees what is left to free.
    """

    __slots__ = ("_ctx", "_freed", "_mm", "cleared")

    def __init__(self, mm: MmStruct) -> None:
        self._mm = mm
        self._ctx = mm.ctx
        self._freed: list[int] = []
        self.cleared = 0

    def few(self, index: int, count: int, addr: int) -> None:
        """A handful of entries of one table."""
        q = self._ctx.ram.q
        cleared = 0
        for i in range(index, index + count):
            entry = q[i]
            if not entry:
                continue
            q[i] = 0
            cleared += 1
            if entry & _MAPPED and not entry & SPECIAL:
                self.drop_page((entry & PFN_MASK) >> 12, entry)
        if cleared:
            self._ctx.pages.private[index >> 9] -= cleared
            self.cleared += cleared

    def drop_page(self, pfn: int, entry: int) -> None:
        """``entry``, now gone, mapped ``pfn``."""
        ctx, mm = self._ctx, self._mm
        pages = ctx.pages
        if entry & DIRTY:
            pages.nonzero[pfn] = 1
        if not entry & NX:
            ctx.tlb.note_frame_changed(pfn)
        left = pages.mapcount[pfn] - 1
        pages.mapcount[pfn] = left
        if pages.flags[pfn] & PG_ANON:
            mm.rss_anon -= 1
            if not left:
                ctx.node_stat(pfn).nr_anon_pages -= 1
        else:
            self._drop_file_page(pfn, entry, left)
        references = pages.refcount[pfn] - 1
        if references:
            pages.refcount[pfn] = references
        else:
            self._freed.append(pfn)

    def _drop_file_page(self, pfn: int, entry: int, left: int) -> None:
        ctx, mm = self._ctx, self._mm
        if entry & DIRTY:
            ctx.pages.flags[pfn] |= PG_DIRTY
        if ctx.mappings[ctx.pages.mapping[pfn]].shmem:
            mm.rss_shmem -= 1
        else:
            mm.rss_file -= 1
        if not left:
            ctx.node_stat(pfn).nr_mapped -= 1

    def rows(self, batch: LeafRows) -> None:
        """Whole tables: anonymous pages that nobody shares, nearly all there are, go in one step."""
        entries = batch.gather()
        used = entries != 0
        per_row = np.count_nonzero(used, axis=1)
        total = int(per_row.sum())
        if not total:
            return
        batch.scatter(np.zeros_like(entries))
        vec = self._ctx.pages.vec
        vec.private[batch.table] -= per_row.astype(np.uint64)
        self.cleared += total
        entries = entries[used]
        mapped = entries[((entries & np.uint64(_MAPPED)) != 0) & ((entries & np.uint64(SPECIAL)) == 0)]
        pfns = ((mapped & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
        for pfn in pfns[(mapped & np.uint64(NX)) == 0].tolist():
            self._ctx.tlb.note_frame_changed(pfn)
        sole = ((vec.flags[pfns] & np.uint32(PG_ANON)) != 0) & (vec.refcount[pfns] == 1)
        for entry, pfn in zip(mapped[~sole].tolist(), pfns[~sole].tolist(), strict=True):
            self.drop_page(pfn, entry)
        self._drop_sole(pfns[sole], (mapped[sole] & np.uint64(DIRTY)) != 0)

    def _drop_sole(self, pfns: npt.NDArray[np.int64], dirty: npt.NDArray[np.bool_]) -> None:
        if not len(pfns):
            return
        ctx = self._ctx
        vec = ctx.pages.vec
        vec.nonzero[pfns[dirty]] = 1
        vec.mapcount[pfns] = 0
        vec.flags[pfns] = 0
        vec.mapping[pfns] = 0
        self._mm.rss_anon -= len(pfns)
        ctx.count_anon(pfns, -1)
        ctx.page_alloc.free_bulk(pfns)

    def huge(self, index: int, order: int, addr: int) -> None:
        """No area maps huge leaves yet."""
        raise InvariantBroken(f"a huge leaf of order {order} at {addr:#x}")

    def finish(self) -> None:
        """Free the pages whose last reference went one by one."""
        ctx = self._ctx
        pages = ctx.pages
        for pfn in self._freed:
            pages.flags[pfn] = 0
            pages.mapping[pfn] = 0
            ctx.page_alloc.free_pages(pfn)
        self._freed.clear()


def zap_page_range(mm: MmStruct, start: int, end: int) -> int:
    """Empty all entries of [start, end) and flush; the number of entries that were not empty."""
    zap = ZapOp(mm)
    mm.ctx.pt.walk_range(mm, start, end, zap)
    if zap.cleared:
        mm.ctx.work.ptes += zap.cleared
        mm.tlb.flush(zap.cleared)
        zap.finish()
    return zap.cleared


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
