# SPDX-License-Identifier: GPL-2.0-or-later
"""Experiment ``buddy-break-down-cleanup``: the same free lists with half the comparisons.

On either side a page inside a free order-10 block is poisoned and unpoisoned; then the same random sequence of
allocations, frees, errors and undos runs, and every free list must come out equal, its order included.
"""

from __future__ import annotations

import random
from typing import Final

from memtwin import Machine
from memtwin.experiments.base import Claim, ExperimentResult, Observation
from memtwin.lib import gfp_types as g
from memtwin.mm.memory_failure import EHWPOISON, MemoryFailure
from memtwin.mm.page_alloc import PageAllocator

__all__ = ["run"]

PFN: Final = 0x4B155  #: offset 0x155 in its order-10 block
STEPS: Final = 3000
SEED: Final = 6
ORDERS: Final = 11
BLOCK: Final = 1023  #: pages that must go back to the lists: 1 + 2 + ... + 512


class _Side:
    """What one machine showed."""

    def __init__(self, change_id: str, *, after: bool) -> None:
        kernel = Machine(memory="2G", without=[] if after else [change_id]).kernel
        alloc = kernel.page_alloc
        self.log: list[str] = []
        failure = MemoryFailure(alloc, self.log.append)
        alloc.drain_all_pages()
        zone = alloc.zone_of(PFN)
        counts, free = zone.counts(), alloc.nr_free_pages()
        compared = alloc.work.buddy_comparisons
        self.first = failure.memory_failure(PFN)
        self.comparisons = alloc.work.buddy_comparisons - compared
        self.change = [new - old for new, old in zip(zone.counts(), counts, strict=True)]
        self.free_change = alloc.nr_free_pages() - free
        self.second = failure.memory_failure(PFN)
        self.undo = failure.unpoison_memory(PFN)
        self.restored = zone.counts() == counts and alloc.nr_free_pages() == free
        compared = alloc.work.buddy_comparisons
        self.lists = _random_sequence(alloc, failure)
        self.random_comparisons = alloc.work.buddy_comparisons - compared
        kernel.check()


def _random_sequence(alloc: PageAllocator, failure: MemoryFailure) -> list[list[list[int]]]:
    """Run it; returns the free lists of every zone, order and type as they are in the end."""
    rng = random.Random(SEED)
    held: list[tuple[int, int]] = []
    poisoned: list[int] = []
    masks = (g.GFP_KERNEL, g.GFP_KERNEL | g.RECLAIMABLE, g.GFP_HIGHUSER_MOVABLE)
    for _ in range(STEPS):
        choice = rng.random()
        if choice < 0.45:
            order = rng.choice((0, 0, 0, 1, 2, 4, 9, 10))
            pfn = alloc.alloc_pages(rng.choice(masks) | g.NOWARN | (g.COMP if order else 0), order)
            if pfn:
                held.append((pfn, order))
        elif choice < 0.8 and held:
            alloc.free_pages(*held.pop(rng.randrange(len(held))))
        elif choice < 0.95:
            pfn = rng.randrange(256, alloc.pages.nr_pages)
            if alloc.is_free_buddy_page(pfn) and failure.memory_failure(pfn) == 0:
                poisoned.append(pfn)
        elif poisoned:
            failure.unpoison_memory(poisoned.pop(rng.randrange(len(poisoned))))
    return [[list(blocks) for by_type in zone.lists for blocks in by_type] for zone in alloc.zones]


def run(change_id: str) -> ExperimentResult:
    """Poison, undo and random sequence on a machine without and one with the change."""
    before, after = _Side(change_id, after=False), _Side(change_id, after=True)
    sides = (before, after)
    rows = (
        Observation("comparisons for one page", str(before.comparisons), str(after.comparisons)),
        Observation("comparisons, random sequence", str(before.random_comparisons), str(after.random_comparisons)),
        Observation("free blocks per order 0-10", _signed(before.change), _signed(after.change)),
        Observation("free pages", f"{before.free_change:+d}", f"{after.free_change:+d}"),
        Observation("poisoning it again", f"errno {-before.second}", f"errno {-after.second}"),
        Observation("kernel log", before.log[0], after.log[0]),
    )
    claims = (
        Claim(
            "breaking an order-10 block down takes 20 comparisons before and 10 after",
            (before.comparisons, after.comparisons) == (20, 10),
        ),
        Claim(
            f"one block of order 10 becomes one of each smaller order: {BLOCK} pages, and one page less is free",
            all(side.change == [1] * (ORDERS - 1) + [-1] and side.free_change == -1 for side in sides),
        ),
        Claim(
            "the first error is recovered, the second is EHWPOISON, and the undo restores every count",
            all((side.first, side.second, side.undo, side.restored) == (0, -EHWPOISON, 0, True) for side in sides),
        ),
        Claim("a random sequence leaves the same free lists, in the same order", before.lists == after.lists),
        Claim(
            "the random sequence takes half the comparisons",
            before.random_comparisons == 2 * after.random_comparisons > 0,
        ),
    )
    return ExperimentResult(change_id, rows, claims)


def _signed(counts: list[int]) -> str:
    return " ".join(f"{count:+d}" for count in counts)
