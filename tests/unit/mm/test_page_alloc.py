# SPDX-License-Identifier: GPL-2.0-or-later
"""The page allocator: layout, watermarks, what each GFP mask may do, mobility, NUMA, bulk, zeroing, random
sequences."""

import random
import time

import numpy as np
import pytest

from memtwin.errors import BadInput, Deadlock, InvariantBroken
from memtwin.events.tracepoint import MemorySink, Tracepoints
from memtwin.hw.work import Work
from memtwin.lib import gfp_types as g
from memtwin.lib.gfp_types import GFP_ATOMIC, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_NOWAIT
from memtwin.mm.buddy import HIGHATOMIC, MOVABLE, RECLAIMABLE, UNMOVABLE
from memtwin.mm.memory_failure import MemoryFailure
from memtwin.mm.page import PG_HEAD, PG_LOCKED, PG_LRU, PG_RESERVED, PageArrays
from memtwin.mm.vmscan import Shrinker
from memtwin.mm.zone import (
    ALLOC_HIGHATOMIC,
    ALLOC_MIN_RESERVE,
    ALLOC_NO_WATERMARKS,
    ALLOC_NON_BLOCK,
    ALLOC_OOM,
    Zone,
    lowmem_reserves,
    min_free_kbytes,
    recommended_min_free_kbytes,
)
from memtwin.sched import Scheduler

MIB = 256
GIB = 1 << 18


def exhaust(alloc, gfp, order=0, **kw):
    """Allocate until failure; the pfns."""
    got = []
    while pfn := alloc.alloc_pages(gfp, order, **kw):
        got.append(pfn)
    return got


# Layout


def test_zones_of_a_small_machine(make_alloc):
    alloc = make_alloc(64 * MIB)
    assert [(z.name, z.start, z.end, z.managed) for z in alloc.zones] == [
        ("DMA", 0, 4096, 3840),
        ("DMA32", 4096, 16384, 12288 - 256),
    ]
    assert alloc.reserved_pages == 512
    assert alloc.managed_pages + alloc.reserved_pages == 16384
    assert alloc.zones[0].counts() == [0] * 8 + [1, 1, 3]  # as on the live machine
    alloc.check()


def test_zones_of_a_large_machine_with_two_nodes(make_alloc):
    alloc = make_alloc([3 * GIB, 2 * GIB])
    assert [(z.nid, z.name, z.start, z.end) for z in alloc.zones] == [
        (0, "DMA", 0, 4096),
        (0, "DMA32", 4096, 3 * GIB),
        (1, "DMA32", 3 * GIB, 4 * GIB),
        (1, "Normal", 4 * GIB, 5 * GIB),
    ]
    assert alloc.memmap_pages == 5 * GIB // 64
    for pfn, (nid, name) in {
        300: (0, "DMA"),
        4096: (0, "DMA32"),
        3 * GIB: (1, "DMA32"),
        5 * GIB - 1: (1, "Normal"),
    }.items():
        assert (alloc.zone_of(pfn).nid, alloc.zone_of(pfn).name) == (nid, name)


@pytest.mark.parametrize("pages", [257, 300, 1000, 1024, 4095, 4097, 5000, 16384 + 333])
def test_odd_sizes(make_alloc, pages):
    if pages < 262:
        with pytest.raises(BadInput, match="too small"):
            make_alloc(pages)
        return
    alloc = make_alloc(pages)
    got = exhaust(alloc, GFP_KERNEL | g.MEMALLOC)
    assert len(got) == alloc.managed_pages
    assert min(got) >= 256 and max(got) < pages - alloc.memmap_pages
    alloc.check()
    for pfn in got:
        alloc.free_pages(pfn)
    alloc.drain_all_pages()
    assert alloc.nr_free_pages() == alloc.managed_pages
    alloc.check()


def test_boot_does_not_depend_on_the_size_of_memory(make_alloc):
    """CPU time, the best of five, since neighbours may be busy."""

    def best(pages):
        times = []
        for _ in range(5):
            start = time.process_time()
            make_alloc(pages)
            times.append(time.process_time() - start)
        return min(times)

    assert best(1 << 30) < 0.05
    alloc = make_alloc(1 << 30)
    assert alloc.managed_pages == (1 << 30) - (1 << 24) - 256
    alloc.check()


def test_fixed_pages_are_reserved_and_never_zero(make_alloc):
    alloc = make_alloc()
    pages = [alloc.take_fixed_page() for _ in range(255)]
    assert pages == list(range(1, 256))
    assert all(alloc.pages.flags[pfn] == PG_RESERVED for pfn in pages)
    with pytest.raises(InvariantBroken, match="no fixed page"):
        alloc.take_fixed_page()


# Watermarks


