# SPDX-License-Identifier: GPL-2.0-or-later
"""Reclaim through registered shrinkers (Linux: mm/vmscan.c and mm/shrinker.c; the LRU lists come later).

A shrinker owns objects it can drop: it counts them, and scans so many of them when asked. Pressure is told as a
*priority* from 12 (a 4096th of the objects) down to 0 (all of them). Direct reclaim and kswapd use the same engine and
stop at SWAP_CLUSTER_MAX pages or at the high watermark. Progress is counted in *pages* that came back: object caches
report the slabs they return and others call :meth:`Reclaim.account_reclaimed_pages`. No locks: shrinkers are called
without any allocator lock held.
"""

from __future__ import annotations

from typing import Final, Protocol

from memtwin.mm.vmstat import VmEvents

__all__ = ["Reclaim", "Shrinker"]

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

    __slots__ = ("events", "reclaimed", "shrinkers")

    def __init__(self, events: VmEvents) -> None:
        self.events = events
        self.shrinkers: list[Shrinker] = []
        self.reclaimed = 0

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
        return freed

    def try_to_free_pages(self, gfp: int, nids: tuple[int, ...]) -> int:
        """One round of direct reclaim over ``nids``: ever harder until SWAP_CLUSTER_MAX pages came back. Returns pages
        freed."""
        start = self.reclaimed
        for priority in range(DEF_PRIORITY, -1, -1):
            for nid in nids:
                self.shrink_slab(gfp, nid, priority)
            if self.reclaimed - start >= SWAP_CLUSTER_MAX:
                break
        return self.reclaimed - start

    def drop_slab(self, nids: tuple[int, ...]) -> None:
        """``echo 2 > /proc/sys/vm/drop_caches``: shrink everything at priority 0 until little comes back."""
        self.events.drop_slab += 1
        for shift in range(64):
            freed = sum(self.shrink_slab(0, nid, 0) for nid in nids)
            if freed >> shift <= 1:
                break
