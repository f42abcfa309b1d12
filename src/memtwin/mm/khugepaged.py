# SPDX-License-Identifier: GPL-2.0-or-later
"""Collapsing small pages into a huge one (Linux: mm/khugepaged.c): MADV_COLLAPSE, and khugepaged's scan.

A block of 2 MiB with a page table is copied into a fresh huge page, whose leaf takes the table in reserve.
MADV_COLLAPSE does so whatever the settings and however little is there; khugepaged heeds ``enabled`` and the
``max_ptes_*`` limits, and wants one page that was accessed lately. Of the answers in :class:`ScanResult` only the
errno is visible.

:class:`Khugepaged` is driven by whoever lets its time pass, one wake-up at a time; no task of its own runs yet.
Lock order: ``mmap_lock`` for writing, ``page_table_lock``.
"""

from __future__ import annotations

import errno
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from memtwin.errors import NotModelled
from memtwin.hw.paging import (
    ACCESSED,
    ENTRIES,
    GUARD_ENTRY,
    PFN_MASK,
    PMD_SHIFT,
    PMD_SIZE,
    PRESENT,
    PROT_NONE,
    RW,
    SPECIAL,
    UFFD_WP,
)
from memtwin.lib.gfp_types import GFP_TRANSHUGE, GFP_TRANSHUGE_LIGHT, ZERO
from memtwin.mm.huge_memory import hugepage_vma_check, set_huge_pmd
from memtwin.mm.huge_mm import HPAGE_PMD_NR, HPAGE_PMD_ORDER
from memtwin.mm.huge_rmap import entire_mapcount
from memtwin.mm.mm_types import VM_UFFD_MISSING, MmStruct, VmArea
from memtwin.mm.page import PG_ANON, PG_LOCKED, PG_REFERENCED, Pfns
from memtwin.mm.page_table import LeafRows
from memtwin.mm.set_pte import charge_anon_folio
from memtwin.mm.vm_fault import VmFault
from memtwin.mm.vma import areas_in
from memtwin.mm.zap import ZapOp

if TYPE_CHECKING:
    from memtwin.mm.context import MmContext

__all__ = ["Khugepaged", "ScanResult", "collapse_block", "madvise_collapse"]


class ScanResult(Enum):
    """What became of one block."""

    SUCCEED = auto()
    PMD_MAPPED = auto()  #: it is a huge leaf already
    PMD_NULL = auto()  #: nothing was ever there, not even the table above
    PMD_NONE = auto()  #: nothing is there
    VMA_CHECK = auto()  #: the area may not have huge pages
    EXCEED_NONE_PTE = auto()
    EXCEED_SHARED_PTE = auto()
    EXCEED_SWAP_PTE = auto()
    PTE_UFFD_WP = auto()
    PAGE_RO = auto()  #: no entry may write (before post-thp-collapse-readonly)
    LACK_REFERENCED_PAGE = auto()
    PAGE_ANON = auto()  #: a page that is not anonymous
    PAGE_COUNT = auto()  #: somebody besides the page tables holds a page
    PAGE_LOCK = auto()
    ALLOC_HUGE_PAGE_FAIL = auto()
    CGROUP_CHARGE_FAIL = auto()
    FAIL = auto()  #: an entry that is not present, and that no page can be read for


_COLLAPSED: Final = frozenset((ScanResult.SUCCEED, ScanResult.PMD_MAPPED))
#: With these MADV_COLLAPSE goes on to the next block; any other ends it (observed on 6.18).
_GO_ON: Final = _COLLAPSED | {
    ScanResult.PMD_NULL,
    ScanResult.PTE_UFFD_WP,
    ScanResult.PAGE_RO,
    ScanResult.PAGE_COUNT,
    ScanResult.PAGE_LOCK,
}
#: What MADV_COLLAPSE says; EINVAL for the others.
_ERRNO: Final = {
    ScanResult.ALLOC_HUGE_PAGE_FAIL: errno.ENOMEM,
    ScanResult.CGROUP_CHARGE_FAIL: errno.EBUSY,
    ScanResult.EXCEED_NONE_PTE: errno.EBUSY,
    ScanResult.PAGE_COUNT: errno.EAGAIN,
    ScanResult.PAGE_LOCK: errno.EAGAIN,
}


