# SPDX-License-Identifier: GPL-2.0-or-later
"""The page allocator (Linux: mm/page_alloc.c): zones in order of preference, per-CPU lists, slow path, bulk operations.

An allocation tries every zone of its zonelist at the low watermark, wakes kswapd, tries at min, reclaims, asks the OOM
killer and fails. GFP bits say how far it may go. What depends only on CPU, GFP and node is computed once into a
:class:`~memtwin.mm.gfp.AllocPlan`.

Lock order (Linux): per-CPU list lock, then zone lock; here both are regions without a preemption point, counted in
``work.locks``. Invariants (``page_alloc_check.py``): every managed frame is in a free list, on a per-CPU list,
allocated or poisoned; free frames have refcount and mapcount 0; pfn 0 is never handed out, so that 0 can mean failure.

A long file, because the single, the higher-order and the bulk paths work on the same private state; boot, GFP meaning,
zones, free lists, per-CPU lists, slow path and checks have files of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from memtwin.errors import InvariantBroken
from memtwin.hw.numa import Topology
from memtwin.hw.ram import Ram
from memtwin.hw.work import Work
from memtwin.lib import gfp_types as g
from memtwin.mm.before import page_alloc as before
from memtwin.mm.buddy import (
    HIGHATOMIC,
    MAX_ORDER,
    MOVABLE,
    PAGEBLOCK_ORDER,
    PCP_TYPES,
    TYPE_XOR,
    Run,
    break_down_buddy_pages,
)
from memtwin.mm.gfp import AllocPlan
from memtwin.mm.mm_init import FIRST_PFN, ZONE_MAP_SHIFT, ZoneLayout, memmap_pages
from memtwin.mm.page import CHECK_AT_FREE, PG_HEAD, PG_HWPOISON, PG_TAKENOFF, PageArrays, adjacent
from memtwin.mm.page_alloc_check import check_page_allocator
from memtwin.mm.pcp import HIGH_FRACTION, PerCpuPages, pageset_batch, pcp_order_index
from memtwin.mm.slow_path import SlowPath
from memtwin.mm.vmscan import Kswapd, Reclaim
from memtwin.mm.vmstat import NodeStat, VmEvents
from memtwin.mm.zone import (
    ALLOC_HIGHATOMIC,
    ALLOC_KSWAPD,
    ALLOC_MIN_RESERVE,
    ALLOC_NOFRAGMENT,
    WMARK_HIGH,
    WMARK_LOW,
    WMARK_MIN,
    Zone,
    min_free_kbytes,
    recommended_min_free_kbytes,
)

if TYPE_CHECKING:
    from memtwin.changes import Features
    from memtwin.events.tracepoint import Tracepoints
    from memtwin.mm.fault_inject import FaultInjection

__all__ = ["PageAllocator"]

Pfns = npt.NDArray[np.int64]

#: A plan's key is the GFP mask, plus the node asked for from this bit on.
_NID_SHIFT: Final = 32
#: Flags that keep a page from the short way out of ``free_pages``.
_UNUSUAL: Final = CHECK_AT_FREE | PG_HWPOISON | PG_HEAD
#: What the first attempt keeps of an allocation's flags: at the low watermark nobody dips into reserves.
_POLITE: Final = ALLOC_NOFRAGMENT | ALLOC_KSWAPD


class _NoTrace:
    """Stands in for a machine's tracepoints where there is none (tests): every slot is off."""

    __slots__ = ()
    mm_page_alloc: Callable[..., None] | None = None
    mm_page_free: Callable[..., None] | None = None
    mm_page_pcpu_drain: Callable[..., None] | None = None