def test_watermarks_of_the_target_release():
    """``live 6.7.3`` in the specification: one zone of 511562 pages, raised for huge pages."""
    zone = Zone(0, 1, 4096, 4096 + 1024, PageArrays(8192), memoryview(bytearray(64)), Work())
    zone.managed = 511562
    kbytes = recommended_min_free_kbytes(1, 511562)
    assert kbytes == 22528
    zone.set_watermarks(kbytes // 4, 10)
    assert zone.watermarks[:3] == [5632, 7040, 8448]


def test_watermarks_of_the_live_machine():
    """The zones of a 24 GiB machine early after boot of 6.18: min, low, high, promo, and lowmem_reserve."""
    managed = [3840, 772808, 229376, 0]
    kbytes = recommended_min_free_kbytes(3, sum(managed))
    assert kbytes == 67584
    marks = []
    for pages in managed[:3]:
        zone = Zone(0, 0, 0, 0, PageArrays(1024), memoryview(bytearray(4)), Work())
        zone.managed = pages
        zone.set_watermarks(kbytes // 4 * pages // sum(managed), 10)
        marks.append(zone.watermarks)
    assert marks == [[64, 80, 96, 112], [12979, 16223, 19467, 22711], [3852, 4815, 5778, 6741]]
    reserve = lowmem_reserves(managed, (256, 256, 32, 0))
    assert reserve[:3] == [[0, 3018, 3914, 3914], [0, 0, 896, 896], [0, 0, 0, 0]]


@pytest.mark.parametrize(("pages", "kbytes"), [(250, 128), (4096, 512), (1 << 18, 4096), (1 << 40, 262144)])
def test_default_min_free_kbytes(pages, kbytes):
    assert min_free_kbytes(pages) == kbytes


def test_min_free_kbytes_can_be_set(make_alloc):
    alloc = make_alloc(64 * MIB, thp=False)
    assert alloc.min_free_kbytes == min_free_kbytes(alloc.managed_pages)
    alloc.set_min_free_kbytes(8192)
    assert sum(zone.watermarks[0] for zone in alloc.zones) in (2047, 2048)
    alloc.set_recommended_min_free_kbytes(True)
    assert alloc.min_free_kbytes == 8192


def test_the_watermark_check():
    zone = Zone(0, 1, 0, 8192, PageArrays(8192), memoryview(bytearray(64)), Work())
    zone.lowmem_reserve = [0, 0, 50, 50]
    zone.add_range(1024, 2048)
    assert zone.nr_free == 1024
    cases = [
        (0, 1000, 1, 0, True),
        (0, 1024, 1, 0, False),
        (0, 1000, 2, 0, False),  # 50 are kept from those who could use Normal
        (5, 992, 1, 0, True),
        (5, 993, 1, 0, False),  # 31 of the 32 are not left over
        (0, 1500, 1, ALLOC_MIN_RESERVE, True),  # half
        (0, 2048, 1, ALLOC_MIN_RESERVE, False),
        (0, 2700, 1, ALLOC_MIN_RESERVE | ALLOC_NON_BLOCK, True),  # 3/8
        (0, 2732, 1, ALLOC_MIN_RESERVE | ALLOC_NON_BLOCK, False),
        (0, 1500, 1, ALLOC_NON_BLOCK, False),  # not blocking alone opens nothing
        (0, 2046, 1, ALLOC_OOM, True),
        (0, 9999, 3, ALLOC_NO_WATERMARKS, True),
    ]
    for order, mark, highest, flags, expected in cases:
        assert zone.watermark_ok(order, mark, highest, flags) is expected, (order, mark, highest, flags)


def test_a_larger_order_needs_a_block_of_a_usable_type():
    zone = Zone(0, 1, 0, 8192, PageArrays(8192), memoryview(bytearray(64)), Work())
    zone.add_range(1024, 2048)
    pages = [zone.rmqueue(0, MOVABLE) for _ in range(1024)]
    for pfn in pages[::2]:
        zone.free_one(pfn, 0, MOVABLE)
    assert zone.watermark_ok(0, 100, 1)
    assert not zone.watermark_ok(1, 100, 1)
    zone.lists[3][HIGHATOMIC][1024] = None
    assert not zone.watermark_ok(1, 100, 1)
    assert zone.watermark_ok(1, 100, 1, ALLOC_HIGHATOMIC)


# What each GFP mask may do


def pressed(make_alloc, **kw):
    """A small machine without per-CPU lists and boosts, so that free pages are exact; and its last zone."""
    alloc = make_alloc(kw.pop("pages", 64 * MIB), **kw)
    for zone in alloc.zones:
        alloc.zone_pcp_disable(zone)
        zone.boost_factor = 0
    return alloc, alloc.zones[-1]


def test_nowait_wakes_kswapd_and_fails_at_the_min_watermark(make_alloc):
    alloc, zone = pressed(make_alloc)
    log = []
    alloc.printk = log.append
    exhaust(alloc, GFP_NOWAIT)
    assert zone.nr_free == zone.watermarks[0]
    dma = alloc.zones[0]
    assert dma.nr_free == dma.watermarks[0] + dma.lowmem_reserve[2]
    assert alloc.kswapd.wanted == {0: 0} and alloc.kswapd.wakeups == 1
    assert alloc.events.allocstall_normal == alloc.events.slabs_scanned == 0
    assert log == []


def test_the_reserves_below_min(make_alloc):
    alloc, zone = pressed(make_alloc)
    low = zone.watermarks[0]
    exhaust(alloc, GFP_NOWAIT)
    exhaust(alloc, GFP_ATOMIC)
    assert zone.nr_free == low - low // 2 - (low - low // 2) // 4
    exhaust(alloc, GFP_KERNEL | g.MEMALLOC)
    assert alloc.nr_free_pages() == 0
    alloc.check()


def test_a_boost_does_not_bind_who_may_use_reserves(make_alloc):
    alloc, _ = pressed(make_alloc)
    exhaust(alloc, GFP_NOWAIT)
    for zone in alloc.zones:
        zone.set_boost(5000)
    for gfp, expected in ((GFP_NOWAIT, False), (GFP_ATOMIC, True)):
        assert bool(alloc.alloc_pages(gfp)) is expected


def test_lowmem_is_kept_from_those_who_can_use_more(make_alloc):
    alloc, _ = pressed(make_alloc)
    dma = alloc.zones[0]
    exhaust(alloc, GFP_NOWAIT)
    before = dma.nr_free
    exhaust(alloc, GFP_NOWAIT | g.DMA)
    assert dma.nr_free == dma.watermarks[0] < before


def test_failure_is_logged_once_unless_nowarn(make_alloc):
    alloc, _ = pressed(make_alloc)
    log = []
    alloc.printk = log.append
    exhaust(alloc, GFP_KERNEL | g.NOWARN | g.NORETRY)
    assert log == []
    assert alloc.alloc_pages(GFP_KERNEL) == alloc.alloc_pages(GFP_KERNEL) == 0
    assert len(log) == 1 and log[0].startswith("page allocation failure: order:0, mode:") and "GFP_KERNEL" in log[0]


class PageCache:
    """A shrinker's owner: frames it can drop."""

    def __init__(self, alloc, pages, nests=False):
        self.alloc = alloc
        self.held = [alloc.alloc_pages(GFP_KERNEL) for _ in range(pages)]
        self.nests, self.nested = nests, []
        alloc.reclaim.register_shrinker(Shrinker("page-cache", self))

    def count_objects(self, gfp, nid):
        return len(self.held)

    def scan_objects(self, gfp, nid, nr_to_scan):
        if self.nests:
            self.nests = False
            self.nested.append(self.alloc.alloc_pages(GFP_KERNEL))
        victims, self.held = self.held[:nr_to_scan], self.held[nr_to_scan:]
        for pfn in victims:
            self.alloc.free_pages(pfn)
        self.alloc.reclaim.account_reclaimed_pages(len(victims))
        return len(victims)


def test_kernel_allocations_reclaim_where_nowait_fails(make_alloc):
    alloc, _ = pressed(make_alloc)
    cache = PageCache(alloc, 3000, nests=True)
    exhaust(alloc, GFP_NOWAIT)
    assert alloc.events.allocstall_normal == 0 and len(cache.held) == 3000
    assert alloc.alloc_pages(GFP_KERNEL)
    assert alloc.events.allocstall_normal == 1
    assert 0 < len(cache.held) < 3000
    assert alloc.events.slabs_scanned >= 3000 - len(cache.held) > 0
    assert alloc.events.pgsteal_direct == 0  # no page came from an LRU
    assert cache.nested[0]  # an allocation inside reclaim may use the reserves, and does not reclaim again
    got = len(exhaust(alloc, GFP_KERNEL))
    assert got >= 2800 and not cache.held
    alloc.check()


def test_stalls_are_counted_by_the_highest_zone_allowed(make_alloc):
    alloc, _ = pressed(make_alloc)
    exhaust(alloc, GFP_NOWAIT)
    for gfp in (GFP_KERNEL, GFP_KERNEL | g.DMA32, GFP_KERNEL | g.DMA, GFP_HIGHUSER_MOVABLE):
        exhaust(alloc, gfp | g.NORETRY | g.NOWARN)
    events = alloc.events
    assert events.allocstall_normal == events.allocstall_dma32 == events.allocstall_dma == 1
    assert events.allocstall_movable == 1


def test_kswapd_works_up_to_the_high_watermark(make_alloc):
    alloc, zone = pressed(make_alloc)
    cache = PageCache(alloc, 3000)
    exhaust(alloc, GFP_NOWAIT)
    assert alloc.kswapd.run(0) > 0
    alloc.drain_all_pages()
    assert zone.nr_free > zone.watermarks[2]
    assert alloc.kswapd.wanted == {}
    assert alloc.events.pageoutrun == 1 and alloc.events.kswapd_high_wmark_hit_quickly == 0
    assert cache.held
    alloc.kswapd.run(0)
    assert alloc.events.kswapd_high_wmark_hit_quickly == 1
    assert alloc.events.allocstall_normal == 0


def test_the_oom_killer_is_asked_last_and_not_for_everything(make_alloc):
    alloc, _ = pressed(make_alloc)
    hoard = exhaust(alloc, GFP_NOWAIT)
    asked = []

    def oom(gfp, order):
        asked.append((gfp, order))
        for _ in range(64):
            alloc.free_pages(hoard.pop())
        return True

    alloc.oom = oom
    for gfp, order in (
        (GFP_KERNEL | g.NORETRY, 0),
        (GFP_KERNEL | g.RETRY_MAYFAIL, 0),
        (GFP_KERNEL, 4),
        (GFP_KERNEL | g.THISNODE, 0),
        (GFP_NOWAIT, 0),
        (GFP_ATOMIC | g.NOMEMALLOC, 3),
    ):
        alloc.alloc_pages(gfp | g.NOWARN, order)
    assert asked == []
    assert alloc.alloc_pages(GFP_KERNEL)
    assert asked == [(GFP_KERNEL, 0)]
    alloc.check()


def test_what_must_not_fail_takes_from_the_reserve_and_then_says_so(make_alloc):
    alloc, zone = pressed(make_alloc)
    exhaust(alloc, GFP_NOWAIT)
    assert alloc.alloc_pages(GFP_KERNEL | g.NOFAIL)
    assert zone.nr_free < zone.watermarks[0]
    with pytest.raises(Deadlock, match="must not fail"):
        exhaust(alloc, GFP_KERNEL | g.NOFAIL)
    alloc.check()


def test_costly_orders_do_not_retry(make_alloc):
    alloc, _ = pressed(make_alloc)
    PageCache(alloc, 2000)
    exhaust(alloc, GFP_NOWAIT)
    assert alloc.alloc_pages(GFP_KERNEL | g.NOWARN, 9) == 0
    assert alloc.events.allocstall_normal <= 2


# Folios, references, wrong frees


def test_compound_pages(make_alloc):
    alloc = make_alloc()
    head = alloc.alloc_pages(GFP_KERNEL | g.COMP, 3)
    assert head % 8 == 0 and alloc.pages.flags[head] == PG_HEAD
    assert [alloc.pages.comp_order[head + i] for i in range(8)] == [3] * 8
    assert [alloc.pages.refcount[head + i] for i in range(8)] == [1] + [0] * 7
    assert alloc.pages.head(head + 5) == head
    alloc.check()
    alloc.get_page(head)
    alloc.put_page(head)
    assert alloc.pages.refcount[head] == 1
    alloc.put_page(head)
    assert not alloc.pages.vec.comp_order[head : head + 8].any() and alloc.pages.flags[head] == 0
    alloc.check()


def test_plain_blocks_can_be_split(make_alloc):
    alloc = make_alloc()
    pfn = alloc.alloc_pages(GFP_KERNEL, 2)
    alloc.check()
    alloc.split_page(pfn, 2)
    for i in (2, 0, 3, 1):
        alloc.put_page(pfn + i)
    alloc.check()
    pfn = alloc.alloc_pages(GFP_KERNEL, 4)
    alloc.put_page(pfn)
    alloc.drain_all_pages()
    assert alloc.nr_free_pages() == alloc.managed_pages
    with pytest.raises(InvariantBroken, match="not a plain block"):
        alloc.split_page(pfn, 4)


@pytest.mark.parametrize("what", ["mapcount", "refcount", "flags"])
@pytest.mark.parametrize("bulk", [False, True])
def test_freeing_a_page_in_use_is_an_error(make_alloc, what, bulk):
    alloc = make_alloc()
    pfn = alloc.alloc_pages(GFP_KERNEL)
    getattr(alloc.pages, what)[pfn] = PG_LOCKED if what == "flags" else 2
    with pytest.raises(InvariantBroken):
        alloc.free_bulk(np.array([pfn])) if bulk else alloc.free_pages(pfn)


def test_wrong_frees_are_noticed(make_alloc):
    alloc = make_alloc()
    folio = alloc.alloc_pages(GFP_KERNEL | g.COMP, 2)
    for wrong in (lambda: alloc.free_pages(folio), lambda: alloc.free_pages(folio, 3)):
        with pytest.raises(InvariantBroken):
            wrong()
    with pytest.raises(InvariantBroken, match="twice"):
        alloc.free_bulk(np.array([700, 700]))
    pages = alloc.alloc_bulk(GFP_KERNEL, 64)
    alloc.free_bulk(pages)
    with pytest.raises(InvariantBroken):
        alloc.free_bulk(pages)


def test_freeing_clears_what_the_owner_left(make_alloc):
    alloc = make_alloc()
    one, many = alloc.alloc_pages(GFP_KERNEL), alloc.alloc_bulk(GFP_KERNEL, 8)
    for pfn in (one, *many.tolist()):
        alloc.pages.flags[pfn] = 1 << 19
        alloc.pages.mapping[pfn] = 7
    alloc.free_pages(one)
    alloc.free_bulk(many)
    assert not alloc.pages.vec.flags[[one, *many]].any() and not alloc.pages.vec.mapping[[one, *many]].any()
    alloc.check()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda a, pfn, zone: zone.lists[0][MOVABLE].update({pfn: None}), "another marker"),
        (lambda a, pfn, zone: a.pages.buddy.__setitem__(pfn, 1), "marker|merged"),
        (lambda a, pfn, zone: setattr(zone, "nr_free", zone.nr_free + 1), "nr_free"),
        (lambda a, pfn, zone: setattr(zone.pcps[0], "count", 5), "counts 5 pages"),
        (lambda a, pfn, zone: zone.pcps[0].stacks[0].append(pfn), "counts"),
        (lambda a, pfn, zone: a.pages.refcount.__setitem__(pfn, 0), "neither free nor in use"),
        (lambda a, pfn, zone: a.pages.refcount.__setitem__(zone.end - 300, 1), "free and"),
        (lambda a, pfn, zone: setattr(zone, "poisoned", 1), "taken out"),
        (lambda a, pfn, zone: setattr(zone, "allocations", 99), "pgalloc"),
    ],
)
def test_the_check_finds_what_is_broken(make_alloc, break_it, message):
    alloc = make_alloc(64 * MIB)
    zone = alloc.zones[-1]
    pages = alloc.alloc_bulk(GFP_HIGHUSER_MOVABLE, 11500)
    alloc.free_bulk(pages[1:])
    alloc.check()
    if "free and" in message:
        alloc.pages.refcount[next(iter(zone.lists[10][MOVABLE]))] = 1
        message = "free with references"
    break_it(alloc, int(pages[0]), zone)
    with pytest.raises(InvariantBroken, match=message):
        alloc.check()