def madvise_collapse(mm: MmStruct, start: int, end: int) -> None:
    """MADV_COLLAPSE of [start, end): every whole block of 2 MiB in it. Precondition: ``mmap_lock`` for writing.

    Raises OSError EINVAL (an area that may not have huge pages, or a block with nothing to collapse), ENOMEM (a hole,
    or no huge page), EAGAIN (a page is held), EBUSY (a page is missing that a userfaultfd's monitor would be asked for,
    or the control group's limit). Blocks before it are collapsed, those behind it depending on what was in the way.
    """
    hole = False
    position = start
    for vma in areas_in(mm, start, end):
        hole |= vma.start > position
        low, position = max(vma.start, start), min(vma.end, end)
        if vma.file is not None and vma.file.mapping.shmem:
            raise NotModelled("MADV_COLLAPSE of shared memory comes with huge pages of tmpfs")
        _collapse_area(mm, vma, low, position)
    if hole or position < end:
        raise OSError(errno.ENOMEM, "madvise: part of the range is not mapped")


def _collapse_area(mm: MmStruct, vma: VmArea, start: int, end: int) -> None:
    if not hugepage_vma_check(vma, enforce_sysfs=False):
        raise OSError(errno.EINVAL, "madvise: the area may not have huge pages")
    first, last = -(-start >> PMD_SHIFT), end >> PMD_SHIFT
    done = 0
    failure = ScanResult.VMA_CHECK
    for slot in range(first, last):
        result = collapse_block(mm, vma, slot << PMD_SHIFT)
        if result in _COLLAPSED:
            done += 1
            continue
        failure = result
        if result not in _GO_ON:
            break
    if done != last - first:
        raise OSError(_ERRNO.get(failure, errno.EINVAL), f"madvise: MADV_COLLAPSE: {failure.name}")


def collapse_block(mm: MmStruct, vma: VmArea, addr: int, *, khugepaged: bool = False) -> ScanResult:
    """Collapse the 2 MiB at ``addr``, which lie in ``vma``. ``khugepaged``: heed the limits it is set to."""
    ctx = mm.ctx
    slot = addr >> PMD_SHIFT
    if slot in mm.deposits:
        return ScanResult.PMD_MAPPED
    base = mm.pte_tables.get(slot)
    if base is None:
        return ScanResult.PMD_NULL if ctx.pt.pud_none(mm, addr) else ScanResult.PMD_NONE
    table = base >> 9
    result = _scan(ctx, vma, table, khugepaged)
    if result is not ScanResult.SUCCEED:
        return result
    gfp = GFP_TRANSHUGE if not khugepaged or ctx.thp.khugepaged.defrag else GFP_TRANSHUGE_LIGHT
    head = ctx.page_alloc.alloc_pages(gfp | ZERO, HPAGE_PMD_ORDER)
    if not head:
        ctx.events.thp_collapse_alloc_failed += 1
        return ScanResult.ALLOC_HUGE_PAGE_FAIL
    ctx.events.thp_collapse_alloc += 1
    if not charge_anon_folio(mm, head, gfp, HPAGE_PMD_ORDER):
        return ScanResult.CGROUP_CHARGE_FAIL
    if (ctx.ram.frames[table] == np.uint64(GUARD_ENTRY)).any():
        ctx.page_alloc.free_pages(head, HPAGE_PMD_ORDER)
        return ScanResult.FAIL
    vma.start_write()  # faults under the lock of the area are over, and what they left behind is looked at again
    mm.page_table_lock.lock()
    result = _scan(ctx, vma, table, khugepaged)
    if result is not ScanResult.SUCCEED:
        mm.page_table_lock.unlock()
        ctx.page_alloc.free_pages(head, HPAGE_PMD_ORDER)
        return result
    zap = _replace(mm, vma, addr, table, head)
    mm.page_table_lock.unlock()
    zap.finish()
    return ScanResult.SUCCEED


