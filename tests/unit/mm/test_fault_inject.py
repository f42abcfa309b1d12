# SPDX-License-Identifier: GPL-2.0-or-later
"""Allocation fault injection: the n-th point, probability, times, space, filters; a sweep over a whole sequence."""

import numpy as np
import pytest

from memtwin.lib import gfp_types as g
from memtwin.lib.gfp_types import GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_NOWAIT
from memtwin.mm.fault_inject import FaultInjection
from memtwin.mm.slab import SlabAllocator


def pattern(fault, calls, gfp=GFP_NOWAIT, order=0):
    return "".join("x" if fault.should_fail_page(gfp, order) else "." for _ in range(calls))


def test_the_nth_point_once():
    fault = FaultInjection(fail_nth=3)
    assert pattern(fault, 6) == "..x..."
    assert (fault.points, fault.failed, fault.fail_nth) == (6, 1, 0)
    fault.fail_nth = 1
    assert pattern(fault, 2) == "x."


def test_probability_is_repeatable_and_about_right():
    runs = [pattern(FaultInjection(probability=30, seed=seed), 2000) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    assert 500 < runs[0].count("x") < 700
    assert pattern(FaultInjection(probability=100), 4) == "xxxx"
    assert pattern(FaultInjection(), 4) == "...."


def test_times_interval_and_space():
    assert pattern(FaultInjection(probability=100, times=2), 5) == "xx..."
    assert pattern(FaultInjection(probability=100, interval=3), 7) == "..x..x."
    assert pattern(FaultInjection(probability=100, space=3 * 4096), 5) == "..xxx"


def test_who_is_spared():
    fault = FaultInjection(probability=100, ignore_gfp_wait=True, min_order=1)
    assert not fault.should_fail_page(GFP_KERNEL, 2)
    assert not fault.should_fail_page(GFP_NOWAIT, 0)
    assert not fault.should_fail_slab(GFP_KERNEL, 64)
    assert fault.points == 0
    assert fault.should_fail_page(GFP_NOWAIT, 1)
    assert fault.should_fail_slab(GFP_NOWAIT, 64)
    assert not FaultInjection(probability=100).should_fail_page(GFP_KERNEL | g.NOFAIL, 0)
    assert not FaultInjection(probability=100, pages=False).should_fail_page(GFP_KERNEL, 0)
    assert not FaultInjection(probability=100, slabs=False).should_fail_slab(GFP_KERNEL, 64)


def test_bulk_allocation_stops_at_the_failing_page(make_alloc):
    alloc = make_alloc()
    alloc.fault = FaultInjection(fail_nth=8)
    pages = alloc.alloc_bulk(GFP_HIGHUSER_MOVABLE, 100)
    assert len(pages) == 7
    alloc.fault = None
    alloc.check()


def a_sequence(alloc, slab, cache):
    """Something with all kinds of allocations, which cleans up after itself; True if it got through."""
    held = []
    steps = (
        lambda: alloc.alloc_pages(GFP_KERNEL),
        lambda: alloc.alloc_pages(GFP_KERNEL | g.COMP, 3),
        lambda: cache.alloc(GFP_KERNEL),
        lambda: cache.alloc_bulk(GFP_KERNEL, 40),
        lambda: alloc.alloc_bulk(GFP_HIGHUSER_MOVABLE | g.ZERO, 5),
        lambda: cache.alloc(GFP_NOWAIT),
    )
    through = True
    for kind, step in enumerate(steps):
        got = step()
        enough = len(got) == 5 if kind == 4 else bool(got)
        held.append((kind, got))
        if not enough:
            through = False
            break
    for kind, got in reversed(held):
        if kind == 4:
            alloc.free_bulk(np.asarray(got))
        elif kind == 3:
            cache.free_bulk(got)
        elif got and kind in (2, 5):
            cache.free(got)
        elif got:
            alloc.put_page(got)
    return through


@pytest.mark.parametrize("what", ["both", "pages", "slabs"])
def test_a_sweep_fails_every_point_once_and_leaks_nothing(make_alloc, what):
    alloc = make_alloc()
    slab = SlabAllocator(alloc)
    kinds = {"pages": what != "slabs", "slabs": what != "pages"}

    def fresh():
        slab.shrink_all()
        alloc.drain_all_pages()

    cache = slab.kmem_cache_create("maple_node", 256)
    alloc.fault = FaultInjection(**kinds)
    assert a_sequence(alloc, slab, cache)
    points = alloc.fault.points
    fresh()
    assert points == {"both": 13, "pages": 10, "slabs": 3}[what]
    for nth in range(1, points + 1):
        alloc.fault = FaultInjection(fail_nth=nth, **kinds)
        assert not a_sequence(alloc, slab, cache)
        assert alloc.fault.failed == 1
        alloc.fault = None
        alloc.check()
        slab.check()
        fresh()
        assert alloc.nr_free_pages() == alloc.managed_pages
        assert cache.active_objects == 0
    alloc.fault = FaultInjection(fail_nth=points + 1, **kinds)
    assert a_sequence(alloc, slab, cache)
