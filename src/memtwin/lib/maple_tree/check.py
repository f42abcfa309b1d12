# SPDX-License-Identifier: GPL-2.0-or-later
"""The invariants of a maple tree, recomputed (Linux: mt_validate). Each violation has its own message."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from memtwin.errors import InvariantBroken
from memtwin.lib.maple_tree.node import (
    ARANGE_64,
    INDEX_MAX,
    LEAF_64,
    LEAST_END,
    RANGE_64,
    SLOTS,
    MapleNode,
)

if TYPE_CHECKING:
    from memtwin.lib.maple_tree.tree import MapleTree

__all__ = ["check_tree"]


def check_tree(tree: MapleTree) -> None:
    """Raise InvariantBroken naming the first condition that does not hold."""
    root = tree.root
    if not root.addr:
        stand_in = (root.pivots, len(root.slots)) in (([INDEX_MAX], 1), ([0, INDEX_MAX], 2))
        _require(
            stand_in and root.slots[-1] is None and tree.height == 0 and tree.node_count == 0,
            "empty tree has nodes",
            root,
        )
        return
    _require(root.parent is None, "the root has a parent", root)
    _require(root.min == 0 and root.pivots[-1] == INDEX_MAX, "the root does not cover all indexes", root)
    seen: set[int] = set()
    inner = ARANGE_64 if tree.track_gaps else RANGE_64
    _check_node(tree, root, tree.height, inner, seen)
    _require(len(seen) == tree.node_count, f"{tree.node_count} nodes counted, {len(seen)} in the tree", root)
    before: object = ()
    for first, last, entry in tree.ranges():
        _require(before is not None or entry is not None, f"adjacent NULL ranges at [{first:#x}, {last:#x}]", root)
        before = entry


def _check_node(tree: MapleTree, node: MapleNode, height: int, inner: int, seen: set[int]) -> int:
    """Check a node and everything below; returns its longest NULL stretch in indexes."""
    slots, pivots = node.slots, node.pivots
    leaf = height == 1
    rightmost = pivots[-1] == INDEX_MAX
    _require(node.kind == (LEAF_64 if leaf else inner), "leaves at different depths, or a node of the wrong kind", node)
    _require(node.addr not in seen, "a node is used twice", node)
    seen.add(node.addr)
    _require(not node.dead, "a dead node is in the tree", node)
    _require(1 <= len(slots) <= SLOTS[node.kind], f"{len(slots)} slots", node)
    _require(len(pivots) == len(slots), "slots and pivots differ in number", node)
    _require(
        pivots[0] >= node.min and all(a < b for a, b in pairwise(pivots)),
        "ranges out of order",
        node,
    )
    if node.parent is not None and not rightmost:
        _require(len(slots) > LEAST_END[node.kind], f"only {len(slots)} slots, not rightmost", node)
    if leaf:
        _require(rightmost or slots[-1] is not None, "a leaf that is not the last ends in NULL", node)
        starts = [node.min, *(pivot + 1 for pivot in pivots)]
        return max((pivots[i] - starts[i] + 1 for i in range(len(slots)) if slots[i] is None), default=0)
    _require(len(slots) >= 2, "an inner node with a single child", node)
    _require(len(node.gaps) == (len(slots) if tree.track_gaps else 0), "gaps and slots differ in number", node)
    longest = 0
    low = node.min
    for i, child in enumerate(slots):
        _require(child.parent is node and child.parent_slot == i, f"child {i} has a wrong parent link", node)
        _require(child.min == low and child.pivots[-1] == pivots[i], f"child {i} does not cover its slot", node)
        low = pivots[i] + 1
        gap = _check_node(tree, child, height - 1, inner, seen)
        if tree.track_gaps:
            _require(node.gaps[i] == gap, f"gap of child {i} is {node.gaps[i]:#x}, true longest is {gap:#x}", node)
        longest = max(longest, gap)
    return longest


def _require(condition: bool, what: str, node: MapleNode) -> None:
    if not condition:
        raise InvariantBroken(f"maple tree: {what}: {node!r}")