def _scan(ctx: MmContext, vma: VmArea, table: int, khugepaged: bool) -> ScanResult:
    """Whether the entries of ``table`` may be collapsed; the first page that is in the way decides. Entries that are
    not present may still be: their pages would be swapped in.
    """
    settings, vec = ctx.thp.khugepaged, ctx.pages.vec
    entries = ctx.ram.frames[table]
    mapped = (entries & np.uint64(PRESENT | PROT_NONE)) != 0
    zero = mapped & ((entries & np.uint64(SPECIAL)) != 0)
    absent = ~mapped & (entries != 0)
    if (entries[absent] != np.uint64(GUARD_ENTRY)).any():
        raise NotModelled("collapsing pages that are in swap")
    there = np.flatnonzero(mapped & ~zero)
    used = entries[there]
    pfns = ((used & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
    order = vec.comp_order[pfns]
    heads = pfns >> order << order
    flags = vec.flags[heads]
    none_limit = 0 if vma.flags & VM_UFFD_MISSING else settings.max_ptes_none if khugepaged else ENTRIES
    #: What is in the way, and how often it may be, in the order in which one page is looked at.
    reasons = (
        (ScanResult.EXCEED_NONE_PTE, np.flatnonzero((entries == 0) | zero), none_limit),
        (
            ScanResult.EXCEED_SWAP_PTE,
            np.flatnonzero(absent),
            settings.max_ptes_swap if khugepaged else ENTRIES,
        ),
        (ScanResult.PTE_UFFD_WP, there[(used & np.uint64(UFFD_WP)) != 0], 0),
        (
            ScanResult.EXCEED_SHARED_PTE,
            there[vec.mapcount[pfns] > 1],
            settings.max_ptes_shared if khugepaged else ENTRIES,
        ),
        (ScanResult.PAGE_LOCK, there[(flags & np.uint32(PG_LOCKED)) != 0], 0),
        (ScanResult.PAGE_ANON, there[(flags & np.uint32(PG_ANON)) == 0], 0),
        (ScanResult.PAGE_COUNT, there[_held(ctx, pfns, heads, order)], 0),
    )
    result, first = ScanResult.SUCCEED, ENTRIES
    for reason, where, limit in reasons:
        if len(where) > limit and where[limit] < first:
            result, first = reason, int(where[limit])
    if result is ScanResult.EXCEED_NONE_PTE:
        ctx.events.thp_scan_exceed_none_pte += 1
    elif result is ScanResult.EXCEED_SWAP_PTE:
        ctx.events.thp_scan_exceed_swap_pte += 1
    elif result is ScanResult.EXCEED_SHARED_PTE:
        ctx.events.thp_scan_exceed_share_pte += 1
    if result is not ScanResult.SUCCEED:
        return result
    if not ctx.thp_collapse_readonly and not (used & np.uint64(RW)).any():
        return ScanResult.PAGE_RO
    young = (used & np.uint64(ACCESSED)) != 0
    if khugepaged and not (young | ((flags & np.uint32(PG_REFERENCED)) != 0)).any():
        return ScanResult.LACK_REFERENCED_PAGE
    return ScanResult.SUCCEED


def _held(ctx: MmContext, pfns: Pfns, heads: Pfns, order: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which of the pages ``pfns`` somebody besides page tables holds, bool of the same shape."""
    pages, vec = ctx.pages, ctx.pages.vec
    held: npt.NDArray[np.bool_] = vec.refcount[pfns] != vec.mapcount[pfns]
    large = order != 0
    if large.any():
        for head in np.unique(heads[large]).tolist():
            counts = int(vec.mapcount[head : head + HPAGE_PMD_NR].sum())
            expected = counts - (HPAGE_PMD_NR - 1) * entire_mapcount(ctx, head)
            held[heads == head] = pages.refcount[head] != expected
    return held


def _replace(mm: MmStruct, vma: VmArea, addr: int, table: int, head: int) -> ZapOp:
    """Copy what ``table`` maps into the zeroed huge page ``head``, and let that be mapped instead. ``page_table_lock``
    is held; what is returned must be finished without it.
    """
    ctx = mm.ctx
    index = ctx.pt.pmd_alloc(mm, addr)
    ctx.pt.remove_table(mm, addr, index)
    mm.tlb.flush(HPAGE_PMD_NR)
    entries = ctx.ram.frames[table].tolist()
    for i, entry in enumerate(entries):
        if entry & (PRESENT | PROT_NONE) and not entry & SPECIAL:
            if ctx.ram.copy_onto_zeroes(head + i, (entry & PFN_MASK) >> 12):
                ctx.pages.nonzero[head + i] = 1
            ctx.work.pages_copied += 1
    zap = ZapOp(mm)
    zap.rows(LeafRows(ctx.ram, np.array([addr]), np.array([table]), 0, ENTRIES))
    ctx.work.ptes += zap.cleared
    set_huge_pmd(VmFault(mm, vma, addr, 0), index, head, table)
    return zap


class Khugepaged:
    """The scan over all address spaces: ``run`` is one wake-up, ``pages_to_scan`` pages. Where it stopped is
    remembered.
    """

    __slots__ = ("_addr", "_ctx", "_mm_id")

    def __init__(self, ctx: MmContext) -> None:
        self._ctx = ctx
        self._mm_id = 0
        self._addr = 0

    def run(self) -> int:
        """Scan on from where the last wake-up stopped; how many huge pages came of it. ``full_scans`` counts the times
        that all address spaces were seen.
        """
        ctx = self._ctx
        settings = ctx.thp.khugepaged
        if ctx.thp.enabled == "never":
            return 0
        budget = settings.pages_to_scan
        collapsed = 0
        finished = 0
        while budget > 0 and finished < 2:
            mm = next((mm for mm_id, mm in sorted(ctx.mms.items()) if mm_id >= self._mm_id), None)
            if mm is None:
                settings.full_scans += 1
                self._mm_id = self._addr = 0
                finished += 1
                continue
            if mm.id != self._mm_id:
                self._mm_id, self._addr = mm.id, 0
            scanned, made = self._scan_mm(mm, budget)
            budget -= scanned
            collapsed += made
        settings.pages_collapsed += collapsed
        return collapsed

    def _scan_mm(self, mm: MmStruct, budget: int) -> tuple[int, int]:
        """Scan ``mm`` from the remembered address on: pages scanned, huge pages made."""
        scanned = made = 0
        mm.mmap_lock.down_write()
        try:
            for vma in mm.areas():
                if vma.end <= self._addr:
                    continue
                scanned += 1
                if not hugepage_vma_check(vma):
                    continue
                addr = max(-(-vma.start // PMD_SIZE) * PMD_SIZE, self._addr)
                while addr + PMD_SIZE <= vma.end:
                    if scanned >= budget:
                        self._addr = addr
                        return scanned, made
                    result = collapse_block(mm, vma, addr, khugepaged=True)
                    addr += PMD_SIZE
                    scanned += HPAGE_PMD_NR
                    self._addr = addr
                    made += result is ScanResult.SUCCEED
                    if result is ScanResult.ALLOC_HUGE_PAGE_FAIL:
                        return budget, made  # it sleeps alloc_sleep_millisecs
        finally:
            mm.mmap_lock.up_write()
        self._mm_id, self._addr = mm.id + 1, 0
        return max(scanned, 1), made
