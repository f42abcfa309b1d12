# SPDX-License-Identifier: GPL-2.0-or-later
"""Operations of tree and cursor, one small picture each: cases of lib/test_maple_tree.c that make sense here, rebuilt.

A picture shows indexes 0, 1, 2, ... as characters: letters are entries, ``.`` is NULL.
"""

from __future__ import annotations

import errno
from typing import Any

import pytest

from memtwin.errors import InvariantBroken
from memtwin.hw.work import Work
from memtwin.lib.gfp_types import GFP_KERNEL
from memtwin.lib.maple_tree import (
    INDEX_MAX,
    MM_MT_FLAGS,
    MT_FLAGS_ALLOC_RANGE,
    XA_ZERO_ENTRY,
    MapleTree,
    MaState,
    RcuQueue,
)
from memtwin.lib.testing.locks import LockChecker, RwsemShim, SpinLockShim
from memtwin.lib.testing.slab_shim import SlabShim


def tree_of(picture: str = "", flags: int = MT_FLAGS_ALLOC_RANGE, **more: Any) -> MapleTree:
    """A tree whose indexes from 0 on hold what the picture shows; equal neighbours are one range."""
    tree = MapleTree(SlabShim(), flags, **more)
    start = 0
    for i in range(1, len(picture) + 1):
        if i == len(picture) or picture[i] != picture[start]:
            if picture[start] != ".":
                tree.store_range(start, i - 1, picture[start])
            start = i
    return tree


def picture_of(tree: MapleTree, length: int) -> str:
    return "".join(tree.load(i) or "." for i in range(length))


def error_of(call: Any, *args: Any) -> int:
    with pytest.raises(OSError) as error:
        call(*args)
    assert error.value.errno is not None
    return error.value.errno


# -- the root


def test_empty_tree_has_no_node() -> None:
    tree = tree_of()
    assert tree.empty and tree.height == 0 and tree.node_count == 0
    assert tree.load(0) is None and tree.load(INDEX_MAX) is None and tree.find(0) is None
    assert tree.erase(5) is None
    assert list(tree.ranges()) == [(0, INDEX_MAX, None)]
    tree.store_range(10, 20, None)  # NULL over NULL
    assert tree.empty
    tree.check()


def test_index_zero_lives_in_the_root_word() -> None:
    tree = tree_of("A")
    assert tree.load(0) == "A" and tree.load(1) is None and not tree.empty
    assert tree.node_count == 0 and tree.height == 0
    tree.store(0, "B")
    assert tree.load(0) == "B" and tree.node_count == 0
    tree.store_range(1, 9, None)
    assert tree.node_count == 0
    tree.check()
    assert tree.erase(0) == "B" and tree.empty


@pytest.mark.parametrize("word, nodes", [(0x1001, 0), (0x1000, 0), (0x1002, 1), (0x1003, 0)])
def test_a_word_that_looks_like_a_node_needs_one(word: int, nodes: int) -> None:
    tree = tree_of()
    tree.store(0, word)
    assert tree.load(0) == word and tree.node_count == nodes


def test_root_expand() -> None:
    tree = tree_of("A")
    tree.store(5, "B")
    assert tree.height == 1 and tree.node_count == 1 and picture_of(tree, 7) == "A....B."
    other = tree_of("A")
    other.store_range(0, 3, "B")
    assert picture_of(other, 5) == "BBBB." and other.node_count == 1
    other.check()


def test_whole_index_space() -> None:
    tree = tree_of("A.BB..CCC.DDD.E.F.G.H.I.J.K.L")
    assert tree.height == 2
    tree.store_range(0, INDEX_MAX, "x")
    assert tree.node_count == 1 and tree.load(INDEX_MAX) == "x"
    tree.check()
    tree.store_range(0, INDEX_MAX, None)
    assert tree.empty and tree.node_count == 0


def test_flags_tell_the_height() -> None:
    tree = tree_of("A.BB..CCC.DDD.E.F.G.H.I.J.K.L", MM_MT_FLAGS)
    assert tree.flags == 0x303 | 2 << 2
    tree.clear_in_rcu()
    assert tree.flags == 0x301 | 2 << 2


# -- normal API


def test_insert_refuses_what_is_used() -> None:
    tree = tree_of("..AAA..B")
    assert error_of(tree.insert_range, 0, 2, "x") == errno.EEXIST
    assert error_of(tree.insert_range, 4, 5, "x") == errno.EEXIST
    assert error_of(tree.insert_range, 5, 8, "x") == errno.EEXIST
    assert error_of(tree.insert, 3, "x") == errno.EEXIST
    tree.insert_range(5, 6, "C")
    tree.insert(0, "D")
    assert picture_of(tree, 9) == "D.AAACCB."
    tree.check()


