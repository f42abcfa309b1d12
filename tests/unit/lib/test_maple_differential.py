# SPDX-License-Identifier: GPL-2.0-or-later
"""Random stores against a sorted list of ranges, all invariants after every step; failure at every allocation.

Takes about 6 s: hundreds of random histories, and one run of the checker per step.
"""

from __future__ import annotations

import errno
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtwin.lib.gfp_types import GFP_KERNEL, GFP_NOWAIT
from memtwin.lib.maple_tree import INDEX_MAX, MT_FLAGS_ALLOC_RANGE, MT_FLAGS_USE_RCU, MapleTree, MaState, RcuQueue
from memtwin.lib.testing.maple_model import RangeModel
from memtwin.lib.testing.slab_shim import SlabShim

ALL_FLAGS = [0, MT_FLAGS_ALLOC_RANGE, MT_FLAGS_USE_RCU, MT_FLAGS_ALLOC_RANGE | MT_FLAGS_USE_RCU]
FLAG_NAMES = ["plain", "gaps", "rcu", "gaps+rcu"]


def random_step(rnd: random.Random, model: RangeModel, span: int, k: int) -> tuple[int, int, Any]:
    """An interval and an entry: small and large, at borders of ranges, at both ends of the index space."""
    first = rnd.choice([0, INDEX_MAX - rnd.randrange(span)]) if rnd.random() < 0.1 else rnd.randrange(span)
    length = rnd.randrange(1, 5) if rnd.random() < 0.8 else rnd.randrange(1, span)
    last = min(first + length - 1, INDEX_MAX)
    kind = rnd.random()
    if kind < 0.2:  # exactly one or several whole ranges
        first, last, _ = rnd.choice(model.ranges)
        if rnd.random() < 0.5:
            last = max(last, rnd.choice(model.ranges)[1])
    elif kind < 0.22:
        last = INDEX_MAX
    return first, last, None if rnd.random() < 0.4 else f"e{k}"


@pytest.mark.parametrize("flags", ALL_FLAGS, ids=FLAG_NAMES)
@pytest.mark.parametrize("span", [60, 400, 1 << 30])
def test_random_stores_equal_a_list_of_ranges(flags: int, span: int) -> None:
    for seed in range(12):
        rnd = random.Random(seed)
        shim = SlabShim()
        rcu = RcuQueue() if seed % 2 else None
        tree = MapleTree(shim, flags, rcu=rcu)
        model = RangeModel()
        for k in range(250):
            first, last, entry = random_step(rnd, model, span, k)
            if rnd.random() < 0.3:
                mas = MaState(tree, first, last)
                mas.preallocate(entry)
                old = mas.store_prealloc(entry)
            else:
                old = tree.store_range(first, last, entry)
            assert old == model.store(first, last, entry)
            tree.check()
            assert list(tree.ranges()) == model.ranges, (seed, k, first, last, entry)
            if rcu is not None and rnd.random() < 0.1:
                rcu.rcu_barrier()
            assert shim.allocated == tree.node_count + len(rcu or ())
        tree.destroy()
        if rcu is not None:
            rcu.rcu_barrier()
        shim.check_leaks()


@pytest.mark.parametrize("flags", ALL_FLAGS, ids=FLAG_NAMES)
def test_erasing_everything_in_random_order(flags: int) -> None:
    """Shrinking from three levels to none: rebalance, and roots that are dropped."""
    for seed in range(4):
        rnd = random.Random(seed)
        shim = SlabShim()
        tree = MapleTree(shim, flags)
        model = RangeModel()
        starts = list(range(0, 3000, 10))
        for start in starts:
            last = start + (9 if seed % 2 else 4)
            tree.store_range(start, last, start * 4 + 5)
            model.store(start, last, start * 4 + 5)
        assert tree.height == 3
        rnd.shuffle(starts)
        for start in starts:
            assert tree.erase(start + 2) == start * 4 + 5
            model.store(start, start + (9 if seed % 2 else 4), None)
            tree.check()
            assert list(tree.ranges()) == model.ranges
        assert tree.empty and tree.node_count == 0
        shim.check_leaks()


