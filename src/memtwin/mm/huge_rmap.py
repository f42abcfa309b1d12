# SPDX-License-Identifier: GPL-2.0-or-later
"""Counts of huge anonymous pages (Linux: page_add_anon_rmap and its kin in mm/rmap.c, for pages of order 9).

How a huge page is recorded. The head's ``refcount`` is the folio's: one reference a huge leaf and one a small entry.
``mapcount`` of each of the 512 records counts the leaves of *any* size that map that page, so that whoever reads
map counts need not know about huge leaves; ``private`` of the first tail counts the huge leaves alone. PG_ANON,
PG_SWAPBACKED, ``mapping`` and ``index`` stand in every record, so that work on small entries needs no look at the
head. PG_ANON_EXCLUSIVE is the head's while a huge leaf maps the page, each page's own for small entries.

Invariants (``mm/check_mm.py``): AnonPages counts pages with a map count, AnonHugePages huge pages with a huge leaf.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from memtwin.mm.huge_mm import HPAGE_PMD_NR, HPAGE_PMD_ORDER
from memtwin.mm.page import PG_ANON, PG_ANON_EXCLUSIVE, PG_HEAD, PG_HWPOISON, PG_SWAPBACKED, PG_UPTODATE, adjacent

if TYPE_CHECKING:
    from memtwin.mm.context import MmContext
    from memtwin.mm.mm_types import VmArea

__all__ = [
    "add_huge_rmap",
    "add_huge_rmaps",
    "add_new_huge_rmap",
    "deferred_split_folio",
    "entire_mapcount",
    "folio_put",
    "folios_put",
    "remove_huge_rmap",
    "remove_huge_rmaps",
    "remove_small_rmap",
    "remove_small_rmaps",
]

#: From so many huge pages on doing all at once is faster.
FEW_HUGE = 4
_TAIL_FLAGS = PG_ANON | PG_SWAPBACKED | PG_UPTODATE
_OFFSETS = np.arange(HPAGE_PMD_NR, dtype=np.uint64)


def entire_mapcount(ctx: MmContext, head: int) -> int:
    """How many huge leaves map the page."""
    return ctx.pages.private[head + 1]


def add_new_huge_rmap(ctx: MmContext, vma: VmArea, addr: int, head: int) -> None:
    """The fresh huge page ``head`` gets its first huge leaf, at ``addr`` in ``vma``, whose reference it has already."""
    anon_vma = vma.anon_vma
    assert anon_vma is not None
    pages, vec = ctx.pages, ctx.pages.vec
    end = head + HPAGE_PMD_NR
    vec.flags[head:end] = _TAIL_FLAGS
    pages.flags[head] |= PG_HEAD | PG_ANON_EXCLUSIVE
    vec.mapping[head:end] = anon_vma.id
    vec.index[head:end] = _OFFSETS + np.uint64(vma.linear_page_index(addr))
    vec.mapcount[head:end] = 1
    pages.private[head + 1] = 1
    stat = ctx.node_stat(head)
    stat.nr_anon_pages += HPAGE_PMD_NR
    stat.nr_anon_transparent_hugepages += 1
    ctx.thp.folios += 1


def add_huge_rmap(ctx: MmContext, head: int) -> None:
    """One more huge leaf maps the page, which another one maps: counts and a reference."""
    pages = ctx.pages
    pages.vec.mapcount[head : head + HPAGE_PMD_NR] += 1
    pages.private[head + 1] += 1
    pages.refcount[head] += 1


def add_huge_rmaps(ctx: MmContext, heads: npt.NDArray[np.int64]) -> None:
    """The same for one huge leaf more of each of many pages (int64[n], ascending)."""
    vec = ctx.pages.vec
    for _, _, counts in _mapcounts(ctx, heads):
        counts += 1
    vec.private[heads + 1] += np.uint64(1)
    vec.refcount[heads] += 1


def _mapcounts(ctx: MmContext, heads: npt.NDArray[np.int64]) -> Iterator[tuple[int, int, npt.NDArray[np.int32]]]:
    """The map counts of the huge pages ``heads`` (ascending), page after page: for each run ``heads[first:last]`` that
    lies in one piece, first, last, and a view of int32[last - first, 512].
    """
    pages = ctx.pages
    rows = heads >> HPAGE_PMD_ORDER
    counts = pages.vec.mapcount[: pages.nr_pages >> HPAGE_PMD_ORDER << HPAGE_PMD_ORDER].reshape(-1, HPAGE_PMD_NR)
    for first, last in adjacent(rows, 1):
        at = int(rows[first])
        yield first, last, counts[at : at + last - first]


def remove_huge_rmap(ctx: MmContext, head: int) -> None:
    """A huge leaf is gone. Its reference is the caller's to drop."""
    pages = ctx.pages
    counts = pages.vec.mapcount[head : head + HPAGE_PMD_NR]
    counts -= 1
    gone = HPAGE_PMD_NR - int(np.count_nonzero(counts))
    stat = ctx.node_stat(head)
    stat.nr_anon_pages -= gone
    if huge_leaf_gone(ctx, head) and 0 < gone < HPAGE_PMD_NR:
        deferred_split_folio(ctx, head)


