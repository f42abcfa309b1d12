# SPDX-License-Identifier: GPL-2.0-or-later
"""Installing entries for pages that a fault got (Linux: set_pte_range, folio_add_new_anon_rmap and their kin): the
entry, the page's record and the counters change together, under ``page_table_lock``.
"""

from __future__ import annotations

from typing import Final

from memtwin.hw.paging import ENTRIES, NX, PMD_SHIFT
from memtwin.lib.gfp_types import GFP_HIGHUSER_MOVABLE, ZERO
from memtwin.mm.mm_types import MmStruct, VmArea
from memtwin.mm.page import PG_ANON, PG_ANON_EXCLUSIVE, PG_SWAPBACKED, PG_UPTODATE

__all__ = [
    "ANON_FLAGS",
    "GFP_ANON",
    "alloc_anon_folio",
    "charge_anon_folio",
    "pte_lock",
    "set_anon_pte",
    "set_file_pte",
]

GFP_ANON: Final = GFP_HIGHUSER_MOVABLE | ZERO
#: Flags of a fresh anonymous page.
ANON_FLAGS: Final = PG_ANON | PG_SWAPBACKED | PG_UPTODATE | PG_ANON_EXCLUSIVE


def pte_lock(mm: MmStruct, addr: int, index: int) -> bool:
    """Take ``page_table_lock`` to change the entry ``index`` for ``addr``, found before without it; False, and the lock
    not taken, if the table it stands in is that of ``addr`` no more (Linux: pte_offset_map_lock).

    A fault under the lock of an area, and whoever has ``mmap_lock`` for reading, can lose the table while they wait:
    the last entry was zapped and the table freed. What the entry holds is the caller's to look at again.
    """
    mm.page_table_lock.lock()
    base = mm.pte_tables.get(addr >> PMD_SHIFT)
    if base is not None and base == index & -ENTRIES:
        return True
    mm.page_table_lock.unlock()
    return False


def alloc_anon_folio(mm: MmStruct, gfp: int) -> int:
    """A page for anonymous memory of ``mm``, charged to its control group; its frame, or 0 without memory."""
    ctx = mm.ctx
    pfn = ctx.page_alloc.alloc_pages(gfp)
    if ctx.mem_cgroup_charge is None:
        return pfn
    return pfn if pfn and charge_anon_folio(mm, pfn, gfp) else 0


def charge_anon_folio(mm: MmStruct, head: int, gfp: int, order: int = 0) -> bool:
    """Charge the fresh folio ``head`` to the control group of ``mm``. False: its limit forbids it, and the folio
    is freed.
    """
    charge = mm.ctx.mem_cgroup_charge
    if charge is None or charge(head, mm, gfp):
        return True
    mm.ctx.page_alloc.free_pages(head, order)
    return False


def set_anon_pte(mm: MmStruct, vma: VmArea, addr: int, index: int, pfn: int, bits: int) -> None:
    """Map the fresh anonymous page ``pfn`` at ``addr``; the entry was empty or its page is no longer wanted. ``bits``:
    RW and DIRTY as they apply, beside the protection of the area.
    """
    ctx = mm.ctx
    pages = ctx.pages
    anon_vma = vma.anon_vma
    assert anon_vma is not None
    pages.flags[pfn] = ANON_FLAGS
    pages.mapcount[pfn] = 1
    pages.mapping[pfn] = anon_vma.id
    pages.index[pfn] = ((addr - vma.start) >> 12) + vma.pgoff
    ctx.ram.q[index] = pfn << 12 | vma.page_prot | bits
    mm.rss_anon += 1
    stats = ctx.node_stats
    (stats[0] if len(stats) == 1 else ctx.node_stat(pfn)).nr_anon_pages += 1
    if not vma.page_prot & NX:
        ctx.tlb.note_executable(pfn)


def set_file_pte(mm: MmStruct, vma: VmArea, index: int, pfn: int, bits: int) -> None:
    """Let the empty entry map the cached page ``pfn``, to which the caller's reference goes over. ``page_table_lock``
    is held.
    """
    ctx = mm.ctx
    pages = ctx.pages
    entry = pfn << 12 | vma.page_prot | bits
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
