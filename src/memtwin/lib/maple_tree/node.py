# SPDX-License-Identifier: GPL-2.0-or-later
"""Nodes of the maple tree: kinds, limits, where their memory comes from and goes to (Linux:
include/linux/maple_tree.h).

A node is a 256-byte object of the cache ``maple_node``; here a Python object that remembers the address of the
simulated one, so a tree costs the simulated pages it costs Linux, and growing it can fail.

Invariants of a node: ``pivots[i]`` is the last index of slot i, both ends inclusive. Linux leaves the pivot of the last
slot out (the parent implies it) and passes the lower limit down while walking; here both are kept (``pivots[-1]``,
``min``) because bisection and sideways steps want them. They can not go stale: whoever moves the border between two
nodes builds both anew.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from memtwin.lib.gfp_types import GFP_NOWAIT, NOWARN

__all__ = ["INDEX_MAX", "XA_ZERO_ENTRY", "Entry", "MapleNode", "NodeAllocator", "RcuQueue", "ZeroEntry"]

#: What a range maps to: any object (a VMA), or an int standing for a word; None is NULL.
Entry = Any

INDEX_MAX: Final = (1 << 64) - 1
NODE_SIZE: Final = 256  #: bytes, and the alignment of a node
BULK_MAX: Final = 30  #: most nodes one bulk request asks for

# Kinds of nodes (the kernel's numbers; its dense leaf, number 0, is never made).
LEAF_64: Final = 1
RANGE_64: Final = 2
ARANGE_64: Final = 3

#: Slots of a node by kind, and the least end offset (slots - 1) of a node that is neither root nor rightmost.
SLOTS: Final = (0, 16, 16, 10)
LEAST_END: Final = (0, 6, 6, 4)
LEAF_SLOTS: Final = 16
LEAF_LEAST_END: Final = 6

# Tree flags.
MT_FLAGS_ALLOC_RANGE: Final = 0x01
MT_FLAGS_USE_RCU: Final = 0x02
MT_FLAGS_HEIGHT_OFFSET: Final = 2
MT_FLAGS_HEIGHT_MASK: Final = 0x7C
MT_FLAGS_LOCK_MASK: Final = 0x300
MT_FLAGS_LOCK_IRQ: Final = 0x100
MT_FLAGS_LOCK_BH: Final = 0x200
MT_FLAGS_LOCK_EXTERN: Final = 0x300
#: The flags of an mm's tree.
MM_MT_FLAGS: Final = MT_FLAGS_ALLOC_RANGE | MT_FLAGS_LOCK_EXTERN | MT_FLAGS_USE_RCU

# What a cursor's index/last mean (MaState.status).
MA_START: Final = 0  #: nowhere yet: index is where to begin
MA_ACTIVE: Final = 1  #: index/last are a range that was visited
MA_PAUSE: Final = 2  #: as active, but find goes on behind last whatever the tree holds by then
MA_OVERFLOW: Final = 3  #: a forward step met its limit
MA_UNDERFLOW: Final = 4  #: a backward step met its limit

#: With these a store asks for nodes before it falls back to its caller's flags.
GFP_FIRST_TRY: Final = GFP_NOWAIT | NOWARN


class ZeroEntry:
    """Type of ``XA_ZERO_ENTRY``, the placeholder that reserves a range: the normal API reads it as NULL."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "XA_ZERO_ENTRY"


XA_ZERO_ENTRY: Final = ZeroEntry()


class NodeAllocator(Protocol):
    """The object cache nodes come from. Addresses are never 0; what a failed request got is its own business."""

    def alloc(self, gfp: int) -> int:
        """Address of one object, 0 on failure."""

    def at_hand(self, n: int) -> bool:
        """Whether ``n`` objects can be had without asking for memory, so that an allocation of as many can not fail."""

    def alloc_bulk(self, gfp: int, n: int) -> list[int]:
        """Addresses of n objects, or [] (all or nothing)."""

    def free(self, addr: int) -> None:
        """Take one object back."""

    def free_bulk(self, addrs: list[int]) -> None:
        """Take several objects back."""


class RcuQueue:
    """Dead nodes that wait for the end of a grace period.

    May serve several trees; order of freeing = order of dying.
    """

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[tuple[NodeAllocator, int]] = []

    def call_rcu(self, allocator: NodeAllocator, addr: int) -> None:
        """Free ``addr`` after the grace period."""
        self.waiting.append((allocator, addr))

    def rcu_barrier(self) -> int:
        """End the grace period: free everything that waits; returns how many nodes that were."""
        waiting, self.waiting = self.waiting, []
        for allocator, addr in waiting:
            allocator.free(addr)
        return len(waiting)

    def __len__(self) -> int:
        return len(self.waiting)


class MapleNode:
    """One node. ``kind`` is LEAF_64, RANGE_64 or ARANGE_64; ``addr`` 0 marks the stand-in of an empty tree or root
    word.

    ``slots`` holds entries (leaf) or nodes; ``gaps[i]`` is the longest NULL stretch, in indexes, anywhere below child i
    (ARANGE_64 only, else empty). ``parent`` is None at the root. ``dead``: replaced, readers must not trust it.
    """

    __slots__ = ("addr", "dead", "gaps", "kind", "min", "parent", "parent_slot", "pivots", "slots")

    def __init__(self, addr: int, kind: int, min: int, pivots: list[int], slots: list[Any], gaps: list[int]) -> None:
        self.addr = addr
        self.kind = kind
        self.min = min
        self.pivots = pivots
        self.slots = slots
        self.gaps = gaps
        self.parent: MapleNode | None = None
        self.parent_slot = 0
        self.dead = False

    @property
    def max(self) -> int:
        """Last index of the node."""
        return self.pivots[-1]

    def __repr__(self) -> str:
        kind = ("dense", "leaf_64", "range_64", "arange_64")[self.kind]
        return f"<{kind} {self.addr:#x} [{self.min:#x}, {self.max:#x}] {len(self.slots)} slots>"


def adopt(node: MapleNode) -> None:
    """Make an inner node the parent of what is in its slots."""
    for slot, child in enumerate(node.slots):
        child.parent = node
        child.parent_slot = slot


def next_node(node: MapleNode) -> MapleNode | None:
    """The node to the right at the same depth, whatever its parent; None at the right edge."""
    depth = 0
    while (parent := node.parent) is not None:
        slot = node.parent_slot + 1
        if slot < len(parent.slots):
            node = parent.slots[slot]
            for _ in range(depth):
                node = node.slots[0]
            return node
        node = parent
        depth += 1
    return None


def prev_node(node: MapleNode) -> MapleNode | None:
    """The node to the left at the same depth, whatever its parent; None at the left edge."""
    depth = 0
    while (parent := node.parent) is not None:
        slot = node.parent_slot
        if slot:
            node = parent.slots[slot - 1]
            for _ in range(depth):
                node = node.slots[-1]
            return node
        node = parent
        depth += 1
    return None
