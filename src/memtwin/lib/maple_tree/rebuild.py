# SPDX-License-Identifier: GPL-2.0-or-later
"""Replacing nodes level by level: split, push, rebalance and spanning stores of the maple tree (Linux:
lib/maple_tree.c).

All of them are one loop. At some level the nodes from ``left`` to ``right`` (neighbours, often one and the same) give
way to a *run*: the slots they held, changed. The run is cut into new nodes; at the level above, the parents of ``left``
and ``right`` give way to a run that names the new children. The loop ends when one new node replaces one old one, which
takes a single pointer, or at the root. Old nodes are never edited, so readers may stay in them (RCU); they are returned
dead.

Invariants: no node but the rightmost ends in NULL; a node that is neither root nor rightmost has more slots than
``LEAST_END``; new nodes come from the cursor's reserve, filled beforehand, so nothing can fail half-way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memtwin.lib.maple_tree.gaps import max_gap, set_gap
from memtwin.lib.maple_tree.node import (
    ARANGE_64,
    INDEX_MAX,
    LEAF_64,
    LEAST_END,
    RANGE_64,
    SLOTS,
    Entry,
    MapleNode,
    adopt,
    next_node,
    prev_node,
)

if TYPE_CHECKING:
    from memtwin.lib.maple_tree.tree import MapleTree

__all__ = ["Run", "cuts", "off_null", "rebuild"]


class Run:
    """Slots, in order, that will become the contents of one to three nodes; ``gaps`` only where the kind has them."""

    __slots__ = ("gaps", "kind", "min", "pivots", "slots")

    def __init__(self, kind: int, min: int, pivots: list[int], slots: list[Entry], gaps: list[int]) -> None:
        self.kind = kind
        self.min = min
        self.pivots = pivots
        self.slots = slots
        self.gaps = gaps

    def prepend(self, node: MapleNode) -> None:
        """Pour a left neighbour in."""
        self.min = node.min
        self.pivots = node.pivots + self.pivots
        self.slots = node.slots + self.slots
        self.gaps = node.gaps + self.gaps

    def append(self, node: MapleNode) -> None:
        """Pour a right neighbour in."""
        self.pivots = self.pivots + node.pivots
        self.slots = self.slots + node.slots
        self.gaps = self.gaps + node.gaps


def rebuild(
    tree: MapleTree, reserve: list[int], run: Run, left: MapleNode, right: MapleNode, *, push: bool, bulk: bool
) -> None:
    """Put ``run`` in the place of the leaves ``left`` to ``right`` and set the tree above them right.

    ``push``: the run is one overflowing leaf, try to hand slots to a sibling before splitting (T6 of the
    specification). ``bulk``: cut so that appending fills leaves. ``reserve`` must hold enough node
    addresses.
    """
    inner = ARANGE_64 if tree.track_gaps else RANGE_64
    dead: list[MapleNode] = []
    height = 1
    while True:
        where: list[int] | None = None
        if len(run.slots) > SLOTS[run.kind]:
            if push and (sibling := _push(run, left)) is not None:
                where, neighbour = sibling
                if neighbour.min < left.min:
                    left = neighbour
                else:
                    right = neighbour
        elif len(run.slots) <= LEAST_END[run.kind]:
            # Too small, unless it is all there is: one neighbour, whatever its parent, is poured in.
            if (after := next_node(right)) is not None:
                run.append(after)
                right = after
            elif (before := prev_node(left)) is not None:
                run.prepend(before)
                left = before
        if where is None:
            where = cuts(run, bulk)
        nodes = _build(run, where, reserve)
        tree.node_count += len(nodes)
        _collect(left, right, dead)

        if run.min == 0 and run.pivots[-1] == INDEX_MAX:  # these are all nodes of this level: a new root
            while left.parent is not None:
                assert right.parent is not None
                left, right = left.parent, right.parent
                _collect(left, right, dead)
            if len(nodes) > 1:
                root = _build(_run_of(nodes, inner, tree.track_gaps), [], reserve)[0]
                tree.node_count += 1
                height += 1
            else:
                root = nodes[0]
            tree.height = height
            tree.root = root
            break
        assert left.parent is not None and right.parent is not None
        if left is right and len(nodes) == 1:
            node = nodes[0]
            node.parent = left.parent
            node.parent_slot = left.parent_slot
            node.parent.slots[node.parent_slot] = node
            if tree.track_gaps:
                set_gap(node, max_gap(node))
            break

        children = _run_of(nodes, inner, tree.track_gaps)
        low, high = left.parent, right.parent
        before_, after_ = left.parent_slot, right.parent_slot + 1
        run = Run(
            inner,
            low.min,
            low.pivots[:before_] + children.pivots + high.pivots[after_:],
            low.slots[:before_] + children.slots + high.slots[after_:],
            low.gaps[:before_] + children.gaps + high.gaps[after_:],
        )
        left, right = low, high
        height += 1
    tree.bury(dead, reserve)


def _push(run: Run, node: MapleNode) -> tuple[list[int], MapleNode] | None:
    """Pour an overflowing run together with a sibling that has room: the cut, and the sibling that is replaced too.

    Left before right, siblings of the same parent only. The node that is filled gets one slot less than it has.
    """
    parent = node.parent
    if parent is None:
        return None
    end = len(run.slots) - 1
    fill = SLOTS[run.kind] - 2
    room = 2 * SLOTS[run.kind] - 2 - (run.kind == LEAF_64) - (run.pivots[-1] == INDEX_MAX)
    slot = node.parent_slot
    if slot and end + len(parent.slots[slot - 1].slots) - 1 < room:
        sibling = parent.slots[slot - 1]
        run.prepend(sibling)
        return [off_null(run, fill)], sibling
    if slot + 1 < len(parent.slots) and end + len(parent.slots[slot + 1].slots) - 1 < room:
        sibling = parent.slots[slot + 1]
        run.append(sibling)
        return [off_null(run, len(run.slots) - 2 - fill)], sibling
    return None


def cuts(run: Run, bulk: bool) -> list[int]:
    """Offsets of the last slot of every node the run is cut into but the last one."""
    slots, kind = run.slots, run.kind
    end = len(slots) - 1
    limit, least = SLOTS[kind], LEAST_END[kind]
    if end < limit:
        return []
    if bulk:
        cut = end - least
        return [cut - 1 if slots[cut] is None else cut]
    cut = end // 2
    if end >= 2 * limit or (slots[cut] is None and end >= 2 * limit - 1):
        cut = off_null(run, end // 3)
        return [cut, off_null(run, 2 * (end // 3), cut + 1)]
    while cut < limit - 1 and run.pivots[cut] - run.min < limit - 1 and end - cut - 1 > least:
        cut += 1  # very dense left part: more slots for the same stretch of indexes
    return [off_null(run, cut)]


def off_null(run: Run, cut: int, start: int = 0) -> int:
    """Move a cut so that the node it ends (which starts at slot ``start``) does not end in NULL.

    One right if there is room.
    """
    if run.slots[cut] is not None:
        return cut
    right_part = len(run.slots) - 2 - cut  # after the move
    return cut + 1 if cut - start < SLOTS[run.kind] - 1 and right_part > LEAST_END[run.kind] else cut - 1


def _build(run: Run, cuts: list[int], reserve: list[int]) -> list[MapleNode]:
    """New nodes of a run; inner ones adopt their children."""
    if not cuts:
        nodes = [MapleNode(reserve.pop(), run.kind, run.min, run.pivots, run.slots, run.gaps)]
    else:
        nodes = []
        begin, low = 0, run.min
        for cut in [*cuts, len(run.slots) - 1]:
            end = cut + 1
            nodes.append(
                MapleNode(
                    reserve.pop(), run.kind, low, run.pivots[begin:end], run.slots[begin:end], run.gaps[begin:end]
                )
            )
            begin, low = end, run.pivots[cut] + 1
    if run.kind != LEAF_64:
        for node in nodes:
            adopt(node)
    return nodes


def _run_of(nodes: list[MapleNode], kind: int, track_gaps: bool) -> Run:
    """The run that names nodes of the level below."""
    gaps = [max_gap(node) for node in nodes] if track_gaps else []
    return Run(kind, nodes[0].min, [node.pivots[-1] for node in nodes], list(nodes), gaps)


def _collect(left: MapleNode, right: MapleNode, dead: list[MapleNode]) -> None:
    """Note the nodes of one level from left to right as dead."""
    dead.append(left)
    while left is not right:
        following = next_node(left)
        assert following is not None
        left = following
        dead.append(left)
