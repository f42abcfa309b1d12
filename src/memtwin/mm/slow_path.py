# SPDX-License-Identifier: GPL-2.0-or-later
"""An allocation that the low watermark refused (Linux: the slow path of mm/page_alloc.c).

Wake kswapd; try at the min watermark; reclaim, as long as that makes progress; free the per-CPU lists; ask the OOM
killer; fail. How far it goes is in the GFP mask: without DIRECT_RECLAIM it fails at min (NOWAIT), NORETRY reclaims
once, RETRY_MAYFAIL does everything but kill, orders above 3 are not worth a kill, NOFAIL does not give up. Compaction
is not modelled.

Linux asks whether a retry can succeed by comparing LRU pages with the min watermark; the twin has no LRU yet, so there
progress itself is the answer: it retries while reclaim returns pages. No lock is held here, as the caller may sleep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from memtwin.errors import Deadlock
from memtwin.lib import gfp_types as g
from memtwin.mm.gfp import AllocPlan
from memtwin.mm.pcp import COSTLY_ORDER
from memtwin.mm.zone import (
    ALLOC_HIGHATOMIC,
    ALLOC_MIN_RESERVE,
    ALLOC_NO_WATERMARKS,
    ALLOC_NOFRAGMENT,
    WMARK_HIGH,
    WMARK_MIN,
    ZONE_NAMES,
)

if TYPE_CHECKING:
    from memtwin.mm.page_alloc import PageAllocator

__all__ = ["SlowPath"]

MAX_RECLAIM_RETRIES: Final = 16  #: rounds without progress before giving up


class SlowPath:
    """The slow path of one allocator."""

    __slots__ = ("_alloc", "_warned")

    def __init__(self, alloc: PageAllocator) -> None:
        self._alloc = alloc
        self._warned = False

    def alloc(self, plan: AllocPlan, order: int) -> int:
        """The pfn of a block, or 0. Raises Deadlock if an allocation that must not fail has nothing to wait for."""
        gfp = plan.gfp
        alloc = self._alloc
        alloc_flags = plan.alloc_flags & ~ALLOC_NOFRAGMENT
        reclaim = alloc.reclaim
        may_reclaim = gfp & g.DIRECT_RECLAIM
        fruitless = 0
        drained = False
        while True:
            if gfp & g.KSWAPD_RECLAIM:
                alloc.kswapd.wake(plan.zones, order, gfp)
            if gfp & g.MEMALLOC or (reclaim.is_reclaiming() and not gfp & g.NOMEMALLOC):
                alloc_flags |= ALLOC_NO_WATERMARKS
            pfn = alloc.get_page_from_freelist(plan, order, WMARK_MIN, alloc_flags)
            if pfn:
                return pfn
            if not may_reclaim or reclaim.is_reclaiming():
                break
            progress = self._direct_reclaim(plan, order)
            pfn = alloc.get_page_from_freelist(plan, order, WMARK_MIN, alloc_flags)
            if pfn:
                return pfn
            if progress and not drained:  # what was freed may hide on per-CPU lists and in the reserve
                drained = self._drain(plan, force=False)
                continue
            if gfp & g.NORETRY or (order > COSTLY_ORDER and not gfp & (g.RETRY_MAYFAIL | g.NOFAIL)):
                break
            fruitless = 0 if progress and order <= COSTLY_ORDER else fruitless + 1
            if progress and fruitless <= MAX_RECLAIM_RETRIES:
                continue
            if not drained:
                drained = self._drain(plan, force=True)
                continue
            if self._may_oom(plan, order):
                fruitless, drained = 0, False
                continue
            if not gfp & g.NOFAIL:
                break
            pfn = alloc.get_page_from_freelist(plan, order, WMARK_MIN, alloc_flags | ALLOC_MIN_RESERVE)
            if pfn:
                return pfn
            raise Deadlock(f"an order-{order} allocation that must not fail finds no memory, and nothing can be freed")
        self._warn(gfp, order)
        return 0

    def _direct_reclaim(self, plan: AllocPlan, order: int) -> int:
        """Reclaim in the caller's context; returns pages freed. Counted in ``allocstall_`` of the request's highest
        zone."""
        alloc = self._alloc
        name = f"allocstall_{ZONE_NAMES[plan.highest].lower()}"
        setattr(alloc.events, name, getattr(alloc.events, name) + 1)
        nids = tuple(dict.fromkeys(zone.nid for zone in plan.zones))
        return alloc.reclaim.try_to_free_pages(plan.gfp, order, nids)

    def _drain(self, plan: AllocPlan, force: bool) -> bool:
        for zone in plan.zones:
            zone.unreserve_highatomic(plan.migratetype, force)
        self._alloc.drain_all_pages()
        return True

    def _may_oom(self, plan: AllocPlan, order: int) -> bool:
        """Kill for memory? Not for what is costly, restricted to a node, or said that it may fail; and not if one last
        try at the high watermark shows that somebody else has freed memory meanwhile (then True as well)."""
        if order > COSTLY_ORDER or plan.gfp & (g.RETRY_MAYFAIL | g.THISNODE):
            return False
        flags = plan.alloc_flags & ~(ALLOC_NOFRAGMENT | ALLOC_MIN_RESERVE | ALLOC_HIGHATOMIC)
        if any(zone.watermark_ok(order, zone.wmark(WMARK_HIGH), plan.highest, flags) for zone in plan.zones):
            return True
        oom = self._alloc.oom
        return oom is not None and oom(plan.gfp, order)

    def _warn(self, gfp: int, order: int) -> None:
        """One line in the kernel log, the first time only (Linux limits the rate), unless NOWARN."""
        printk = self._alloc.printk
        if not gfp & g.NOWARN and not self._warned and printk is not None:
            self._warned = True
            printk(f"page allocation failure: order:{order}, mode:{gfp:#x}({g.gfp_names(gfp)})")
