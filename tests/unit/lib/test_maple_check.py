# SPDX-License-Identifier: GPL-2.0-or-later
"""The invariant checker sees what it is there for: each kind of damage is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from memtwin.errors import InvariantBroken
from memtwin.lib.maple_tree import MapleNode, MapleTree
from memtwin.lib.testing.maple_model import vma_tree
from memtwin.lib.testing.slab_shim import SlabShim


def first_leaf(tree: MapleTree) -> MapleNode:
    return next(node for node in tree.all_nodes() if node.kind == 1)


def break_order(tree: MapleTree) -> None:
    leaf = first_leaf(tree)
    leaf.pivots[3] = leaf.pivots[2]


def break_nulls(tree: MapleTree) -> None:
    leaf = first_leaf(tree)
    i = next(i for i, entry in enumerate(leaf.slots) if entry is None and 0 < i < len(leaf.slots) - 1)
    leaf.slots[i - 1] = None


def break_leaf_end(tree: MapleTree) -> None:
    first_leaf(tree).slots[-1] = None


def break_gap(tree: MapleTree) -> None:
    first_leaf(tree).parent.gaps[0] += 1  # type: ignore[union-attr]


def break_parent_slot(tree: MapleTree) -> None:
    first_leaf(tree).parent_slot = 1


def break_parent(tree: MapleTree) -> None:
    first_leaf(tree).parent = tree.root.slots[1]


def break_border(tree: MapleTree) -> None:
    first_leaf(tree).parent.pivots[0] += 1  # type: ignore[union-attr]


def break_fill(tree: MapleTree) -> None:
    leaf = first_leaf(tree)
    del leaf.slots[1:-3], leaf.pivots[1:-3]


def break_count(tree: MapleTree) -> None:
    tree.node_count += 1


def break_death(tree: MapleTree) -> None:
    first_leaf(tree).dead = True


def break_depth(tree: MapleTree) -> None:
    tree.height += 1


def break_address(tree: MapleTree) -> None:
    first_leaf(tree).addr = tree.root.addr


def break_limits(tree: MapleTree) -> None:
    tree.root.pivots[-1] -= 1


@pytest.mark.parametrize(
    "damage, message",
    [
        (break_order, "ranges out of order"),
        (break_nulls, "adjacent NULL"),
        (break_leaf_end, "ends in NULL"),
        (break_gap, "gap of child 0"),
        (break_parent_slot, "wrong parent link"),
        (break_parent, "wrong parent link"),
        (break_border, "does not cover its slot"),
        (break_fill, "slots, not rightmost"),
        (break_count, "nodes counted"),
        (break_death, "dead node"),
        (break_depth, "different depths"),
        (break_address, "used twice"),
        (break_limits, "does not cover all indexes"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_damage_is_named(damage: Callable[[MapleTree], None], message: str) -> None:
    tree = vma_tree(SlabShim(), "up", 400)
    tree.check()
    damage(tree)
    with pytest.raises(InvariantBroken, match=message):
        tree.check()


def test_adjacent_nulls_are_named() -> None:
    tree = MapleTree(SlabShim())  # no gaps that would be noticed first
    for i in range(8):
        tree.store_range(i * 10, i * 10 + 4, f"e{i}")
    tree.root.slots[4] = None
    with pytest.raises(InvariantBroken, match="adjacent NULL"):
        tree.check()
