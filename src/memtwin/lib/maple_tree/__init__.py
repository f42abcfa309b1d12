# SPDX-License-Identifier: GPL-2.0-or-later
"""The maple tree: the range tree of an address space's VMAs (Linux: lib/maple_tree.c, include/linux/maple_tree.h).

``MapleTree`` is the tree with its normal API, ``MaState`` the cursor with the advanced one; ``NodeAllocator`` is what a
tree wants of the object cache its nodes come from. Inside: ``node`` (kinds, limits), ``state`` (cursor), ``write``
(what a store does to one leaf), ``rebuild`` (what it does to the levels above), ``gaps``, ``check``.

>>> from memtwin.lib.testing.slab_shim import SlabShim
>>> tree = MapleTree(SlabShim(256), MM_MT_FLAGS)
>>> tree.store_range(0x1000, 0x1fff, "vma")
>>> tree.load(0x1234), tree.load(0x2000), tree.node_count
('vma', None, 1)
"""

from __future__ import annotations

from memtwin.lib.maple_tree.node import (
    INDEX_MAX,
    MM_MT_FLAGS,
    MT_FLAGS_ALLOC_RANGE,
    MT_FLAGS_LOCK_BH,
    MT_FLAGS_LOCK_EXTERN,
    MT_FLAGS_LOCK_IRQ,
    MT_FLAGS_LOCK_MASK,
    MT_FLAGS_USE_RCU,
    NODE_SIZE,
    XA_ZERO_ENTRY,
    Entry,
    MapleNode,
    NodeAllocator,
    RcuQueue,
)
from memtwin.lib.maple_tree.state import MaState
from memtwin.lib.maple_tree.tree import HeldLock, MapleTree, TreeLock

__all__ = [
    "INDEX_MAX",
    "MM_MT_FLAGS",
    "MT_FLAGS_ALLOC_RANGE",
    "MT_FLAGS_LOCK_BH",
    "MT_FLAGS_LOCK_EXTERN",
    "MT_FLAGS_LOCK_IRQ",
    "MT_FLAGS_LOCK_MASK",
    "MT_FLAGS_USE_RCU",
    "NODE_SIZE",
    "XA_ZERO_ENTRY",
    "Entry",
    "HeldLock",
    "MaState",
    "MapleNode",
    "MapleTree",
    "NodeAllocator",
    "RcuQueue",
    "TreeLock",
]
