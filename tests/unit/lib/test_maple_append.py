# SPDX-License-Identifier: GPL-2.0-or-later
"""Filling a tree by appending (fork) makes the nodes that any other way of storing makes."""

import random

import pytest

from memtwin.lib.maple_tree import MapleTree, MaState, write
from memtwin.lib.maple_tree.node import INDEX_MAX, LEAF_64, MM_MT_FLAGS
from memtwin.lib.testing.slab_shim import SlabShim


def shape(node):
    """Everything below a node but its address."""
    if node.kind == LEAF_64:
        return node.min, node.pivots, node.slots
    assert [child.parent_slot for child in node.slots] == list(range(len(node.slots)))
    assert all(child.parent is node for child in node.slots)
    return node.min, node.pivots, node.gaps, [shape(child) for child in node.slots]


def filled(ranges, flags, expected):
    """(tree, the cursor's allocator) after storing ``ranges`` in order."""
    allocator = SlabShim()
    tree = MapleTree(allocator, flags)
    tree.clear_in_rcu()
    mas = MaState(tree, 0, 0)
    mas.expected_entries(expected)
    for number, (first, last) in enumerate(ranges):
        mas.set_range(first, last)
        assert mas.store(f"area {number}") is None
        assert (mas.index, mas.last, mas.walk()) == (first, last, f"area {number}")
    mas.destroy()
    return tree, allocator


@pytest.mark.interpreted
@pytest.mark.parametrize("flags", [0, MM_MT_FLAGS])
@pytest.mark.parametrize("seed", range(12))
def test_the_same_nodes(monkeypatch, flags, seed):
    rng = random.Random(seed)
    gaps = rng.random()
    for count in (1, 2, 15, 16, 17, 40, 150, rng.randrange(1200)):
        at, ranges = rng.choice((0, 1, 4096)), []
        for _ in range(count):
            at += rng.randrange(1, 1 << 20) if rng.random() < gaps else 0
            size = rng.choice((1, 4, 4096))
            ranges.append((at, at + size - 1))
            at += size
        quick, counted = filled(ranges, flags, count)
        monkeypatch.setattr(write, "_append", lambda *_: False)
        plain, counted_plainly = filled(ranges, flags, count)
        monkeypatch.undo()
        assert shape(quick.root) == shape(plain.root)
        assert (quick.height, quick.node_count) == (plain.height, plain.node_count)
        assert counted.allocated == counted_plainly.allocated == quick.node_count
        quick.check()


@pytest.mark.interpreted
def test_it_is_taken(monkeypatch):
    """Nearly all stores of a fork go this way."""
    taken = []
    append = write._append
    monkeypatch.setattr(write, "_append", lambda *args: taken.append(append(*args)) or taken[-1])
    filled([(i * 8192, i * 8192 + 4095) for i in range(1000)], MM_MT_FLAGS, 1000)
    assert len(taken) > 990 and taken.count(False) < 40


def test_what_is_no_append_is_stored_all_the_same():
    """Bulk mode, but not in order, or over what is there, or to the end."""
    allocator = SlabShim()
    tree = MapleTree(allocator, MM_MT_FLAGS)
    tree.clear_in_rcu()
    mas = MaState(tree, 0, 0)
    mas.expected_entries(8)
    for first, last, entry in ((100, 199, "a"), (10, 20, "b"), (150, 300, "c"), (301, 400, "d"), (0, 5, "e")):
        mas.set_range(first, last)
        mas.store(entry)
    mas.set_range(1 << 63, INDEX_MAX)
    mas.store("f")
    mas.destroy()
    assert [tree.load(at) for at in (3, 15, 120, 250, 333, INDEX_MAX, 500)] == ["e", "b", "a", "c", "d", "f", None]
    tree.check()