def test_impossible_arguments() -> None:
    tree = tree_of("AA")
    assert error_of(tree.store_range, 5, 4, "x") == errno.EINVAL
    assert error_of(tree.insert_range, 5, 4, "x") == errno.EINVAL
    for reserved in (2, 6, 4094, XA_ZERO_ENTRY):
        assert error_of(tree.store, 7, reserved) == errno.EINVAL
    tree.store(7, 4098)
    assert tree.load(7) == 4098


def test_erase_takes_the_whole_range_and_joins_gaps() -> None:
    tree = tree_of("A..BBB..C")
    assert tree.erase(4) == "B"
    assert list(tree.ranges()) == [(0, 0, "A"), (1, 7, None), (8, 8, "C"), (9, INDEX_MAX, None)]
    tree.check()


def test_overwriting_never_touches_what_lies_outside() -> None:
    tree = tree_of("AAABBBCCC")
    assert tree.store_range(2, 6, "x") == "A"
    assert picture_of(tree, 10) == "AAxxxxxCC."
    tree = tree_of("AAABBBCCC")
    tree.store_range(3, 5, "x")
    assert picture_of(tree, 10) == "AAAxxxCCC."


def test_equal_neighbours_stay_two_ranges() -> None:
    tree = tree_of("AA")
    tree.store_range(2, 3, "A")
    assert list(tree.ranges())[:2] == [(0, 1, "A"), (2, 3, "A")]


@pytest.mark.parametrize("order", [1, -1])
def test_sequences_single_indexes(order: int) -> None:
    """check_seq, check_rev_seq: very dense leaves, where a cut prefers more slots."""
    tree = tree_of()
    for i in list(range(1000))[::order]:
        tree.insert(i, i << 1 | 1)
        if i % 50 == 0:
            tree.check()
    tree.check()
    assert [tree.load(i) for i in (0, 500, 999, 1000)] == [1, 1001, 1999, None]
    assert tree.node_count < 1000 // 7


def test_find_without_a_cursor() -> None:
    tree = tree_of("..AA..B")
    assert [tree.find(i) for i in (0, 2, 3, 4, 6, 7)] == ["A", "A", "A", "B", "B", None]
    assert tree.find(0, 1) is None and tree.find(0, 2) == "A" and tree.find(4, 5) is None and tree.find(3, 2) is None


# -- zero entries


def test_zero_entries_reserve_but_read_as_null() -> None:
    tree = tree_of("AA...B")
    MaState(tree, 2, 4).store_gfp(XA_ZERO_ENTRY, GFP_KERNEL)
    assert tree.load(3) is None
    assert MaState(tree, 3).walk() is XA_ZERO_ENTRY
    assert tree.find(2) == "B" and tree.find(2, 4) is None
    assert list(tree.entries()) == ["A", "B"]
    assert error_of(tree.insert, 3, "x") == errno.EEXIST
    assert error_of(tree.alloc_range, "x", 1, 0, 5) == errno.EBUSY
    assert tree.erase(3) is None and MaState(tree, 3).walk() is None
    tree.check()


# -- cursor: positions


@pytest.fixture
def abc() -> MapleTree:
    return tree_of("..AAA..BB.C.....")


def where(mas: MaState, entry: Any) -> tuple[Any, int, int]:
    return entry, mas.index, mas.last


def test_walk_tells_the_range(abc: MapleTree) -> None:
    mas = MaState(abc, 3)
    assert where(mas, mas.walk()) == ("A", 2, 4)
    mas.set(6)
    assert where(mas, mas.walk()) == (None, 5, 6)
    mas.set(1000)
    assert where(mas, mas.walk()) == (None, 11, INDEX_MAX)


def test_find_goes_on_with_a_larger_limit(abc: MapleTree) -> None:
    mas = MaState(abc)
    assert mas.find(1) is None
    mas = MaState(abc)
    assert where(mas, mas.find(6)) == ("A", 2, 4)
    assert mas.find(6) is None
    assert mas.find(6) is None
    assert where(mas, mas.find(7)) == ("B", 7, 8)
    assert mas.find(8) is None
    assert where(mas, mas.find()) == ("C", 10, 10)
    assert mas.find() is None and mas.find() is None


def test_find_rev(abc: MapleTree) -> None:
    mas = MaState(abc, 15)
    assert where(mas, mas.find_rev()) == ("C", 10, 10)
    assert where(mas, mas.find_rev(8)) == ("B", 7, 8)
    assert mas.find_rev(5) is None
    assert where(mas, mas.find_rev(4)) == ("A", 2, 4)
    assert mas.find_rev() is None and mas.find_rev() is None