@pytest.mark.parametrize("flags", ALL_FLAGS, ids=FLAG_NAMES)
def test_walks_and_steps_see_the_same_ranges(flags: int) -> None:
    """Cursors that move while other stores happen: after each, every direction agrees with the list."""
    rnd = random.Random(3)
    tree = MapleTree(SlabShim(), flags)
    model = RangeModel()
    mas = MaState(tree)
    for k in range(1500):
        first, last, entry = random_step(rnd, model, 2000, k)
        tree.store_range(first, last, entry)
        model.store(first, last, entry)
        at = rnd.randrange(2100)
        i = next(i for i, r in enumerate(model.ranges) if r[0] <= at <= r[1])
        mas.set(at)
        assert (mas.walk(), mas.index, mas.last) == (model.ranges[i][2], *model.ranges[i][:2])
        assert tree.load(at) == model.ranges[i][2]
        up = [r for r in model.ranges[i:] if r[2] is not None]
        assert tree.find(at) == (up[0][2] if up else None)
        forwards, backwards = model.ranges[i + 1 :][:3], model.ranges[:i][::-1][:3]
        for low, high, what in forwards:
            assert (mas.next_range(), mas.index, mas.last) == (what, low, high)
        mas.set(at)
        for low, high, what in backwards:
            assert (mas.prev_range(), mas.index, mas.last) == (what, low, high)
        mas.set(at)
        following = [r for r in model.ranges[i + 1 :] if r[2] is not None][:2]
        for low, high, what in following:
            assert (mas.next(), mas.index, mas.last) == (what, low, high)
        mas.set(at)
        before = [r for r in model.ranges[:i][::-1] if r[2] is not None][:2]
        for low, high, what in before:
            assert (mas.prev(), mas.index, mas.last) == (what, low, high)


@pytest.mark.parametrize("flags", ALL_FLAGS, ids=FLAG_NAMES)
def test_a_cursor_goes_on_after_its_own_and_foreign_stores(flags: int) -> None:
    """find after a store continues behind what was stored, whichever kind of store it was and whoever made it."""
    rnd = random.Random(11)
    for _ in range(150):
        tree = MapleTree(SlabShim(), flags)
        model = RangeModel()
        for k in range(rnd.randrange(5, 120)):
            first, last, entry = random_step(rnd, model, 500, k)
            tree.store_range(first, last, entry)
            model.store(first, last, entry)
        mas = MaState(tree)
        expected = next((r[2] for r in model.ranges if r[2] is not None), None)
        while (found := mas.find()) is not None:
            assert found == expected == model.load(mas.index)
            here = (mas.index, mas.last)
            action = rnd.random()
            if action < 0.4:
                entry = rnd.choice([None, "mine"])
                mas.store_gfp(entry, GFP_KERNEL)
                model.store(*here, entry)
            elif action < 0.8 and mas.last != INDEX_MAX:
                first, last, entry = random_step(rnd, model, 500, 1000)
                tree.store_range(first, last, entry)
                model.store(first, last, entry)
            # A foreign store may have changed the range the cursor is on: it goes on behind the one at its index.
            here = next(r[:2] for r in model.ranges if r[0] <= here[0] <= r[1])
            if action < 0.4:
                assert (mas.index, mas.last) == here
            expected = next((r[2] for r in model.ranges if r[2] is not None and r[0] > here[1]), None)
        assert expected is None


intervals = st.tuples(
    st.one_of(st.integers(0, 40), st.integers(0, 400), st.sampled_from([INDEX_MAX, INDEX_MAX - 1])),
    st.one_of(st.integers(0, 4), st.integers(0, 300), st.just(INDEX_MAX)),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(ALL_FLAGS), st.lists(intervals, max_size=60))
