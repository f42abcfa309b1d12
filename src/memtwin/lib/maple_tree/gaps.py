# SPDX-License-Identifier: GPL-2.0-or-later
"""Gap tracking and gap search of the maple tree (Linux: lib/maple_tree.c).

Invariant: in a tree with ALLOC_RANGE, ``gaps[i]`` of every inner node is the longest NULL stretch below child i. A NULL
stretch never crosses the border of two leaves (no leaf but the last ends in NULL), so each is seen whole by one leaf,
and so is the entry behind it.
"""

from __future__ import annotations

from bisect import bisect_left

from memtwin.lib.maple_tree.node import INDEX_MAX, LEAF_64, Entry, MapleNode

__all__ = ["find_gap", "find_gap_rev", "max_gap", "set_gap"]


def max_gap(node: MapleNode) -> int:
    """Longest NULL stretch below a node, in indexes: the largest gap of an inner node, computed for a leaf."""
    if node.kind != LEAF_64:
        return max(node.gaps)
    best = 0
    pivots = node.pivots
    for i, entry in enumerate(node.slots):
        if entry is None:
            gap = pivots[i] - (pivots[i - 1] if i else node.min - 1)
            if gap > best:
                best = gap
    return best


def set_gap(node: MapleNode, gap: int) -> None:
    """Tell a node's ancestors that the longest gap below it is now ``gap``; stops where a maximum does not change.

    What the grandparent keeps is the parent's maximum from before: its gaps are looked through only when that one goes.
    """
    while (parent := node.parent) is not None:
        gaps = parent.gaps
        was = gaps[node.parent_slot]
        if was == gap:
            return
        gaps[node.parent_slot] = gap
        above = parent.parent
        if above is None:
            return
        longest = above.gaps[parent.parent_slot]
        if gap <= longest:
            if was < longest:
                return
            gap = max(gaps)
        node = parent


def find_gap(node: MapleNode, first: int, last: int, size: int) -> tuple[int, Entry, MapleNode] | None:
    """Lowest start of a NULL stretch of ``size`` indexes inside [first, last], below ``node``, the entry behind the
    NULL range (None at the end of the tree), and the leaf; None if there is none.

    A gap kept in an inner node bounds the whole child, so a descent may fail when the window cuts the child; the search
    then goes on with the next child.
    """
    slots = node.slots
    pivots = node.pivots
    begin = bisect_left(pivots, first) if first > node.min else 0
    start = pivots[begin - 1] + 1 if begin else node.min
    leaf = node.kind == LEAF_64
    for i in range(begin, len(slots)):
        if start > last:
            return None
        if leaf:
            if slots[i] is None:
                low = start if start > first else first
                high = pivots[i] if pivots[i] < last else last
                if high - low + 1 >= size:
                    return low, slots[i + 1] if pivots[i] != INDEX_MAX else None, node
        elif node.gaps[i] >= size:
            found = find_gap(slots[i], first, last, size)
            if found is not None:
                return found
        start = pivots[i] + 1
    return None


def find_gap_rev(node: MapleNode, first: int, last: int, size: int) -> tuple[int, Entry, MapleNode] | None:
    """Highest end of a NULL stretch of ``size`` indexes inside [first, last], below ``node``, the entry behind the
    NULL range (None at the end of the tree), and the leaf; None if there is none.
    """
    slots = node.slots
    pivots = node.pivots
    # The window ends near the end of the node, nearly always: from there it is found faster than by bisection.
    begin = len(slots) - 1
    while begin and last <= pivots[begin - 1]:
        begin -= 1
    if node.kind != LEAF_64:
        gaps = node.gaps
        for i in range(begin, -1, -1):
            if gaps[i] >= size:
                if pivots[i] < first:
                    return None
                found = find_gap_rev(slots[i], first, last, size)
                if found is not None:
                    return found
        return None
    for i in range(begin, -1, -1):
        if slots[i] is None:
            start = pivots[i - 1] + 1 if i else node.min
            end = pivots[i]
            low = start if start > first else first
            high = end if end < last else last
            if high - low + 1 >= size:
                return high, slots[i + 1] if end != INDEX_MAX else None, node
            if start <= first:
                return None
    return None
