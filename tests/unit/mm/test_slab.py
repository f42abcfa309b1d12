# SPDX-License-Identifier: GPL-2.0-or-later
"""Object caches: sizes as SLUB's, addresses, bulk, failure, what goes back to the page allocator, wrong frees."""

import random

import pytest

from memtwin.errors import BadInput, InvariantBroken
from memtwin.lib import gfp_types as g
from memtwin.lib.gfp_types import GFP_KERNEL, GFP_NOWAIT
from memtwin.mm.fault_inject import FaultInjection
from memtwin.mm.page import PG_SLAB
from memtwin.mm.slab import SlabAllocator, slab_order


@pytest.fixture
def slab(make_alloc):
    return SlabAllocator(make_alloc(16384))


def everything_back(slab):
    slab.shrink_all()
    slab.alloc.drain_all_pages()
    slab.check()
    slab.alloc.check()
    assert slab.alloc.nr_free_pages() == slab.alloc.managed_pages


@pytest.mark.parametrize(
    ("size", "objects", "pages"),
    [
        (8, 512, 1),
        (104, 39, 1),
        (192, 21, 1),
        (256, 16, 1),
        (312, 13, 1),
        (416, 19, 2),
        (1016, 16, 4),
        (1280, 12, 4),
        (1472, 22, 8),
        (2112, 15, 8),
        (4232, 7, 8),
        (8192, 4, 8),
    ],
)
def test_slab_sizes_of_a_live_machine_with_two_cpus(size, objects, pages):
    order = slab_order(size, 2)
    assert (1 << order, (4096 << order) // size) == (pages, objects)


def test_more_cpus_want_more_objects_per_slab():
    assert [slab_order(256, cpus) for cpus in (1, 2, 4, 8, 64)] == [0, 0, 0, 1, 1]


def test_a_maple_node_s_slab_is_a_page(slab):
    cache = slab.kmem_cache_create("maple_node", 256)
    nodes = [cache.alloc(GFP_KERNEL) for _ in range(17)]
    assert (cache.num_slabs, cache.active_objects, cache.num_objects) == (2, 17, 32)
    assert nodes[1] - nodes[0] == 256 and nodes[0] % 4096 == 0
    assert slab.alloc.pages.flags[nodes[0] >> 12] & PG_SLAB
    assert slab.alloc.node_stats[0].nr_slab_unreclaimable == 2
    slab.check()
    cache.free_bulk(nodes)
    everything_back(slab)
    assert slab.alloc.node_stats[0].nr_slab_unreclaimable == 0


def test_alignment_and_reclaimable_pages(slab):
    cache = slab.kmem_cache_create("dentry", 190, align=64, reclaimable=True, account=True)
    assert (cache.object_size, cache.size, cache.account) == (190, 192, True)
    address = cache.alloc(GFP_KERNEL)
    assert address % 64 == 0
    assert slab.alloc.zone_of(address >> 12).migratetype(address >> 12) == 2
    assert slab.alloc.node_stats[0].nr_slab_reclaimable == 1
    for size in (0, 1 << 16):
        with pytest.raises(BadInput):
            slab.kmem_cache_create("impossible", size)


def test_the_object_freed_last_is_handed_out_first(slab):
    cache = slab.kmem_cache_create("x", 64)
    held = [cache.alloc(GFP_KERNEL) for _ in range(4)]
    for address in held:
        cache.free(address)
    assert [cache.alloc(GFP_KERNEL) for _ in range(4)] == held[::-1]


def test_bulk_is_all_or_nothing(slab):
    cache = slab.kmem_cache_create("maple_node", 256)
    got = cache.alloc_bulk(GFP_KERNEL, 1000)
    assert len(set(got)) == 1000 and all(cache.is_allocated(address) for address in got)
    most = slab.alloc.managed_pages * 16
    assert cache.alloc_bulk(GFP_NOWAIT, most) == []
    assert cache.active_objects == 1000
    slab.check()
    slab.alloc.check()
    cache.free_bulk(got)
    assert cache.alloc_bulk(GFP_KERNEL, 0) == []
    everything_back(slab)


def test_a_cache_does_not_hoard(slab):
    cache = slab.kmem_cache_create("maple_node", 256)
    got = cache.alloc_bulk(GFP_KERNEL, 16000)
    assert cache.num_slabs == 1000
    for address in got:
        cache.free(address)
    assert cache.num_slabs <= cache.min_partial + 1 + cache.stack_limit
    assert cache.stacked_objects <= cache.stack_limit
    slab.check()
    assert cache.shrink() > 0
    assert cache.num_slabs == 0
    everything_back(slab)


@pytest.mark.parametrize("how", ["free", "free_bulk"])
def test_wrong_frees_are_errors(slab, how):
    cache, other = slab.kmem_cache_create("a", 64), slab.kmem_cache_create("b", 64)
    mine, foreign = cache.alloc(GFP_KERNEL), other.alloc(GFP_KERNEL)
    for wrong in (foreign, mine + 8, mine + 64, 0):
        with pytest.raises(InvariantBroken, match="not allocated"):
            cache.free(wrong) if how == "free" else cache.free_bulk([wrong])
    cache.free(mine)
    with pytest.raises(InvariantBroken, match="not allocated"):
        cache.free(mine) if how == "free" else cache.free_bulk([mine])


def test_a_double_free_inside_one_bulk(slab):
    cache = slab.kmem_cache_create("a", 64)
    mine = cache.alloc(GFP_KERNEL)
    with pytest.raises(InvariantBroken, match="not allocated"):
        cache.free_bulk([mine, mine])


def test_destroying_a_cache(slab):
    cache = slab.kmem_cache_create("gone", 64)
    address = cache.alloc(GFP_KERNEL)
    with pytest.raises(InvariantBroken, match="1 objects in use"):
        cache.destroy()
    cache.free(address)
    cache.destroy()
    assert slab.caches == []
    everything_back(slab)


def test_larger_slabs_fall_back_to_smaller_ones(slab):
    """Order 3 is tried without effort; when memory is in single pages, one page has to do."""
    alloc = slab.alloc
    cache = slab.kmem_cache_create("big", 1472)
    assert (cache.order, cache.min_order, cache.objs_per_slab) == (2, 0, 11)
    pages = []
    while pfn := alloc.alloc_pages(g.GFP_HIGHUSER_MOVABLE | g.MEMALLOC):
        pages.append(pfn)
    for pfn in pages[::2]:
        alloc.free_pages(pfn)
    alloc.drain_all_pages()
    got = [cache.alloc(GFP_KERNEL) for _ in range(4)]
    assert all(got) and cache.num_slabs == 2
    assert {slab_.order for slab_ in cache.slabs()} == {0}
    slab.check()
    for address in got:
        cache.free(address)
    for pfn in pages[1::2]:
        alloc.free_pages(pfn)
    everything_back(slab)


def test_slabs_come_from_the_cpu_s_node(make_alloc):
    now = [0]
    slab = SlabAllocator(make_alloc([16384, 16384], cpus=2, cpu=lambda: now[0]))
    cache = slab.kmem_cache_create("x", 512)
    for cpu in (0, 1):
        now[0] = cpu
        assert slab.alloc.zone_of(cache.alloc(GFP_KERNEL) >> 12).nid == cpu
    assert [stat.nr_slab_unreclaimable for stat in slab.alloc.node_stats] == [2, 2]
    slab.check()


def test_failure_leaves_everything_as_it_was(slab):
    cache = slab.kmem_cache_create("maple_node", 256)
    slab.alloc.fault = FaultInjection(slabs=False, fail_nth=1)
    assert cache.alloc(GFP_KERNEL) == 0
    assert cache.alloc(GFP_KERNEL)
    slab.alloc.fault = FaultInjection(slabs=False, fail_nth=3)
    assert cache.alloc_bulk(GFP_KERNEL, 100) == []
    assert cache.active_objects == 1
    slab.alloc.fault = FaultInjection(pages=False, fail_nth=1)
    assert cache.alloc_bulk(GFP_KERNEL, 2) == []
    slab.check()
    slab.alloc.check()


@pytest.mark.parametrize(
    "break_it",
    [
        lambda cache, address: cache.alloc_bulk(GFP_KERNEL, 1) and cache._live.discard(address),
        lambda cache, address: cache._stack.append(address),
        lambda cache, address: cache._alloc.pages.flags.__setitem__(address >> 12, 0),
        lambda cache, address: setattr(cache._alloc.node_stats[0], "nr_slab_unreclaimable", 7),
    ],
)
def test_the_check_finds_what_is_broken(slab, break_it):
    cache = slab.kmem_cache_create("x", 64)
    address = cache.alloc(GFP_KERNEL)
    slab.check()
    break_it(cache, address)
    with pytest.raises(InvariantBroken):
        slab.check()


def test_random_use_of_three_caches(make_alloc):
    rng = random.Random(4)
    now = [0]
    slab = SlabAllocator(make_alloc([16384, 16384], cpus=3, cpu=lambda: now[0]))
    caches = [slab.kmem_cache_create(f"c{size}", size, reclaimable=size > 500) for size in (64, 256, 1408)]
    held = [(cache, address) for cache in caches for address in cache.alloc_bulk(GFP_KERNEL, 5)]
    for step in range(6000):
        now[0] = rng.randrange(3)
        cache = rng.choice(caches)
        choice = rng.random()
        if choice < 0.5:
            held.append((cache, cache.alloc(GFP_KERNEL)))
        elif choice < 0.53:
            held += [(cache, address) for address in cache.alloc_bulk(GFP_KERNEL, rng.randrange(1, 80))]
        elif choice < 0.56:
            mine = [pair for pair in held if pair[0] is cache][:60]
            held = [pair for pair in held if pair not in mine]
            cache.free_bulk([address for _, address in mine])
        elif choice < 0.57:
            cache.shrink()
        elif held:
            cache, address = held.pop(rng.randrange(len(held)))
            cache.free(address)
        if step % 500 == 0:
            slab.check()
            slab.alloc.check()
    assert sum(cache.active_objects for cache in caches) == len(held)
    for cache, address in held:
        cache.free(address)
    everything_back(slab)


def test_what_is_at_hand_is_what_can_not_fail(slab):
    cache = slab.kmem_cache_create("thing", 256)
    assert cache.at_hand(0) and not cache.at_hand(1)
    first = cache.alloc(GFP_KERNEL)  # a slab of 16: one is out
    assert cache.at_hand(15) and not cache.at_hand(16)
    slab.alloc.fault = FaultInjection(fail_nth=1)
    assert not cache.at_hand(1)  # the next request may be the one that fails
    slab.alloc.fault = None
    free = slab.alloc.nr_free_pages()
    got = cache.alloc_bulk(GFP_KERNEL, 15)
    assert len(got) == 15 and slab.alloc.nr_free_pages() == free
    cache.free_bulk([first, *got])
    everything_back(slab)
