# SPDX-License-Identifier: GPL-2.0-or-later
"""Free blocks of one zone: lists per order and migratetype, splitting and merging (Linux: the buddy half of
mm/page_alloc.c).

A block of order ``o`` is ``1 << o`` frames, aligned to its size; its *buddy* is the block whose number differs in bit
``o``. A free list is an ``OrderedDict`` keyed by pfn whose *last* entry is the list's head: insertion at either end and
removal of any block are O(1). Never-touched memory is not listed at all: ``virgin`` holds ranges of whole order-10
blocks, which stand behind the tail of the MOVABLE order-10 list and are consumed upwards, so that boot costs nothing
per block.

Lock: all of this is under the zone's lock in Linux; the twin switches tasks only at lock operations and preemption
points, of which there are none here. Invariants (``mm/page_alloc_check.py``): ``pages.buddy[pfn] == order + 1`` exactly
for listed blocks; ``nr_free`` is the number of pages in lists and virgin ranges; no two listed buddies could still be
merged.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import numpy as np
import numpy.typing as npt

from memtwin.errors import InvariantBroken
from memtwin.hw.work import Work
from memtwin.mm.page import PageArrays

__all__ = ["BuddyLists", "Run"]

MAX_ORDER: Final = 10  #: the largest order, inclusive (6.7)
NR_ORDERS: Final = MAX_ORDER + 1
MAX_BLOCK: Final = 1 << MAX_ORDER
PAGEBLOCK_ORDER: Final = 9  #: a pageblock is one 2 MiB huge page
PAGEBLOCK_PAGES: Final = 1 << PAGEBLOCK_ORDER

# Migratetypes (the numbers of /proc/pagetypeinfo's columns).
UNMOVABLE: Final = 0
MOVABLE: Final = 1
RECLAIMABLE: Final = 2
HIGHATOMIC: Final = 3
ISOLATE: Final = 4
NR_TYPES: Final = 5
PCP_TYPES: Final = 3  #: the types below this one live on per-CPU lists and may be merged with each other
TYPE_NAMES: Final = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate")

#: A pageblock's type is stored xor this, so that the all-zero byte of never-touched memory means MOVABLE.
TYPE_XOR: Final = MOVABLE

FreeList = OrderedDict[int, None]
Run = tuple[int, int]  #: (first pfn, number of pages)

#: From this many separate blocks on, freeing level by level with NumPy beats freeing block by block (measured).
_BULK_BLOCKS: Final = 64


class BuddyLists:
    """Free blocks of the frames [``start``, ``end``).

    ``lists[order][migratetype]``; ``nr_free`` pages; ``block_types`` one byte per pageblock of the *machine*, see
    TYPE_XOR.
    """

    __slots__ = (
        "block_types",
        "buddy",
        "end",
        "lists",
        "nr_free",
        "pages",
        "start",
        "virgin",
        "virgin_blocks",
        "work",
    )

    def __init__(self, start: int, end: int, pages: PageArrays, block_types: memoryview, work: Work) -> None:
        self.start = start
        self.end = end
        self.pages = pages
        self.buddy = pages.buddy
        self.block_types = block_types
        self.work = work
        self.nr_free = 0
        self.lists: list[list[FreeList]] = [[OrderedDict() for _ in range(NR_TYPES)] for _ in range(NR_ORDERS)]
        #: Ranges (first, end) of never-touched frames, whole order-10 blocks, the lowest range last.
        self.virgin: list[tuple[int, int]] = []
        self.virgin_blocks = 0

    # Questions

    def migratetype(self, pfn: int) -> int:
        """Type of the pageblock that holds ``pfn``."""
        return self.block_types[pfn >> PAGEBLOCK_ORDER] ^ TYPE_XOR

    def nr_blocks(self, order: int, migratetype: int) -> int:
        """Number of free blocks of exactly this order and type."""
        count = len(self.lists[order][migratetype])
        return count + self.virgin_blocks if order == MAX_ORDER and migratetype == MOVABLE else count

    def counts(self) -> list[int]:
        """Free blocks per order, all types together: a line of /proc/buddyinfo."""
        counts = [sum(map(len, lists)) for lists in self.lists]
        counts[MAX_ORDER] += self.virgin_blocks
        return counts

    def nr_pageblocks(self, migratetype: int) -> int:
        """Number of whole pageblocks of this type."""
        types = np.frombuffer(self.block_types, dtype=np.uint8)[
            self.start >> PAGEBLOCK_ORDER : self.end >> PAGEBLOCK_ORDER
        ]
        return int(np.count_nonzero(types == migratetype ^ TYPE_XOR))

    def has_block(self, order: int, types: tuple[int, ...]) -> bool:
        """Whether a free block of at least ``order`` of one of ``types`` exists."""
        for lists in self.lists[order:]:
            for migratetype in types:
                if lists[migratetype]:
                    return True
        return self.virgin_blocks > 0 and MOVABLE in types

    def in_virgin(self, pfn: int) -> bool:
        """Whether ``pfn`` lies in never-touched free memory."""
        return any(first <= pfn < end for first, end in self.virgin)

    # Boot

    def add_range(self, first: int, end: int) -> None:
        """Give the never-used frames [first, end) to the zone; the unaligned rests become listed blocks."""
        low = min((first + MAX_BLOCK - 1) & -MAX_BLOCK, end)
        high = max(end & -MAX_BLOCK, low)
        for piece, order in aligned_blocks(first, low):
            self._list(piece, order)
        for piece, order in aligned_blocks(high, end):
            self._list(piece, order)
        if high > low:
            self.virgin.insert(0, (low, high))
            self.virgin_blocks += (high - low) >> MAX_ORDER
        self.nr_free += end - first

    def _list(self, pfn: int, order: int) -> None:
        self.buddy[pfn] = order + 1
        self.lists[order][self.migratetype(pfn)][pfn] = None

    # Taking blocks

    def take_virgin(self, most: int) -> Run:
        """Take up to ``most`` order-10 blocks from the lowest virgin range; (0, 0) if there is none. ``nr_free`` is the
        caller's."""
        if not self.virgin:
            return 0, 0
        first, end = self.virgin[-1]
        blocks = min(most, (end - first) >> MAX_ORDER)
        cut = first + (blocks << MAX_ORDER)
        if cut == end:
            self.virgin.pop()
        else:
            self.virgin[-1] = (cut, end)
        self.virgin_blocks -= blocks
        return first, blocks << MAX_ORDER

    def list_virgin(self, pfn: int) -> None:
        """Turn the virgin block around ``pfn`` into a listed one (at the tail), e.g. because one page of it will be
        taken out."""
        head = pfn & -MAX_BLOCK
        for i, (first, end) in enumerate(self.virgin):
            if first <= head < end:
                pieces = [(head + MAX_BLOCK, end), (first, head)]
                self.virgin[i : i + 1] = [piece for piece in pieces if piece[0] < piece[1]]
                self.virgin_blocks -= 1
                self.buddy[head] = MAX_ORDER + 1
                blocks = self.lists[MAX_ORDER][MOVABLE]
                blocks[head] = None
                blocks.move_to_end(head, last=False)
                return
        raise InvariantBroken(f"pfn {pfn:#x} is not in a virgin range")

    def pop_smallest(self, order: int, migratetype: int) -> Run:
        """Take the smallest sufficient block off its list whole: (pfn, its order); (0, 0) if there is none."""
        current = order
        for lists in self.lists[order:]:
            blocks = lists[migratetype]
            if blocks:
                pfn, _ = blocks.popitem()
                self.buddy[pfn] = 0
                return pfn, current
            current += 1
        if migratetype == MOVABLE and self.virgin:
            return self.take_virgin(1)[0], MAX_ORDER
        return 0, 0

    def rmqueue_smallest(self, order: int, migratetype: int) -> int:
        """Allocate one block from the lists of ``migratetype``, splitting a larger one if need be; 0 if none is
        left."""
        pfn, current = self.pop_smallest(order, migratetype)
        if not pfn:
            return 0
        if current > order:
            self.expand(pfn, order, current, migratetype)
        self.nr_free -= 1 << order
        self.work.allocs += 1
        return pfn

    def expand(self, pfn: int, low: int, high: int, migratetype: int) -> None:
        """Keep the lowest ``1 << low`` pages of a block of order ``high``; list the upper halves, largest first, at the
        heads."""
        buddy = self.buddy
        self.work.buddy_splits += high - low
        while high > low:
            high -= 1
            upper = pfn + (1 << high)
            buddy[upper] = high + 1
            self.lists[high][migratetype][upper] = None

    def take_run(self, most: int, migratetype: int) -> Run:
        """Take up to ``most`` contiguous pages, from the block (or, in virgin memory, the blocks) that order-0
        allocations would use next. Returns (first pfn, pages), or (0, 0) if the lists of ``migratetype`` are empty."""
        pfn, order = self.pop_smallest(0, migratetype)
        if not pfn:
            return 0, 0
        self.work.allocs += 1
        size = 1 << order
        if size > most:
            # What is left of the block is what `most` allocations of one page would have left on the lists.
            self.work.buddy_splits += order
            for piece, rest in aligned_blocks(pfn + most, pfn + size):
                self.buddy[piece] = rest + 1
                self.lists[rest][migratetype][piece] = None
            size = most
        elif order == MAX_ORDER and most >= 2 * size and self.virgin and self.virgin[-1][0] == pfn + size:
            size += self.take_virgin((most - size) >> MAX_ORDER)[1]
        self.nr_free -= size
        return pfn, size

    # Giving blocks back

    def unlist(self, pfn: int, order: int) -> int:
        """Take a listed block off its list; returns the list's type, which may differ from the pageblock's after a
        fallback."""
        lists = self.lists[order]
        migratetype = self.block_types[pfn >> PAGEBLOCK_ORDER] ^ TYPE_XOR
        if pfn in lists[migratetype]:
            del lists[migratetype][pfn]
        else:
            for other, blocks in enumerate(lists):
                if pfn in blocks:
                    del blocks[pfn]
                    migratetype = other
                    break
            else:
                raise InvariantBroken(f"free block {pfn:#x} of order {order} is on no list")
        self.buddy[pfn] = 0
        return migratetype

    def free_one(self, pfn: int, order: int, migratetype: int) -> None:
        """Free a block: merge it with its buddy as long as that is free, then list it.

        It goes to the head, or to the tail where the next larger buddy is free: then a merge is likely soon and the
        block should not be handed out before.
        """
        buddy = self.buddy
        self.nr_free += 1 << order
        end = self.end
        other = 0
        while order < MAX_ORDER:
            other = pfn ^ (1 << order)
            if other >= end or buddy[other] != order + 1:
                break
            if order >= PAGEBLOCK_ORDER and not self._mergeable(other, migratetype):
                break
            self.unlist(other, order)
            pfn &= other
            order += 1
            self.work.buddy_merges += 1
        buddy[pfn] = order + 1
        blocks = self.lists[order][migratetype]
        blocks[pfn] = None
        if order < MAX_ORDER - 1:
            parent = (pfn & other) ^ (2 << order)
            if parent < end and buddy[parent] == order + 2:
                blocks.move_to_end(pfn, last=False)

    def _mergeable(self, other: int, migratetype: int) -> bool:
        other_type = self.migratetype(other)
        return other_type == migratetype or (other_type < PCP_TYPES and migratetype < PCP_TYPES)

    def free_run(self, first: int, count: int) -> None:
        """Free ``count`` contiguous pages as the fewest aligned blocks; each goes to the type of its own pageblock."""
        for pfn, order in aligned_blocks(first, first + count):
            self.free_one(pfn, order, self.block_types[pfn >> PAGEBLOCK_ORDER] ^ TYPE_XOR)

    def free_sorted(self, pfns: npt.NDArray[np.int64]) -> None:
        """Free order-0 frames given ascending and without repeats (int64[n]), all of this zone."""
        cuts = np.flatnonzero(np.diff(pfns) != 1) + 1
        firsts = pfns[np.concatenate(([0], cuts))]
        if len(firsts) < _BULK_BLOCKS:
            counts = np.diff(np.concatenate((cuts, [len(pfns)])), prepend=0)
            for first, count in zip(firsts.tolist(), counts.tolist(), strict=True):
                self.free_run(first, count)
        else:
            self._free_levels(pfns)

    def _free_levels(self, level: npt.NDArray[np.int64]) -> None:
        """Free many separate frames: at each order join pairs inside the set, then with listed buddies; list what has
        no buddy.

        The same blocks result as from freeing one by one. Orders from the pageblock's on are few and go through
        ``free_one``.
        """
        buddy = self.pages.vec.buddy
        self.nr_free += len(level)
        for order in range(PAGEBLOCK_ORDER):
            if not len(level):
                return
            bit = np.int64(1 << order)
            low_half = (level & bit) == 0
            paired = np.zeros(len(level), dtype=bool)
            paired[:-1] = low_half[:-1] & (level[1:] == level[:-1] + bit)
            partner = np.zeros(len(level), dtype=bool)
            partner[1:] = paired[:-1]
            single = level[~(paired | partner)]
            others = single ^ bit
            inside = others < self.end
            listed = np.zeros(len(single), dtype=bool)
            listed[inside] = buddy[others[inside]] == order + 1
            for other in others[listed].tolist():
                self.unlist(other, order)
            self._list_many(single[~listed], order)
            merged = np.concatenate((level[paired], single[listed] & ~bit))
            self.work.buddy_merges += len(merged)
            merged.sort()
            level = merged
        for pfn in level.tolist():
            self.nr_free -= PAGEBLOCK_PAGES
            self.free_one(pfn, PAGEBLOCK_ORDER, self.migratetype(pfn))

    def _list_many(self, blocks: npt.NDArray[np.int64], order: int) -> None:
        """List blocks whose buddies are not free: at the tail where the parent's buddy is free, else at the head."""
        if not len(blocks):
            return
        vec = self.pages.vec
        types = np.frombuffer(self.block_types, dtype=np.uint8)[blocks >> PAGEBLOCK_ORDER] ^ TYPE_XOR
        vec.buddy[blocks] = order + 1
        parents = (blocks & -(np.int64(2) << order)) ^ (np.int64(2) << order)
        likely = parents < self.end
        if order < MAX_ORDER - 1:
            likely[likely] = vec.buddy[parents[likely]] == order + 2
        else:
            likely[:] = False
        for migratetype in np.flatnonzero(np.bincount(types, minlength=NR_TYPES)).tolist():
            mine = types == migratetype
            target = self.lists[order][migratetype]
            target.update(dict.fromkeys(blocks[mine].tolist()))
            for pfn in blocks[mine & likely].tolist():
                target.move_to_end(pfn, last=False)

    # Taking one page out of the middle

    def free_block_of(self, pfn: int) -> Run:
        """The free block that holds ``pfn`` as (head, order), virgin memory included; (0, 0) if the page is not free
        here."""
        for order in range(NR_ORDERS):
            head = pfn >> order << order
            if self.buddy[head] > order:
                return head, self.buddy[head] - 1
        if self.virgin and self.in_virgin(pfn):
            return pfn & -MAX_BLOCK, MAX_ORDER
        return 0, 0


def aligned_blocks(first: int, end: int) -> list[Run]:
    """[first, end) as the fewest aligned blocks (pfn, order <= 10), ascending."""
    blocks: list[Run] = []
    while first < end:
        order = min(
            (first & -first).bit_length() - 1 if first else MAX_ORDER, (end - first).bit_length() - 1, MAX_ORDER
        )
        blocks.append((first, order))
        first += 1 << order
    return blocks


def break_down_buddy_pages(buddies: BuddyLists, page: int, target: int, low: int, high: int, migratetype: int) -> None:
    """Split the unlisted block ``page`` of order ``high`` around ``target`` (a block of order ``low``), which ends on
    no list.

    Every half that does not hold the target goes to the head of its list. One comparison a level
    ("mm/page_alloc: remove unnecessary check in break_down_buddy_pages", in v6.7); the shape before is in
    ``mm/before``.
    """
    work = buddies.work
    size = 1 << high
    while high > low:
        high -= 1
        size >>= 1
        work.buddy_comparisons += 1
        if target >= page + size:
            half = page
            page += size
        else:
            half = page + size
        buddies.buddy[half] = high + 1
        buddies.lists[high][migratetype][half] = None