def test_find_range_stops_at_gaps(abc: MapleTree) -> None:
    mas = MaState(abc, 3)
    seen = [where(mas, mas.find_range()) for _ in range(4)]
    assert seen == [("A", 2, 4), (None, 5, 6), ("B", 7, 8), (None, 9, 9)]
    mas = MaState(abc, 8)
    assert [where(mas, mas.find_range_rev()) for _ in range(3)] == [("B", 7, 8), (None, 5, 6), ("A", 2, 4)]


def test_next_and_prev(abc: MapleTree) -> None:
    mas = MaState(abc, 3)
    assert where(mas, mas.next()) == ("B", 7, 8)
    assert where(mas, mas.next()) == ("C", 10, 10)
    assert mas.next() is None
    assert where(mas, mas.prev()) == ("C", 10, 10)  # it had stepped off the end
    assert where(mas, mas.prev()) == ("B", 7, 8)
    assert where(mas, mas.prev(2)) == ("A", 2, 4)
    assert mas.prev() is None
    assert where(mas, mas.next()) == ("A", 2, 4)
    assert where(mas, mas.next()) == ("B", 7, 8)


def test_next_respects_the_limit(abc: MapleTree) -> None:
    mas = MaState(abc, 2)
    assert mas.next(6) is None
    mas.set(2)
    assert mas.next(7) == "B"
    mas.set(10)
    assert mas.prev(9) is None
    mas.set(10)
    assert mas.prev(8) == "B"


def test_off_the_end_and_back_where_an_entry_touches_it() -> None:
    tree = tree_of()
    tree.store_range(0, 9, "A")
    tree.store_range(10, INDEX_MAX, "Z")
    mas = MaState(tree, 5)
    assert mas.prev() is None
    assert where(mas, mas.next()) == ("A", 0, 9)
    assert where(mas, mas.next()) == ("Z", 10, INDEX_MAX)
    assert mas.next() is None
    assert where(mas, mas.prev()) == ("Z", 10, INDEX_MAX)


def test_pause_goes_on_behind_last(abc: MapleTree) -> None:
    mas = MaState(abc)
    assert mas.find() == "A"
    mas.pause()
    abc.store_range(2, 8, "x")  # while nobody looked
    assert where(mas, mas.find()) == ("x", 2, 8)  # behind 4
    mas.pause()
    abc.erase(2)
    assert mas.find() == "C"
    mas.pause()
    assert mas.find() is None
    mas.set(9)
    mas.pause()
    assert mas.find_rev() is None


def test_reset_begins_at_index_again(abc: MapleTree) -> None:
    mas = MaState(abc)
    assert mas.find() == "A"
    mas.reset()
    assert mas.find() == "A"
    mas.set_range(7, 7)
    assert mas.find() == "B"


def test_insert_leaves_the_cursor_on_what_is_there(abc: MapleTree) -> None:
    mas = MaState(abc, 5, 9)
    assert error_of(mas.insert, "x") == errno.EEXIST
    assert (mas.index, mas.last) == (7, 8)


def test_iterate_and_store() -> None:
    """Store at every entry found, while the tree splits under the cursor."""
    tree = tree_of()
    for i in range(200):
        tree.store_range(i * 10, i * 10 + 5, "a")
    mas = MaState(tree)
    seen = 0
    while mas.find() is not None:
        index = mas.index
        mas.set_range(index + 1, index + 2)
        mas.store_gfp("b", GFP_KERNEL)
        mas.set_range(index, index + 5)
        mas.walk()
        mas.set_range(index + 5, index + 5)
        mas.pause()
        seen += 1
    tree.check()
    assert seen == 200 and sum(1 for e in tree.entries() if e == "b") == 200


def test_work_counts_visited_nodes() -> None:
    work = Work()
    tree = MapleTree(SlabShim(), MT_FLAGS_ALLOC_RANGE, work)
    for i in range(200):
        tree.store_range(i * 10, i * 10 + 5, "a")
    assert tree.height == 3
    before = work.nodes
    tree.load(500)
    assert work.nodes == before + 3
    mas = MaState(tree)
    while mas.find() is not None:
        pass
    leaves = sum(1 for node in tree.all_nodes() if node.kind == 1)
    assert work.nodes == before + 3 + 3 + leaves - 1


# -- what a store does to nodes


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


def test_a_cut_moves_off_a_null() -> None:
    """Alternating ranges and gaps: no leaf but the last ends in NULL."""
    tree = tree_of("A.B.C.D.E.F.G.H.I.J.K.L.M.N.O.P.Q.R.S.T.")
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
    assert error_of(tree.insert_range, 5, 9, "mine") == errno.EEXIST
    assert meddled and tree.load(7) == "other" and not checker.spinlocks
    tree.store_range(5, 9, "mine")
    assert shim.allocated == tree.node_count == 1
    with pytest.raises(InvariantBroken, match="not held"):
        MaState(tree, 1).store("x")