# Zeroing


def test_only_frames_that_were_written_are_zeroed(make_alloc):
    alloc = make_alloc()
    pfn = alloc.alloc_pages(GFP_KERNEL | g.ZERO)
    assert alloc.work.pages_zeroed == 1
    alloc.ram.mem[pfn << 12] = 9  # behind the allocator's back: it trusts the mark
    alloc.free_pages(pfn)
    assert alloc.alloc_pages(GFP_KERNEL | g.ZERO) == pfn and alloc.ram.mem[pfn << 12] == 9
    alloc.pages.nonzero[pfn] = 1
    alloc.free_pages(pfn)
    assert alloc.alloc_pages(GFP_KERNEL) == pfn and alloc.ram.mem[pfn << 12] == 9 and alloc.pages.nonzero[pfn] == 1
    alloc.free_pages(pfn)
    assert alloc.alloc_pages(GFP_KERNEL | g.ZERO) == pfn
    assert alloc.ram.mem[pfn << 12] == 0 and alloc.pages.nonzero[pfn] == 0
    assert alloc.work.pages_zeroed == 3


def test_zeroing_of_folios_and_in_bulk(make_alloc):
    alloc = make_alloc()
    head = alloc.alloc_pages(GFP_HIGHUSER_MOVABLE | g.COMP, 9)
    alloc.ram.frames[head : head + 512] = 1
    alloc.pages.vec.nonzero[head : head + 512] = 1
    alloc.free_pages(head, 9)
    assert alloc.alloc_pages(GFP_HIGHUSER_MOVABLE | g.COMP | g.ZERO, 9) == head
    assert not alloc.ram.frames[head : head + 512].any() and alloc.work.pages_zeroed == 512
    pages = alloc.alloc_bulk(GFP_HIGHUSER_MOVABLE, 2000)
    alloc.ram.frames[pages] = 1
    alloc.pages.vec.nonzero[pages] = 1
    alloc.free_pages(int(pages[5]))
    alloc.free_bulk(np.delete(pages, 5))
    again = alloc.alloc_bulk(GFP_HIGHUSER_MOVABLE | g.ZERO, 2000)
    assert not alloc.ram.frames[again].any() and not alloc.pages.vec.nonzero[again].any()
    assert alloc.work.pages_zeroed == 2512


