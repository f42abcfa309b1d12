# SPDX-License-Identifier: GPL-2.0-or-later
"""Splitting (Linux: __split_huge_pmd and split_huge_page in mm/huge_memory.c).

Two different things: splitting a *huge leaf* gives an address space 512 small entries for the same pages, which stay
one huge page; splitting the *huge page* first splits every leaf that maps it, then makes 512 single pages of it and
frees those that nobody maps. The first can not fail, since each leaf keeps a table in reserve.

Lock order: ``mmap_lock`` (or nothing, for the shrinker), ``page_table_lock``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from memtwin.hw.paging import ENTRIES, MAPPED, NX, PFN_MASK, PMD_SHIFT, PMD_SIZE, PSE, SPECIAL
from memtwin.mm.huge_mm import HPAGE_PMD_NR, HPAGE_PMD_ORDER
from memtwin.mm.huge_rmap import entire_mapcount, huge_leaf_gone
from memtwin.mm.mm_types import VM_LOCKED, MmStruct, VmArea
from memtwin.mm.page import PG_ANON_EXCLUSIVE, PG_HEAD

if TYPE_CHECKING:
    from memtwin.mm.context import MmContext

__all__ = [
    "DeferredSplitShrinker",
    "entries_of",
    "huge_leaf",
    "maybe_shared",
    "nr_entries",
    "split_huge_page",
    "split_huge_pmd",
    "split_huge_pmd_address",
    "split_huge_pmd_range",
    "vma_adjust_trans_huge",
    "wp_can_reuse_huge",
]

_FRAME_STEPS = np.arange(ENTRIES, dtype=np.uint64) << np.uint64(12)


# -- leaves ---------------------------------------------------------------------------------------------------------


def huge_leaf(mm: MmStruct, addr: int) -> int:
    """Index in ``ram.q`` of the huge leaf that covers ``addr``, 0 if none does."""
    if addr >> PMD_SHIFT not in mm.deposits:
        return 0
    return mm.ctx.pt.lookup(mm, addr)[0]


def split_huge_pmd(mm: MmStruct, addr: int, index: int) -> None:
    """Put small entries in place of the huge leaf ``index``, which covers ``addr``. Rights, A and D stay."""
    ctx = mm.ctx
    entry = ctx.ram.q[index]
    if entry & SPECIAL and (entry & PFN_MASK) >> 12 != ctx.thp.zero_pfn:
        # A leaf that a driver made: taken away, to be asked for again.
        ctx.pt.pte_free(mm, ctx.pt.clear_huge(mm, addr, index))
        ctx.events.thp_split_pmd += 1
        mm.tlb.flush(HPAGE_PMD_NR)
        return
    table = mm.deposits.pop(addr >> PMD_SHIFT)
    small = entry & ~PSE
    if entry & SPECIAL:
        ctx.ram.frames[table] = np.uint64(small & ~PFN_MASK | ctx.zero_pfn << 12)
    else:
        head = (entry & PFN_MASK) >> 12
        ctx.ram.frames[table] = np.uint64(small) + _FRAME_STEPS
        pages = ctx.pages
        pages.refcount[head] += HPAGE_PMD_NR - 1
        if pages.flags[head] & PG_ANON_EXCLUSIVE:
            pages.vec.flags[head : head + HPAGE_PMD_NR] |= np.uint32(PG_ANON_EXCLUSIVE)
        huge_leaf_gone(ctx, head)
    ctx.pages.private[table] = ENTRIES
    ctx.pt.install_table(mm, addr, index, table)
    ctx.events.thp_split_pmd += 1
    mm.tlb.flush(HPAGE_PMD_NR)


def split_huge_pmd_address(mm: MmStruct, addr: int) -> None:
    """Split the huge leaf around ``addr``, if there is one."""
    index = huge_leaf(mm, addr)
    if index:
        split_huge_pmd(mm, addr, index)


def vma_adjust_trans_huge(mm: MmStruct, *boundaries: int) -> None:
    """Areas are about to begin or end at ``boundaries``: no huge leaf may lie on both sides of one."""
    if mm.deposits:
        for addr in boundaries:
            if addr & (PMD_SIZE - 1):
                split_huge_pmd_address(mm, addr)


def split_huge_pmd_range(mm: MmStruct, start: int, end: int) -> None:
    """Split all huge leaves that overlap [start, end)."""
    if not mm.deposits:
        return
    first, last = start >> PMD_SHIFT, (end - 1) >> PMD_SHIFT
    for slot in sorted(slot for slot in mm.deposits if first <= slot <= last):
        split_huge_pmd_address(mm, slot << PMD_SHIFT)


# -- pages ----------------------------------------------------------------------------------------------------------


def maybe_shared(mm: MmStruct, head: int, own: int = 1) -> bool:
    """Whether other address spaces than ``mm``, which maps the huge page by at least ``own`` entries, seem to map it
    too. 6.7 looks at its first page only.
    """
    ctx = mm.ctx
    if not ctx.thp_mm_exclusive:
        return ctx.pages.mapcount[head] > 1
    total = nr_entries(ctx, head)
    return total > own and (_mapped_twice(ctx, head) or entries_of(mm, head) != total)


def wp_can_reuse_huge(vma: VmArea, pfn: int) -> bool:
    """Whether a write in ``vma`` through a small entry may reuse the page ``pfn`` of a huge page, which is not marked
    exclusive.

    6.7: nobody else may hold the huge page at all, not even through another entry of the same address space. Later
    kernels (post-thp-mm-exclusive): all its references are entries of this address space.
    """
    ctx = vma.mm.ctx
    pages = ctx.pages
    head = pages.head(pfn)
    references = pages.refcount[head]
    if not ctx.thp_mm_exclusive:
        return references == 1
    if pages.mapcount[pfn] > 1 or references > HPAGE_PMD_NR or nr_entries(ctx, head) != references:
        return False
    # The area at hand has all of it, nearly always.
    here = _entries_in(vma, vma.start + (pages.index[head] - vma.pgoff << 12), head)
    return here == references or (not _mapped_twice(ctx, head) and entries_of(vma.mm, head) == references)


def nr_entries(ctx: MmContext, head: int) -> int:
    """How many entries, huge or small, map the huge page, whosever they are."""
    counts = ctx.pages.vec.mapcount[head : head + HPAGE_PMD_NR]
    return int(counts.sum()) - (HPAGE_PMD_NR - 1) * entire_mapcount(ctx, head)


def _mapped_twice(ctx: MmContext, head: int) -> bool:
    """Whether a page of the huge page is mapped twice, which no address space does alone."""
    return int(ctx.pages.vec.mapcount[head : head + HPAGE_PMD_NR].max()) > 1


def entries_of(mm: MmStruct, head: int) -> int:
    """How many entries of ``mm``, huge or small, map the huge page."""
    return sum(_entries_in(vma, addr, head) for vma, addr in mappings_of(mm.ctx, head, (mm,)))


def _entries_in(vma: VmArea, addr: int, head: int) -> int:
    """How many entries of ``vma`` map the huge page, whose head has its place at ``addr``."""
    mm = vma.mm
    ram = mm.ctx.ram
    found = 0
    at, end = max(addr, vma.start), min(addr + PMD_SIZE, vma.end)
    while at < end:
        stop = min((at >> PMD_SHIFT) + 1 << PMD_SHIFT, end)
        index = huge_leaf(mm, at)
        base = mm.pte_tables.get(at >> PMD_SHIFT)
        if index:
            found += (ram.q[index] & PFN_MASK) >> 12 == head
        elif base is not None:
            first = base + (at >> 12 & ENTRIES - 1)
            entries = ram.words[first : first + (stop - at >> 12)]
            frames = _FRAME_STEPS[: len(entries)] + np.uint64((head << 12) + at - addr)
            mapped = (entries & np.uint64(MAPPED)) != 0
            found += int(np.count_nonzero(mapped & (entries & np.uint64(PFN_MASK) == frames)))
        at = stop
    return found


def mappings_of(ctx: MmContext, head: int, mms: Iterable[MmStruct]) -> Iterator[tuple[VmArea, int]]:
    """Every area of ``mms`` that may map a part of the huge page, with the address of the head in it (which may lie
    outside).
    """
    anon_id, pgoff = ctx.pages.mapping[head], ctx.pages.index[head]
    for mm in mms:
        for vma in mm.areas():
            if vma.anon_vma is None:
                continue
            addr = vma.start + (pgoff - vma.pgoff << 12)
            if addr >= vma.end or addr + PMD_SIZE <= vma.start:
                continue
            if any(link.anon_vma.id == anon_id for link in vma.anon_vma_chain):
                yield vma, addr


def split_huge_page(ctx: MmContext, head: int, first: MmStruct | None = None) -> bool:
    """Make single pages of the huge page ``head``; False if somebody besides the page tables holds it, or a
    fault is at it right now. ``first``: an
    address space known to map it; nobody else is looked at once all entries are found.

    Pages that nobody maps are freed. Later kernels (post-thp-split-zeropage) also let the zero page stand for pages
    that hold only zeroes.
    """
    pages, vec = ctx.pages, ctx.pages.vec
    end = head + HPAGE_PMD_NR
    held = nr_entries(ctx, head)
    if pages.refcount[head] != held:
        ctx.events.thp_split_page_failed += 1
        return False
    places = _places(ctx, head, held, first)
    if any(vma.mm.page_table_lock.is_locked() for vma, _ in places):
        # A fault on another CPU is at one of its entries. Linux waits for that, or finds the folio locked.
        ctx.events.thp_split_page_failed += 1
        return False
    for vma, addr in places:
        index = huge_leaf(vma.mm, max(addr, vma.start))
        if index and (ctx.ram.q[index] & PFN_MASK) >> 12 == head:
            split_huge_pmd(vma.mm, max(addr, vma.start), index)
    if ctx.thp_split_zeropage:
        for vma, addr in places:
            _use_zero_page(ctx, vma, addr, head)
    ctx.thp.deferred.pop(head, None)
    ctx.thp.folios -= 1
    pages.private[head + 1] = 0
    pages.flags[head] &= ~PG_HEAD
    vec.refcount[head:end] = vec.mapcount[head:end]
    ctx.page_alloc.split_folio(head, HPAGE_PMD_ORDER)
    ctx.events.thp_split_page += 1
    unmapped = np.flatnonzero(vec.mapcount[head:end] == 0) + head
    if len(unmapped):
        vec.flags[unmapped] = 0
        vec.mapping[unmapped] = 0
        ctx.page_alloc.free_bulk(unmapped)
    return True


def _places(ctx: MmContext, head: int, held: int, first: MmStruct | None) -> list[tuple[VmArea, int]]:
    """The areas that have the ``held`` entries of the huge page, with the address of the head in each."""
    mms = list(ctx.mms.values())
    if first is not None:
        mms.insert(0, first)
    places: list[tuple[VmArea, int]] = []
    for vma, addr in mappings_of(ctx, head, mms):
        entries = _entries_in(vma, addr, head)
        if entries:
            places.append((vma, addr))
            held -= entries
            if not held:
                break
    return places


def _use_zero_page(ctx: MmContext, vma: VmArea, addr: int, head: int) -> None:
    """Map the zero page in ``vma`` instead of those pages of ``head`` that hold only zeroes."""
    mm = vma.mm
    if vma.flags & VM_LOCKED:
        return
    q, pages = ctx.ram.q, ctx.pages
    replaced = 0
    for i in range(HPAGE_PMD_NR):
        at = addr + (i << 12)
        base = mm.pte_tables.get(at >> PMD_SHIFT) if vma.start <= at < vma.end else None
        if base is None:
            continue
        index = base + (at >> 12 & ENTRIES - 1)
        entry = q[index]
        if not entry or entry & SPECIAL or (entry & PFN_MASK) >> 12 != head + i or ctx.ram.frames[head + i].any():
            continue
        q[index] = ctx.zero_pfn << 12 | vma.page_prot | SPECIAL
        left = pages.mapcount[head + i] - 1
        pages.mapcount[head + i] = left
        pages.refcount[head] -= 1
        if not left:
            ctx.node_stat(head).nr_anon_pages -= 1
        mm.rss_anon -= 1
        if not entry & NX:
            ctx.tlb.note_frame_changed(head + i)
        replaced += 1
    if replaced:
        mm.tlb.flush(replaced)


class DeferredSplitShrinker:
    """Splits huge pages of which a part is not mapped (a :class:`~memtwin.mm.vmscan.ShrinkerCallbacks`)."""

    __slots__ = ("_ctx",)

    def __init__(self, ctx: MmContext) -> None:
        self._ctx = ctx

    def _queue(self, nid: int) -> list[int]:
        ctx = self._ctx
        return [head for head in ctx.thp.deferred if ctx.topology.pfn_to_nid(head) == nid]

    def count_objects(self, gfp: int, nid: int) -> int:
        """Huge pages in the queue of the node."""
        return len(self._queue(nid))

    def scan_objects(self, gfp: int, nid: int, nr_to_scan: int) -> int:
        """Split up to ``nr_to_scan`` of them; how many were."""
        ctx = self._ctx
        split = 0
        for head in self._queue(nid)[:nr_to_scan]:
            freed = int(np.count_nonzero(ctx.pages.vec.mapcount[head : head + HPAGE_PMD_NR] == 0))
            if split_huge_page(ctx, head):
                ctx.page_alloc.reclaim.account_reclaimed_pages(freed)
                split += 1
        return split
