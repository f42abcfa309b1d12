# SPDX-License-Identifier: GPL-2.0-or-later
"""A zone: free blocks plus watermarks, mobility grouping and per-CPU lists (Linux: struct zone, the zone half of
mm/page_alloc.c).

Watermarks hold pages back so that those who free memory can still allocate. Mobility grouping keeps pages that can be
moved apart from those that can not: when the lists of a type are empty, the allocator steals from another type, as
large a block as it can, and turns the pageblock over where most of it then fits. Lock and invariants: see ``buddy.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from memtwin.hw.work import Work
from memtwin.mm.buddy import (
    HIGHATOMIC,
    MAX_ORDER,
    MOVABLE,
    NR_ORDERS,
    PAGEBLOCK_ORDER,
    PAGEBLOCK_PAGES,
    PCP_TYPES,
    RECLAIMABLE,
    TYPE_XOR,
    UNMOVABLE,
    BuddyLists,
    Run,
)
from memtwin.mm.page import PG_LRU, PageArrays
from memtwin.mm.pcp import PerCpuPages

if TYPE_CHECKING:
    from memtwin.events.tracepoint import Tracepoints

__all__ = ["Zone", "lowmem_reserves", "min_free_kbytes", "recommended_min_free_kbytes"]

ZONE_DMA: Final = 0
ZONE_DMA32: Final = 1
ZONE_NORMAL: Final = 2
ZONE_MOVABLE: Final = 3
ZONE_NAMES: Final = ("DMA", "DMA32", "Normal", "Movable")
DMA_END: Final = 1 << 12  #: first pfn above 16 MiB
DMA32_END: Final = 1 << 20  #: first pfn above 4 GiB

WMARK_MIN: Final = 0
WMARK_LOW: Final = 1
WMARK_HIGH: Final = 2
WMARK_PROMO: Final = 3

# Allocation flags beyond the watermark level: who may dip into the reserves, and what a steal may do.
ALLOC_NO_WATERMARKS: Final = 0x01
ALLOC_OOM: Final = 0x02  #: the OOM killer's victim: half of the reserve
ALLOC_MIN_RESERVE: Final = 0x04  #: __GFP_HIGH: half of the reserve
ALLOC_NON_BLOCK: Final = 0x08  #: with MIN_RESERVE: another quarter
ALLOC_NOFRAGMENT: Final = 0x10  #: rather another zone than mixing types in a pageblock
ALLOC_KSWAPD: Final = 0x20
ALLOC_HIGHATOMIC: Final = 0x40  #: order > 0: may use and extend the reserve of HIGHATOMIC pageblocks
ALLOC_RESERVES: Final = ALLOC_NO_WATERMARKS | ALLOC_OOM | ALLOC_MIN_RESERVE | ALLOC_NON_BLOCK

#: Which types lend to which, in order of preference.
FALLBACKS: Final = {
    UNMOVABLE: (RECLAIMABLE, MOVABLE),
    MOVABLE: (RECLAIMABLE, UNMOVABLE),
    RECLAIMABLE: (UNMOVABLE, MOVABLE),
}
USABLE_TYPES: Final = (UNMOVABLE, MOVABLE, RECLAIMABLE)


class Zone(BuddyLists):
    """Zone ``zid`` of node ``nid``; empty zones exist too (``managed == 0``).

    ``watermarks`` pages without boost, see :meth:`wmark`; ``lowmem_reserve[class]`` pages kept from allocations that
    could have used a higher zone; ``spanned`` pages of the range, ``managed`` those the allocator was given; ``pcps``
    one per CPU. ``allocations`` counts successful allocations, ``extra_pages`` the pages of those above one each,
    ``numa_miss`` those that wanted another node, ``numa_foreign`` those that wanted this one and got another,
    ``numa_other`` those from a CPU of another node.
    """

    __slots__ = (
        "allocations",
        "boost",
        "boost_factor",
        "extra_pages",
        "lowmem_reserve",
        "managed",
        "name",
        "nid",
        "nr_highatomic",
        "numa_foreign",
        "numa_miss",
        "numa_other",
        "on_marks",
        "pcps",
        "poisoned",
        "reclaim_active",
        "spanned",
        "steals",
        "trace",
        "watermarks",
        "zid",
    )

    def __init__(
        self, nid: int, zid: int, start: int, end: int, pages: PageArrays, block_types: memoryview, work: Work
    ) -> None:
        super().__init__(start, end, pages, block_types, work)
        self.nid = nid
        self.zid = zid
        self.name = ZONE_NAMES[zid]
        self.spanned = end - start
        self.managed = 0
        self.watermarks = [0, 0, 0, 0]
        self.lowmem_reserve = [0, 0, 0, 0]
        self.boost = 0
        self.boost_factor = 15000
        #: Pages in HIGHATOMIC pageblocks, free or not.
        self.nr_highatomic = 0
        #: Called after ``boost`` or ``nr_highatomic`` changed: whoever caches watermarks forgets them.
        self.on_marks: Callable[[], None] | None = None
        self.pcps: list[PerCpuPages] = []
        #: Pages taken out because of poison; they stay ``managed`` in Linux too.
        self.poisoned = 0
        self.reclaim_active = False
        self.allocations = 0
        self.extra_pages = 0
        self.numa_miss = 0
        self.numa_foreign = 0
        self.numa_other = 0
        self.steals = 0
        self.trace: Tracepoints | None = None

    # Watermarks

    def wmark(self, level: int) -> int:
        """Watermark ``level`` (WMARK_*) in pages, boost included."""
        return self.watermarks[level] + self.boost

    def watermark_ok(self, order: int, mark: int, highest_zid: int, alloc_flags: int = 0) -> bool:
        """Whether an allocation of ``order`` leaves more than ``mark`` pages plus the lowmem reserve of its class.

        For order > 0 a large enough free block of a usable type must exist as well. Reserves (spec M3): a high-priority
        request may use half of the mark, one that can not block another quarter of the rest, an OOM victim half of what
        then remains.
        """
        free = self.nr_free - ((1 << order) - 1)
        if not alloc_flags & ALLOC_RESERVES:
            free -= self.nr_highatomic
        elif alloc_flags & ALLOC_NO_WATERMARKS:
            return True
        else:
            if alloc_flags & ALLOC_MIN_RESERVE:
                mark -= mark // 2
                if alloc_flags & ALLOC_NON_BLOCK:
                    mark -= mark // 4
            if alloc_flags & ALLOC_OOM:
                mark -= mark // 2
        if free <= mark + self.lowmem_reserve[highest_zid]:
            return False
        if not order or self.has_block(order, USABLE_TYPES):
            return True
        return bool(alloc_flags & (ALLOC_HIGHATOMIC | ALLOC_OOM)) and self.has_block(order, (HIGHATOMIC,))

    @property
    def below_high(self) -> bool:
        """Free pages are at or below the high watermark: per-CPU lists must not grow now."""
        return self.nr_free <= self.watermarks[WMARK_HIGH] + self.boost

    def set_watermarks(self, minimum: int, scale_factor: int) -> None:
        """Set all watermarks from ``min`` (pages): equal steps of max(min/4, managed * scale_factor / 10000); ends a
        boost."""
        step = max(minimum >> 2, self.managed * scale_factor // 10000)
        self.watermarks = [minimum + step * level for level in range(4)]
        self.boost = 0

    def boost_watermark(self) -> None:
        """A steal mixed types: raise the watermarks by one pageblock, to at most ``boost_factor``/10000 of high, so
        that kswapd frees enough to make the next steal unnecessary."""
        high = self.watermarks[WMARK_HIGH]
        if not self.boost_factor or not high or self.managed < 4 * PAGEBLOCK_PAGES:
            return
        most = max(high * self.boost_factor // 10000, PAGEBLOCK_PAGES)
        self.set_boost(min(self.boost + PAGEBLOCK_PAGES, most))

    def set_boost(self, pages: int) -> None:
        """Set the boost to ``pages``."""
        if pages != self.boost:
            self.boost = pages
            self._marks_changed()

    def _marks_changed(self) -> None:
        if self.on_marks is not None:
            self.on_marks()

    # Allocation with mobility grouping

    def rmqueue(self, order: int, migratetype: int, alloc_flags: int = 0) -> int:
        """Allocate a block of ``order`` from the lists, stealing from another type when they are empty; 0 if nothing
        fits. Requests that must not wait try the HIGHATOMIC reserve, first for order > 0 and last for order 0."""
        if order and alloc_flags & ALLOC_HIGHATOMIC:
            pfn = self.rmqueue_smallest(order, HIGHATOMIC)
            if pfn:
                return pfn
        while True:
            pfn = self.rmqueue_smallest(order, migratetype)
            if pfn:
                return pfn
            if not self.steal(order, migratetype, alloc_flags):
                break
        if alloc_flags & (ALLOC_OOM | ALLOC_NON_BLOCK):
            return self.rmqueue_smallest(order, HIGHATOMIC)
        return 0

    def rmqueue_runs(self, count: int, migratetype: int, alloc_flags: int = 0) -> list[Run]:
        """Take ``count`` order-0 pages (or as many as there are) as contiguous runs: the pages that as many
        ``rmqueue(0)`` would."""
        runs: list[Run] = []
        while count:
            first, size = self.take_run(count, migratetype)
            if size:
                runs.append((first, size))
                count -= size
            elif not self.steal(0, migratetype, alloc_flags):
                break
        return runs

    def steal(self, order: int, migratetype: int, alloc_flags: int) -> bool:
        """Move free memory of another type to the lists of ``migratetype``, which have nothing of ``order``. False:
        nothing to take.

        The largest block is taken; a MOVABLE request that may not claim a pageblock takes the smallest that is enough.
        """
        fallbacks = FALLBACKS.get(migratetype)
        if fallbacks is None:
            return False
        floor = max(order, PAGEBLOCK_ORDER) if alloc_flags & ALLOC_NOFRAGMENT else order
        for current in range(MAX_ORDER, floor - 1, -1):
            source = self._lender(current, fallbacks)
            if source < 0:
                continue
            may_claim = current >= PAGEBLOCK_ORDER // 2 or migratetype != MOVABLE
            if not may_claim and current > order:
                for current in range(order, MAX_ORDER + 1):
                    source = self._lender(current, fallbacks)
                    if source >= 0:
                        break
            pfn = self._steal_block(current, source, migratetype, may_claim)
            if self.trace is not None and self.trace.mm_page_alloc_extfrag is not None:
                changed = self.migratetype(pfn) == migratetype
                self.trace.mm_page_alloc_extfrag(pfn, order, current, migratetype, source, changed)
            return True
        return False

    def _lender(self, order: int, fallbacks: tuple[int, ...]) -> int:
        lists = self.lists[order]
        for migratetype in fallbacks:
            if lists[migratetype] or (order == MAX_ORDER and migratetype == MOVABLE and self.virgin):
                return migratetype
        return -1

    def _steal_block(self, order: int, source: int, migratetype: int, may_claim: bool) -> int:
        """Move the block at the head of the lender's list, alone or with its pageblock; returns its pfn."""
        self.steals += 1
        blocks = self.lists[order][source]
        pfn = next(reversed(blocks)) if blocks else self.virgin[-1][0]
        if not blocks:
            self.list_virgin(pfn)
        if order >= PAGEBLOCK_ORDER:
            for first in range(pfn, pfn + (1 << order), PAGEBLOCK_PAGES):
                self._set_type(first, migratetype)
            self._move_block(pfn, order, source, migratetype)
            return pfn
        self.boost_watermark()
        if not may_claim or not self._claim_pageblock(pfn, migratetype):
            self._move_block(pfn, order, source, migratetype)
        return pfn

    def _move_block(self, pfn: int, order: int, source: int, target: int) -> None:
        lists = self.lists[order]
        del lists[source][pfn]
        lists[target][pfn] = None

    def _claim_pageblock(self, pfn: int, migratetype: int) -> bool:
        """Move all free blocks of the pageblock to ``migratetype``, and turn its type over where free and compatible
        pages make up half.

        Compatible: for MOVABLE the movable pages (on an LRU); for the others what is neither free nor movable in a
        MOVABLE block.
        """
        first = pfn >> PAGEBLOCK_ORDER << PAGEBLOCK_ORDER
        end = first + PAGEBLOCK_PAGES
        if first < self.start or end > self.end:
            return False
        old_type = self.migratetype(first)
        free = self._move_freepages(first, migratetype)
        movable = self._movable_pages(first, end)
        alike = movable
        if migratetype != MOVABLE:
            alike = PAGEBLOCK_PAGES - free - movable if old_type == MOVABLE else 0
        if free + alike >= PAGEBLOCK_PAGES // 2:
            self._set_type(first, migratetype)
        return True

    def _move_freepages(self, first: int, migratetype: int) -> int:
        """Move the free blocks inside the pageblock at ``first`` to the lists of ``migratetype``; returns their
        pages."""
        free = 0
        for offset in np.flatnonzero(self.pages.vec.buddy[first : first + PAGEBLOCK_PAGES]).tolist():
            head = first + offset
            order = self.buddy[head] - 1
            lists = self.lists[order]
            for blocks in lists:
                blocks.pop(head, None)
            lists[migratetype][head] = None
            free += 1 << order
        return free

    # The HIGHATOMIC reserve

    def reserve_highatomic(self, pfn: int) -> None:
        """A request that could not wait got a block of order > 0 at ``pfn``: keep its pageblock for the next such one.

        The reserve stays within 1 % of the zone, rounded up to a pageblock.
        """
        most = -(-(self.managed // 100) // PAGEBLOCK_PAGES) * PAGEBLOCK_PAGES
        first = pfn >> PAGEBLOCK_ORDER << PAGEBLOCK_ORDER
        inside = first >= self.start and first + PAGEBLOCK_PAGES <= self.end
        if self.nr_highatomic >= most or not inside or self.migratetype(pfn) >= PCP_TYPES:
            return
        self._set_type(first, HIGHATOMIC)
        self._move_freepages(first, HIGHATOMIC)
        self.nr_highatomic += PAGEBLOCK_PAGES
        self._marks_changed()

    def unreserve_highatomic(self, migratetype: int, force: bool) -> bool:
        """Memory is short: turn one HIGHATOMIC pageblock that has free pages over to ``migratetype``. The last one only
        with ``force``. False if there was none."""
        if self.nr_highatomic <= (0 if force else PAGEBLOCK_PAGES):
            return False
        for order in range(NR_ORDERS):
            blocks = self.lists[order][HIGHATOMIC]
            if blocks:
                first = next(reversed(blocks)) >> PAGEBLOCK_ORDER << PAGEBLOCK_ORDER
                self._set_type(first, migratetype)
                self._move_freepages(first, migratetype)
                self.nr_highatomic -= PAGEBLOCK_PAGES
                self._marks_changed()
                return True
        return False

    def _set_type(self, pfn: int, migratetype: int) -> None:
        self.block_types[pfn >> PAGEBLOCK_ORDER] = migratetype ^ TYPE_XOR

    def _movable_pages(self, first: int, end: int) -> int:
        """Pages of [first, end) in folios on an LRU list."""
        vec = self.pages.vec
        order = vec.comp_order[first:end].astype(np.int64)
        heads: npt.NDArray[np.int64] = np.arange(first, end, dtype=np.int64) >> order << order
        return int(np.count_nonzero(vec.flags[heads] & PG_LRU))


def min_free_kbytes(lowmem_pages: int) -> int:
    """The default of vm.min_free_kbytes: sqrt(16 * lowmem in KiB), from 128 to 262144 (admin-guide/sysctl/vm)."""
    return min(max(isqrt(lowmem_pages * 4 * 16), 128), 262144)


def recommended_min_free_kbytes(populated_zones: int, free_buffer_pages: int) -> int:
    """What transparent huge pages raise it to: 2 + 3*3 pageblocks per populated zone, at most 5 % of lowmem above high
    (spec M3)."""
    return min(PAGEBLOCK_PAGES * populated_zones * (2 + 9), free_buffer_pages // 20) * 4


def lowmem_reserves(managed: list[int], ratios: tuple[int, ...]) -> list[list[int]]:
    """``reserve[zone][class]`` of one node: the managed pages of the zones above, up to the class, divided by the
    zone's ratio."""
    reserve = [[0] * len(managed) for _ in managed]
    for zone, pages in enumerate(managed):
        above = 0
        for upper in range(zone + 1, len(managed)):
            above += managed[upper]
            if pages and ratios[zone]:
                reserve[zone][upper] = above // ratios[zone]
    return reserve