class PageAllocator:
    """All zones of a machine.

    ``zones`` populated zones, ascending by pfn; ``node_zones[nid][zid]`` all four zones of each node, empty ones
    included. ``oom`` is asked before an allocation of order <= 3 fails: True means "somebody was killed, try again".
    ``printk`` gets lines for the kernel log. ``fault`` injects failures. ``reclaim`` holds the shrinkers, ``kswapd``
    the daemons. ``reserved_pages`` frames never belonged to the allocator; ``hw_poisoned`` counts frames with
    PG_HWPOISON.
    """

    __slots__ = (
        "_block_types",
        "_cpu",
        "_fixed",
        "_flags",
        "_high_order",
        "_mapcount",
        "_mapping",
        "_nonzero",
        "_pcps",
        "_pcps0",
        "_plans",
        "_plans0",
        "_refcount",
        "_slow",
        "_uniprocessor",
        "_zone_map",
        "break_down",
        "compound_pages",
        "events",
        "fault",
        "hw_poisoned",
        "kswapd",
        "managed_pages",
        "memmap_pages",
        "min_free_kbytes",
        "node_stats",
        "node_zones",
        "oom",
        "pages",
        "percpu_pagelist_high_fraction",
        "printk",
        "ram",
        "reclaim",
        "reserved_pages",
        "topology",
        "trace",
        "user_min_free_kbytes",
        "watermark_scale_factor",
        "work",
        "zones",
    )

    def __init__(
        self,
        ram: Ram,
        topology: Topology,
        pages: PageArrays,
        *,
        features: Features,
        work: Work,
        events: VmEvents,
        node_stats: list[NodeStat],
        trace: Tracepoints | None = None,
        cpu: Callable[[], int] | None = None,
        thp: bool = True,
    ) -> None:
        """``cpu()`` is the current CPU (None: always 0); ``thp`` raises min_free_kbytes as enabled huge pages do.

        Raises BadInput if a node is too small to hold its own page records and the reserved first MiB.
        """
        self.ram = ram
        self.topology = topology
        self.pages = pages
        self.work = work
        self.events = events
        self.node_stats = node_stats
        self.trace: Tracepoints | _NoTrace = trace if trace is not None else _NoTrace()
        self.oom: Callable[[int, int], bool] | None = None
        self.printk: Callable[[str], None] | None = None
        self.fault: FaultInjection | None = None
        self.reclaim = Reclaim(events)
        self._cpu: Callable[[], int] = cpu if cpu is not None else _cpu_zero
        self._uniprocessor = topology.nr_cpus == 1 or cpu is None
        self._flags = pages.flags
        self._refcount = pages.refcount
        self._mapcount = pages.mapcount
        self._mapping = pages.mapping
        self._nonzero = pages.nonzero
        self._plans: list[dict[int, AllocPlan]] = [{} for _ in range(topology.nr_cpus)]
        self._plans0 = self._plans[0]
        #: Blocks of order > 0 allocated without COMP, by head: their tails carry no mark in the page records.
        self._high_order: dict[int, int] = {}
        self.hw_poisoned = 0
        self.compound_pages = 0
        self.watermark_scale_factor = 10
        self.percpu_pagelist_high_fraction = 0
        self.min_free_kbytes: int = 0
        self.user_min_free_kbytes = -1
        self.break_down = (
            break_down_buddy_pages if features.has("buddy-break-down-cleanup") else before.break_down_buddy_pages
        )
        self._fixed = 1
        layout = ZoneLayout(topology, pages, work)
        self.zones = layout.zones
        self.node_zones = layout.node_zones
        self.memmap_pages = layout.memmap_pages
        self.reserved_pages = layout.reserved_pages
        self._block_types = layout.block_types
        self._zone_map = layout.zone_map
        #: ``_pcps[cpu][index into zones]``.
        self._pcps = [[zone.pcps[cpu] for zone in self.zones] for cpu in range(topology.nr_cpus)]
        self._pcps0 = self._pcps[0]
        for zone in self.zones:
            zone.on_marks = self._forget_plans
            zone.trace = trace
        self.reclaim.trace = trace
        self.managed_pages = sum(zone.managed for zone in self.zones)
        self.kswapd = Kswapd(self.reclaim, self.node_zones)
        self._slow = SlowPath(self)
        self.set_recommended_min_free_kbytes(thp)
        events.attach_zones(self.zones)

    # Boot and settings

    def _forget_plans(self) -> None:
        for plans in self._plans:
            plans.clear()

    def set_min_free_kbytes(self, kbytes: int) -> None:
        """Write /proc/sys/vm/min_free_kbytes (KiB)."""
        self.user_min_free_kbytes = kbytes
        self._set_min_free(kbytes)

    def set_recommended_min_free_kbytes(self, thp: bool) -> None:
        """Default of min_free_kbytes, raised for huge pages if ``thp``; a value the user wrote stays if it is
        larger."""
        lowmem = self.managed_pages
        self._set_min_free(max(min_free_kbytes(lowmem), self.user_min_free_kbytes))
        if thp:
            above_high = sum(max(zone.managed - zone.watermarks[WMARK_HIGH], 0) for zone in self.zones)
            wanted = recommended_min_free_kbytes(sum(1 for zone in self.zones if zone.managed), above_high)
            if wanted > self.min_free_kbytes:
                self._set_min_free(wanted)

    def _set_min_free(self, kbytes: int) -> None:
        """Share min_free_kbytes out by size; watermarks and per-CPU limits follow (spec M3)."""
        self.min_free_kbytes = kbytes
        pages_min = kbytes >> 2
        for zone in self.zones:
            zone.set_watermarks(pages_min * zone.managed // self.managed_pages, self.watermark_scale_factor)
            self._set_pcp_limits(zone)
        self._forget_plans()

    def _set_pcp_limits(self, zone: Zone) -> None:
        batch = pageset_batch(zone.managed)
        cpus = len(self.topology.nodes[zone.nid].cpus) or self.topology.nr_cpus
        if self.percpu_pagelist_high_fraction:
            low = most = zone.managed // self.percpu_pagelist_high_fraction // cpus
        else:
            low = zone.wmark(WMARK_LOW) // cpus
            most = zone.managed // HIGH_FRACTION // cpus
        for pcp in zone.pcps:
            pcp.set_limits(batch, max(low, batch * 4), max(most, batch * 4))

    def set_percpu_pagelist_high_fraction(self, fraction: int) -> None:
        """Write vm.percpu_pagelist_high_fraction: 0 lets ``high`` float, otherwise it is managed/fraction per CPU (at
        least 8)."""
        self.percpu_pagelist_high_fraction = max(fraction, 8) if fraction else 0
        for zone in self.zones:
            self._set_pcp_limits(zone)

    def take_fixed_page(self) -> int:
        """A reserved frame for something that lives as long as the machine (the zero page, supervisor pages): its pfn,
        below 256.

        It stays reserved: refcount and mapcount 0. Raises InvariantBroken when all are used.
        """
        pfn = self._fixed
        if pfn >= FIRST_PFN:
            raise InvariantBroken("no fixed page left below 1 MiB")
        self._fixed += 1
        return pfn

    # Questions

    @property
    def task_id(self) -> Callable[[], int] | None:
        """Names the running task, so that only a task that is reclaiming itself may use all memory meanwhile."""
        return self.reclaim.task_id

    @task_id.setter
    def task_id(self, function: Callable[[], int]) -> None:
        self.reclaim.task_id = function

    @property
    def current_cpu(self) -> Callable[[], int]:
        """The function that names the current CPU."""
        return self._cpu

    @property
    def uniprocessor(self) -> bool:
        """Whether the current CPU is always 0."""
        return self._uniprocessor

    def zone_of(self, pfn: int) -> Zone:
        """The zone of a frame."""
        return self.zones[self._zone_map[pfn >> ZONE_MAP_SHIFT]]

    def nr_free_pages(self, nid: int = -1) -> int:
        """Pages in free lists (NR_FREE_PAGES: per-CPU lists not included) of one node or of the machine."""
        return sum(zone.nr_free for zone in self.zones if nid < 0 or zone.nid == nid)

    def nr_pcp_pages(self) -> int:
        """Pages on per-CPU lists."""
        return sum(pcp.count for zone in self.zones for pcp in zone.pcps)

    def reserved_ranges(self, zone: Zone) -> list[Run]:
        """Frames of ``zone`` that never belonged to the allocator, as [first, end) ranges."""
        node = self.topology.nodes[zone.nid]
        ranges = [(0, FIRST_PFN)] if node.start_pfn == 0 else []
        ranges.append((node.end_pfn - memmap_pages(node), node.end_pfn))
        clipped = [(max(first, zone.start), min(end, zone.end)) for first, end in ranges]
        return [(first, end) for first, end in clipped if first < end]

    def plain_blocks(self, zone: Zone) -> list[Run]:
        """Blocks of order > 0 of ``zone`` that are allocated and no folios, as (pfn, order)."""
        return [(pfn, order) for pfn, order in self._high_order.items() if zone.start <= pfn < zone.end]

    def check(self) -> None:
        """Recompute everything. Raises InvariantBroken."""
        check_page_allocator(self)

    # Allocation

    def alloc_pages(self, gfp: int, order: int = 0, nid: int = -1) -> int:
        """Allocate ``1 << order`` frames: pfn of the first, 0 on failure.

        ``nid`` -1: the CPU's node first. The first frame gets reference count 1. With COMP the frames become one folio
        (``comp_order`` in all, PG_HEAD in the first). With ZERO each frame is zero on return: only frames whose
        ``nonzero`` mark is set are written, but ``work.pages_zeroed`` counts every page asked for, which is what Linux
        would have written. Without ZERO a frame holds what it held.
        """
        if order or nid >= 0 or self.fault is not None:
            return self._alloc_general(gfp, order, nid)
        plan = (self._plans0 if self._uniprocessor else self._plans[self._cpu()]).get(gfp)
        if plan is None:
            plan = self._make_plan(gfp, -1)
        stack = plan.stack
        zone = plan.zone
        if stack and zone.nr_free > plan.mark:
            pfn = stack.pop()
            pcp = plan.pcp
            pcp.count -= 1
            pcp.free_count >>= 1
            zone.allocations += 1
        else:
            pfn = self.get_page_from_freelist(plan, 0, WMARK_LOW, plan.alloc_flags & _POLITE)
            if not pfn:
                pfn = self._slow.alloc(plan, 0)
                if not pfn:
                    return 0
        self._refcount[pfn] = 1
        if plan.zero:
            self.work.pages_zeroed += 1
            if self._nonzero[pfn]:
                self.ram.zero(pfn)
                self._nonzero[pfn] = 0
        if self.trace.mm_page_alloc is not None:
            self.trace.mm_page_alloc(pfn, 0, gfp, plan.migratetype)
        return pfn

    def _alloc_general(self, gfp: int, order: int, nid: int) -> int:
        if not 0 <= order <= MAX_ORDER:
            return 0
        if self.fault is not None and self.fault.should_fail_page(gfp, order):
            return 0
        plan = self._plan(gfp, nid)
        pfn = self.get_page_from_freelist(plan, order, WMARK_LOW, plan.alloc_flags & _POLITE)
        if not pfn:
            pfn = self._slow.alloc(plan, order)
            if not pfn:
                return 0
        pages = self.pages
        pages.refcount[pfn] = 1
        if order:
            if gfp & g.COMP:
                pages.flags[pfn] |= PG_HEAD
                pages.vec.comp_order[pfn : pfn + (1 << order)] = order
                self.compound_pages += 1 << order
            else:
                self._high_order[pfn] = order
        if plan.zero:
            self._zero_run(pfn, 1 << order)
        if self.trace.mm_page_alloc is not None:
            self.trace.mm_page_alloc(pfn, order, gfp, plan.migratetype)
        return pfn

    def _zero_run(self, first: int, count: int) -> None:
        self.work.pages_zeroed += count
        nonzero = self.pages.vec.nonzero[first : first + count]
        dirty = np.flatnonzero(nonzero)
        if len(dirty):
            self.ram.zero_bulk(dirty + first)
            nonzero[:] = 0

    def _plan(self, gfp: int, nid: int) -> AllocPlan:
        key = gfp if nid < 0 else gfp | (nid + 1) << _NID_SHIFT
        plan = self._plans[self._cpu()].get(key)
        return plan if plan is not None else self._make_plan(gfp, nid)

    def _make_plan(self, gfp: int, nid: int) -> AllocPlan:
        cpu = self._cpu()
        plan = AllocPlan(gfp, nid, cpu, self.topology, self.node_zones)
        self._plans[cpu][gfp if nid < 0 else gfp | (nid + 1) << _NID_SHIFT] = plan
        return plan

    def get_page_from_freelist(self, plan: AllocPlan, order: int, level: int, alloc_flags: int) -> int:
        """Try every zone of the plan at watermark ``level``; a pass that must not mix pageblock types comes first."""
        highest = plan.highest
        preferred = plan.zone
        while True:
            nofragment = alloc_flags & ALLOC_NOFRAGMENT
            for zone in plan.zones:
                if nofragment and zone.nid != preferred.nid:
                    break  # a local page of the wrong type is better than a remote one
                mark = zone.wmark(level)
                if zone.boost and level == WMARK_MIN and not order and alloc_flags & ALLOC_MIN_RESERVE:
                    mark -= zone.boost  # a boost is there for kswapd, not against who may use reserves
                if not zone.watermark_ok(order, mark, highest, alloc_flags):
                    continue
                pfn = self._rmqueue(zone, order, plan.migratetype, alloc_flags)
                if pfn:
                    if order and alloc_flags & ALLOC_HIGHATOMIC:
                        zone.reserve_highatomic(pfn)
                    zone.allocations += 1
                    zone.extra_pages += (1 << order) - 1
                    if zone.nid != preferred.nid:
                        zone.numa_miss += 1
                        preferred.numa_foreign += 1
                    if zone.nid != plan.local:
                        zone.numa_other += 1
                    return pfn
            if not nofragment:
                return 0
            alloc_flags &= ~ALLOC_NOFRAGMENT

    def _rmqueue(self, zone: Zone, order: int, migratetype: int, alloc_flags: int) -> int:
        """One block from this CPU's list where there is one for the order, else from the zone."""
        index = pcp_order_index(order, migratetype)
        if index < 0:
            self.work.locks += 1
            return zone.rmqueue(order, migratetype, alloc_flags)
        pcp = zone.pcps[self._cpu()]
        stack = pcp.stacks[index]
        pcp.free_count >>= 1
        if not stack:
            self._refill(zone, pcp, stack, order, migratetype, alloc_flags)
            if not stack:
                return 0
        pcp.count -= 1 << order
        return stack.pop()

    def _refill(
        self, zone: Zone, pcp: PerCpuPages, stack: list[int], order: int, migratetype: int, alloc_flags: int
    ) -> None:
        """Fill an empty list from the zone, so that it hands out pages in the order in which the zone gave them."""
        wanted = pcp.refill_batch(order, zone.below_high)
        self.work.locks += 1
        if order:
            got = 0
            while got < wanted:
                pfn = zone.rmqueue(order, migratetype, alloc_flags)
                if not pfn:
                    break
                stack.append(pfn)
                got += 1
            pcp.count += got << order
        else:
            for first, count in zone.rmqueue_runs(wanted, migratetype, alloc_flags):
                stack += range(first, first + count)
                pcp.count += count
        stack.reverse()

    # Bulk

    def alloc_bulk(self, gfp: int, n: int, nid: int = -1) -> Pfns:
        """Allocate up to ``n`` order-0 frames (int64[<= n]) in few steps: first this CPU's list, then whole blocks,
        sliced.

        The frames are those that ``n`` single allocations would get. Falls back to single allocations where watermarks
        forbid a whole block, so that reclaim, OOM and failure are as there; fewer than ``n`` frames mean that one
        failed.
        """
        if n <= 0:
            return np.empty(0, dtype=np.int64)
        if self.fault is not None:
            singles: list[int] = []
            while len(singles) < n and (pfn := self.alloc_pages(gfp, 0, nid)):
                singles.append(pfn)
            return np.array(singles, dtype=np.int64)
        plan = self._plan(gfp, nid)
        parts: list[Pfns] = []
        missing = n
        while missing:
            # The zones in the order of a single allocation: local ones unmixed, then all, mixing types if need be.
            for alloc_flags in (plan.alloc_flags, plan.alloc_flags & ~ALLOC_NOFRAGMENT):
                for zone in plan.zones:
                    if not missing or (alloc_flags & ALLOC_NOFRAGMENT and zone.nid != plan.zone.nid):
                        break
                    missing -= self._bulk_step(plan, zone, missing, alloc_flags, parts)
            if missing:
                pfn = self.alloc_pages(gfp, 0, nid)
                if not pfn:
                    break
                parts.append(np.array([pfn], dtype=np.int64))
                missing -= 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty(0, dtype=np.int64)])

    def _bulk_step(self, plan: AllocPlan, zone: Zone, n: int, alloc_flags: int, parts: list[Pfns]) -> int:
        """Take what ``zone`` can give above its low watermark; returns how many pages."""
        spare = min(n, zone.nr_free - zone.wmark(WMARK_LOW) - zone.lowmem_reserve[plan.highest] - 1)
        if spare <= 0:
            return 0
        pcp = zone.pcps[self._cpu()]
        stack = pcp.stacks[plan.migratetype]
        runs: list[Run] = []
        taken = min(len(stack), spare)
        if taken:
            hot = np.array(stack[: -taken - 1 : -1], dtype=np.int64)
            del stack[-taken:]
            pcp.count -= taken
            self.pages.vec.refcount[hot] = 1
            if plan.zero:
                self._zero_frames(hot)
            parts.append(hot)
        if spare > taken:
            self.work.locks += 1
            runs = zone.rmqueue_runs(spare - taken, plan.migratetype, alloc_flags)
        refcount = self.pages.vec.refcount
        for first, count in runs:
            refcount[first : first + count] = 1
            if plan.zero:
                self._zero_run(first, count)
            taken += count
        if len(runs) > 0:
            parts.append(_expand_runs(runs))
        zone.allocations += taken
        if zone.nid != plan.zone.nid:
            zone.numa_miss += taken
            plan.zone.numa_foreign += taken
        if zone.nid != plan.local:
            zone.numa_other += taken
        if self.trace.mm_page_alloc is not None:
            for part in parts[-2:]:
                for pfn in part.tolist():
                    self.trace.mm_page_alloc(pfn, 0, plan.gfp, plan.migratetype)
        return taken

    def _zero_frames(self, pfns: Pfns) -> None:
        self.work.pages_zeroed += len(pfns)
        nonzero = self.pages.vec.nonzero
        dirty = pfns[nonzero[pfns] != 0]
        if len(dirty):
            self.ram.zero_bulk(dirty)
            nonzero[dirty] = 0

    def free_bulk(self, pfns: Pfns) -> None:
        """Free order-0 frames (int64[n], any order, no repeats): their last references are gone, their mapcounts 0.

        They go to the zones' lists, whole aligned runs as blocks, not to the per-CPU lists. Raises InvariantBroken for
        a frame that is still in use or named twice.
        """
        if not len(pfns):
            return
        steps = np.diff(pfns)
        if len(steps) and steps.min() <= 0:
            pfns = np.sort(pfns)
            if np.diff(pfns).min() <= 0:
                raise InvariantBroken("a frame is freed twice in one call")
        first, last = int(pfns[0]), int(pfns[-1])
        vec = self.pages.vec
        # A slice is many times faster than gathering, and a full range is the common case.
        where: slice | Pfns = slice(first, last + 1) if last - first + 1 == len(pfns) else pfns
        flags = vec.flags[where]
        if vec.mapcount[where].any():
            raise InvariantBroken("a frame is freed while it is mapped")
        if (vec.refcount[where] > 1).any():
            raise InvariantBroken("a frame is freed while it is referenced")
        if vec.comp_order[where].any() or vec.buddy[where].any():
            raise InvariantBroken("a frame that is free or part of a folio is freed as a single page")
        if flags.any():
            if (flags & CHECK_AT_FREE).any():
                raise InvariantBroken("a frame is freed with flags that its owner should have cleared")
            if self.hw_poisoned:
                bad = (flags & PG_HWPOISON) != 0
                if bad.any():
                    for pfn in pfns[bad].tolist():
                        self.free_pages(pfn)
                    self.free_bulk(pfns[~bad])
                    return
            vec.flags[where] = 0
            vec.mapping[where] = 0
        vec.refcount[where] = 0
        self.events.pgfree += len(pfns)
        if self.trace.mm_page_free is not None:
            for pfn in pfns.tolist():
                self.trace.mm_page_free(pfn, 0)
        if len(self.zones) == 1:
            self._free_sorted(self.zones[0], pfns)
            return
        begin = 0
        for zone in self.zones:
            stop = int(np.searchsorted(pfns, zone.end))
            if stop > begin:
                self._free_sorted(zone, pfns[begin:stop])
                begin = stop

    def free_folios(self, heads: Pfns, order: int) -> None:
        """Free folios of ``order`` (int64[n] of their heads, any order, no repeats) whose last references are gone:
        mapcounts 0, no PG_* flags but PG_HEAD and PG_HWPOISON. Like :meth:`free_bulk` they go to the zones' lists.

        Raises InvariantBroken for a folio that is still in use.
        """
        if self.hw_poisoned or self.trace.mm_page_free is not None:
            for head in heads.tolist():
                self.free_pages(head, order)
            return
        vec = self.pages.vec
        for first, last in adjacent(heads, 1 << order):
            count = last - first << order
            begin = int(heads[first])
            where = slice(begin, begin + count)
            orders = vec.comp_order[where]
            if np.count_nonzero(vec.mapcount[where]) or vec.refcount[where].max() > 1:
                raise InvariantBroken(f"folios from {begin:#x} on are freed in use")
            if orders.min() != order or orders.max() != order:
                raise InvariantBroken(f"folios from {begin:#x} on are freed as order {order}")
            vec.flags[where] = 0
            vec.refcount[where] = 0
            vec.mapping[where] = 0
            vec.comp_order[where] = 0
            self.compound_pages -= count
            self.events.pgfree += count
            self.work.locks += 1
            while count:
                zone = self.zone_of(begin)
                inside = min(count, zone.end - begin)
                zone.free_run(begin, inside)
                begin += inside
                count -= inside

    def _free_sorted(self, zone: Zone, pfns: Pfns) -> None:
        self.work.locks += 1
        if int(pfns[-1]) - int(pfns[0]) + 1 == len(pfns):
            zone.free_run(int(pfns[0]), len(pfns))
        else:
            zone.free_sorted(pfns)

    # Freeing

    def get_page(self, pfn: int) -> None:
        """One more reference to a page or folio (named by its head)."""
        self._refcount[pfn] += 1

    def put_page(self, pfn: int) -> None:
        """Drop a reference to a page or folio (named by its head); free it at 0."""
        count = self._refcount[pfn]
        if count > 1:
            self._refcount[pfn] = count - 1
        else:
            self.free_pages(pfn, self.pages.comp_order[pfn] or self._high_order.get(pfn, 0))

    def free_pages(self, pfn: int, order: int = 0) -> None:
        """Free ``1 << order`` frames whose last reference is gone (the first's count may be 0 or 1); mapcounts must be
        0.

        Raises InvariantBroken for a page in use. A poisoned frame does not come back.
        """
        if order:
            self._free_order(pfn, order)
            return
        flags = self._flags[pfn]
        if flags:
            if flags & _UNUSUAL:
                self._free_unusual(pfn, flags)
                return
            self._flags[pfn] = 0
            self._mapping[pfn] = 0
        if self._mapcount[pfn] or self._refcount[pfn] > 1:
            self._bad_page(pfn)
        self._refcount[pfn] = 0
        self.events.pgfree += 1
        if self.trace.mm_page_free is not None:
            self.trace.mm_page_free(pfn, 0)
        migratetype = self._block_types[pfn >> PAGEBLOCK_ORDER] ^ TYPE_XOR
        if migratetype >= PCP_TYPES:
            self._free_to_buddy(pfn, 0, migratetype)
            return
        pcps = self._pcps0 if self._uniprocessor else self._pcps[self._cpu()]
        pcp = pcps[self._zone_map[pfn >> ZONE_MAP_SHIFT]]
        pcp.stacks[migratetype].append(pfn)
        pcp.count = count = pcp.count + 1
        if pcp.alloc_factor:
            pcp.alloc_factor >>= 1
        freed = pcp.free_count
        if freed < pcp.streak_max:
            pcp.free_count = freed + 1
        if count >= pcp.high:
            self._pcp_full(self.zone_of(pfn), pcp, migratetype)

    def _free_order(self, pfn: int, order: int) -> None:
        pages = self.pages
        vec = pages.vec
        end = pfn + (1 << order)
        compound = pages.comp_order[pfn]
        if (compound or self._high_order.get(pfn, order)) != order:
            raise InvariantBroken(f"page {pfn:#x} of order {compound} is freed as order {order}")
        flags = vec.flags[pfn:end]
        if (flags & CHECK_AT_FREE).any() or vec.mapcount[pfn:end].any() or (vec.refcount[pfn:end] > 1).any():
            self._bad_page(pfn)
        poisoned = self.hw_poisoned and (flags & PG_HWPOISON).any()
        bad = np.flatnonzero(flags & PG_HWPOISON) + pfn if poisoned else ()
        flags &= PG_HWPOISON
        vec.refcount[pfn:end] = 0
        vec.mapping[pfn:end] = 0
        if compound:
            vec.comp_order[pfn:end] = 0
            self.compound_pages -= 1 << order
        else:
            self._high_order.pop(pfn, None)
        self.events.pgfree += 1 << order
        if self.trace.mm_page_free is not None:
            self.trace.mm_page_free(pfn, order)
        if poisoned:
            self._free_around_poison(pfn, end, [int(frame) for frame in bad])
            return
        zone = self.zone_of(pfn)
        migratetype = self._block_types[pfn >> PAGEBLOCK_ORDER] ^ TYPE_XOR
        index = pcp_order_index(order, MOVABLE if migratetype == HIGHATOMIC else migratetype)
        if index < 0 or migratetype >= PCP_TYPES:
            self._free_to_buddy(pfn, order, migratetype)
            return
        pcp = zone.pcps[self._cpu()]
        pcp.stacks[index].append(pfn)
        pcp.count += 1 << order
        pcp.alloc_factor >>= 1
        if pcp.free_count < pcp.streak_max:
            pcp.free_count += 1 << order
        if pcp.count >= pcp.high:
            self._pcp_full(zone, pcp, index)

    def _free_to_buddy(self, pfn: int, order: int, migratetype: int) -> None:
        self.work.locks += 1
        self.zone_of(pfn).free_one(pfn, order, migratetype)

    def _free_around_poison(self, first: int, end: int, bad: list[int]) -> None:
        """A block with poisoned frames in it goes back without them."""
        zone = self.zone_of(first)
        for pfn in [*bad, end]:
            if pfn > first:
                zone.free_run(first, pfn - first)
            first = pfn + 1
        zone.poisoned += len(bad)

    def _free_unusual(self, pfn: int, flags: int) -> None:
        if flags & PG_HEAD:
            raise InvariantBroken(f"folio {pfn:#x} is freed as a single page")
        if flags & CHECK_AT_FREE or self._mapcount[pfn] or self._refcount[pfn] > 1:
            self._bad_page(pfn)
        # Poisoned while in use: its last user is gone, and it never comes back.
        self._flags[pfn] = PG_HWPOISON
        self._mapping[pfn] = 0
        self._refcount[pfn] = 0
        self.events.pgfree += 1
        self.zone_of(pfn).poisoned += 1

    def _bad_page(self, pfn: int) -> None:
        pages = self.pages
        raise InvariantBroken(
            f"page {pfn:#x} is freed in use: refcount {pages.refcount[pfn]}, "
            f"mapcount {pages.mapcount[pfn]}, flags {pages.flags[pfn]:#x}"
        )

    def _pcp_full(self, zone: Zone, pcp: PerCpuPages, index: int) -> None:
        high = pcp.limit(zone.below_high, zone.reclaim_active)
        if pcp.count >= high:
            self._drain(zone, pcp, pcp.give_back(high), index)

    def _drain(self, zone: Zone, pcp: PerCpuPages, pages: int, index: int) -> None:
        self.work.locks += 1
        drained = pcp.take_coldest(pages, index)
        for pfn, order, migratetype in drained:
            zone.free_one(pfn, order, migratetype)
        if self.trace.mm_page_pcpu_drain is not None:
            for block in drained:
                self.trace.mm_page_pcpu_drain(*block)

    def split_folio(self, pfn: int, order: int) -> None:
        """Make ``1 << order`` single pages of the folio ``pfn``; the caller sets reference counts and PG_HEAD right."""
        self.pages.vec.comp_order[pfn : pfn + (1 << order)] = 0
        self.compound_pages -= 1 << order

    def split_page(self, pfn: int, order: int) -> None:
        """Make ``1 << order`` single pages with one reference each of a block allocated without COMP."""
        if self._high_order.pop(pfn, 0) != order:
            raise InvariantBroken(f"page {pfn:#x} is not a plain block of order {order}")
        self.pages.vec.refcount[pfn : pfn + (1 << order)] = 1

    # Per-CPU lists

    def drain_all_pages(self) -> None:
        """Return everything on per-CPU lists to the zones."""
        for zone in self.zones:
            for pcp in zone.pcps:
                if pcp.count:
                    self._drain(zone, pcp, pcp.count, 0)

    def zone_pcp_disable(self, zone: Zone) -> None:
        """Make frees in ``zone`` reach the lists at once until ``zone_pcp_enable``, and drain what is held."""
        for pcp in zone.pcps:
            pcp.set_limits(1, 0, 0)
            pcp.high = 0
            if pcp.count:
                self._drain(zone, pcp, pcp.count, 0)

    def zone_pcp_enable(self, zone: Zone) -> None:
        """Undo ``zone_pcp_disable``."""
        self._set_pcp_limits(zone)

    # Poison

    def is_free_buddy_page(self, pfn: int) -> bool:
        """Whether the frame is inside a free block (not: on a per-CPU list)."""
        return self.zone_of(pfn).free_block_of(pfn)[0] != 0

    def set_hwpoison(self, pfn: int) -> None:
        """Mark a frame as poisoned, wherever it is."""
        self._flags[pfn] |= PG_HWPOISON
        self.hw_poisoned += 1

    def clear_hwpoison(self, pfn: int) -> None:
        """Take the mark away. A page that is out of the allocator stays out until ``put_page_back_buddy``."""
        self._flags[pfn] &= ~PG_HWPOISON
        self.hw_poisoned -= 1

    def take_page_off_buddy(self, pfn: int) -> bool:
        """Take one free page out of the allocator: its block is broken down around it, NR_FREE_PAGES falls by one.

        The page gets a reference and PG_TAKENOFF. False if it is not in a free block (it may be on a per-CPU list).
        """
        zone = self.zone_of(pfn)
        self.work.locks += 1
        head, order = zone.free_block_of(pfn)
        if not head:
            return False
        if not zone.buddy[head]:
            zone.list_virgin(head)
        migratetype = zone.unlist(head, order)
        self.break_down(zone, head, pfn, 0, order, migratetype)
        self._flags[pfn] |= PG_TAKENOFF
        self._refcount[pfn] = 1
        zone.nr_free -= 1
        zone.poisoned += 1
        return True

    def put_page_back_buddy(self, pfn: int) -> bool:
        """Undo ``take_page_off_buddy``: drop the page's last reference and free it, merging all the way up.

        Only for a page that is out of the allocator. False if somebody else holds a reference.
        """
        if self._refcount[pfn] > 1:
            return False
        zone = self.zone_of(pfn)
        self.work.locks += 1
        self._refcount[pfn] = 0
        self._flags[pfn] &= ~PG_TAKENOFF
        zone.poisoned -= 1
        zone.free_one(pfn, 0, zone.migratetype(pfn))
        return True


def _cpu_zero() -> int:
    return 0


def _expand_runs(runs: list[Run]) -> Pfns:
    """The pfns of all runs, in order, as int64[sum of counts]."""
    if len(runs) == 1:
        first, count = runs[0]
        return np.arange(first, first + count, dtype=np.int64)
    table = np.array(runs, dtype=np.int64)
    counts = table[:, 1]
    ends = np.cumsum(counts)
    pfns: Pfns = np.arange(int(ends[-1]), dtype=np.int64) + np.repeat(table[:, 0] - (ends - counts), counts)
    return pfns
