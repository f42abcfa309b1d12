# SPDX-License-Identifier: GPL-2.0-or-later
"""What operations on ranges do to a huge leaf (Linux: zap_huge_pmd, copy_huge_pmd, change_huge_pmd, move_huge_pmd,
madvise_free_huge_pmd in mm/huge_memory.c): the ``huge`` methods of the range operations end here.

The operations split beforehand what their range would cut (``vma_adjust_trans_huge``), so that every leaf seen here
lies wholly in the range.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from memtwin.hw.paging import DIRTY, MAPPED, NX, PFN_MASK, PMD_SHIFT, PMD_SIZE, PRESENT, PROT_NONE, PSE, RW, SPECIAL
from memtwin.mm.huge_mm import HPAGE_PMD_NR, HPAGE_PMD_ORDER
from memtwin.mm.huge_rmap import add_huge_rmap, add_huge_rmaps, remove_huge_rmap, remove_huge_rmaps
from memtwin.mm.huge_split import huge_leaf, maybe_shared, split_huge_page
from memtwin.mm.page import PG_ANON_EXCLUSIVE, adjacent
from memtwin.mm.page_table import LeafRows

if TYPE_CHECKING:
    from memtwin.mm.mm_types import MmStruct

__all__ = [
    "change_huge_pmd",
    "change_huge_pmds",
    "copy_huge_pmd",
    "copy_huge_pmds",
    "move_huge_pmd",
    "split_folios_for_advice",
    "zap_huge_pmd",
    "zap_huge_pmds",
]


def zap_huge_pmd(mm: MmStruct, index: int, addr: int) -> int:
    """Empty the huge leaf; the head of the page whose reference is the caller's to drop, 0 for the huge zero page."""
    ctx = mm.ctx
    entry = ctx.ram.q[index]
    ctx.pt.pte_free(mm, ctx.pt.clear_huge(mm, addr, index))
    if entry & SPECIAL:
        return 0
    head = (entry & PFN_MASK) >> 12
    if entry & DIRTY:
        ctx.pages.vec.nonzero[head : head + HPAGE_PMD_NR] = 1
    if not entry & NX:
        for pfn in range(head, head + HPAGE_PMD_NR):
            ctx.tlb.note_frame_changed(pfn)
    remove_huge_rmap(ctx, head)
    mm.rss_anon -= HPAGE_PMD_NR
    return head


