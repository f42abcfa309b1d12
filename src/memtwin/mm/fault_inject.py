# SPDX-License-Identifier: GPL-2.0-or-later
"""Allocation fault injection (Linux: lib/fault-inject.c, mm/fail_page_alloc.c, mm/failslab.c).

One object is consulted by the page allocator and by object caches; without one they pay a single ``is not None``. Every
passed allocation point is counted, so that a test can run a sequence once, read ``points``, and then fail the k-th
point for each k. The attributes have the names and the meaning of the files in debugfs: Documentation/fault-injection.
"""

from __future__ import annotations

import random

from memtwin.lib import gfp_types as g

__all__ = ["FaultInjection"]


class FaultInjection:
    """When to fail an allocation.

    ``fail_nth`` n: fail the n-th point passed from now on (1 = the next), once. Otherwise ``probability`` percent of
    every ``interval``-th call, at most ``times`` times (-1: no limit), after ``space`` bytes were allocated without
    failing. ``ignore_gfp_wait``: spare page allocations that may sleep, as Linux does by default; ``min_order``: spare
    smaller ones. ``points`` allocation points passed; ``failed`` how many were made to fail.
    """

    __slots__ = (
        "_random",
        "fail_nth",
        "failed",
        "ignore_gfp_wait",
        "interval",
        "min_order",
        "pages",
        "points",
        "probability",
        "slabs",
        "space",
        "times",
    )

    def __init__(
        self,
        *,
        fail_nth: int = 0,
        probability: int = 0,
        interval: int = 1,
        times: int = -1,
        space: int = 0,
        ignore_gfp_wait: bool = False,
        min_order: int = 0,
        pages: bool = True,
        slabs: bool = True,
        seed: int = 0,
    ) -> None:
        """``pages`` / ``slabs``: which allocators take part; ``seed`` of the probability's own random stream."""
        self.fail_nth = fail_nth
        self.probability = probability
        self.interval = interval
        self.times = times
        self.space = space
        self.ignore_gfp_wait = ignore_gfp_wait
        self.min_order = min_order
        self.pages = pages
        self.slabs = slabs
        self.points = 0
        self.failed = 0
        self._random = random.Random(seed)

    def should_fail_page(self, gfp: int, order: int) -> bool:
        """Consulted for a page allocation. Allocations that must not fail are spared."""
        if not self.pages or order < self.min_order or gfp & g.NOFAIL:
            return False
        if self.ignore_gfp_wait and gfp & g.DIRECT_RECLAIM:
            return False
        return self._should_fail(4096 << order)

    def should_fail_slab(self, gfp: int, size: int) -> bool:
        """Consulted for an object of ``size`` bytes (or a bulk of them) of a cache."""
        if not self.slabs or gfp & g.NOFAIL or (self.ignore_gfp_wait and gfp & g.DIRECT_RECLAIM):
            return False
        return self._should_fail(size)

    def _should_fail(self, size: int) -> bool:
        self.points += 1
        if self.fail_nth:
            self.fail_nth -= 1
            if self.fail_nth:
                return False
            self.failed += 1
            return True
        if not self.probability or not self.times:
            return False
        if self.space > size:
            self.space -= size
            return False
        if self.points % self.interval or self._random.randrange(100) >= self.probability:
            return False
        self.failed += 1
        if self.times > 0:
            self.times -= 1
        return True
