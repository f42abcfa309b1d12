# SPDX-License-Identifier: GPL-2.0-or-later
"""The cursor of the maple tree and its advanced API (Linux: struct ma_state, lib/maple_tree.c).

``mas_X(mas, ...)`` is ``mas.X(...)``: walk, find, find_rev, next, prev, next_range, prev_range, find_range,
find_range_rev, store, store_gfp, store_prealloc, preallocate, expected_entries, insert, erase, empty_area,
empty_area_rev, pause, reset, set, set_range, destroy.

``index``/``last`` are the interval a store is about, and afterwards the range the cursor is on. After a step that met
its limit they are the last range looked at, so that a later call with a wider limit goes on from there. The advanced
API sees zero entries, which the normal one (``MapleTree``) reads as NULL. Reading needs the tree's lock or an RCU read
section, writing the lock.
"""

from __future__ import annotations

import errno
from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING

from memtwin.lib.gfp_types import GFP_KERNEL, gfpflags_allow_blocking
from memtwin.lib.maple_tree import write
from memtwin.lib.maple_tree.errors import NodesWanted
from memtwin.lib.maple_tree.gaps import find_gap, find_gap_rev
from memtwin.lib.maple_tree.node import (
    INDEX_MAX,
    MA_ACTIVE,
    MA_OVERFLOW,
    MA_PAUSE,
    MA_START,
    MA_UNDERFLOW,
    Entry,
    next_node,
    prev_node,
)

if TYPE_CHECKING:
    from memtwin.lib.maple_tree.tree import MapleTree

__all__ = ["MaState"]

_NO_NODE = (MA_START, MA_PAUSE)
_LOOK_HERE_FIRST = (MA_START, MA_UNDERFLOW)  # find: what is at index itself was not returned yet
_LOOK_HERE_FIRST_REV = (MA_START, MA_OVERFLOW)


