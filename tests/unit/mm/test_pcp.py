# SPDX-License-Identifier: GPL-2.0-or-later
"""Per-CPU lists: sizes, order of use, streaks, draining, switching off."""

import numpy as np
import pytest

from memtwin.lib.gfp_types import COMP, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, RECLAIMABLE
from memtwin.mm.pcp import PerCpuPages, pageset_batch, pcp_order_index, vm_stat_threshold


@pytest.mark.parametrize(
    ("managed", "batch"), [(3840, 1), (16384, 3), (229376, 63), (511562, 63), (772808, 63), (1 << 28, 63)]
)
def test_batch_of_live_zones(managed, batch):
    assert pageset_batch(managed) == batch


@pytest.mark.parametrize(("managed", "threshold"), [(3840, 4), (772808, 24), (229376, 16)])
def test_stat_threshold_of_live_zones(managed, threshold):
    assert vm_stat_threshold(managed, 2) == threshold


def test_thirteen_lists():
    indexes = [pcp_order_index(order, t) for order in range(4) for t in range(3)]
    assert indexes == list(range(12))
    assert pcp_order_index(9, 1) == 12
    assert [pcp_order_index(order, 1) for order in (4, 8, 10)] == [-1, -1, -1]
    assert len(PerCpuPages().stacks) == 13


def test_the_last_page_freed_is_the_next_allocated(make_alloc):
    alloc = make_alloc()
    pages = [alloc.alloc_pages(GFP_KERNEL) for _ in range(5)]
    for pfn in pages:
        alloc.free_pages(pfn)
    assert [alloc.alloc_pages(GFP_KERNEL) for _ in range(5)] == pages[::-1]


def test_a_refill_hands_out_ascending_frames(make_alloc):
    alloc = make_alloc()
    pages = [alloc.alloc_pages(GFP_KERNEL) for _ in range(200)]
    assert pages == list(range(pages[0], pages[0] + 200))