# Mobility


def test_unmovable_pages_take_a_whole_block_from_the_movable(make_alloc):
    alloc = make_alloc()
    zone = alloc.zones[-1]
    pfn = alloc.alloc_pages(GFP_KERNEL)
    assert zone.migratetype(pfn) == UNMOVABLE and zone.nr_pageblocks(UNMOVABLE) == 2
    assert zone.steals == 1
    held = [alloc.alloc_pages(GFP_KERNEL) for _ in range(1000)]
    assert all(zone.migratetype(page) == UNMOVABLE for page in held)
    assert zone.steals == 1
    movable = alloc.alloc_pages(GFP_HIGHUSER_MOVABLE)
    assert zone.migratetype(movable) == MOVABLE


def fragmented(make_alloc, keep):
    """One zone whose only free memory is ``keep(offset)`` of each pageblock of movable pages."""
    alloc = make_alloc(64 * MIB)
    zone = alloc.zones[-1]
    pages = []
    while pfn := zone.rmqueue(0, MOVABLE):
        pages.append(pfn)
    zone.allocations += len(pages)
    alloc.pages.vec.refcount[pages] = 1
    alloc.pages.vec.flags[pages] = PG_LRU
    free = [pfn for pfn in pages if keep(pfn % 512) and pfn < 15872]  # the last pageblock is partly reserved
    alloc.pages.vec.flags[free] = 0
    alloc.free_bulk(np.array(free))
    alloc.check()
    return alloc, zone


