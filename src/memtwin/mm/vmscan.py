# SPDX-License-Identifier: GPL-2.0-or-later
"""Reclaim through registered shrinkers (Linux: mm/vmscan.c and mm/shrinker.c; the LRU lists come later).

A shrinker owns objects it can drop: it counts them, and scans so many of them when asked. Pressure is told as a
*priority* from 12 (a 4096th of the objects) down to 0 (all of them). Direct reclaim and kswapd use the same engine and
stop at SWAP_CLUSTER_MAX pages or at the high watermark. Progress is counted in *pages* that came back: object caches
report the slabs they return and others call :meth:`Reclaim.account_reclaimed_pages`. No locks: shrinkers are called
without any allocator lock held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from memtwin.lib.gfp_types import GFP_KERNEL
from memtwin.mm.vmstat import VmEvents
from memtwin.mm.zone import WMARK_HIGH, Zone

if TYPE_CHECKING:
    from memtwin.events.tracepoint import Tracepoints

__all__ = ["Kswapd", "Reclaim", "Shrinker"]

DEF_PRIORITY: Final = 12
SWAP_CLUSTER_MAX: Final = 32
DEFAULT_SEEKS: Final = 2  #: cost of recreating an object, in disk seeks
SHRINK_BATCH: Final = 128
SHRINK_STOP: Final = -1  #: returned by a scan that can not make progress now (say, a lock it needs is held)


class ShrinkerCallbacks(Protocol):
    """What a subsystem provides to be shrunk."""

    def count_objects(self, gfp: int, nid: int) -> int:
        """Objects that could be freed now."""

    def scan_objects(self, gfp: int, nid: int, nr_to_scan: int) -> int:
        """Look at up to ``nr_to_scan`` objects; returns how many were freed, or SHRINK_STOP."""


class Shrinker:
    """A registered shrinker. ``seeks`` 0 means "cheap to recreate": half of the objects each time."""

    __slots__ = ("batch", "callbacks", "deferred", "name", "seeks")

    def __init__(
        self, name: str, callbacks: ShrinkerCallbacks, seeks: int = DEFAULT_SEEKS, batch: int = SHRINK_BATCH
    ) -> None:
        self.name = name
        self.callbacks = callbacks
        self.seeks = seeks
        self.batch = batch
        #: Per node: objects that should have been scanned and were not, asked for again next time.
        self.deferred: dict[int, int] = {}


class Reclaim:
    """All shrinkers of a machine and what reclaim achieved. ``reclaimed`` pages since boot."""

    __slots__ = ("_active", "events", "reclaimed", "shrinkers", "task_id", "trace")

    def __init__(self, events: VmEvents) -> None:
        self.events = events
        self.shrinkers: list[Shrinker] = []
        self.reclaimed = 0
        self.trace: Tracepoints | None = None
        #: Names the running task; without it all reclaim counts as one task's.
        self.task_id: Callable[[], int] | None = None
        self._active: dict[int, None] = {}

    def is_reclaiming(self) -> bool:
        """Whether the running task is inside reclaim: it may then use all memory, and must not reclaim again."""
        return bool(self._active) and (self.task_id() if self.task_id is not None else 0) in self._active

    def begin(self) -> int:
        """The running task enters reclaim; returns what ``end`` needs."""
        task = self.task_id() if self.task_id is not None else 0
        self._active[task] = None
        return task

    def end(self, task: int) -> None:
        """The task leaves reclaim."""
        del self._active[task]

    def register_shrinker(self, shrinker: Shrinker) -> None:
        """Add a shrinker; they are asked in the order of registration."""
        self.shrinkers.append(shrinker)

    def unregister_shrinker(self, shrinker: Shrinker) -> None:
        """Remove a shrinker."""
        self.shrinkers.remove(shrinker)

    def account_reclaimed_pages(self, pages: int) -> None:
        """Pages a shrinker gave back to the page allocator other than through an object cache."""
        self.reclaimed += pages

    def shrink_slab(self, gfp: int, nid: int, priority: int) -> int:
        """Ask every shrinker for its share on node ``nid``; returns objects freed. Counts ``slabs_scanned``."""
        return sum(self._do_shrink_slab(shrinker, gfp, nid, priority) for shrinker in tuple(self.shrinkers))

    def _do_shrink_slab(self, shrinker: Shrinker, gfp: int, nid: int, priority: int) -> int:
        """The share: 4/seeks of objects >> priority plus what was deferred, at most twice the objects, asked for in
        batches."""
        callbacks = shrinker.callbacks
        freeable = callbacks.count_objects(gfp, nid)
        if freeable <= 0:
            return 0
        deferred = shrinker.deferred.pop(nid, 0)
        delta = (freeable >> priority) * 4 // shrinker.seeks if shrinker.seeks else freeable // 2
        to_scan = min((deferred >> priority) + delta, 2 * freeable)
        freed = scanned = 0
        trace = self.trace
        if trace is not None and trace.mm_shrink_slab_start is not None:
            name = shrinker.name
            trace.mm_shrink_slab_start(name, name, nid, deferred, gfp, freeable, delta, to_scan, priority)
        while to_scan >= shrinker.batch or to_scan >= freeable:
            part = min(shrinker.batch, to_scan)
            if part <= 0:
                break
            got = callbacks.scan_objects(gfp, nid, part)
            if got == SHRINK_STOP:
                break
            freed += got
            self.events.slabs_scanned += part
            to_scan -= part
            scanned += part
        left = min(max(deferred + delta - scanned, 0), 2 * freeable)
        if left:
            shrinker.deferred[nid] = left
        if trace is not None and trace.mm_shrink_slab_end is not None:
            trace.mm_shrink_slab_end(shrinker.name, nid, shrinker.name, deferred, left, freed, to_scan)
        return freed

    def try_to_free_pages(self, gfp: int, order: int, nids: tuple[int, ...]) -> int:
        """One round of direct reclaim over ``nids``: ever harder until SWAP_CLUSTER_MAX pages came back. Returns pages
        freed."""
        start = self.reclaimed
        trace = self.trace
        if trace is not None and trace.mm_vmscan_direct_reclaim_begin is not None:
            trace.mm_vmscan_direct_reclaim_begin(order, gfp)
        task = self.begin()
        try:
            for priority in range(DEF_PRIORITY, -1, -1):
                for nid in nids:
                    self.shrink_slab(gfp, nid, priority)
                if self.reclaimed - start >= SWAP_CLUSTER_MAX:
                    break
        finally:
            self.end(task)
        if trace is not None and trace.mm_vmscan_direct_reclaim_end is not None:
            trace.mm_vmscan_direct_reclaim_end(self.reclaimed - start)
        return self.reclaimed - start

    def drop_slab(self, nids: tuple[int, ...]) -> None:
        """``echo 2 > /proc/sys/vm/drop_caches``: shrink everything at priority 0 until little comes back."""
        self.events.drop_slab += 1
        for shift in range(64):
            freed = sum(self.shrink_slab(0, nid, 0) for nid in nids)
            if freed >> shift <= 1:
                break


class Kswapd:
    """The reclaim daemons, one a node. ``wanted[nid]`` order that woke it and not yet served; ``wakeups`` since boot.

    Waking only notes the wish; the scheduler lets :meth:`run` do the work.
    """

    __slots__ = ("_node_zones", "_reclaim", "wakeups", "wanted")

    def __init__(self, reclaim: Reclaim, node_zones: Sequence[Sequence[Zone]]) -> None:
        self._reclaim = reclaim
        self._node_zones = node_zones
        self.wanted: dict[int, int] = {}
        self.wakeups = 0

    def wake(self, zones: Sequence[Zone], order: int, gfp: int) -> None:
        """An allocation of ``order`` found ``zones`` at their low watermarks."""
        trace = self._reclaim.trace
        for zone in zones:
            if zone.nid not in self.wanted:
                self.wakeups += 1
                self.wanted[zone.nid] = order
                if trace is not None and trace.mm_vmscan_wakeup_kswapd is not None:
                    trace.mm_vmscan_wakeup_kswapd(zone.nid, zone.zid, order, gfp)
            elif order > self.wanted[zone.nid]:
                self.wanted[zone.nid] = order

    def run(self, nid: int) -> int:
        """One wake-up of node ``nid``'s daemon: shrink, ever harder, until the node is balanced; then the boosts end.

        Returns pages freed. Counts ``pageoutrun``, and ``kswapd_high_wmark_hit_quickly`` where nothing was to do.
        """
        reclaim = self._reclaim
        order = self.wanted.pop(nid, 0)
        zones = [zone for zone in self._node_zones[nid] if zone.managed]
        start = reclaim.reclaimed
        trace = reclaim.trace
        if trace is not None and trace.mm_vmscan_kswapd_wake is not None:
            trace.mm_vmscan_kswapd_wake(nid, zones[-1].zid, order)
        reclaim.events.pageoutrun += 1
        if self.balanced(zones, order):
            reclaim.events.kswapd_high_wmark_hit_quickly += 1
        else:
            task = reclaim.begin()
            for zone in zones:
                zone.reclaim_active = True
            try:
                for priority in range(DEF_PRIORITY, -1, -1):
                    reclaim.shrink_slab(GFP_KERNEL, nid, priority)
                    if self.balanced(zones, order):
                        break
            finally:
                reclaim.end(task)
                for zone in zones:
                    zone.reclaim_active = False
        for zone in zones:
            zone.set_boost(0)
        if trace is not None and trace.mm_vmscan_kswapd_sleep is not None:
            trace.mm_vmscan_kswapd_sleep(nid)
        return reclaim.reclaimed - start

    @staticmethod
    def balanced(zones: Sequence[Zone], order: int) -> bool:
        """One zone of the node at its high watermark is enough, unless a boosted one is not."""
        highest = zones[-1].zid
        good = [zone.watermark_ok(order, zone.wmark(WMARK_HIGH), highest) for zone in zones]
        return any(good) and all(ok or not zone.boost for ok, zone in zip(good, zones, strict=True))