class MaState:
    """A cursor over ``tree``, about [index, last]. ``alloc``: addresses of the nodes it holds in reserve."""

    __slots__ = ("alloc", "bulk", "index", "last", "node", "offset", "seq", "status", "tree")

    def __init__(self, tree: MapleTree, index: int = 0, last: int | None = None) -> None:
        self.tree = tree
        self.index = index
        self.last = index if last is None else last
        self.status = MA_START
        self.node = tree.root
        self.offset = 0
        self.seq = -1
        self.alloc: list[int] = []
        self.bulk = False

    # -- position

    def set(self, index: int) -> None:
        """Point at one index and forget the node (mas_set)."""
        self.index = self.last = index
        self.status = MA_START

    def set_range(self, first: int, last: int) -> None:
        """Point at an interval and forget the node (mas_set_range)."""
        self.index = first
        self.last = last
        self.status = MA_START

    def reset(self) -> None:
        """Forget the node: the next find begins at ``index``."""
        self.status = MA_START

    def pause(self) -> None:
        """Forget the node, as before dropping the lock: the next find goes on behind ``last``."""
        self.status = MA_PAUSE

    # -- reading

    def walk(self) -> Entry:
        """Entry at ``index``; the cursor is then on its range (also if that is NULL)."""
        tree = self.tree
        index = self.index
        node = tree.leaf_at(index)
        if tree.work is not None:
            tree.work.nodes += tree.height
        pivots = node.pivots
        offset = bisect_left(pivots, index)
        self.status = MA_ACTIVE
        self.seq = tree.seq
        self.node = node
        self.offset = offset
        self.index = pivots[offset - 1] + 1 if offset else node.min
        self.last = pivots[offset]
        return node.slots[offset]

    def find(self, max: int = INDEX_MAX) -> Entry:
        """First call: the first entry at or above ``index`` up to ``max``; then the following ones. None: no more."""
        return self._find(max, nulls=False)

    def find_range(self, max: int = INDEX_MAX) -> Entry:
        """As ``find``, but stops at NULL ranges too (index/last tell where; None also at the limit, then ``last >=
        max``).
        """
        return self._find(max, nulls=True)

    def find_rev(self, min: int = 0) -> Entry:
        """Mirror image of ``find``: the first entry at or below ``index`` down to ``min``, then the ones before."""
        return self._find_rev(min, nulls=False)

    def find_range_rev(self, min: int = 0) -> Entry:
        """Mirror image of ``find_range``."""
        return self._find_rev(min, nulls=True)

    def next(self, max: int = INDEX_MAX) -> Entry:
        """Next entry behind the range of ``index`` that begins at or below ``max``, or None."""
        return self._next(max, nulls=False)

    def next_range(self, max: int = INDEX_MAX) -> Entry:
        """Next range, NULL ones included."""
        return self._next(max, nulls=True)

    def prev(self, min: int = 0) -> Entry:
        """Previous entry before the range of ``index`` that ends at or above ``min``, or None."""
        return self._prev(min, nulls=False)

    def prev_range(self, min: int = 0) -> Entry:
        """Previous range, NULL ones included."""
        return self._prev(min, nulls=True)

    def _find(self, max: int, nulls: bool) -> Entry:
        status = self.status
        if status in _LOOK_HERE_FIRST:
            if self.index > max:
                return None
            entry = self.walk()
            if entry is not None or nulls:
                return entry
        elif self.last >= max:
            return None
        elif status == MA_PAUSE:
            self.index = self.last + 1
            entry = self.walk()
            if entry is not None or nulls:
                return entry
        return self._forward(max, nulls)

    def _find_rev(self, min: int, nulls: bool) -> Entry:
        status = self.status
        if status in _LOOK_HERE_FIRST_REV:
            if self.index < min:
                return None
            entry = self.walk()
            if entry is not None or nulls:
                return entry
        elif self.index <= min:
            return None
        elif status == MA_PAUSE:
            self.index -= 1
            entry = self.walk()
            if entry is not None or nulls:
                return entry
        return self._backward(min, nulls)

    def _next(self, max: int, nulls: bool) -> Entry:
        status = self.status
        if status in _NO_NODE:
            self.walk()
        elif status == MA_UNDERFLOW:  # it stepped off the low end: step back onto what is there
            entry = self.walk()
            if entry is not None or nulls:
                return entry
        return self._forward(max, nulls)

    def _prev(self, min: int, nulls: bool) -> Entry:
        status = self.status
        if status in _NO_NODE:
            self.walk()
        elif status == MA_OVERFLOW:
            entry = self.walk()
            if entry is not None or nulls:
                return entry
        return self._backward(min, nulls)

    def _forward(self, limit: int, nulls: bool) -> Entry:
        """Move to the next range (the next non-NULL one unless ``nulls``) that begins at or below ``limit``."""
        tree = self.tree
        if self.seq != tree.seq:
            self.walk()
        node = self.node
        offset = self.offset
        while True:
            last = self.last
            if last >= limit:
                self.status = MA_OVERFLOW
                return None
            offset += 1
            if offset == len(node.slots):
                following = next_node(node)
                assert following is not None
                self.node = node = following
                offset = 0
                if tree.work is not None:
                    tree.work.nodes += 1
            self.offset = offset
            self.index = last + 1
            self.last = node.pivots[offset]
            entry = node.slots[offset]
            if entry is not None or nulls:
                self.status = MA_ACTIVE
                return entry

    def _backward(self, limit: int, nulls: bool) -> Entry:
        """Mirror image of ``_forward``."""
        tree = self.tree
        if self.seq != tree.seq:
            self.walk()
        node = self.node
        offset = self.offset
        while True:
            index = self.index
            if index <= limit:
                self.status = MA_UNDERFLOW
                return None
            if not offset:
                preceding = prev_node(node)
                assert preceding is not None
                self.node = node = preceding
                offset = len(node.slots)
                if tree.work is not None:
                    tree.work.nodes += 1
            offset -= 1
            self.offset = offset
            self.last = index - 1
            self.index = node.pivots[offset - 1] + 1 if offset else node.min
            entry = node.slots[offset]
            if entry is not None or nulls:
                self.status = MA_ACTIVE
                return entry

    # -- gap search

    def empty_area(self, min: int, max: int, size: int) -> None:
        """Set index/last to the lowest NULL stretch of ``size`` indexes inside [min, max].

        OSError: EBUSY when nothing fits; EINVAL for size 0, min > max, size > max-min+1, or a tree without gaps.
        """
        self._check_window(min, max, size)
        gap = find_gap(self.tree.root, min, max, size)
        if gap is None:
            raise OSError(errno.EBUSY, "maple tree: no gap of that size")
        first, _, _ = gap
        self.set_range(first, first + size - 1)

    def empty_area_rev(self, min: int, max: int, size: int) -> None:
        """As ``empty_area``, the highest one: last = top of the highest stretch that fits, index = last-size+1."""
        self._check_window(min, max, size)
        gap = find_gap_rev(self.tree.root, min, max, size)
        if gap is None:
            raise OSError(errno.EBUSY, "maple tree: no gap of that size")
        last, _, _ = gap
        self.set_range(last - size + 1, last)

    def _check_window(self, min: int, max: int, size: int) -> None:
        if not self.tree.track_gaps or size <= 0 or min > max or size > max - min + 1:
            raise OSError(errno.EINVAL, "maple tree: impossible gap search")
        if self.tree.work is not None:
            self.tree.work.nodes += self.tree.height

    # -- writing

    def store(self, entry: Entry) -> Entry:
        """Overwrite [index, last] from the reserve (or what GFP_NOWAIT gives); returns the old content of ``index``.

        OSError: EINVAL, ENOMEM (tree untouched). What is left in the reserve stays until ``destroy``, and so do the
        nodes that a store outside RCU mode has replaced.
        """
        try:
            return self._store(entry)
        except NodesWanted:
            self.destroy()
            raise

    def store_gfp(self, entry: Entry, gfp: int) -> Entry:
        """As ``store``; nodes are asked for with GFP_NOWAIT first, then with ``gfp``. Leftover nodes go back.

        A tree with its own spinlock drops it around an allocation that may sleep; the store begins anew after it.
        """
        try:
            old = self._store(entry)
        except NodesWanted as failure:
            return self._retry(lambda: self._store(entry), failure.wanted, gfp)
        if self.alloc:
            self._give_back()
        return old

    def store_prealloc(self, entry: Entry) -> Entry:
        """Store with the nodes that ``preallocate`` got, and give the leftover ones back."""
        old = self.store(entry)
        if self.alloc:
            self._give_back()
        return old

    def preallocate(self, entry: Entry, gfp: int = GFP_KERNEL) -> int:
        """Put the worst case of storing ``entry`` over [index, last] in reserve; returns how many nodes that are.

        OSError(ENOMEM): nothing is kept, the tree is untouched.
        """
        return self._reserve(write.nodes_for(self, entry), gfp)

    def expected_entries(self, entries: int, gfp: int = GFP_KERNEL) -> int:
        """Reserve nodes for appending ``entries`` entries and fill leaves as appending does; returns how many nodes
        were asked.

        A gap beside every entry and one at the end are expected; leaves are taken to hold 14, inner nodes 8 (14 without
        gaps), and 3 nodes are room to work (mas_expected_entries of 6.7). OSError(ENOMEM): nothing is kept.
        """
        ranges = 2 * entries + 1
        leaves = -(-ranges // 14)
        inner = -(-leaves // (8 if self.tree.track_gaps else 14))
        asked = self._reserve(leaves + inner + 3, gfp)
        self.bulk = True
        return asked

    def insert(self, entry: Entry, gfp: int = GFP_KERNEL) -> None:
        """Store only if all of [index, last] is NULL.

        OSError: EEXIST (the cursor is on what is there), EINVAL, ENOMEM.
        """
        first, last = self.index, self.last
        if first > last:
            raise OSError(errno.EINVAL, "maple tree: index > last")

        def attempt() -> Entry:
            self.index = first
            if self.walk() is not None or (self.last < last and self.next_range(last) is not None):
                raise OSError(errno.EEXIST, "maple tree: range in use")
            self.set_range(first, last)
            return self._store(entry)

        self._retry(attempt, 0, gfp)

    def erase(self, gfp: int = GFP_KERNEL) -> Entry:
        """Store NULL over the whole range that holds ``index``; returns the old entry (NULL: nothing is done)."""
        index = self.index

        def attempt() -> Entry:
            self.index = index
            return None if self.walk() is None else self._store(None)

        return self._retry(attempt, 0, gfp)

    def destroy(self) -> None:
        """End of a series of stores: leave bulk mode and give the nodes in reserve back (mas_destroy)."""
        if self.bulk:
            self.bulk = False
            write.level_last_leaf(self)
        if self.alloc:
            self._give_back()

    def _give_back(self) -> None:
        addrs, self.alloc = self.alloc, []
        self.tree.allocator.free_bulk(addrs)

    def _reserve(self, wanted: int, gfp: int) -> int:
        if not write.fill_reserve(self.tree.allocator, self.alloc, wanted, gfp):
            self._give_back()
            raise NodesWanted(wanted)
        return wanted

    def _store(self, entry: Entry) -> Entry:
        tree = self.tree
        if self.index > self.last:
            raise OSError(errno.EINVAL, "maple tree: index > last")
        if tree.lock is not None:
            tree.lock.assert_held()
        if tree.work is not None:
            tree.work.nodes += tree.height
        return write.store(self, entry)

    def _retry(self, attempt: Callable[[], Entry], wanted: int, gfp: int) -> Entry:
        """Get ``wanted`` nodes and attempt a store, until it has enough; then, or on failure, the reserve goes back."""
        spinlock = self.tree.spinlock if gfpflags_allow_blocking(gfp) else None
        try:
            while True:
                if wanted:
                    if spinlock is not None:
                        spinlock.unlock()
                    enough = write.fill_reserve(self.tree.allocator, self.alloc, wanted, gfp)
                    if spinlock is not None:
                        spinlock.lock()
                    if not enough:
                        raise NodesWanted(wanted)
                try:
                    return attempt()
                except NodesWanted as failure:
                    wanted = failure.wanted
        finally:
            if self.alloc:
                self._give_back()

    def __repr__(self) -> str:
        status = ("start", "active", "pause", "overflow", "underflow")[self.status]
        return f"<MaState [{self.index:#x}, {self.last:#x}] {status}>"
