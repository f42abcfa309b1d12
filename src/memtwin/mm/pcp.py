# SPDX-License-Identifier: GPL-2.0-or-later
"""Per-CPU page lists: a CPU's own small stock of free pages (Linux: struct per_cpu_pages, the pcp half of
mm/page_alloc.c).

Thirteen stacks a zone and CPU: three migratetypes times orders 0-3, and one for order 9. The last element of a Python
list is the head; pages go in and out there, and are given back from the other end, where the coldest lie. ``high``
floats between ``high_min`` and ``high_max`` ("mm, pcp: ..." auto-tuning, in v6.7). In the order-0 hot path
``page_alloc.py`` works on the attributes itself. Invariant: ``count`` is the number of pages (not blocks) in all
stacks.
"""

from __future__ import annotations

from typing import Final

__all__ = ["PerCpuPages", "pageset_batch", "pcp_order_index", "vm_stat_threshold"]

NR_PCP_LISTS: Final = 13
NR_TYPES: Final = 3
COSTLY_ORDER: Final = 3  #: PAGE_ALLOC_COSTLY_ORDER: larger allocations may fail
HUGE_ORDER: Final = 9
HUGE_INDEX: Final = 12
BATCH_SCALE_MAX: Final = 5  #: a streak grows the refill to at most batch << 5 (CONFIG_PCP_BATCH_SCALE_MAX)
HIGH_FRACTION: Final = 8  #: high_max is an eighth of the zone, shared by the node's CPUs


class PerCpuPages:
    """The lists of one CPU in one zone.

    ``stacks[index]`` lists of head pfns; ``count`` pages held; ``batch`` pages moved at a time at least;
    ``alloc_factor`` doublings of the refill in the current streak of allocations; ``free_count`` pages freed in the
    current streak.
    """

    __slots__ = ("alloc_factor", "batch", "count", "free_count", "high", "high_max", "high_min", "stacks", "streak_max")

    def __init__(self) -> None:
        self.stacks: list[list[int]] = [[] for _ in range(NR_PCP_LISTS)]
        self.count = 0
        self.high = 0
        self.set_limits(1, 0, 0)
        self.alloc_factor = 0
        self.free_count = 0

    def refill_batch(self, order: int, below_high: bool) -> int:
        """How many blocks of ``order`` an empty list asks the zone for.

        Order 0 doubles with every refill of a streak, as far as ``high`` has room; larger orders get the batch's worth
        of pages. The floating limit rises by one batch with each refill while the zone is above its high watermark.
        """
        batch = self.batch
        if self.high_min == self.high_max:
            high = self.high_min
        else:
            if not below_high:
                self.high = min(self.high + batch, self.high_max)
            high = self.high
        if high < 2 * batch:
            return 1
        if not order:
            room = max(high - self.count - batch, batch)
            batch <<= self.alloc_factor
            if batch <= room and self.alloc_factor < BATCH_SCALE_MAX:
                self.alloc_factor += 1
            batch = min(batch, room)
        return max(batch >> order, 2) if batch > 1 else batch

    def limit(self, below_high: bool, reclaim_active: bool) -> int:
        """``high`` as it counts now, adapted: raised to hold what this CPU frees in a streak, lowered while memory is
        short."""
        high = self.high
        if self.high_min == self.high_max:
            return self.high_min
        if reclaim_active:
            short = min(4 * self.batch, high)
            self.high = max(high - self.free_count, self.high_min)
            return short
        if below_high:
            self.high = max(high - self.free_count, self.high_min)
            return max(self.count, self.high_min)
        if self.count >= high:
            needed = max(self.free_count + self.batch, self.high_min)
            if high < needed:
                self.high = min(max(needed, self.high_min), self.high_max)
        return self.high

    def give_back(self, high: int) -> int:
        """Pages to return to the zone once ``count`` reached ``high``: at least a batch, more in a streak of frees."""
        if high < self.batch:
            return 1
        return min(max(self.free_count, self.batch), max(high - self.batch, self.batch))

    def take_coldest(self, pages: int, index: int) -> list[tuple[int, int, int]]:
        """Remove at least ``pages`` pages (fewer if there are no more) from the cold ends, the list ``index`` first,
        then round robin.

        Returns blocks as (pfn, order, migratetype).
        """
        taken: list[tuple[int, int, int]] = []
        pages = min(pages, self.count)
        while pages > 0:
            stack = self.stacks[index]
            if stack:
                order, migratetype = index_order(index), index_type(index)
                blocks = min(len(stack), (pages + (1 << order) - 1) >> order)
                taken += [(pfn, order, migratetype) for pfn in stack[:blocks]]
                del stack[:blocks]
                pages -= blocks << order
                self.count -= blocks << order
            index = (index + 1) % NR_PCP_LISTS
        return taken

    def set_limits(self, batch: int, low: int, most: int) -> None:
        """New batch and bounds; ``high`` follows at the next use."""
        self.batch = batch
        self.high_min = low
        self.high_max = most
        #: ``free_count`` does not grow beyond this.
        self.streak_max = batch << BATCH_SCALE_MAX


def pcp_order_index(order: int, migratetype: int) -> int:
    """Which of the 13 lists holds blocks of ``order``, -1 if none does."""
    if order <= COSTLY_ORDER:
        return order * NR_TYPES + migratetype
    return HUGE_INDEX if order == HUGE_ORDER else -1


def index_order(index: int) -> int:
    """Order of the blocks in list ``index``."""
    return HUGE_ORDER if index == HUGE_INDEX else index // NR_TYPES


def index_type(index: int) -> int:
    """Migratetype of the blocks in list ``index`` (the huge list holds MOVABLE blocks)."""
    return 1 if index == HUGE_INDEX else index % NR_TYPES


def pageset_batch(managed: int) -> int:
    """Pages moved at a time: about a quarter of managed/1024, at most 1 MiB/4, times 1.5, rounded down to 2^n - 1 (spec
    M3)."""
    batch = max(min(managed >> 10, 256) // 4, 1)
    batch += batch // 2
    return max((1 << (batch.bit_length() - 1)) - 1, 1)


def vm_stat_threshold(managed: int, online_cpus: int) -> int:
    """``vm stats threshold`` of /proc/zoneinfo: 2 * fls(cpus) * (1 + fls(managed / 128 MiB)), at most 125 (measured on
    6.18)."""
    return min(2 * online_cpus.bit_length() * (1 + (managed >> 15).bit_length()), 125)