def test_each_type_and_order_has_its_own_list(make_alloc):
    alloc = make_alloc(cpus=1)
    zone = alloc.zones[-1]
    for gfp, index in ((GFP_KERNEL, 0), (GFP_HIGHUSER_MOVABLE, 1), (GFP_KERNEL | RECLAIMABLE, 2)):
        for order, step in ((0, 0), (1, 3), (3, 9)):
            pfn = alloc.alloc_pages(gfp | (COMP if order else 0), order)
            alloc.free_pages(pfn, order)
            assert zone.pcps[0].stacks[index + step][-1] == pfn
    huge = alloc.alloc_pages(GFP_HIGHUSER_MOVABLE | COMP, 9)
    alloc.free_pages(huge, 9)
    assert zone.pcps[0].stacks[12] == [huge]
    assert zone.pcps[0].count == sum(
        len(stack) << (9 if i == 12 else i // 3) for i, stack in enumerate(zone.pcps[0].stacks)
    )
    alloc.check()


def test_a_streak_of_allocations_doubles_the_refill():
    pcp = PerCpuPages()
    pcp.set_limits(63, 2000, 20000)
    pcp.high = 10000
    assert [pcp.refill_batch(0, below_high=False) for _ in range(7)] == [63, 126, 252, 504, 1008, 2016, 2016]
    assert pcp.refill_batch(3, below_high=False) == 63 >> 3


def test_high_grows_with_refills_and_not_while_memory_is_short():
    pcp = PerCpuPages()
    pcp.set_limits(63, 500, 700)
    for _ in range(20):
        pcp.refill_batch(0, below_high=True)
    assert pcp.high == 0
    for _ in range(20):
        pcp.refill_batch(0, below_high=False)
    assert pcp.high == 700


def test_high_follows_what_a_streak_frees():
    pcp = PerCpuPages()
    pcp.count = 600
    pcp.set_limits(63, 500, 3000)
    assert pcp.limit(below_high=False, reclaim_active=False) == 500
    pcp.free_count = 2016
    assert pcp.limit(below_high=False, reclaim_active=False) == 2079
    assert pcp.give_back(2079) == 2016
    assert pcp.limit(below_high=False, reclaim_active=True) == 4 * 63
    assert pcp.high == 500


def test_the_coldest_go_first_from_the_list_asked_for_then_round_robin():
    pcp = PerCpuPages()
    pcp.stacks[0] = [10, 11, 12]
    pcp.stacks[4] = [20, 22]  # order 1, MOVABLE
    pcp.stacks[2] = [30]
    pcp.count = 8
    assert pcp.take_coldest(2, 0) == [(10, 0, 0), (11, 0, 0)]
    assert pcp.take_coldest(3, 2) == [(30, 0, 2), (20, 1, 1)]
    assert pcp.take_coldest(1, 4) == [(22, 1, 1)]  # a block is not split
    assert (pcp.count, pcp.stacks[0]) == (1, [12])
    assert pcp.take_coldest(99, 12) == [(12, 0, 0)]


def test_a_fixed_fraction_stops_the_floating(make_alloc):
    alloc = make_alloc(cpus=2, cpu=lambda: 0)
    alloc.set_percpu_pagelist_high_fraction(8)
    zone = alloc.zones[-1]
    assert zone.pcps[0].high_min == zone.pcps[0].high_max == zone.managed // 8 // 2
    pages = alloc.alloc_bulk(GFP_HIGHUSER_MOVABLE, 3000).tolist()
    for pfn in pages:
        alloc.free_pages(pfn)
    assert zone.pcps[0].count <= zone.pcps[0].high_max
    alloc.set_percpu_pagelist_high_fraction(0)
    assert zone.pcps[0].high_min < zone.pcps[0].high_max
    alloc.check()


def test_lists_do_not_grow_without_bound(make_alloc):
    alloc = make_alloc()
    zone = alloc.zones[-1]
    pages = alloc.alloc_bulk(GFP_HIGHUSER_MOVABLE, 6000).tolist()
    for pfn in pages:
        alloc.free_pages(pfn)
        assert zone.pcps[0].count <= zone.pcps[0].high_max
    alloc.drain_all_pages()
    assert alloc.nr_pcp_pages() == 0
    assert alloc.nr_free_pages() == alloc.managed_pages
    alloc.check()


def test_disabled_lists_let_frees_through(make_alloc):
    alloc = make_alloc()
    zone = alloc.zones[-1]
    pages = [alloc.alloc_pages(GFP_KERNEL) for _ in range(100)]
    alloc.zone_pcp_disable(zone)
    assert zone.pcps[0].count == 0
    free = zone.nr_free
    for i, pfn in enumerate(pages):
        alloc.free_pages(pfn)
        assert zone.nr_free == free + i + 1
    pfn = alloc.alloc_pages(GFP_KERNEL)
    assert zone.pcps[0].count == 0
    alloc.free_pages(pfn)
    alloc.zone_pcp_enable(zone)
    pfn = alloc.alloc_pages(GFP_KERNEL)
    alloc.free_pages(pfn)
    assert zone.pcps[0].count > 0
    alloc.check()


def test_cpus_have_their_own_lists(make_alloc):
    now = [0]
    alloc = make_alloc(cpus=2, cpu=lambda: now[0])
    pfn = alloc.alloc_pages(GFP_KERNEL)
    now[0] = 1
    alloc.free_pages(pfn)
    zone = alloc.zones[-1]
    assert zone.pcps[1].stacks[0] == [pfn]
    now[0] = 0
    assert alloc.alloc_pages(GFP_KERNEL) != pfn
    now[0] = 1
    assert alloc.alloc_pages(GFP_KERNEL) == pfn


def test_bulk_allocation_uses_the_list_first(make_alloc):
    alloc = make_alloc()
    hot = [alloc.alloc_pages(GFP_HIGHUSER_MOVABLE) for _ in range(3)]
    for pfn in hot:
        alloc.free_pages(pfn)
    assert alloc.alloc_bulk(GFP_HIGHUSER_MOVABLE, 10)[:3].tolist() == hot[::-1]
    assert np.all(alloc.pages.vec.refcount[hot] == 1)