def test_a_steal_of_little_moves_the_pageblock_s_free_pages_only(make_alloc):
    _, zone = fragmented(make_alloc, lambda offset: offset < 16)
    assert zone.counts()[4] == zone.nr_free // 16
    boost = zone.boost
    pfn = zone.rmqueue(0, UNMOVABLE)
    assert zone.migratetype(pfn) == MOVABLE  # 16 free and 496 movable pages: not worth a turn
    assert zone.boost == boost + 512
    assert sum(len(zone.lists[order][UNMOVABLE]) for order in range(5)) == 4
    assert zone.steals == 1


def test_a_pageblock_turns_over_when_half_of_it_fits(make_alloc):
    _, zone = fragmented(make_alloc, lambda offset: offset < 256)
    pfn = zone.rmqueue(0, UNMOVABLE)
    assert zone.migratetype(pfn) == UNMOVABLE
    assert zone.nr_pageblocks(UNMOVABLE) == 1


def test_a_pageblock_stays_what_it_is_below_half(make_alloc):
    _, zone = fragmented(make_alloc, lambda offset: offset < 192)
    assert zone.migratetype(zone.rmqueue(0, UNMOVABLE)) == MOVABLE


def test_reclaimable_is_preferred_over_movable(make_alloc):
    _, zone = fragmented(make_alloc, lambda offset: offset < 256)
    zone.rmqueue(0, RECLAIMABLE)
    first = zone.rmqueue(0, UNMOVABLE)
    assert zone.nr_pageblocks(RECLAIMABLE) + zone.nr_pageblocks(UNMOVABLE) >= 1
    assert zone.steals == 2 and zone.migratetype(first) == UNMOVABLE  # the reclaimable block was taken and turned


