# SPDX-License-Identifier: GPL-2.0-or-later
"""What the VMA layer asks in one step equals what cursors answer in several: the same tree, the same requests to the
allocator, the same failures.
"""

from __future__ import annotations

import random

import pytest

from memtwin.hw.work import Work
from memtwin.lib.gfp_types import GFP_KERNEL
from memtwin.lib.maple_tree import INDEX_MAX, MM_MT_FLAGS, MT_FLAGS_ALLOC_RANGE, MapleTree, MaState, RcuQueue
from memtwin.lib.testing.slab_shim import SlabShim

FLAGS = [MM_MT_FLAGS, MT_FLAGS_ALLOC_RANGE, 0]


class Recorder(SlabShim):
    """Notes every request and its outcome."""

    __slots__ = ("log",)

    def __init__(self) -> None:
        super().__init__(keep=0)
        self.log: list[object] = []

    def alloc(self, gfp: int) -> int:
        addr = super().alloc(gfp)
        self.log.append(("alloc", gfp, addr))
        return addr

    def alloc_bulk(self, gfp: int, n: int) -> list[int]:
        addrs = super().alloc_bulk(gfp, n)
        self.log.append(("alloc_bulk", gfp, n, len(addrs)))
        return addrs

    def free(self, addr: int) -> None:
        self.log.append(("free", addr))
        super().free(addr)

    def free_bulk(self, addrs: list[int]) -> None:
        if addrs:
            self.log.append(("free_bulk", len(addrs)))
        super().free_bulk(addrs)


def tree_of(flags: int) -> tuple[MapleTree, Recorder]:
    shim = Recorder()
    return MapleTree(shim, flags, Work(), rcu=RcuQueue()), shim


def by_cursor(tree: MapleTree, first: int, last: int, entry: object) -> None:
    mas = MaState(tree, first, last)
    mas.preallocate(entry, GFP_KERNEL)
    mas.store_prealloc(entry)


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("seed", range(6))
def test_a_preallocated_store_asks_and_stores_as_a_cursor_does(flags: int, seed: int) -> None:
    rnd = random.Random(f"{flags}/{seed}")
    (one, shim), (two, other) = tree_of(flags), tree_of(flags)
    span = rnd.choice([60, 600, 6000])
    refused = 0
    for k in range(1200):
        first = rnd.randrange(span)
        last = first + rnd.choice([0, rnd.randrange(4), rnd.randrange(40), rnd.randrange(span)])
        if rnd.random() < 0.02:
            first, last = rnd.choice([(0, INDEX_MAX), (first, INDEX_MAX), (0, last)])
        entry = None if rnd.random() < 0.4 else f"e{k}"
        shim.fail_after = other.fail_after = rnd.choice([None, None, None, 0, 1, 3])
        outcomes = []
        for store, tree in ((MapleTree.store_prealloc, one), (by_cursor, two)):
            try:
                store(tree, first, last, entry)
                outcomes.append(None)
            except OSError as error:
                outcomes.append(error.errno)
        assert outcomes[0] == outcomes[1]
        refused += outcomes[0] is not None
        shim.fail_after = other.fail_after = None
        assert list(one.ranges()) == list(two.ranges())
        assert one.node_count == two.node_count
        if k % 7 == 0:
            assert one.rcu is not None and two.rcu is not None
            one.rcu.rcu_barrier()
            two.rcu.rcu_barrier()
        assert shim.log == other.log
        shim.log.clear()
        other.log.clear()
        one.check()
    assert refused > 50


@pytest.mark.parametrize("entries", [0, 1, 9, 60, 700])
def test_questions_equal_a_list_of_ranges(entries: int) -> None:
    rnd = random.Random(entries)
    tree, _ = tree_of(MM_MT_FLAGS)
    span = 20 * max(entries, 10)
    for k in range(entries):
        first = rnd.randrange(span)
        tree.store_range(first, first + rnd.randrange(30), f"e{k}")
    ranges = list(tree.ranges())
    free = found = 0
    for _ in range(1500):
        first = rnd.choice([0, rnd.randrange(span)])
        last = rnd.choice([first, first + rnd.randrange(12), first + rnd.randrange(span), INDEX_MAX])
        inside = [entry for low, high, entry in ranges if low <= last and high >= first and entry is not None]
        assert tree.in_range(first, last) == inside
        beside = tree.beside(first, last)
        if inside:
            assert beside is None
        else:
            before = tree.load(first - 1) if first else None
            assert beside == (before, tree.load(last + 1) if last != INDEX_MAX else None)
            free += 1
        size = rnd.randrange(1, 40)
        for search, is_last in ((tree.lowest_gap, False), (tree.highest_gap, True)):
            gap = search(first, last, size)
            if gap is not None:
                index, following = gap
                assert (
                    tree.in_range(index - size + 1 if is_last else index, index if is_last else index + size - 1) == []
                )
                assert following == tree.find(index)
                found += 1
    assert free > 30 and found > 100


def test_a_preallocated_store_counts_its_walk() -> None:
    tree, _ = tree_of(MM_MT_FLAGS)
    for i in range(200):
        tree.store_range(10 * i, 10 * i + 4, f"e{i}")
    assert tree.height == 3 and tree.work is not None
    before = tree.work.nodes
    tree.store_prealloc(1002, 1002, "inner")
    assert tree.work.nodes == before + 3
