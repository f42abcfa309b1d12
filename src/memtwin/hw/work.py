# SPDX-License-Identifier: GPL-2.0-or-later
"""Work counters: the cost of an operation told in things counted, not in invented time (architecture, section 6)."""

from __future__ import annotations

from typing import Final

__all__ = ["Work"]


_COUNTS: Final = (
    "allocs",
    "atomics",
    "barriers",
    "buddy_comparisons",
    "buddy_merges",
    "buddy_splits",
    "locks",
    "nodes",
    "pages_copied",
    "pages_zeroed",
    "ptes",
    "switches",
    "tlb_flushes",
    "wakeups",
)


class Work:
    """Plain integer attributes; whoever does the work adds to them. All counts start at 0 and only grow."""

    __slots__ = _COUNTS

    def __init__(self) -> None:
        for name in _COUNTS:
            setattr(self, name, 0)

    allocs: int  #: allocations from the buddy allocator
    atomics: int  #: atomic read-modify-write operations
    barriers: int
    buddy_comparisons: int  #: comparisons made while breaking a free block down around a page
    buddy_merges: int
    buddy_splits: int
    locks: int  #: lock acquisitions
    nodes: int  #: tree nodes visited
    pages_copied: int
    pages_zeroed: int
    ptes: int  #: page-table entries read or written by the kernel half
    switches: int  #: task switches
    tlb_flushes: int
    wakeups: int

    def snapshot(self) -> dict[str, int]:
        """All counters by name."""
        return {name: getattr(self, name) for name in _COUNTS}

    def since(self, before: dict[str, int]) -> dict[str, int]:
        """What was added since ``before`` (an earlier ``snapshot()``), counters that moved only."""
        return {name: value - before[name] for name, value in self.snapshot().items() if value != before[name]}
