# SPDX-License-Identifier: GPL-2.0-or-later
"""Shrinkers: the share by priority, batches, what is deferred, and the progress they make."""

import pytest

from memtwin.lib.gfp_types import GFP_KERNEL, GFP_NOWAIT
from memtwin.mm.slab import SlabAllocator
from memtwin.mm.vmscan import SHRINK_STOP, Reclaim, Shrinker
from memtwin.mm.vmstat import VmEvents


class Objects:
    """Counts down; notes how many it was asked for."""

    def __init__(self, count, stop_after=None):
        self.count, self.stop_after, self.asked = count, stop_after, []

    def count_objects(self, gfp, nid):
        return self.count

    def scan_objects(self, gfp, nid, nr_to_scan):
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            return SHRINK_STOP
        self.asked.append(nr_to_scan)
        freed = min(nr_to_scan, self.count)
        self.count -= freed
        return freed


@pytest.fixture
def reclaim():
    return Reclaim(VmEvents())


@pytest.mark.parametrize(
    ("priority", "seeks", "freed"), [(12, 2, 0), (7, 2, 256), (3, 2, 4096), (0, 2, 16384), (3, 0, 8192), (3, 4, 2048)]
)
def test_the_share(reclaim, priority, seeks, freed):
    """4/seeks of count >> priority, in batches of 128; what is less than a batch waits."""
    objects = Objects(16384)
    reclaim.register_shrinker(Shrinker("x", objects, seeks=seeks))
    assert reclaim.shrink_slab(GFP_KERNEL, 0, priority) == freed
    assert set(objects.asked) <= {128}
    assert reclaim.events.slabs_scanned == sum(objects.asked) >= freed


def test_small_shares_add_up(reclaim):
    objects = Objects(16384)
    reclaim.register_shrinker(Shrinker("x", objects))
    assert [reclaim.shrink_slab(GFP_KERNEL, 0, 9) for _ in range(6)] == [0] * 6  # 64 each, less than a batch
    assert reclaim.shrink_slab(GFP_KERNEL, 0, 2) == (16384 >> 2) * 2 + (6 * 64 >> 2) // 128 * 128
    reclaim.shrink_slab(GFP_KERNEL, 1, 9)
    assert [(nid, left) for nid, left in reclaim.shrinkers[0].deferred.items()] == [(0, 384), (1, 32)]


def test_few_objects_are_scanned_at_once_when_asked_for_all(reclaim):
    objects = Objects(5)
    reclaim.register_shrinker(Shrinker("x", objects))
    assert reclaim.shrink_slab(GFP_KERNEL, 0, 3) == 0
    assert reclaim.shrink_slab(GFP_KERNEL, 0, 0) == 5
    assert objects.asked[0] == 10 or objects.asked[0] == 5


def test_a_shrinker_may_stop(reclaim):
    objects = Objects(1000, stop_after=2)
    reclaim.register_shrinker(Shrinker("x", objects, batch=100))
    assert reclaim.shrink_slab(GFP_KERNEL, 0, 0) == 200
    assert objects.asked == [100, 100]


def test_unregistered_shrinkers_are_left_alone(reclaim):
    objects = Objects(1000)
    shrinker = Shrinker("x", objects)
    reclaim.register_shrinker(shrinker)
    reclaim.unregister_shrinker(shrinker)
    assert reclaim.shrink_slab(GFP_KERNEL, 0, 0) == 0 and objects.asked == []


def test_drop_slab(reclaim):
    objects = Objects(5000)
    reclaim.register_shrinker(Shrinker("x", objects))
    reclaim.drop_slab((0,))
    assert objects.count == 0 and reclaim.events.drop_slab == 1


class Dentries:
    """A real cache that can drop its objects."""

    def __init__(self, slab, count):
        self.cache = slab.kmem_cache_create("dentry", 192, reclaimable=True)
        self.held = self.cache.alloc_bulk(GFP_KERNEL, count)
        slab.alloc.reclaim.register_shrinker(Shrinker("dentries", self))

    def count_objects(self, gfp, nid):
        return len(self.held)

    def scan_objects(self, gfp, nid, nr_to_scan):
        victims, self.held = self.held[:nr_to_scan], self.held[nr_to_scan:]
        self.cache.free_bulk(victims)
        return len(victims)


def test_an_allocation_lives_off_a_cache_that_shrinks(make_alloc):
    alloc = make_alloc(16384)
    for zone in alloc.zones:
        zone.boost_factor = 0  # no watermark moves, so that pages can be told exactly
    slab = SlabAllocator(alloc)
    dentries = Dentries(slab, 60000)
    held = dentries.cache.num_slabs
    while alloc.alloc_pages(GFP_NOWAIT):
        pass
    assert alloc.events.slabs_scanned == 0
    got = 0
    while alloc.alloc_pages(GFP_KERNEL):
        got += 1
    assert dentries.held == []
    assert held - 300 < got <= held + 300
    assert alloc.reclaim.reclaimed >= held - 50
    assert alloc.events.allocstall_normal > 0 and alloc.events.slabs_scanned >= 60000
    slab.check()
    alloc.check()


def test_recursion_is_known_by_task(reclaim):
    current = [1]
    reclaim.task_id = lambda: current[0]
    task = reclaim.begin()
    assert reclaim.is_reclaiming()
    current[0] = 2
    assert not reclaim.is_reclaiming()
    reclaim.end(task)
    current[0] = 1
    assert not reclaim.is_reclaiming()