def zap_huge_pmds(mm: MmStruct, indices: npt.NDArray[np.int64], addrs: npt.NDArray[np.int64]) -> list[int]:
    """The same for several huge leaves of one middle table (see HugeLeaves): the heads."""
    ctx = mm.ctx
    vec = ctx.pages.vec
    entries = ctx.ram.words[indices]
    ctx.pt.pte_free_bulk(mm, ctx.pt.clear_huge_leaves(mm, indices, addrs))
    entries = entries[(entries & np.uint64(SPECIAL)) == 0]
    if not len(entries):
        return []
    heads = ((entries & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
    dirty = np.sort(heads[(entries & np.uint64(DIRTY)) != 0])
    for first, last in adjacent(dirty, HPAGE_PMD_NR):
        vec.nonzero[int(dirty[first]) : int(dirty[last - 1]) + HPAGE_PMD_NR] = 1
    for head in heads[(entries & np.uint64(NX)) == 0].tolist():
        for pfn in range(head, head + HPAGE_PMD_NR):
            ctx.tlb.note_frame_changed(pfn)
    heads.sort()
    remove_huge_rmaps(ctx, heads)
    mm.rss_anon -= len(heads) * HPAGE_PMD_NR
    result: list[int] = heads.tolist()
    return result


def copy_huge_pmd(
    old: MmStruct, new: MmStruct, index: int, addr: int, *, private: bool = True, forgotten: int = 0
) -> bool:
    """Let ``new`` map what the huge leaf of ``old`` maps; in a ``private`` area neither may write any more.
    ``forgotten``: bits that the copy has not. False, and nothing done, if it was split while memory was looked for.
    Raises OSError ENOMEM.
    """
    ctx = old.ctx
    q = ctx.ram.q
    table = ctx.pt.pte_alloc_one(new)
    target = ctx.pt.pmd_alloc(new, addr) if table else 0
    if not target:
        if table:
            ctx.pt.pte_free(new, table)
        raise OSError(errno.ENOMEM, "fork: no memory for page tables")
    entry = q[index]
    if not entry & PSE:
        ctx.pt.pte_free(new, table)
        return False
    if private:
        q[index] = entry = entry & ~RW
    head = (entry & PFN_MASK) >> 12
    if entry & SPECIAL:
        if head == ctx.thp.zero_pfn:
            ctx.thp.get_huge_zero_page(new)
        # else a driver's leaf: no page stands behind it, nothing is counted
    else:
        add_huge_rmap(ctx, head)
        ctx.pages.flags[head] &= ~PG_ANON_EXCLUSIVE
        new.rss_anon += HPAGE_PMD_NR
    ctx.pt.set_huge(new, addr, target, entry & ~forgotten, table)
    return True


def copy_huge_pmds(
    old: MmStruct,
    new: MmStruct,
    indices: npt.NDArray[np.int64],
    addrs: npt.NDArray[np.int64],
    *,
    private: bool,
    forgotten: int,
) -> bool:
    """The same for several huge leaves of one middle table (see HugeLeaves); False if one of them was split. Raises
    OSError ENOMEM, after as many as there are tables for.
    """
    ctx = old.ctx
    words, vec = ctx.ram.words, ctx.pages.vec
    tables = ctx.pt.pte_alloc_bulk(new, len(indices))
    target = ctx.pt.pmd_alloc(new, int(addrs[0])) if tables else 0
    if not target:
        if tables:
            ctx.pt.pte_free_bulk(new, tables)
        raise OSError(errno.ENOMEM, "fork: no memory for page tables")
    short = len(tables) < len(indices)
    indices, addrs = indices[: len(tables)], addrs[: len(tables)]
    entries = words[indices]
    if not ((entries & np.uint64(PSE)) != 0).all():
        ctx.pt.pte_free_bulk(new, tables)
        return False
    if private:
        entries &= np.uint64(~RW & (1 << 64) - 1)
        words[indices] = entries
    special = (entries & np.uint64(SPECIAL)) != 0
    heads = ((entries & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
    if special.any() and (heads[special] == ctx.thp.zero_pfn).any():
        ctx.thp.get_huge_zero_page(new)
    heads = np.sort(heads[~special])
    if len(heads):
        add_huge_rmaps(ctx, heads)
        vec.flags[heads] &= np.uint32(~PG_ANON_EXCLUSIVE & 0xFFFFFFFF)
        new.rss_anon += HPAGE_PMD_NR * len(heads)
    entries &= np.uint64(~forgotten & (1 << 64) - 1)
    ctx.pt.set_huge_leaves(new, addrs, target + (addrs - addrs[0] >> PMD_SHIFT), entries, tables)
    if short:
        raise OSError(errno.ENOMEM, "fork: no memory for page tables")
    return True


def change_huge_pmd(mm: MmStruct, index: int, protection: int, bits: int, upgrade: bool) -> bool:
    """Give the huge leaf ``protection``, which decides ``bits``; with ``upgrade`` an exclusive page becomes writable at
    once. Whether the leaf changed.
    """
    q = mm.ctx.ram.q
    entry = q[index]
    new = entry & ~bits | protection
    if upgrade and not entry & SPECIAL and mm.ctx.pages.flags[(entry & PFN_MASK) >> 12] & PG_ANON_EXCLUSIVE:
        new |= RW
    if protection & (PRESENT | NX) == PRESENT and protection & PROT_NONE == 0:
        head = (entry & PFN_MASK) >> 12
        for pfn in range(head, head + HPAGE_PMD_NR):
            mm.ctx.tlb.note_frame_changed(pfn)
            mm.ctx.tlb.note_executable(pfn)
    q[index] = new
    return new != entry


def change_huge_pmds(mm: MmStruct, indices: npt.NDArray[np.int64], protection: int, bits: int, upgrade: bool) -> int:
    """The same for several huge leaves, without a right to execute them; how many changed."""
    words, vec = mm.ctx.ram.words, mm.ctx.pages.vec
    entries = words[indices]
    new = entries & np.uint64(~bits & (1 << 64) - 1) | np.uint64(protection)
    if upgrade:
        own = (entries & np.uint64(SPECIAL)) == 0
        heads = ((entries[own] & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
        own[own] = (vec.flags[heads] & np.uint32(PG_ANON_EXCLUSIVE)) != 0
        new[own] |= np.uint64(RW)
    words[indices] = new
    return int(np.count_nonzero(new != entries))


def move_huge_pmd(mm: MmStruct, index: int, addr: int, target: int) -> bool:
    """Take the huge leaf to ``target``, which is aligned; False where a table with entries is in the way (the caller
    splits the leaf). Raises OSError ENOMEM.
    """
    pt = mm.ctx.pt
    at = pt.pmd_alloc(mm, target)
    if not at:
        raise OSError(errno.ENOMEM, "mremap: no memory for page tables")
    if target >> 21 in mm.pte_tables:
        table = mm.pte_tables[target >> 21] >> 9
        if mm.ctx.pages.private[table]:
            return False
        pt.pte_free(mm, pt.remove_table(mm, target, at))
    entry = mm.ctx.ram.q[index]
    table = pt.clear_huge(mm, addr, index)
    pt.set_huge(mm, target, at, entry, table)
    return True


# -- MADV_FREE, MADV_COLD, MADV_PAGEOUT -----------------------------------------------------------------------------


class _LargeFolios:
    """Heads of the huge pages that small entries of a range map, and how many entries, by ascending address (a RangeOp
    that only reads).
    """

    def __init__(self, mm: MmStruct) -> None:
        self._ctx = mm.ctx
        self.heads: dict[int, int] = {}

    def few(self, index: int, count: int, addr: int) -> None:
        """A handful of entries of one table."""
        self._add(self._ctx.ram.words[index : index + count])

    def rows(self, batch: LeafRows) -> None:
        """Whole tables."""
        self._add(batch.gather().ravel())

    def _add(self, entries: npt.NDArray[np.uint64]) -> None:
        entries = entries[((entries & np.uint64(MAPPED)) != 0) & ((entries & np.uint64(SPECIAL)) == 0)]
        pfns = ((entries & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
        pfns = pfns[self._ctx.pages.vec.comp_order[pfns] != 0]
        if not len(pfns):
            return
        heads, first, counts = np.unique(
            pfns >> HPAGE_PMD_ORDER << HPAGE_PMD_ORDER, return_index=True, return_counts=True
        )
        by_address = np.argsort(first)
        for head, count in zip(heads[by_address].tolist(), counts[by_address].tolist(), strict=True):
            self.heads[head] = self.heads.get(head, 0) + count

    def huge(self, index: int, order: int, addr: int) -> None:
        """A leaf, which the range covers wholly, needs no split; the ends were looked at before."""


def split_folios_for_advice(mm: MmStruct, start: int, end: int, *, free: bool) -> list[int]:
    """MADV_FREE, MADV_COLD and MADV_PAGEOUT act on whole pages: split the huge *pages* (not only the leaves) that the
    range covers in part. One that others map too stays as it is. Heads of those whose small entries the advice leaves
    alone: what others map, with MADV_FREE (``free``) always, else unless the range covers it.

    6.7 splits every huge page that small entries map; later kernels (post-thp-advice-batch) only those that the range
    does not cover wholly.
    """
    ctx = mm.ctx
    left_alone: list[int] = []
    if not ctx.thp.folios:
        return left_alone
    for edge in (start, end):
        index = huge_leaf(mm, edge) if edge & (PMD_SIZE - 1) else 0
        if index and not ctx.ram.q[index] & SPECIAL:
            head = (ctx.ram.q[index] & PFN_MASK) >> 12
            if not maybe_shared(mm, head):
                split_huge_page(ctx, head, mm)
    folios = _LargeFolios(mm)
    ctx.pt.walk_range(mm, start, end, folios)
    for head, entries in folios.heads.items():
        if maybe_shared(mm, head, entries):
            if free or entries < HPAGE_PMD_NR:
                left_alone.append(head)
        elif not (ctx.thp_advice_batch and entries == HPAGE_PMD_NR):
            split_huge_page(ctx, head, mm)
    return left_alone
