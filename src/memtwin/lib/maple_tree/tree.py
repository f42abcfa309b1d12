# SPDX-License-Identifier: GPL-2.0-or-later
"""The maple tree and its normal API (Linux: lib/maple_tree.c, include/linux/maple_tree.h).

A total function from index (0..2^64-1) to entry: ranges, both ends inclusive, that cover the whole index space; what
nobody stored is a NULL range. Names: ``mtree_load(mt, i)`` is ``tree.load(i)``, ``mtree_store_range`` is
``tree.store_range``, ``mtree_insert_range`` ``insert_range``, ``mtree_erase`` ``erase``, ``mt_find`` ``find``,
``mtree_alloc_range`` ``alloc_range``, ``mtree_alloc_rrange`` ``alloc_rrange``, ``__mt_destroy`` ``destroy``,
``mt_set_in_rcu`` ``set_in_rcu``; a cursor (``mas_*``) is ``MaState``.

An empty tree and a single entry at [0, 0] (held in the root word) cost no node: ``root`` is then a stand-in leaf with
address 0, so that reading needs no special case. ``seq`` grows with every store that moves a border; a cursor that sees
another value than it left walks again (Linux: it finds its node dead).

Locks: every write holds the tree's lock: its own spinlock, dropped around an allocation that may sleep, or an external
one (LOCK_EXTERN), kept. ``lock`` is None (not checked) or the object to ask.
"""

from __future__ import annotations

import errno
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from memtwin.lib.gfp_types import GFP_KERNEL
from memtwin.lib.maple_tree.check import check_tree
from memtwin.lib.maple_tree.gaps import find_gap, find_gap_rev
from memtwin.lib.maple_tree.node import (
    INDEX_MAX,
    LEAF_64,
    MT_FLAGS_ALLOC_RANGE,
    MT_FLAGS_HEIGHT_MASK,
    MT_FLAGS_HEIGHT_OFFSET,
    MT_FLAGS_LOCK_EXTERN,
    MT_FLAGS_LOCK_MASK,
    MT_FLAGS_USE_RCU,
    XA_ZERO_ENTRY,
    Entry,
    MapleNode,
    NodeAllocator,
    RcuQueue,
    next_node,
)
from memtwin.lib.maple_tree.state import MaState
from memtwin.lib.maple_tree.write import store_in_leaf

if TYPE_CHECKING:
    from memtwin.hw.work import Work

__all__ = ["HeldLock", "MapleTree", "TreeLock"]


class HeldLock(Protocol):
    """What a tree asks of the lock that protects it; the locks of ``memtwin.sched`` answer it."""

    def assert_held(self) -> None:
        """Complain unless the current task holds the lock."""


class TreeLock(HeldLock, Protocol):
    """A tree's own spinlock."""

    def lock(self) -> None:
        """Take it."""

    def unlock(self) -> None:
        """Release it."""


