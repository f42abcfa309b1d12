# SPDX-License-Identifier: GPL-2.0-or-later
"""The maple tree tests that imitate fork, with the locking of before and after test-maple-rwsem (Linux:
lib/test_maple_tree.c).

Each function builds a tree, then does what dup_mmap does with it: preallocate for all entries, store copies in order,
destroy. ``locking`` is ``"spinlock"`` (before: the new tree's own spinlock is held all the time) or ``"rwsem"`` (after:
an external semaphore is); ``gfp`` is what the preallocation asks with: GFP_KERNEL with fork-maple-gfp-kernel,
GFP_NOWAIT|NOWARN without. The answer is a dict of what can be observed; ``violations`` is where the two lockings
differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from memtwin.lib.gfp_types import GFP_KERNEL
from memtwin.lib.maple_tree import (
    MT_FLAGS_ALLOC_RANGE,
    MT_FLAGS_LOCK_EXTERN,
    XA_ZERO_ENTRY,
    MapleTree,
    MaState,
)
from memtwin.lib.testing.locks import CheckedAllocator, LockChecker, RwsemShim, SpinLockShim
from memtwin.lib.testing.slab_shim import SlabShim

__all__ = ["Locking", "run_bench_forking", "run_check_dup_gaps", "run_check_forking"]

Locking = Literal["spinlock", "rwsem"]


class _Bench:
    """A shim, a checker, and trees whose locking is the one under test."""

    def __init__(self, locking: Locking) -> None:
        self.locking = locking
        self.checker = LockChecker()
        self.shim = SlabShim(256)
        self.allocator = CheckedAllocator(self.shim, self.checker)

    def parent(self) -> MapleTree:
        """The tree that is copied: filled before the test proper, by one thread, without a lock to check."""
        return MapleTree(self.allocator, MT_FLAGS_ALLOC_RANGE)

    @contextmanager
    def child(self) -> Iterator[MapleTree]:
        """An empty tree, its lock held for write; destroyed at the end, with the lock still held."""
        if self.locking == "spinlock":
            spinlock = SpinLockShim(self.checker)
            tree = MapleTree(self.allocator, MT_FLAGS_ALLOC_RANGE, spinlock=spinlock)
            spinlock.lock()
            yield tree
            tree.destroy()
            spinlock.unlock()
        else:
            rwsem = RwsemShim()
            tree = MapleTree(self.allocator, MT_FLAGS_ALLOC_RANGE | MT_FLAGS_LOCK_EXTERN)
            tree.set_external_lock(rwsem)
            rwsem.down_write()
            yield tree
            tree.destroy()
            rwsem.up_write()
            rwsem.exit()

    def observed(self, **more: Any) -> dict[str, Any]:
        """What every test tells."""
        self.shim.check_leaks()
        return {"locking": self.locking, **more, "violations": list(self.checker.violations)}


def _copy(parent: MapleTree, child: MapleTree, entries: int, gfp: int) -> int:
    """Copy all entries of one tree to another as fork does; returns the number of nodes asked for in advance."""
    reader = MaState(parent)
    writer = MaState(child)
    asked = writer.expected_entries(entries, gfp)
    while (entry := reader.find()) is not None:
        writer.set_range(reader.index, reader.last)
        writer.store(entry)
    writer.destroy()
    return asked


def run_check_forking(locking: Locking, gfp: int = GFP_KERNEL, entries: int = 134) -> dict[str, Any]:
    """check_forking: ``entries`` + 1 ranges of 6 indexes, 4 apart, are copied once."""
    bench = _Bench(locking)
    parent = bench.parent()
    for i in range(entries + 1):
        parent.store_range(i * 10, i * 10 + 5, i << 1 | 1)
    with bench.child() as child:
        asked = _copy(parent, child, entries + 1, gfp)
        child.check()
        same = list(child.ranges()) == list(parent.ranges())
        used = child.node_count
    parent.destroy()
    return bench.observed(nodes_asked=asked, nodes_used=used, equal=same)


def run_check_dup_gaps(
    locking: Locking, gfp: int = GFP_KERNEL, entries: int = 50, zero_start: bool = False
) -> dict[str, Any]:
    """check_dup_gaps: ranges of 5 indexes with gaps of 5; in the copy each gap must be found, one after the other.

    ``zero_start``: the first range begins at index 0 instead of 5; every third entry is the zero entry, which is no
    gap.
    """
    bench = _Bench(locking)
    parent = bench.parent()
    shift = 0 if zero_start else 5
    for i in range(entries + 1):
        entry = XA_ZERO_ENTRY if i % 3 == 2 else i << 1 | 1
        MaState(parent, i * 10 + shift, i * 10 + shift + 4).store_gfp(entry, gfp)
    gaps = 0
    with bench.child() as child:
        asked = _copy(parent, child, entries + 1, gfp)
        child.check()
        same = list(child.ranges()) == list(parent.ranges())
        for i in range(entries):
            mas = MaState(child)
            mas.empty_area(i * 10 + shift, 10 * entries + shift + 4, 5)
            gaps += (mas.index, mas.last) == (i * 10 + shift + 5, i * 10 + shift + 9)
    parent.destroy()
    return bench.observed(nodes_asked=asked, gaps_found=gaps, gaps=entries, equal=same)


def run_bench_forking(locking: Locking, gfp: int = GFP_KERNEL, entries: int = 134, rounds: int = 20) -> dict[str, Any]:
    """bench_forking: the copy of check_forking over and over."""
    bench = _Bench(locking)
    parent = bench.parent()
    for i in range(entries + 1):
        parent.store_range(i * 10, i * 10 + 5, i << 1 | 1)
    asked = 0
    for _ in range(rounds):
        with bench.child() as child:
            asked = _copy(parent, child, entries + 1, gfp)
    parent.destroy()
    return bench.observed(nodes_asked=asked, rounds=rounds, nodes_handed_out=bench.shim.handed_out)
