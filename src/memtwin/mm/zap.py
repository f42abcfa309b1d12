# SPDX-License-Identifier: GPL-2.0-or-later
"""Taking pages away (Linux: zap_pte_range and unmap_page_range in mm/memory.c): munmap, MADV_DONTNEED, truncation,
exit.

"Known zero" (architecture, section 3): a frame is written only by a CPU, which leaves the dirty bit behind, or by the
kernel half, which marks it at once; so zap marks what was dirty, and the page allocator zeroes only marked frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from memtwin.hw.paging import ACCESSED, DIRTY, GUARD_ENTRY, MAPPED, NX, PFN_MASK, SPECIAL
from memtwin.mm.huge_mm import HPAGE_PMD_NR
from memtwin.mm.huge_range import zap_huge_pmd, zap_huge_pmds
from memtwin.mm.huge_rmap import folios_put, free_huge_folio, remove_small_rmap, remove_small_rmaps
from memtwin.mm.huge_split import vma_adjust_trans_huge
from memtwin.mm.mm_types import VM_RAND_READ, VM_SEQ_READ, MmStruct, VmArea
from memtwin.mm.page import PG_ANON, PG_DIRTY, mark_page_accessed
from memtwin.mm.page_table import LeafRows

if TYPE_CHECKING:
    from memtwin.mm.context import MmContext
    from memtwin.mm.filemap import AddressSpace

__all__ = ["ZapOp", "has_recency", "unmap_mapping_pages", "zap_page_range"]


class ZapOp:
    """Empties the entries of a range and gives up the pages they mapped (a :class:`~memtwin.mm.page_table.RangeOp`).

    ``keep_guards``: guard pages stay (an area that goes as a whole takes them along); ``even_cows`` off: private copies
    of file pages stay; ``recency``: a file page whose entry is young counts as accessed. ``cleared`` counts the entries
    emptied. ``finish`` must be called at the end: it frees what is left to free.
    """

    __slots__ = (
        "_ctx",
        "_even_cows",
        "_freed",
        "_held",
        "_huge",
        "_keep_guards",
        "_mm",
        "_recency",
        "_selective",
        "cleared",
    )

    def __init__(
        self, mm: MmStruct, *, keep_guards: bool = False, even_cows: bool = True, recency: bool = False
    ) -> None:
        self._keep_guards = keep_guards
        self._even_cows = even_cows
        self._recency = recency
        self._selective = keep_guards or not even_cows
        self._mm = mm
        self._ctx = mm.ctx
        self._freed: list[int] = []
        self._held: list[int] = []  # huge pages whose reference of a leaf is to be dropped
        self._huge: list[int] = []  # huge pages without references
        self.cleared = 0

    def few(self, index: int, count: int, addr: int) -> None:
        """A handful of entries of one table."""
        q, pages = self._ctx.ram.q, self._ctx.pages
        large: list[int] = []
        cleared = 0
        for i in range(index, index + count):
            entry = q[i]
            if not entry or (self._selective and self._stays(entry)):
                continue
            q[i] = 0
            cleared += 1
            if entry & MAPPED and not entry & SPECIAL:
                pfn = (entry & PFN_MASK) >> 12
                if not pages.comp_order[pfn]:
                    self.drop_page(pfn, entry)
                    continue
                if entry & DIRTY:
                    pages.nonzero[pfn] = 1
                if not entry & NX:
                    self._ctx.tlb.note_frame_changed(pfn)
                large.append(pfn)
        if large:
            self._drop_large(np.array(large, dtype=np.int64))
        if cleared:
            pages.private[index >> 9] -= cleared
            self.cleared += cleared

    def _stays(self, entry: int) -> bool:
        if not entry & MAPPED:
            return self._keep_guards and entry == GUARD_ENTRY
        return not self._even_cows and bool(self._ctx.pages.flags[(entry & PFN_MASK) >> 12] & PG_ANON)

    def drop_page(self, pfn: int, entry: int) -> None:
        """``entry``, now gone, mapped ``pfn``."""
        ctx, mm = self._ctx, self._mm
        pages = ctx.pages
        if entry & DIRTY:
            pages.nonzero[pfn] = 1
        if not entry & NX:
            ctx.tlb.note_frame_changed(pfn)
        if pages.comp_order[pfn]:
            mm.rss_anon -= 1
            head = remove_small_rmap(ctx, pfn)
            if head:
                self._huge.append(head)
            return
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

    def _drop_large(self, pfns: npt.NDArray[np.int64]) -> None:
        """Small entries of huge pages are gone."""
        self._mm.rss_anon -= len(pfns)
        self._huge += remove_small_rmaps(self._ctx, pfns)

    def _drop_file_page(self, pfn: int, entry: int, left: int) -> None:
        ctx, mm = self._ctx, self._mm
        if entry & DIRTY:
            ctx.pages.flags[pfn] |= PG_DIRTY
        if self._recency and entry & ACCESSED:
            mark_page_accessed(ctx.pages, ctx.pages.head(pfn), locked=False)
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
        if self._selective and used.any():
            used &= ~self._staying(entries)
        per_row = np.count_nonzero(used, axis=1)
        total = int(per_row.sum())
        if not total:
            return
        batch.scatter(np.where(used, np.uint64(0), entries))
        vec = self._ctx.pages.vec
        vec.private[batch.table] -= per_row.astype(np.uint64)
        self.cleared += total
        entries = entries[used]
        mapped = entries[((entries & np.uint64(MAPPED)) != 0) & ((entries & np.uint64(SPECIAL)) == 0)]
        pfns = ((mapped & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
        for pfn in pfns[(mapped & np.uint64(NX)) == 0].tolist():
            self._ctx.tlb.note_frame_changed(pfn)
        if self._ctx.thp.folios:
            large = vec.comp_order[pfns] != 0
            if large.any():
                vec.nonzero[pfns[large & ((mapped & np.uint64(DIRTY)) != 0)]] = 1
                self._drop_large(pfns[large])
                mapped, pfns = mapped[~large], pfns[~large]
        anon = (vec.flags[pfns] & np.uint32(PG_ANON)) != 0
        sole = anon & (vec.refcount[pfns] == 1)
        if not sole.all():
            others = anon & ~sole
            self._drop_shared(pfns[others], (mapped[others] & np.uint64(DIRTY)) != 0)
            for entry, pfn in zip(mapped[~anon].tolist(), pfns[~anon].tolist(), strict=True):
                self.drop_page(pfn, entry)
        self._drop_sole(pfns[sole], (mapped[sole] & np.uint64(DIRTY)) != 0)

    def _staying(self, entries: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """What :meth:`_stays` says of each of many entries."""
        stays = np.zeros(entries.shape, dtype=np.bool_)
        if self._keep_guards:
            stays |= entries == np.uint64(GUARD_ENTRY)
        if not self._even_cows:
            mapped = (entries & np.uint64(MAPPED)) != 0
            pfns = ((entries[mapped] & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
            stays[mapped] = (self._ctx.pages.vec.flags[pfns] & np.uint32(PG_ANON)) != 0
        return stays

    def _drop_shared(self, pfns: npt.NDArray[np.int64], dirty: npt.NDArray[np.bool_]) -> None:
        """Anonymous pages that others map or hold, or that occur several times here."""
        if not len(pfns):
            return
        ctx = self._ctx
        vec = ctx.pages.vec
        vec.nonzero[pfns[dirty]] = 1
        ctx.pages.add(vec.mapcount, pfns, -1)
        ctx.pages.add(vec.refcount, pfns, -1)
        self._mm.rss_anon -= len(pfns)
        unmapped = pfns[vec.mapcount[pfns] == 0]
        if len(unmapped):
            ctx.count_anon(np.unique(unmapped), -1)
        self._freed += np.unique(pfns[vec.refcount[pfns] == 0]).tolist()

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
        """A huge leaf, wholly in the range."""
        head = zap_huge_pmd(self._mm, index, addr)
        if head:
            self._held.append(head)
        self.cleared += HPAGE_PMD_NR

    def huge_leaves(self, indices: npt.NDArray[np.int64], addrs: npt.NDArray[np.int64]) -> None:
        """Several huge leaves (HugeLeaves), wholly in the range."""
        self._held += zap_huge_pmds(self._mm, indices, addrs)
        self.cleared += HPAGE_PMD_NR * len(indices)

    def flush(self) -> None:
        """Have the CPUs forget what was cleared."""
        self._mm.tlb.flush(self.cleared)

    def finish(self) -> None:
        """Free the pages whose last reference went one by one."""
        ctx = self._ctx
        pages = ctx.pages
        for pfn in self._freed:
            pages.flags[pfn] = 0
            pages.mapping[pfn] = 0
            ctx.page_alloc.free_pages(pfn)
        self._freed.clear()
        folios_put(ctx, self._held)
        self._held.clear()
        for head in self._huge:
            free_huge_folio(ctx, head)
        self._huge.clear()


def has_recency(vma: VmArea) -> bool:
    """Whether accesses in ``vma`` say that its pages will be wanted again: not where it is read once or at random."""
    return not vma.flags & (VM_SEQ_READ | VM_RAND_READ)


def zap_page_range(
    mm: MmStruct, start: int, end: int, *, keep_guards: bool = False, even_cows: bool = True, recency: bool = False
) -> int:
    """Empty the entries of [start, end) and flush; the number of entries emptied. The options are those of
    :class:`ZapOp`. Takes ``page_table_lock``.
    """
    zap = ZapOp(mm, keep_guards=keep_guards, even_cows=even_cows, recency=recency)
    mm.page_table_lock.lock()
    _zap(mm, start, end, zap)
    mm.page_table_lock.unlock()
    if zap.cleared:
        zap.finish()
    return zap.cleared


def _zap(mm: MmStruct, start: int, end: int, zap: ZapOp) -> None:
    """What is done under the lock."""
    vma_adjust_trans_huge(mm, start, end)
    mm.ctx.pt.walk_range(mm, start, end, zap, zap.huge_leaves)
    if zap.cleared:
        mm.ctx.work.ptes += zap.cleared
        zap.flush()


def unmap_mapping_pages(ctx: MmContext, mapping: AddressSpace, first: int, last: int, *, even_cows: bool) -> None:
    """Unmap the pages [first, last) of a file everywhere, with ``even_cows`` private copies of them too.

    No lock of an address space is held but its ``page_table_lock``, under which its areas are looked at: they may
    change at any other time.
    """
    for mm in list(ctx.mms.values()):
        zaps: list[ZapOp] = []
        mm.page_table_lock.lock()
        for vma in mm.areas():
            if vma.file is None or vma.file.mapping is not mapping:
                continue
            start = vma.start + max(first - vma.pgoff, 0) * 4096
            end = min(vma.start + max(last - vma.pgoff, 0) * 4096, vma.end)
            if start < end:
                zaps.append(ZapOp(mm, keep_guards=True, even_cows=even_cows, recency=has_recency(vma)))
                _zap(mm, start, end, zaps[-1])
        mm.page_table_lock.unlock()
        for zap in zaps:
            zap.finish()
