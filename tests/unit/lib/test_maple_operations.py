# SPDX-License-Identifier: GPL-2.0-or-later
"""Operations of tree and cursor, one small picture each: cases of lib/test_maple_tree.c that make sense here, rebuilt.

A picture shows indexes 0, 1, 2, ... as characters: letters are entries, ``.`` is NULL.
"""

from __future__ import annotations

import errno
from typing import Any

import pytest

from memtwin.hw.work import Work
from memtwin.lib.gfp_types import GFP_KERNEL
from memtwin.lib.maple_tree import (
    INDEX_MAX,
    MM_MT_FLAGS,
    MT_FLAGS_ALLOC_RANGE,
    XA_ZERO_ENTRY,
    MapleTree,
    MaState,
)
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
    assert mas.prev() == "A" and mas.prev() is None
    assert where(mas, mas.find()) == ("A", 0, 9)
    assert mas.next() == "Z" and mas.next() is None
    assert where(mas, mas.find_rev()) == ("Z", 10, INDEX_MAX)


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