def test_any_history(flags: int, history: list[tuple[int, int, bool]]) -> None:
    shim = SlabShim()
    tree = MapleTree(shim, flags)
    model = RangeModel()
    for k, (first, length, null) in enumerate(history):
        last = min(first + length, INDEX_MAX)
        entry = None if null else f"e{k}"
        assert tree.store_range(first, last, entry) == model.store(first, last, entry)
        tree.check()
        assert list(tree.ranges()) == model.ranges
    assert shim.allocated == tree.node_count


@pytest.mark.parametrize("flags", ALL_FLAGS, ids=FLAG_NAMES)
def test_failure_at_every_allocation(flags: int) -> None:
    """Every store of a random history first fails at its 1st, 2nd, ... node: ENOMEM, tree unchanged, nothing leaked."""
    failures = 0
    for seed in range(6):
        rnd = random.Random(seed)
        shim = SlabShim()
        tree = MapleTree(shim, flags)
        model = RangeModel()
        for k in range(160):
            first, last, entry = random_step(rnd, model, 900, k)
            for budget in range(100):
                shim.fail_after = budget
                mas = MaState(tree, first, last)
                kind = rnd.randrange(3)
                try:
                    if kind == 0:
                        mas.store_gfp(entry, GFP_KERNEL)
                    elif kind == 1:
                        mas.store(entry)
                        mas.destroy()
                    else:
                        mas.preallocate(entry)
                        mas.store_prealloc(entry)
                    break
                except OSError as error:
                    assert error.errno == errno.ENOMEM
                failures += 1
                assert not mas.alloc
                tree.check()
                assert list(tree.ranges()) == model.ranges
                assert shim.allocated == tree.node_count
            shim.fail_after = None
            model.store(first, last, entry)
            assert list(tree.ranges()) == model.ranges
        tree.destroy()
        shim.check_leaks()
    assert failures > 500


def test_the_second_try_uses_the_callers_flags() -> None:
    """Nothing is given without sleeping: a GFP_KERNEL store works, a GFP_NOWAIT one and a plain one fail."""
    shim = SlabShim(non_kernel=0)
    tree = MapleTree(shim, MT_FLAGS_ALLOC_RANGE)
    tree.store_range(10, 19, "a", GFP_KERNEL)
    with pytest.raises(OSError, match="memory"):
        tree.store_range(0, INDEX_MAX, "b", GFP_NOWAIT)
    with pytest.raises(OSError, match="memory"):
        tree.store_range(30, 39, "b", GFP_NOWAIT) if tree.in_rcu else MaState(tree, 0, INDEX_MAX).store("b")
    assert list(tree.ranges()) == [(0, 9, None), (10, 19, "a"), (20, INDEX_MAX, None)]
    shim.non_kernel = 2  # too few for the bulk of a split: what the first try got is kept for the second
    for i in range(7):
        tree.store_range(40 + 10 * i, 45 + 10 * i, f"e{i}", GFP_KERNEL)
    tree.check()
    assert shim.allocated == tree.node_count == 3


def test_fork_that_fails_half_way_leaves_nothing() -> None:
    shim = SlabShim()
    parent = MapleTree(shim, MT_FLAGS_ALLOC_RANGE | MT_FLAGS_USE_RCU)
    for i in range(300):
        parent.store_range(i * 10, i * 10 + 5, i * 4 + 5)
    before = list(parent.ranges())
    for budget in range(0, 54):
        child = MapleTree(shim, MT_FLAGS_ALLOC_RANGE)
        shim.fail_after = budget
        mas = MaState(child)
        if budget < 52:  # 601 ranges: 43 leaves, 6 inner nodes, 3 to work with
            with pytest.raises(OSError):
                mas.expected_entries(300, GFP_KERNEL)
            assert not mas.alloc and child.empty
        else:
            assert mas.expected_entries(300, GFP_KERNEL) == 52
            mas.destroy()
        shim.fail_after = None
        assert shim.allocated == parent.node_count
    assert list(parent.ranges()) == before