def remove_huge_rmaps(ctx: MmContext, heads: npt.NDArray[np.int64]) -> None:
    """The same for one huge leaf each of many pages (int64[n], ascending)."""
    vec = ctx.pages.vec
    gone = np.empty(len(heads), dtype=np.int64)
    for first, last, counts in _mapcounts(ctx, heads):
        counts -= 1
        # All or none are gone, nearly always: the count of each costs more than all the rest.
        left_mapped = np.count_nonzero(counts)
        if left_mapped in (0, counts.size):
            gone[first:last] = 0 if left_mapped else HPAGE_PMD_NR
        else:
            gone[first:last] = HPAGE_PMD_NR - np.count_nonzero(counts, axis=1)
    left = vec.private[heads + 1] - np.uint64(1)
    vec.private[heads + 1] = left
    last_leaf = left == 0
    for nid in range(len(ctx.node_stats)):
        here = ctx.nids(heads) == nid
        ctx.node_stats[nid].nr_anon_pages -= int(gone[here].sum())
        ctx.node_stats[nid].nr_anon_transparent_hugepages -= int(np.count_nonzero(last_leaf & here))
    for head in heads[last_leaf & (gone > 0) & (gone < HPAGE_PMD_NR)].tolist():
        deferred_split_folio(ctx, head)


def huge_leaf_gone(ctx: MmContext, head: int) -> bool:
    """One huge leaf less, whatever takes its place; whether it was the last."""
    pages = ctx.pages
    left = pages.private[head + 1] - 1
    pages.private[head + 1] = left
    if left:
        return False
    ctx.node_stat(head).nr_anon_transparent_hugepages -= 1
    return True


def remove_small_rmaps(ctx: MmContext, pfns: npt.NDArray[np.int64]) -> list[int]:
    """Small entries of one address space that mapped ``pfns``, pages of huge ones, each once, are gone: counts and
    references. The heads of the huge pages that nobody references any more: the caller's to free.
    """
    vec = ctx.pages.vec
    ctx.pages.add(vec.mapcount, pfns, -1)
    unmapped = pfns[vec.mapcount[pfns] == 0]
    head = int(pfns[0]) >> HPAGE_PMD_ORDER << HPAGE_PMD_ORDER
    if ((pfns >> HPAGE_PMD_ORDER << HPAGE_PMD_ORDER) == head).all():
        ctx.node_stat(head).nr_anon_pages -= len(unmapped)
        return [head] if _references_gone(ctx, head, len(pfns), bool(len(unmapped))) else []
    ctx.count_anon(unmapped, -1)
    heads, counts = np.unique(pfns >> HPAGE_PMD_ORDER << HPAGE_PMD_ORDER, return_counts=True)
    partly = set((unmapped >> HPAGE_PMD_ORDER << HPAGE_PMD_ORDER).tolist())
    return [
        head
        for head, count in zip(heads.tolist(), counts.tolist(), strict=True)
        if _references_gone(ctx, head, count, head in partly)
    ]


def remove_small_rmap(ctx: MmContext, pfn: int) -> int:
    """The same for one entry: the head of the huge page, or 0 while others reference it."""
    pages = ctx.pages
    head = pfn >> HPAGE_PMD_ORDER << HPAGE_PMD_ORDER
    left = pages.mapcount[pfn] - 1
    pages.mapcount[pfn] = left
    if not left:
        ctx.node_stat(pfn).nr_anon_pages -= 1
    return head if _references_gone(ctx, head, 1, not left) else 0


def _references_gone(ctx: MmContext, head: int, count: int, partly: bool) -> bool:
    """Drop ``count`` references of small entries; ``partly``: some of them were the last to map their page. Whether no
    reference is left.
    """
    pages = ctx.pages
    left = pages.refcount[head] - count
    pages.refcount[head] = left
    if partly and (left or not ctx.thp_deferred_partial):
        deferred_split_folio(ctx, head)
    return not left


def deferred_split_folio(ctx: MmContext, head: int) -> None:
    """A part of the huge page is mapped no more: remember it, so that it is split when memory is short."""
    if head not in ctx.thp.deferred:
        ctx.thp.deferred[head] = None
        ctx.events.thp_deferred_split_page += 1


def folio_put(ctx: MmContext, head: int) -> None:
    """Drop a reference to the folio ``head``, huge or a single page; free it at 0."""
    if not ctx.pages.comp_order[head]:
        ctx.page_alloc.put_page(head)
        return
    left = ctx.pages.refcount[head] - 1
    ctx.pages.refcount[head] = left
    if not left:
        free_huge_folio(ctx, head)


def folios_put(ctx: MmContext, heads: list[int]) -> None:
    """Drop a reference to each of the huge pages ``heads``, all different; free those that have none left."""
    pages, thp = ctx.pages, ctx.thp
    if len(heads) < FEW_HUGE:
        for head in heads:
            folio_put(ctx, head)
        return
    pfns = np.sort(np.array(heads, dtype=np.int64))
    left = pages.vec.refcount[pfns] - 1
    pages.vec.refcount[pfns] = left
    pfns = pfns[left == 0]
    if not len(pfns):
        return
    for head in thp.deferred.keys() & pfns.tolist():
        del thp.deferred[head]
    thp.folios -= len(pfns)
    pages.vec.private[pfns + 1] = 0
    for head in pfns.tolist() if ctx.page_alloc.hw_poisoned else ():
        pages.vec.flags[head : head + HPAGE_PMD_NR] &= np.uint32(PG_HEAD | PG_HWPOISON)
    ctx.page_alloc.free_folios(pfns, HPAGE_PMD_ORDER)


def free_huge_folio(ctx: MmContext, head: int) -> None:
    """Nobody references the huge page any more."""
    ctx.thp.deferred.pop(head, None)
    ctx.thp.folios -= 1
    ctx.pages.private[head + 1] = 0
    ctx.pages.vec.flags[head : head + HPAGE_PMD_NR] &= np.uint32(PG_HEAD | PG_HWPOISON)
    ctx.page_alloc.free_pages(head, HPAGE_PMD_ORDER)
