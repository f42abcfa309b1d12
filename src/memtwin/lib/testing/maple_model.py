# SPDX-License-Identifier: GPL-2.0-or-later
"""What maple trees are compared with: a list of ranges, and the address spaces of the specification's node counts.

``RangeModel`` has the meaning of a maple tree and none of its nodes; it is slow and obvious on purpose.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Literal

from memtwin.lib.gfp_types import GFP_KERNEL
from memtwin.lib.maple_tree import INDEX_MAX, MM_MT_FLAGS, Entry, MapleTree, MaState, NodeAllocator

__all__ = ["BASE", "PAGE", "WINDOW", "Order", "RangeModel", "add_vmas", "fork_tree", "vma_tree"]

PAGE = 4096
#: Where the extra VMAs are made; far from everything else.
WINDOW = 0x10000000000
#: VMAs of a small static program, as (first page, pages): 16 ranges with the gaps, the window in slot 10 of one leaf.
BASE: tuple[tuple[int, int], ...] = (
    *((0x400 + i, 1) for i in range(6)),
    (0x1000, 1),
    (0x1001, 33),
    (0x7FFFF7FF9, 4),
    (0x7FFFF7FFD, 2),
    (0x7FFFFFFDE, 33),
)

Order = Literal["up", "down", "random", "mprotect"]


class RangeModel:
    """A total function from index to entry as a list of (first, last, entry); NULL ranges are merged, others never."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int, Entry]] = [(0, INDEX_MAX, None)]

    def load(self, index: int) -> Entry:
        """Entry at ``index``."""
        return next(entry for first, last, entry in self.ranges if first <= index <= last)

    def store(self, first: int, last: int, entry: Entry) -> Entry:
        """Overwrite [first, last]; returns what was at ``first``."""
        old = self.load(first)
        pieces: list[tuple[int, int, Entry]] = []
        for low, high, what in self.ranges:
            if high < first or low > last:
                pieces.append((low, high, what))
                continue
            if low < first:
                pieces.append((low, first - 1, what))
            if low <= first:
                pieces.append((first, last, entry))
            if high > last:
                pieces.append((last + 1, high, what))
        self.ranges = []
        for low, high, what in pieces:
            if what is None and self.ranges and self.ranges[-1][2] is None:
                self.ranges[-1] = (self.ranges[-1][0], high, None)
            else:
                self.ranges.append((low, high, what))
        return old

    def gap(self, first: int, last: int, size: int) -> int | None:
        """Lowest start of ``size`` free indexes inside [first, last]."""
        for low, high, entry in self.ranges:
            low, high = max(low, first), min(high, last)
            if entry is None and high - low + 1 >= size:
                return low
        return None

    def gap_rev(self, first: int, last: int, size: int) -> int | None:
        """Highest end of ``size`` free indexes inside [first, last]."""
        for low, high, entry in reversed(self.ranges):
            low, high = max(low, first), min(high, last)
            if entry is None and high - low + 1 >= size:
                return high
        return None


def vma_tree(
    allocator: NodeAllocator,
    order: Order,
    count: int,
    *,
    gaps: bool = False,
    base: Iterable[tuple[int, int]] = BASE,
    seed: int = 1,
) -> MapleTree:
    """The tree of a process with the VMAs of ``base`` and ``count`` one-page VMAs more (see ``add_vmas``)."""
    tree = MapleTree(allocator, MM_MT_FLAGS)
    for page, pages in base:
        tree.store_range(page * PAGE, (page + pages) * PAGE - 1, f"base {page:#x}")
    add_vmas(tree, order, count, gaps=gaps, seed=seed)
    return tree


def add_vmas(tree: MapleTree, order: Order, count: int, *, gaps: bool = False, seed: int = 1) -> None:
    """Make ``count`` one-page VMAs in the window, neighbours or (``gaps``) one page apart.

    mprotect: one mapping is cut up by changing every other page, which splits twice for each.
    """
    end = WINDOW + count * PAGE - 1
    if order == "mprotect":
        tree.store_range(WINDOW, end, "vma 0")
        for i in range(1, count):
            tree.store_range(WINDOW + i * PAGE, end, f"vma {i}")
        return
    indexes = list(range(count))
    if order == "down":
        indexes.reverse()
    elif order == "random":
        random.Random(seed).shuffle(indexes)
    step = 2 * PAGE if gaps else PAGE
    for i in indexes:
        tree.store_range(WINDOW + i * step, WINDOW + i * step + PAGE - 1, f"vma {i}")


def fork_tree(parent: MapleTree, allocator: NodeAllocator, gfp: int = GFP_KERNEL) -> tuple[MapleTree, int]:
    """The child's tree as fork of 6.7 fills it, by appending; and the number of nodes asked for in advance."""
    child = MapleTree(allocator, MM_MT_FLAGS)
    child.clear_in_rcu()
    reader, writer = MaState(parent), MaState(child)
    asked = writer.expected_entries(sum(1 for _ in parent.entries()), gfp)
    while (entry := reader.find()) is not None:
        writer.set_range(reader.index, reader.last)
        writer.store(entry)
    writer.destroy()
    child.set_in_rcu()
    return child, asked