def test_a_movable_request_that_may_not_claim_takes_the_smallest(make_alloc):
    _, zone = fragmented(make_alloc, lambda offset: offset in (0, 1, 2, 3, 8))
    for order in range(11):  # all of it to UNMOVABLE lists
        blocks = zone.lists[order][MOVABLE]
        zone.lists[order][UNMOVABLE].update(blocks)
        blocks.clear()
    pfn = zone.rmqueue(0, MOVABLE)
    assert pfn % 512 == 8
    assert zone.nr_pageblocks(UNMOVABLE) == 0


def test_boost_is_bounded_and_ends_with_kswapd(make_alloc):
    alloc, zone = fragmented(make_alloc, lambda offset: offset < 16)
    while zone.rmqueue(0, UNMOVABLE):
        pass
    assert zone.boost == max(zone.watermarks[2] * 15000 // 10000, 512)
    assert zone.wmark(0) == zone.watermarks[0] + zone.boost
    alloc.kswapd.run(0)
    assert zone.boost == 0


def test_normal_is_kept_unfragmented_while_there_is_dma32(make_alloc):
    alloc = make_alloc(5 * GIB, thp=False)
    normal, dma32 = alloc.zones[2], alloc.zones[1]
    blocks = []
    while pfn := normal.rmqueue(0, MOVABLE):
        blocks.append(pfn)
    for pfn in blocks[:8192]:
        if pfn % 512 < 256:
            normal.free_one(pfn, 0, MOVABLE)
    normal.watermarks = [10, 20, 30, 40]
    pfn = alloc.alloc_pages(GFP_KERNEL)
    assert alloc.zone_of(pfn) is dma32
    assert normal.nr_pageblocks(UNMOVABLE) == 0


def test_the_highatomic_reserve(make_alloc):
    """Who can not wait and needs several pages gets a pageblock kept for such requests, once memory is short."""
    alloc, zone = pressed(make_alloc, pages=512 * MIB)
    assert zone.migratetype(alloc.alloc_pages(GFP_ATOMIC, 2)) == UNMOVABLE
    hoard = exhaust(alloc, GFP_NOWAIT)
    pfn = alloc.alloc_pages(GFP_ATOMIC, 2)
    assert zone.migratetype(pfn) == HIGHATOMIC and zone.nr_highatomic == 512
    alloc.check()
    assert alloc.alloc_pages(GFP_ATOMIC, 2) // 512 == pfn // 512
    for page in hoard[-2000:]:
        alloc.free_pages(page)
    exhaust(alloc, GFP_KERNEL | g.NORETRY | g.NOWARN)
    assert zone.nr_free - zone.nr_highatomic == zone.watermarks[0]  # the reserve is not theirs
    assert alloc.alloc_pages(GFP_ATOMIC, 2) // 512 == pfn // 512
    assert zone.unreserve_highatomic(UNMOVABLE, force=True)
    assert zone.nr_highatomic == 0 and zone.nr_pageblocks(HIGHATOMIC) == 0
    assert not zone.unreserve_highatomic(UNMOVABLE, force=True)
    alloc.check()


# NUMA


def test_nodes_are_tried_from_near_to_far(make_alloc):
    now = [0]
    alloc = make_alloc([64 * MIB, 64 * MIB, 64 * MIB], cpus=2, cpu=lambda: now[0], memory_only=[2])
    assert alloc.zone_of(alloc.alloc_pages(GFP_KERNEL)).nid == 0
    now[0] = 1
    assert alloc.zone_of(alloc.alloc_pages(GFP_KERNEL)).nid == 1
    assert alloc.zone_of(alloc.alloc_pages(GFP_KERNEL, 0, 2)).nid == 2
    assert alloc.zone_of(alloc.alloc_pages(GFP_KERNEL | g.COMP, 4, 2)).nid == 2
    assert len(exhaust(alloc, GFP_NOWAIT | g.THISNODE, nid=2)) > 14000
    assert alloc.alloc_pages(GFP_NOWAIT | g.THISNODE, 0, 2) == 0
    elsewhere = alloc.alloc_pages(GFP_NOWAIT, 0, 2)
    assert alloc.zone_of(elsewhere).nid == 0
    assert sum(zone.numa_foreign for zone in alloc.node_zones[2]) == 1
    assert sum(zone.numa_miss for zone in alloc.node_zones[0]) == 1
    assert sum(zone.numa_other for zone in alloc.node_zones[0]) == 1
    assert sum(zone.numa_other for zone in alloc.node_zones[2]) == sum(z.allocations for z in alloc.node_zones[2])
    alloc.check()


def test_bulk_on_a_node(make_alloc):
    alloc = make_alloc([64 * MIB, 64 * MIB])
    pages = alloc.alloc_bulk(GFP_HIGHUSER_MOVABLE, 20000, nid=1)
    assert len(pages) == 20000
    nodes = np.bincount(pages // (64 * MIB), minlength=2)
    assert nodes[1] > 14000 and nodes[0] == 20000 - nodes[1]
    alloc.free_bulk(np.random.default_rng(1).permutation(pages))
    alloc.drain_all_pages()
    alloc.check()
    assert alloc.nr_free_pages() == alloc.managed_pages


# Bulk


def test_bulk_gives_the_frames_of_as_many_single_allocations(make_alloc):
    for seed in range(10):
        rng = random.Random(seed)
        one, many = make_alloc(), make_alloc()
        for alloc in (one, many):
            held = [alloc.alloc_pages(GFP_HIGHUSER_MOVABLE) for _ in range(3000)]
            for pfn in random.Random(seed).sample(held, 1000):
                alloc.free_pages(pfn)
            alloc.drain_all_pages()
        count = rng.randrange(1, 5000)
        singles = [one.alloc_pages(GFP_HIGHUSER_MOVABLE) for _ in range(count)]
        bulk = many.alloc_bulk(GFP_HIGHUSER_MOVABLE, count)
        assert bulk.tolist() == singles
        assert np.array_equal(one.pages.vec.refcount, many.pages.vec.refcount)
        keep = rng.sample(range(count), count // 3)
        for pfn in np.delete(bulk, keep).tolist():
            one.free_pages(pfn)
        many.free_bulk(rng.sample(np.delete(bulk, keep).tolist(), count - count // 3) and np.delete(bulk, keep))
        for alloc in (one, many):
            alloc.drain_all_pages()
            alloc.check()
        assert [zone.counts() for zone in one.zones] == [zone.counts() for zone in many.zones]
        assert bytes(one.pages.buddy) == bytes(many.pages.buddy)
        assert one.events.snapshot() == many.events.snapshot()


def test_bulk_stops_where_single_allocations_would(make_alloc):
    alloc = make_alloc()
    zone = alloc.zones[-1]
    pages = alloc.alloc_bulk(GFP_NOWAIT, 1 << 20)
    assert zone.nr_free == zone.watermarks[0]
    assert len(pages) == alloc.managed_pages - alloc.nr_free_pages() - alloc.nr_pcp_pages()
    assert len(alloc.alloc_bulk(GFP_NOWAIT, 5)) == 0
    assert len(alloc.alloc_bulk(GFP_KERNEL, 0)) == 0
    alloc.check()
    alloc.free_bulk(pages)
    alloc.check()


def test_freeing_a_fragmented_set_in_bulk(make_alloc):
    alloc = make_alloc(256 * MIB)
    pages = alloc.alloc_bulk(GFP_HIGHUSER_MOVABLE, 40000)
    rng = np.random.default_rng(5)
    mixed = rng.permutation(pages)
    for part in np.array_split(mixed, 7):
        alloc.free_bulk(part)
        alloc.check()
    alloc.drain_all_pages()
    assert alloc.nr_free_pages() == alloc.managed_pages


# Random sequences


def random_steps(alloc, cpu, steps, seed, check_every):
    """Allocate, free, offline and unpoison at random; check; give everything back."""
    rng = random.Random(seed)
    failure = MemoryFailure(alloc, lambda line: None)
    held, poisoned = [], []
    masks = (GFP_KERNEL, GFP_KERNEL | g.RECLAIMABLE, GFP_HIGHUSER_MOVABLE | g.ZERO, GFP_NOWAIT, GFP_ATOMIC)
    for step in range(steps):
        cpu[0] = rng.randrange(alloc.topology.nr_cpus)
        choice = rng.random()
        if choice < 0.38:
            order = 0 if rng.random() < 0.8 else rng.randrange(11)
            comp = g.COMP if order and rng.random() < 0.7 else 0
            pfn = alloc.alloc_pages(
                rng.choice(masks) | comp | g.NOWARN, order, rng.randrange(-1, len(alloc.node_zones))
            )
            if pfn:
                held.append((pfn, order))
        elif choice < 0.41:
            held += [(pfn, 0) for pfn in alloc.alloc_bulk(rng.choice(masks), rng.randrange(1, 600)).tolist()]
        elif choice < 0.44:
            cut = rng.randrange(len(held) + 1)
            part, held = held[cut : cut + 600], held[:cut] + held[cut + 600 :]
            alloc.free_bulk(np.array([pfn for pfn, order in part if not order], dtype=np.int64))
            held += [block for block in part if block[1]]
        elif choice < 0.46:
            pfn = rng.randrange(256, alloc.pages.nr_pages)
            if alloc.is_free_buddy_page(pfn) and len(poisoned) < 40:
                assert failure.memory_failure(pfn) == 0
                poisoned.append(pfn)
        elif choice < 0.47 and poisoned:
            assert failure.unpoison_memory(poisoned.pop(rng.randrange(len(poisoned)))) == 0
        elif choice < 0.472:
            alloc.drain_all_pages()
        elif held:
            i = rng.randrange(len(held))
            held[i], held[-1] = held[-1], held[i]
            alloc.free_pages(*held.pop())
        if step % check_every == 0:
            alloc.check()
    alloc.check()
    for block in held:
        alloc.free_pages(*block)
    for pfn in poisoned:
        assert failure.unpoison_memory(pfn) == 0
    alloc.drain_all_pages()
    alloc.check()
    assert alloc.nr_free_pages() == alloc.managed_pages
    assert alloc.hw_poisoned == 0


@pytest.mark.slow
@pytest.mark.parametrize("without", [(), ("buddy-break-down-cleanup",)])
def test_a_hundred_thousand_random_steps(make_alloc, without):
    """Takes seconds: 100,000 steps, and every thousandth recomputes all invariants."""
    cpu = [0]
    alloc = make_alloc([48 * MIB, 64 * MIB + 300], cpus=4, cpu=lambda: cpu[0], without=without)
    random_steps(alloc, cpu, 100_000, seed=11, check_every=1000)


@pytest.mark.slow
def test_every_step_of_random_sequences_keeps_the_invariants(make_alloc):
    """Takes seconds: all invariants after each of 2,400 steps on small machines."""
    for seed in range(4):
        cpu = [0]
        alloc = make_alloc([4096, 1024 + 77], cpus=2, cpu=lambda cpu=cpu: cpu[0])
        random_steps(alloc, cpu, 600, seed, check_every=1)


def test_both_shapes_of_break_down_give_the_same_machine(make_alloc):
    states = []
    for without in ((), ("buddy-break-down-cleanup",)):
        cpu = [0]
        alloc = make_alloc(32 * MIB, cpu=lambda cpu=cpu: cpu[0], without=without)
        random_steps(alloc, cpu, 4000, seed=3, check_every=500)
        comparisons = alloc.work.buddy_comparisons
        work = {**alloc.work.snapshot(), "buddy_comparisons": 0}
        states.append((bytes(alloc.pages.buddy), alloc.events.snapshot(), work, comparisons))
    assert states[0][:3] == states[1][:3]
    assert states[1][3] == 2 * states[0][3] > 0


def test_tracepoints_see_what_happens(make_alloc):
    sched = Scheduler(1, 0, Work())
    trace, sink = Tracepoints(sched), MemorySink()
    alloc = make_alloc(trace=trace)
    trace.enable("kmem:mm_page*", sink)
    trace.enable("vmscan:*", sink)
    one = alloc.alloc_pages(GFP_KERNEL)
    four = alloc.alloc_pages(GFP_KERNEL | g.COMP, 2)
    alloc.free_pages(one)
    alloc.put_page(four)
    many = alloc.alloc_bulk(GFP_HIGHUSER_MOVABLE, 3)
    alloc.free_bulk(many)

    def seen(name):
        return [tuple(event.fields.values()) for event in sink.named(name)]

    assert seen("mm_page_alloc") == [
        (one, 0, GFP_KERNEL, UNMOVABLE),
        (four, 2, GFP_KERNEL | g.COMP, UNMOVABLE),
        *((pfn, 0, GFP_HIGHUSER_MOVABLE, MOVABLE) for pfn in many.tolist()),
    ]
    assert seen("mm_page_free") == [(one, 0), (four, 2), *((pfn, 0) for pfn in many.tolist())]
    assert seen("mm_page_alloc_extfrag") == [(4096, 0, 10, UNMOVABLE, MOVABLE, True)]
    alloc.drain_all_pages()
    assert (one, 0, UNMOVABLE) in seen("mm_page_pcpu_drain")

    sink.clear()
    PageCache(alloc, 300)
    exhaust(alloc, GFP_NOWAIT)
    exhaust(alloc, GFP_KERNEL | g.NORETRY | g.NOWARN)
    alloc.kswapd.run(0)
    assert seen("mm_vmscan_wakeup_kswapd") == [(0, 1, 0, GFP_NOWAIT)]
    assert seen("mm_vmscan_direct_reclaim_begin")[0] == (0, GFP_KERNEL | g.NORETRY | g.NOWARN)
    assert sum(event[0] for event in seen("mm_vmscan_direct_reclaim_end")) == 300
    assert seen("mm_shrink_slab_start")[0][:2] == ("page-cache", "page-cache")
    assert sum(event[5] for event in seen("mm_shrink_slab_end")) == 300
    assert seen("mm_vmscan_kswapd_wake") == [(0, 1, 0)] and seen("mm_vmscan_kswapd_sleep") == [(0,)]
