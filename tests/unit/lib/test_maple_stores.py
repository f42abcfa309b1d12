# SPDX-License-Identifier: GPL-2.0-or-later
"""What stores do to the nodes (T5, T6 of the specification), bulk mode, dead nodes, and the tree's locks."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from memtwin.errors import InvariantBroken
from memtwin.lib.gfp_types import GFP_KERNEL
from memtwin.lib.maple_tree import INDEX_MAX, MM_MT_FLAGS, MT_FLAGS_ALLOC_RANGE, MapleTree, MaState, RcuQueue
from memtwin.lib.testing.locks import LockChecker, RwsemShim, SpinLockShim
from memtwin.lib.testing.slab_shim import SlabShim


def full_leaf(flags: int = MM_MT_FLAGS, slots: int = 10) -> MapleTree:
    """One leaf of neighbouring ranges of 10 indexes (and the NULL behind them)."""
    tree = MapleTree(SlabShim(), flags)
    for i in range(slots - 1):
        tree.store_range(i * 10, i * 10 + 9, f"e{i}")
    assert tree.node_count == 1 and len(tree.root.slots) == slots
    return tree


@pytest.mark.parametrize(
    "first, last, entry, fresh_node, slots",
    [
        (10, 19, "x", False, 10),  # exact fit
        (15, 29, "x", False, 10),  # one border moves: slot store
        (10, 24, "x", False, 10),
        (80, 95, "x", False, 10),
        (85, 95, "x", True, 11),
        (15, 24, "x", True, 11),  # two borders move
        (12, 14, "x", True, 12),
        (10, 14, "x", True, 11),
        (10, 39, "x", True, 8),
        (20, 29, None, False, 10),
        (85, 89, None, False, 10),  # grows the NULL behind it
        (90, 99, "x", True, 11),  # append
    ],
)
def test_kinds_of_store_in_rcu_mode(first: int, last: int, entry: Any, fresh_node: bool, slots: int) -> None:
    tree = full_leaf()
    before = tree.root
    tree.store_range(first, last, entry)
    tree.check()
    assert (tree.root is not before) == fresh_node == before.dead
    assert len(tree.root.slots) == slots


def test_outside_rcu_mode_leaves_are_edited_in_place() -> None:
    tree = full_leaf(MT_FLAGS_ALLOC_RANGE)
    before = tree.root
    shim = tree.allocator
    assert isinstance(shim, SlabShim)
    shim.fail_after = 0
    for first, last, entry in [(15, 24, "x"), (32, 34, "y"), (50, 69, "z"), (90, 99, "end")]:
        tree.store_range(first, last, entry)
        assert tree.root is before
    tree.check()


def leaf_sizes(tree: MapleTree) -> list[int]:
    return [len(node.slots) for node in tree.all_nodes() if node.kind == 1]


def test_split_push_and_rebalance() -> None:
    tree = full_leaf(slots=16)
    tree.store_range(3, 4, "x")  # 18 slots: cut at 17 // 2
    assert leaf_sizes(tree) == [9, 9] and tree.height == 2
    for i in range(10):
        tree.store_range(100 + 8 * i, 103 + 8 * i, "y")
    tree.check()
    assert leaf_sizes(tree)[0] == 15  # pushed left
    tree = full_leaf(slots=16)
    tree.store_range(3, 4, "x")
    for last in (8, 6, 2, 1):
        tree.store_range(0, last, f"z{last}")
    tree.check()
    sizes = leaf_sizes(tree)
    tree.store_range(0, 49, "one")  # the left leaf is left with few: poured together with the right one
    tree.check()
    assert tree.node_count == 1 and sum(leaf_sizes(tree)) < sum(sizes)


def test_push_right_fills_the_right_sibling() -> None:
    tree = full_leaf(slots=16)
    tree.store(5, "x")
    assert leaf_sizes(tree) == [9, 9]
    for i in range(4):
        tree.store(15 + 10 * i - 1 if i else 15, f"y{i}")
    tree.check()
    sizes = leaf_sizes(tree)
    assert len(sizes) == 2 and sizes[1] in (9, 15)


def rows_of_100(count: int) -> MapleTree:
    tree = MapleTree(SlabShim(), MM_MT_FLAGS)
    for i in range(count):
        tree.store_range(i * 100, i * 100 + 99, f"e{i}")
    return tree


def grow_leaf(tree: MapleTree, number: int, slots: int) -> None:
    """Give a leaf more slots by halving its first ranges of 100."""
    for i in range(slots):
        leaf = [node for node in tree.all_nodes() if node.kind == 1][number]
        wide = [k for k in range(len(leaf.slots)) if leaf.pivots[k] - ([leaf.min - 1, *leaf.pivots][k]) == 100]
        tree.store_range(leaf.pivots[wide[0]] - 49, leaf.pivots[wide[0]], f"half {i}")


def test_the_rightmost_leaf_pushes_a_little_less() -> None:
    """End offsets that add up to 28 (of two leaves) may be pushed, but not by the leaf that ends the tree."""
    tree = rows_of_100(16)
    assert leaf_sizes(tree) == [9, 8]
    grow_leaf(tree, 0, 4)
    grow_leaf(tree, 1, 7)
    assert leaf_sizes(tree) == [13, 15]
    tree.store(1_599, "last")
    assert leaf_sizes(tree) == [13, 16]
    tree.store_range(1_590, 1_598, "one more")
    assert leaf_sizes(tree) == [13, 9, 8]
    tree = rows_of_100(40)
    assert leaf_sizes(tree) == [15, 15, 11]
    tree.store_range(0, 299, "three in one")
    grow_leaf(tree, 1, 2)
    assert leaf_sizes(tree) == [15, 15, 11]
    tree.check()


def test_three_nodes_for_two_when_the_cut_falls_on_a_null() -> None:
    """15 slots, a NULL, 16 slots: cut in the middle, neither half would be allowed to end there."""
    tree = rows_of_100(60)
    assert leaf_sizes(tree)[:3] == [15, 15, 15]
    grow_leaf(tree, 0, 1)
    grow_leaf(tree, 1, 1)
    assert leaf_sizes(tree)[:3] == [16, 16, 15]
    left, right = [node for node in tree.all_nodes() if node.kind == 1][:2]
    count = tree.node_count
    tree.store_range(left.pivots[-2] + 1, right.min + 10, None)
    tree.check()
    assert leaf_sizes(tree)[:4] == [11, 10, 11, 15] and tree.node_count == count + 1


def test_a_cut_moves_off_a_null() -> None:
    """Alternating ranges and gaps: no leaf but the last ends in NULL."""
    tree = MapleTree(SlabShim(), MT_FLAGS_ALLOC_RANGE)
    for i in range(20):
        tree.store(2 * i, f"e{i}")
    tree.check()
    assert [node.slots[-1] is None for node in tree.all_nodes() if node.kind == 1] == [False, False, True]


def test_spanning_null_up_to_a_leafs_end_moves_into_the_next() -> None:
    tree = MapleTree(SlabShim(), MM_MT_FLAGS)
    for i in range(100):
        tree.store_range(i * 10, i * 10 + 9, f"e{i}")
    leaf = next(node for node in tree.all_nodes() if node.kind == 1)
    count = tree.node_count
    start = leaf.pivots[-2] + 1
    assert tree.erase(start) == leaf.slots[-1]
    tree.check()
    assert tree.load(start) is None and tree.load(leaf.max + 1) is not None
    assert tree.node_count == count


def test_spanning_store_over_everything_but_the_edges() -> None:
    shim = SlabShim()
    tree = MapleTree(shim, MM_MT_FLAGS)
    for i in range(2_000):
        tree.store_range(i * 10, i * 10 + 9, f"e{i}")
    assert tree.height == 4
    assert tree.store_range(5, 19_994, None) == "e0"
    tree.check()
    assert tree.height == 1 and tree.node_count == shim.allocated == 1
    assert list(tree.ranges()) == [
        (0, 4, "e0"),
        (5, 19_994, None),
        (19_995, 19_999, "e1999"),
        (20_000, INDEX_MAX, None),
    ]


# -- bulk mode


def test_bulk_mode_levels_a_short_last_leaf() -> None:
    tree = MapleTree(SlabShim(), MT_FLAGS_ALLOC_RANGE)
    mas = MaState(tree)
    mas.expected_entries(40)
    for i in range(18):
        mas.set_range(i * 10, i * 10 + 9)
        mas.store(f"e{i}")
    sizes = leaf_sizes(tree)
    assert sizes[0] == 11  # cut at 16 - 6
    mas.set_range(140, INDEX_MAX)
    mas.store(None)
    assert leaf_sizes(tree)[-1] < 5  # bulk mode does not rebalance
    mas.destroy()
    tree.check()
    assert len(leaf_sizes(tree)) == 1 or min(leaf_sizes(tree)) >= 5
    assert list(tree.entries()) == [f"e{i}" for i in range(14)]
    shim = tree.allocator
    assert isinstance(shim, SlabShim) and shim.allocated == tree.node_count


# -- RCU and locks


def test_readers_may_stay_in_dead_nodes_until_the_grace_period() -> None:
    rcu = RcuQueue()
    shim = SlabShim()
    tree = MapleTree(shim, MM_MT_FLAGS, rcu=rcu)
    for i in range(30):
        tree.store_range(i * 10, i * 10 + 9, f"e{i}")
    rcu.rcu_barrier()
    reader = MaState(tree, 55)
    assert reader.walk() == "e5"
    old, content = reader.node, list(reader.node.slots)
    tree.store_range(52, 53, "x")
    assert old.dead and old.slots == content
    assert shim.allocated == tree.node_count + len(rcu) and len(rcu) >= 1
    assert reader.next() == "x"  # finds its node dead and walks again from index 50
    assert rcu.rcu_barrier() >= 1 and len(rcu) == 0
    assert shim.allocated == tree.node_count
    tree.clear_in_rcu()
    tree.destroy()
    shim.check_leaks()


def test_writes_check_the_external_lock() -> None:
    rwsem = RwsemShim()
    tree = MapleTree(SlabShim(), MM_MT_FLAGS)
    tree.store(1, "A")  # not registered: not checked
    tree.set_external_lock(rwsem)
    with pytest.raises(InvariantBroken, match="suspicious RCU usage"):
        tree.store(2, "B")
    assert tree.load(1) == "A"
    rwsem.down_write()
    tree.store(2, "B")
    tree.destroy()
    rwsem.up_write()
    with pytest.raises(ValueError, match="of its own"):
        MapleTree(SlabShim(), 0).set_external_lock(rwsem)


def test_own_spinlock_is_dropped_around_a_sleeping_allocation() -> None:
    """The walk begins anew: an insert sees what another one stored while the lock was free."""
    checker = LockChecker()
    spinlock = SpinLockShim(checker)

    class Meddler(SlabShim):
        def alloc(self, gfp: int) -> int:
            if gfp == GFP_KERNEL and not meddled:
                assert not checker.spinlocks
                meddled.append(True)
                tree.store(7, "other")
            return super().alloc(gfp)

    meddled: list[bool] = [True]
    shim = Meddler(non_kernel=0)
    tree = MapleTree(shim, MT_FLAGS_ALLOC_RANGE, spinlock=spinlock)
    meddled.clear()
    with pytest.raises(OSError) as error:
        tree.insert_range(5, 9, "mine")
    assert error.value.errno == errno.EEXIST
    assert meddled and tree.load(7) == "other" and not checker.spinlocks
    tree.store_range(5, 9, "mine")
    assert shim.allocated == tree.node_count == 1
    with pytest.raises(InvariantBroken, match="not held"):
        MaState(tree, 1).store("x")