class MapleTree:
    """One tree.

    ``flags``: ALLOC_RANGE, USE_RCU and a lock kind; ``rcu``: where nodes that die in RCU mode wait (None: freed at
    once).
    """

    __slots__ = (
        "_flags",
        "allocator",
        "height",
        "in_rcu",
        "leaf",
        "lock",
        "node_count",
        "rcu",
        "root",
        "seq",
        "spinlock",
        "track_gaps",
        "work",
    )

    def __init__(
        self,
        allocator: NodeAllocator,
        flags: int = 0,
        work: Work | None = None,
        *,
        rcu: RcuQueue | None = None,
        spinlock: TreeLock | None = None,
    ) -> None:
        self.allocator = allocator
        self._flags = flags & ~(MT_FLAGS_HEIGHT_MASK | MT_FLAGS_USE_RCU)
        self.in_rcu = bool(flags & MT_FLAGS_USE_RCU)
        self.track_gaps = bool(flags & MT_FLAGS_ALLOC_RANGE)
        self.work = work
        self.rcu = rcu
        self.spinlock = spinlock
        self.lock: HeldLock | None = spinlock
        self.root = _stand_in(None)
        #: Where the last walk ended; the next one begins here if this is still the right leaf.
        self.leaf = self.root
        self.height = 0  #: levels of nodes; 0: none
        self.node_count = 0  #: nodes in the tree
        self.seq = 0

    # -- reading

    def load(self, index: int) -> Entry:
        """Entry at ``index``, or None."""
        if self.work is not None:
            self.work.nodes += self.height
        node = self.leaf_at(index)
        entry = node.slots[bisect_left(node.pivots, index)]
        return None if entry is XA_ZERO_ENTRY else entry

    def find(self, index: int, max: int = INDEX_MAX) -> Entry:
        """First entry whose range meets [index, max], or None (mt_find without its cursor)."""
        if index > max:
            return None
        if self.work is not None:
            self.work.nodes += self.height
        node = self.leaf_at(index)
        pivots, slots = node.pivots, node.slots
        offset = bisect_left(pivots, index)
        entry = slots[offset]
        if entry is None:  # then the next range is not NULL, and in the same leaf
            if pivots[offset] >= max or offset + 1 == len(slots):
                return None
            entry = slots[offset + 1]
        if entry is XA_ZERO_ENTRY:
            mas = MaState(self, index)
            while entry is XA_ZERO_ENTRY:
                entry = mas.find(max)
        return entry

    def in_range(self, first: int, last: int) -> list[Entry]:
        """The entries whose ranges meet [first, last], ascending; zero entries read as NULL."""
        if self.work is not None:
            self.work.nodes += self.height
        node = self.leaf_at(first)
        pivots, slots = node.pivots, node.slots
        offset = bisect_left(pivots, first)
        found: list[Entry] = []
        while True:
            entry = slots[offset]
            if entry is not None and entry is not XA_ZERO_ENTRY:
                found.append(entry)
            if pivots[offset] >= last:
                return found
            offset += 1
            if offset == len(slots):
                following = next_node(node)
                assert following is not None
                node = following
                pivots, slots = node.pivots, node.slots
                offset = 0
                if self.work is not None:
                    self.work.nodes += 1

    def beside(self, first: int, last: int) -> tuple[Entry, Entry] | None:
        """The entries at first - 1 and last + 1 (None: NULL) if all of [first, last] is NULL; else None."""
        if self.work is not None:
            self.work.nodes += self.height
        node = self.leaf_at(first)
        pivots, slots = node.pivots, node.slots
        offset = bisect_left(pivots, first)
        end = pivots[offset]
        if slots[offset] is not None or end < last:
            return None
        if offset:
            before = slots[offset - 1] if pivots[offset - 1] == first - 1 else None
        else:
            before = self.load(first - 1) if first and first == node.min else None
        # A NULL range ends in another range of its leaf, or at INDEX_MAX.
        return before, slots[offset + 1] if end == last != INDEX_MAX else None

    def lowest_gap(self, first: int, last: int, size: int) -> tuple[int, Entry] | None:
        """First index of the lowest NULL stretch of ``size`` indexes inside [first, last], and the entry behind the
        NULL range; None where nothing fits. A tree with gaps only.
        """
        if self.work is not None:
            self.work.nodes += self.height
        return self._in_gap(find_gap(self.root, first, last, size))

    def highest_gap(self, first: int, last: int, size: int) -> tuple[int, Entry] | None:
        """As ``lowest_gap``, but the last index of the highest one."""
        if self.work is not None:
            self.work.nodes += self.height
        return self._in_gap(find_gap_rev(self.root, first, last, size))

    def _in_gap(self, gap: tuple[int, Entry, MapleNode] | None) -> tuple[int, Entry] | None:
        """Most likely the gap is stored to next: the walk to its leaf is done."""
        if gap is None:
            return None
        index, behind, self.leaf = gap
        return index, behind

    def ranges(self) -> Iterator[tuple[int, int, Entry]]:
        """(first, last, entry) of every range in order, NULL ranges and zero entries included."""
        node: MapleNode | None = self.root
        while node is not None and node.kind != LEAF_64:
            node = node.slots[0]
        while node is not None:
            first = node.min
            for last, entry in zip(node.pivots, node.slots, strict=True):
                yield first, last, entry
                first = last + 1
            node = next_node(node)

    def entries(self) -> Iterator[Entry]:
        """The entries in order of their index, without NULL and zero entries."""
        return (entry for _, _, entry in self.ranges() if entry is not None and entry is not XA_ZERO_ENTRY)

    @property
    def empty(self) -> bool:
        """Whether nothing is stored at all."""
        return not self.root.addr and self.root.slots[0] is None

    @property
    def flags(self) -> int:
        """The tree flags as Linux keeps them, height included."""
        return self._flags | (MT_FLAGS_USE_RCU if self.in_rcu else 0) | self.height << MT_FLAGS_HEIGHT_OFFSET

    # -- locking

    def set_external_lock(self, lock: HeldLock) -> None:
        """Register the lock that protects a tree with LOCK_EXTERN; writes then check that it is held."""
        if self._flags & MT_FLAGS_LOCK_MASK != MT_FLAGS_LOCK_EXTERN:
            raise ValueError("the tree has a lock of its own")
        self.lock = lock

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the tree's own spinlock, if it has one."""
        if self.spinlock is None:
            yield
            return
        self.spinlock.lock()
        try:
            yield
        finally:
            self.spinlock.unlock()

    # -- writing: each takes the internal lock itself (if there is one to take)

    def store_range(self, first: int, last: int, entry: Entry, gfp: int = GFP_KERNEL) -> Entry:
        """Overwrite [first, last]; returns the old content of ``first``. OSError: EINVAL, ENOMEM."""
        _refuse_reserved(entry)
        if first > last:
            raise OSError(errno.EINVAL, "maple tree: first > last")
        with self.locked():
            return MaState(self, first, last).store_gfp(entry, gfp)

    def store_prealloc(self, first: int, last: int, entry: Entry, gfp: int = GFP_KERNEL) -> None:
        """``preallocate`` and ``store_prealloc`` of a cursor on [first, last], which the caller's lock protects; in one
        walk where the store stays in its leaf. Raises OSError ENOMEM, the tree untouched.
        """
        if self.lock is not None:
            self.lock.assert_held()
        if store_in_leaf(self, first, last, entry, None, gfp) is not None:
            if self.work is not None:
                self.work.nodes += self.height
            return
        mas = MaState(self, first, last)
        mas.preallocate(entry, gfp)
        mas.store_prealloc(entry)

    def store(self, index: int, entry: Entry, gfp: int = GFP_KERNEL) -> Entry:
        """``store_range`` over one index."""
        return self.store_range(index, index, entry, gfp)

    def insert_range(self, first: int, last: int, entry: Entry, gfp: int = GFP_KERNEL) -> None:
        """Store only if the whole interval is NULL. OSError: EEXIST, EINVAL, ENOMEM."""
        _refuse_reserved(entry)
        with self.locked():
            MaState(self, first, last).insert(entry, gfp)

    def insert(self, index: int, entry: Entry, gfp: int = GFP_KERNEL) -> None:
        """``insert_range`` over one index."""
        self.insert_range(index, index, entry, gfp)

    def erase(self, index: int) -> Entry:
        """Store NULL over the whole range that holds ``index``; returns the old entry. OSError: ENOMEM."""
        with self.locked():
            entry = MaState(self, index, index).erase()
        return None if entry is XA_ZERO_ENTRY else entry

    def alloc_range(self, entry: Entry, size: int, min: int, max: int, gfp: int = GFP_KERNEL) -> int:
        """Store ``entry`` over the lowest free ``size`` indexes inside [min, max]; returns the first one.

        OSError: EINVAL (also: a tree without ALLOC_RANGE), EBUSY when nothing fits, ENOMEM.
        """
        return self._alloc(entry, size, min, max, gfp, rev=False)

    def alloc_rrange(self, entry: Entry, size: int, min: int, max: int, gfp: int = GFP_KERNEL) -> int:
        """As ``alloc_range``, the highest place."""
        return self._alloc(entry, size, min, max, gfp, rev=True)

    def _alloc(self, entry: Entry, size: int, min: int, max: int, gfp: int, *, rev: bool) -> int:
        _refuse_reserved(entry)
        with self.locked():
            mas = MaState(self, 0, 0)
            if rev:
                mas.empty_area_rev(min, max, size)
            else:
                mas.empty_area(min, max, size)
            index = mas.index
            mas.insert(entry, gfp)
        return index

    def set_in_rcu(self) -> None:
        """From now on readers may walk without the lock: no node they can see is edited or freed at once."""
        self.in_rcu = True

    def clear_in_rcu(self) -> None:
        """No more readers outside the lock: nodes are edited in place and freed at once."""
        self.in_rcu = False

    def destroy(self) -> None:
        """Forget everything and free all nodes; the caller holds the lock."""
        if self.lock is not None:
            self.lock.assert_held()
        nodes = self.all_nodes()
        self.set_root_word(None)
        unused: list[int] = []
        self.bury(nodes, unused)
        if unused:
            self.allocator.free_bulk(unused)

    # -- for this package and for debugging

    def leaf_at(self, index: int) -> MapleNode:
        """The leaf that covers ``index``; the walk begins where the last one ended, if that is still the right leaf."""
        node = self.leaf
        if node.dead or index < node.min or index > node.pivots[-1]:
            node = self.root
            while node.kind != LEAF_64:
                node = node.slots[bisect_left(node.pivots, index)]
            self.leaf = node
        return node

    def check(self) -> None:
        """Recompute what the tree keeps; InvariantBroken names the first condition that does not hold."""
        check_tree(self)

    def all_nodes(self) -> list[MapleNode]:
        """Every node, level by level from the root; [] when there is none."""
        level = [self.root] if self.root.addr else []
        nodes: list[MapleNode] = []
        while level:
            nodes += level
            level = [child for node in level for child in node.slots] if level[0].kind != LEAF_64 else []
        return nodes

    def set_root_word(self, entry: Entry) -> None:
        """Become a tree without nodes: empty, or one entry at [0, 0]."""
        self.root.dead = True
        self.root = _stand_in(entry)
        self.height = 0
        self.seq += 1

    def set_root_leaf(self, node: MapleNode) -> None:
        """Become a tree of one new leaf; the caller buries what was there."""
        self.root.dead = True
        self.root = node
        self.height = 1
        self.node_count += 1
        self.seq += 1

    def bury(self, nodes: list[MapleNode], reserve: list[int]) -> None:
        """Nodes that are no longer part of the tree: mark them dead.

        RCU mode frees them (after the grace period); else nobody can see them and they go to a cursor's reserve at
        once.
        """
        self.node_count -= len(nodes)
        for node in nodes:
            node.dead = True
        if not self.in_rcu:
            reserve += [node.addr for node in nodes]
        elif self.rcu is not None:
            for node in nodes:
                self.rcu.call_rcu(self.allocator, node.addr)
        else:
            self.allocator.free_bulk([node.addr for node in nodes])

    def __repr__(self) -> str:
        return f"<MapleTree height {self.height}, {self.node_count} nodes>"


def _stand_in(entry: Entry) -> MapleNode:
    """The leaf that stands for a tree without nodes."""
    if entry is None:
        return MapleNode(0, LEAF_64, 0, [INDEX_MAX], [None], [])
    return MapleNode(0, LEAF_64, 0, [0, INDEX_MAX], [entry, None], [])


def _refuse_reserved(entry: Entry) -> None:
    """EINVAL for what the normal API does not store: the zero entry and words below 4096 with low bits 10."""
    if entry is XA_ZERO_ENTRY or (isinstance(entry, int) and entry < 4096 and entry & 3 == 2):
        raise OSError(errno.EINVAL, "maple tree: reserved entry")
